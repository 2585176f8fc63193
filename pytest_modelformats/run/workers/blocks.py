"""Blocks of an interleaved comparison, in the worker: warmed up once, pinned once, then timed whenever asked.

Runs in every worker, also under foreign interpreters: standard library only.
"""

from __future__ import annotations

import time
from array import array
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_modelformats.measure import sampling as measure
from pytest_modelformats.measure.conditions import pinned_to_cores, without_collector

if TYPE_CHECKING:
    from collections.abc import Callable

# Calls so slow that a block of many would last for ever: after this time three are enough.
LONGEST_NS = 500_000_000
FEWEST = 3


class _Held:
    """The process is pinned and its collector off while anyone holds it: two sides may share it (--mf-isolate none)."""

    def __init__(self) -> None:
        self._holders = 0
        self._stack = ExitStack()
        self._pinned: tuple[int, ...] = ()

    def take(self, threads: int) -> tuple[int, ...]:
        if self._holders == 0:
            self._stack.enter_context(without_collector())
            self._pinned = self._stack.enter_context(pinned_to_cores(threads))
        self._holders += 1
        return self._pinned

    def let_go(self) -> None:
        self._holders -= 1
        if self._holders == 0:
            self._stack.close()


_held = _Held()


class Blocks:
    """A bound call that stays pinned, with the collector off, from its first block until it is closed."""

    def __init__(self, bind: Callable[[], Callable[[], object]], threads: int, warmup_s: float) -> None:
        """Bind on the cores that it will be timed on, and warm up for so long at most."""
        self.pinned = _held.take(threads)
        try:
            self._call = bind()
            self._call()
            budget_ns = int(warmup_s / measure.WARMUP_SHARE * 1e9)
            warmed = measure._warm_up(self._call, time.perf_counter_ns, budget_ns)  # noqa: SLF001 - the same one
        except BaseException:
            _held.let_go()
            raise
        self.warmup_runs, self.settled = warmed

    def block(self, seconds: float, at_least: int) -> dict[str, Any]:
        """Time calls for so long, and ``at_least`` so many unless they are slow; the first call is not recorded.

        Another process has used the core since the last block, and what this one keeps in caches is gone. ``waited`` is
        the share of the time for which its threads were ready to run and waited for a core, ``interrupted`` the number
        of times they were made to; ``None`` where the system does not say. ``samples_ns`` are 64-bit integers in native
        byte order.
        """
        call, clock = self._call, time.perf_counter_ns
        call()
        before = _held_up()
        taken = array("q")
        append = taken.append
        started = ended = clock()
        enough = started + int(seconds * 1e9)
        while ended < enough or len(taken) < FEWEST or (len(taken) < at_least and ended < started + LONGEST_NS):
            began = clock()
            call()
            ended = clock()
            append(ended - began)
        after = _held_up()
        known = before is not None and after is not None
        return {
            "samples_ns": taken.tobytes(),
            "waited": (after[0] - before[0]) / (ended - started) if known else None,  # type: ignore[index]
            "interrupted": after[1] - before[1] if known else None,  # type: ignore[index]
            "pinned": list(self.pinned),
            "warmup_runs": self.warmup_runs,
            "settled": self.settled,
        }

    def close(self) -> None:
        """Unpin the process and give it its collector back."""
        _held.let_go()


def _held_up() -> tuple[int, int] | None:
    """For how many ns the process's threads were ready to run without running, and how often they were made to stop.

    All threads: some runtimes compute in one of their own while the caller sleeps (OpenVINO).

    Source: the kernel's Documentation/scheduler/sched-stats.rst (/proc/<pid>/schedstat, second field), getrusage(2).
    """
    try:
        import resource
    except ImportError:
        return None
    waited, known = 0, False
    for task in Path("/proc/self/task").glob("*/schedstat"):
        # A thread may end while it is looked at.
        with suppress(OSError, IndexError, ValueError):
            waited += int(task.read_text(encoding="ascii").split()[1])
            known = True
    return (waited, resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw) if known else None
