"""Two openings as the two sides of a comparison: each in a fresh worker, on the same cores, one at work at a time.

A worker that is not asked blocks in the receive of its channel and takes no time. What a runtime's thread pool does
meanwhile is another matter: with one thread (the default) there is no pool; with two, after the last call ONNX
Runtime's pool took 20 ms of processor time, that of PyTorch (libgomp) up to 10 ms and OpenVINO's none, however long
they were left alone. So a block of a session with several threads begins only after ``SPIN_S`` of silence and lasts as
long, and the first call of every block is not recorded.
"""

from __future__ import annotations

import math
import time
from array import array
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_modelformats.errors import ModelFormatsError, RunError
from pytest_modelformats.measure.two_sides.interleaved import CALLS
from pytest_modelformats.run.workers.process import WorkerFailure
from pytest_modelformats.schema import registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pytest_modelformats.measure.two_sides.interleaved import Pair
    from pytest_modelformats.run.workers.pool import Asked, Pool
    from pytest_modelformats.schema import Environment

__all__ = ["Opening", "Readings", "WorkerSide", "pair_of"]

SPIN_S = 0.05
# Opening it again is not even tried where the first time, which is slower, took so long.
LONGEST_OPENING_S = 3.0
# Seconds at most. The runtime and the processor are warm when another session of the same process is.
WARMUP_S, WARMUP_AGAIN_S = 0.5, 0.05


@dataclass(frozen=True, slots=True)
class Opening:
    """What one side opens and calls.

    ``entry`` is a backend's ``module:function``, ``job`` what it is told to open (``Cells.opening``), ``feed`` the
    ``.npy`` file of each input by name, ``what`` names it in errors.
    """

    environment: Environment
    worker: str
    entry: str
    job: dict[str, Any]
    feed: dict[str, str]
    threads: int
    timeout_s: float
    what: str


@dataclass(frozen=True, slots=True)
class Readings:
    """What one side of a pair needed beside its latency.

    ``loads_ns``: every opening in its turn, the first one of its process first. ``above_idle_bytes``: the first
    session's peak of resident memory above what the process held before, ``None`` where that is not known.
    """

    loads_ns: tuple[int, ...]
    above_idle_bytes: int | None


class WorkerSide:
    """An opening in its worker (see ``comparing.Side``).

    ``delay`` is the share of the last block in which its calls were held up; 0 where the system does not say.
    ``least_s`` is how long a block should be where each one costs a silence.
    ``facts`` is the worker's last answer but the samples: how the warm-up went, the cores it is pinned to.
    """

    def __init__(self, asked: Asked, opening: Opening) -> None:
        """Open it; raises RunError where the backend cannot, and what the worker ended in."""
        self._asked = asked
        self._opening = opening
        self.delay = 0.0
        self.least_s = SPIN_S if opening.threads > 1 else 0.0
        self.facts: dict[str, Any] = {}
        self._warm, self._warmup_s = False, WARMUP_S
        # Seconds for opening and warming up, the last time.
        self._opening_s = 0.0
        self._loads_ns: list[int] = []
        self._idle: int | None = None
        self._above_idle: int | None = None
        self._open()

    @property
    def readings(self) -> Readings:
        """What it needed so far."""
        return Readings(tuple(self._loads_ns), self._above_idle)

    def block(self, seconds: float) -> list[int]:
        """Samples of one block, in nanoseconds; the first block warms up before it."""
        opening = self._opening
        if opening.threads > 1:
            time.sleep(SPIN_S)
        started = time.monotonic()
        answer = self._asked.request(
            "block",
            opening.timeout_s,
            session=self._session,
            feed=opening.feed,
            seconds=seconds,
            at_least=CALLS,
            threads=opening.threads,
            warmup_s=self._warmup_s,
        )
        samples = array("q")
        samples.frombytes(answer.pop("samples_ns"))
        self._remember(answer.pop("memory", None))
        self.facts = answer
        self.delay = _delay(answer, len(samples))
        if not self._warm:
            self._warm = True
            self._opening_s += time.monotonic() - started
        return samples.tolist()

    def renew(self) -> float:
        """Open another session in the place of this one and warm it up; the seconds that it took.

        Infinity, and nothing done, where opening took too long the last time.
        """
        if self._opening_s > LONGEST_OPENING_S:
            return math.inf
        started = time.monotonic()
        self._asked.request("close", self._opening.timeout_s, session=self._session)
        self._open()
        self._warmup_s = WARMUP_AGAIN_S
        self.block(0.0)
        return time.monotonic() - started

    def _remember(self, memory: Mapping[str, Any] | None) -> None:
        """The memory of the first session of a process: a later one is served from what is there already."""
        if memory is not None and self._session == 1 and self._idle is not None and memory["peak_bytes"] is not None:
            self._above_idle = max(0, memory["peak_bytes"] - self._idle)

    def _open(self) -> None:
        opening = self._opening
        started = time.monotonic()
        try:
            answer = self._asked.request("open", opening.timeout_s, entry=opening.entry, job=opening.job)
        except WorkerFailure as error:
            raise RunError(f"{opening.what} could not be opened: {error}") from error
        self._session: int = answer["session"]
        self._warm, self._opening_s = False, time.monotonic() - started
        self._loads_ns.append(int(answer["load_ns"]))
        self._idle = answer["idle_rss_bytes"]

    def close(self) -> None:
        """Let go of the session, so that its process is as it was, and end the process."""
        if not self._asked.dead:
            with suppress(ModelFormatsError):
                self._asked.request("close", self._opening.timeout_s, session=self._session)
        self._asked.close()


def pair_of(
    pool: Pool, before: Opening, after: Opening, kept: list[tuple[Readings, Readings]] | None = None
) -> Callable[[], Pair]:
    """A function that opens both sides in fresh workers; every other time ``after`` is opened first.

    ``kept`` is given what the two sides of every pair needed beside their latency, before and after.

    Raises, when it is called: RunError, and what else opening raises; nothing is left running then.
    """
    called = 0

    @contextmanager
    def pair() -> Iterator[tuple[WorkerSide, WorkerSide]]:
        nonlocal called
        openings = [before, after] if called % 2 == 0 else [after, before]
        called += 1
        with ExitStack() as closed:
            workers = []
            for opening in openings:
                worker = pool.fresh(opening.environment, opening.worker)
                closed.callback(worker.close)
                # Both import their runtime at the same time.
                worker.preload(_modules(opening))
                workers.append(worker)
            opened = []
            for worker, opening in zip(workers, openings, strict=True):
                side = WorkerSide(worker, opening)
                closed.callback(side.close)
                opened.append(side)
            sides = (opened[0], opened[1]) if openings[0] is before else (opened[1], opened[0])
            yield sides
            if kept is not None:
                kept.append((sides[0].readings, sides[1].readings))

    return pair


def _delay(answer: Mapping[str, Any], calls: int) -> float:
    """How far a block was spoilt: by the share of calls that were interrupted, or of time lost, whichever is smaller.

    Lost time in a few of thousands of calls moves no median, nor does an interruption that took no time.
    """
    if answer["waited"] is None or answer["interrupted"] is None or not calls:
        return 0.0
    return min(1.0, float(answer["waited"]), float(answer["interrupted"]) / calls)


def _modules(opening: Opening) -> tuple[str, ...]:
    """What the backend of an opening imports; () for an entry that is none of a registered backend."""
    return next((b.requires for b in registry.backends().values() if b.entry == opening.entry), ())
