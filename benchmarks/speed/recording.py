"""A pair whose blocks are written down, so that the same samples can be judged by other rules and at other margins."""

from __future__ import annotations

import contextlib
import time
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_modelformats.measured import Measured

# As long as the interleaved blocks of one side of one pair take in sum.
SEQUENTIAL_S = 0.6


class Recorder:
    """Opens pairs, takes one sequential run of each side of the first, and keeps what every block gave."""

    def __init__(self, open_pair: Callable[[], Any]) -> None:
        """Nothing has been opened."""
        self._open_pair = open_pair
        self.sequential: tuple[list[int], list[int]] = ([], [])
        self.interleaved: tuple[list[int], list[int]] = ([], [])
        # Per pair: when it was asked for, when it was ready, and (side, median, calls, delay, when) of each block.
        self.pairs: list[dict[str, Any]] = []
        self.sequential_s = 0.0

    @contextlib.contextmanager
    def open(self) -> Iterator[tuple[Any, Any]]:
        """A pair whose sides record."""
        asked = time.monotonic()
        with self._open_pair() as pair:
            ready = time.monotonic()
            if not self.pairs:
                # One after the other, as two runs of a benchmark are, only much closer together.
                self.sequential = (pair[0].block(SEQUENTIAL_S), pair[1].block(SEQUENTIAL_S))
                self.sequential_s = time.monotonic() - ready
            self.pairs.append({"start_s": ready - asked, "blocks": []})
            yield _Recording(self, 0, pair[0]), _Recording(self, 1, pair[1])


class _Recording:
    def __init__(self, recorder: Recorder, which: int, side: Any) -> None:
        self._recorder, self._which, self._side = recorder, which, side
        self.delay = 0.0

    def block(self, seconds: float) -> list[int]:
        started = time.monotonic()
        samples = self._side.block(seconds)
        self.delay = self._side.delay
        self._recorder.interleaved[self._which].extend(samples)
        row = [self._which, median(samples), len(samples), round(self.delay, 4), round(time.monotonic() - started, 4)]
        self._recorder.pairs[-1]["blocks"].append(row)
        return samples


class EndOfRecordError(Exception):
    """The comparison would have gone on, and nothing more was recorded."""


def replay(pairs: list[dict[str, Any]], margin: float, budget_s: float, seed: int) -> Measured | None:
    """The same comparison at another margin, on the blocks that were recorded; ``None`` where they do not suffice."""
    from pytest_modelformats.comparing import compare_latency

    now = 0.0
    waiting = iter(pairs)

    class Again:
        def __init__(self, which: int, blocks: Any) -> None:
            self._which, self._blocks, self.delay = which, blocks, 0.0

        def block(self, seconds: float) -> list[int]:
            nonlocal now
            del seconds
            found = next(self._blocks, None)
            if found is None or found[0] != self._which:
                raise EndOfRecordError
            self.delay = found[3]
            now += found[4]
            return [int(found[1])] * min(found[2], 3)

    @contextlib.contextmanager
    def again() -> Iterator[tuple[Again, Again]]:
        nonlocal now
        pair = next(waiting, None)
        if pair is None:
            raise EndOfRecordError
        now += pair["start_s"]
        blocks = iter(pair["blocks"])
        yield Again(0, blocks), Again(1, blocks)

    try:
        return compare_latency(again, margin=margin, budget_s=budget_s, seed=seed, clock=lambda: now)
    except EndOfRecordError:
        return None
