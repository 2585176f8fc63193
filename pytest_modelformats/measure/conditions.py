"""What surrounds a measurement: the collector, the cores, other work on them, resident memory.

Runs inside a worker, also under a foreign interpreter: standard library only. Where the
system does not offer something, the answer says so with ``None``, ``False`` or ``()``.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_modelformats.measure.machine_state import energy, energy_between

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


@contextmanager
def without_collector() -> Iterator[None]:
    """No garbage collection happens inside; afterwards the collector is as it was."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _cores(threads: int) -> tuple[int, ...]:
    """As many allowed cores as threads, different physical cores before their second hardware threads.

    Allowed is what any thread of the process may use: after an inference OpenVINO leaves the thread that called it
    on the cores that it saw when the model was compiled.
    """
    first: list[int] = []
    second: list[int] = []
    seen: set[str] = set()
    for core in sorted(os.sched_getaffinity(0).union(*map(_affinity, _thread_ids()))):
        siblings = _read(f"/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list") or str(core)
        (second if siblings in seen else first).append(core)
        seen.add(siblings)
    return tuple((first + second)[:threads])


@contextmanager
def pinned_to_cores(threads: int) -> Iterator[tuple[int, ...]]:
    """Every thread of the process runs on the yielded cores; () where the system does not let us."""
    if not hasattr(os, "sched_setaffinity") or not Path("/proc/self/task").is_dir():
        yield ()
        return
    own = os.sched_getaffinity(0)
    masks = {tid: mask for tid in _thread_ids() if (mask := _affinity(tid))}
    cores = _cores(threads)
    try:
        if _move({tid: set(cores) for tid in masks}):
            yield cores
        else:
            _move(masks)
            yield ()
    finally:
        # A thread that was started meanwhile inherited the narrow mask.
        _move({tid: masks.get(tid, own) for tid in _thread_ids()})


def _thread_ids() -> list[int]:
    return [int(entry) for entry in os.listdir("/proc/self/task")]  # noqa: PTH208 - plain names are what is needed


def _affinity(tid: int) -> set[int]:
    try:
        return os.sched_getaffinity(tid)
    except OSError:
        return set()  # the thread has ended


def _move(masks: Mapping[int, set[int]]) -> bool:
    """Set each thread's cores; whether every thread that still exists obeyed."""
    obeyed = [_move_thread(tid, mask) for tid, mask in masks.items()]
    return all(obeyed)


def _move_thread(tid: int, mask: set[int]) -> bool:
    try:
        os.sched_setaffinity(tid, mask)
    except ProcessLookupError:
        return True  # the thread has ended
    except OSError:
        return False
    return True


def readings(pinned: Sequence[int]) -> dict[str, Any]:
    """Readings of the system's counters; ``None`` where it has no such counter."""
    try:
        import resource

        switches: int | None = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
    except ImportError:
        switches = None
    busy = stolen = None
    wanted = {f"cpu{core}" for core in pinned}
    for line in _read("/proc/stat").splitlines():
        name, *ticks = line.split()
        if name in wanted and len(ticks) >= 8:  # noqa: PLR2004 - user nice system idle iowait irq softirq steal
            busy = (busy or 0) + sum(int(t) for t in ticks[:7]) - int(ticks[3]) - int(ticks[4])
            stolen = (stolen or 0) + int(ticks[7])
    throttle = [_read(f"/sys/devices/system/cpu/cpu{c}/thermal_throttle/core_throttle_count") for c in pinned]
    return {
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "switches": switches,
        "busy_s": None if busy is None else busy / os.sysconf("SC_CLK_TCK"),
        "stolen_s": None if stolen is None else stolen / os.sysconf("SC_CLK_TCK"),
        "own_s": time.process_time(),
        "wall_s": time.perf_counter(),
        "throttled": sum(int(t) for t in throttle if t) if any(throttle) else None,
        "energy": energy(),
        "rss_bytes": _resident(),
    }


def difference(before: Mapping[str, Any], after: Mapping[str, Any], cores: int) -> dict[str, Any]:
    """What happened between two :func:`readings`.

    ``foreign_share`` is the share of the pinned cores' time that this machine spent on anything
    but this process, ``steal_share`` the one in which the hypervisor let others run; ``None``
    where it cannot be told. ``energy_j`` is what the processor's packages took, everything that
    ran on them and their idle share included.
    """

    def change(name: str) -> Any:
        return None if before.get(name) is None or after.get(name) is None else after[name] - before[name]

    wall, busy, stolen = change("wall_s"), change("busy_s"), change("stolen_s")
    # /proc/stat counts in ticks of 10 ms: a share is worth stating from half a second on.
    told = wall >= 0.5 and cores > 0  # noqa: PLR2004
    foreign = max(0.0, (busy - change("own_s")) / (wall * cores)) if told and busy is not None else None
    return {
        "sampling_s": wall,
        "load_before": before["load"],
        "load_after": after["load"],
        "involuntary_switches": change("switches"),
        "foreign_share": foreign,
        "steal_share": max(0.0, stolen / (wall * cores)) if told and stolen is not None else None,
        "throttled": change("throttled"),
        "rss_growth_bytes": change("rss_bytes"),
        "energy_j": energy_between(before.get("energy") or {}, after.get("energy") or {}),
    }


# Whether the kernel's high-water mark was set back by us: only then does it belong to what ran since.
_peak = {"since_reset": False}


def reset_peak() -> bool:
    """Start counting the peak of resident memory anew; False where the system cannot."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        _peak["since_reset"] = True
    except OSError:
        _peak["since_reset"] = False
    return _peak["since_reset"]


def memory() -> dict[str, int | None]:
    """Resident memory of this process now, its peak since :func:`reset_peak`, and its peak ever.

    ``peak_bytes`` is ``None`` without a successful reset: the peak of the process's whole
    life (``lifetime_peak_bytes``) cannot be attributed to what ran last.

    Units: bytes.
    Source: proc(5), ``/proc/pid/clear_refs`` and ``VmHWM``.
    """
    kilobytes = {
        name: int(value.split()[0])
        for name, _, value in (line.partition(":") for line in _read("/proc/self/status").splitlines())
        if name in {"VmRSS", "VmHWM"}
    }
    return {
        "rss_bytes": kilobytes["VmRSS"] * 1024 if "VmRSS" in kilobytes else None,
        "peak_bytes": kilobytes["VmHWM"] * 1024 if _peak["since_reset"] and "VmHWM" in kilobytes else None,
        "lifetime_peak_bytes": None if _peak["since_reset"] else _lifetime_peak(),
    }


def give_back() -> None:
    """Return freed memory to the system where the C library can: what it keeps would be counted as in use.

    Source: malloc_trim(3); only glibc has it.
    """
    import ctypes

    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def _resident() -> int | None:
    """Resident memory by the cheapest reading there is."""
    pages = _read("/proc/self/statm").split()
    return int(pages[1]) * os.sysconf("SC_PAGE_SIZE") if len(pages) > 1 else None


def _lifetime_peak() -> int | None:
    try:
        import resource
    except ImportError:
        return None
    # getrusage(2): kilobytes on Linux, bytes on macOS.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError:
        return ""
