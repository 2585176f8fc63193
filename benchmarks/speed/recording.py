"""A pair whose blocks are written down, so that the same samples can be judged by other rules and at other margins."""

from __future__ import annotations

import contextlib
import math
import time
from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_modelformats.measure.two_sides.decision import Measured
    from pytest_modelformats.measure.two_sides.ratio import Round

# As long as the interleaved blocks of one side of one pair take in sum.
SEQUENTIAL_S = 0.6


class Recorder:
    """Opens pairs, takes one sequential run of each side of the first, and keeps what every block gave."""

    def __init__(self, open_pair: Callable[[], Any]) -> None:
        """Nothing has been opened."""
        self._open_pair = open_pair
        self.sequential: tuple[list[int], list[int]] = ([], [])
        self.interleaved: tuple[list[int], list[int]] = ([], [])
        # Per pair: when it was asked for, when it was ready, and (side, median, calls, delay, when) of each block;
        # (side, None, seconds) where it was opened anew.
        self.pairs: list[dict[str, Any]] = []
        self.sequential_s = 0.0

    def clock(self) -> float:
        """Seconds, without those of the sequential runs: they are the other rules', and no part of ours."""
        return time.monotonic() - self.sequential_s

    @contextlib.contextmanager
    def open(self) -> Iterator[tuple[Any, Any]]:
        """A pair whose sides record."""
        asked = time.monotonic()
        with self._open_pair() as pair:
            ready = time.monotonic()
            if not self.pairs:
                # One after the other, as two runs of a benchmark are, only much closer together.
                self.sequential = (pair[0].block(SEQUENTIAL_S), pair[1].block(SEQUENTIAL_S))
                # The warm-up before them is ours, too.
                self.sequential_s = min(time.monotonic() - ready, 2 * SEQUENTIAL_S)
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

    def renew(self) -> float:
        took = self._side.renew()
        self._recorder.pairs[-1]["blocks"].append([self._which, None, took])
        return took


class EndOfRecordError(Exception):
    """The comparison would have gone on, and nothing more was recorded."""


def replay(pairs: list[dict[str, Any]], margin: float, budget_s: float, seed: int) -> Measured:
    """The same comparison at another margin, on the blocks that were recorded.

    Where it would have gone on beyond them, all of them are judged: with more it could only have become surer.
    """
    from pytest_modelformats.measure.two_sides.interleaved import compare_latency, judge

    tape = _Tape(pairs)
    try:
        return compare_latency(tape.pair, margin=margin, budget_s=budget_s, seed=seed, clock=lambda: tape.now)
    except EndOfRecordError:
        return replace(judge([rounds(pair["blocks"]) for pair in pairs], margin, seed), seconds=tape.now)


def rounds(blocks: list[Any]) -> list[Round]:
    """The whole rounds among the blocks of a pair."""
    from pytest_modelformats.measure.two_sides.interleaved import rounds_of

    tape = _Tape([{"start_s": 0.0, "blocks": blocks}])
    found: list[Round] = []
    with tape.pair() as pair, contextlib.suppress(EndOfRecordError):
        for one in rounds_of(pair, [found], mirrored=bool(blocks[0][0])):
            found.append(one)  # noqa: PERF402 - what was whole before the record ended
    return found


class _Tape:
    """Plays recorded pairs back; ``now`` is the time that had passed."""

    def __init__(self, pairs: list[dict[str, Any]]) -> None:
        self.now = 0.0
        self._waiting = iter(pairs)

    @contextlib.contextmanager
    def pair(self) -> Iterator[tuple[_Again, _Again]]:
        pair = next(self._waiting, None)
        if pair is None:
            raise EndOfRecordError
        self.now += pair["start_s"]
        blocks = iter(pair["blocks"])
        yield _Again(self, 0, blocks), _Again(self, 1, blocks)


class _Again:
    def __init__(self, tape: _Tape, which: int, blocks: Iterator[Any]) -> None:
        self._tape, self._which, self._blocks, self.delay = tape, which, blocks, 0.0

    def block(self, seconds: float) -> list[int]:
        del seconds
        found = next(self._blocks, None)
        if found is None or found[0] != self._which or found[1] is None:
            raise EndOfRecordError
        self.delay = found[3]
        self._tape.now += found[4]
        return [int(found[1])]

    def renew(self) -> float:
        found = next(self._blocks, None)
        if found is None or found[0] != self._which or found[1] is not None:
            raise EndOfRecordError
        self._tape.now += found[2] if found[2] < math.inf else 0.0
        return float(found[2])
