"""What a comparison of two latencies has found, the rule that decides it, and the sentence that says it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_modelformats.schema import Change

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_modelformats.measure.two_sides.ratio import Interval

__all__ = ["Measured", "beyond", "decide", "finding", "leans"]


@dataclass(frozen=True, slots=True)
class Measured:
    """What a comparison has found.

    ``ratio`` is after over before with its 95 % interval, ``p_value`` one-sided, of "not slower than the margin", and
    ``p_value_faster`` of "not faster than the margin". ``change`` is what this comparison alone says: a family of them
    is still to be controlled (:func:`control`). ``recurred`` is ``None`` where no pair leans beyond the margin.
    ``blocks`` counts timed blocks, ``pairs`` pairs of fresh processes; ``finding`` and ``grounds`` are the halves of
    ``sentence``.
    """

    ratio: float
    ratio_low: float
    ratio_high: float
    p_value: float
    p_value_faster: float
    before_ns: float
    after_ns: float
    change: Change
    recurred: bool | None
    blocks: int
    seconds: float
    disturbed: str
    finding: str
    grounds: str
    how: str = "interleaved"
    pairs: int = 0
    pair_ratios: tuple[float, ...] = ()

    @property
    def sentence(self) -> str:
        """What was found, and on what grounds."""
        return f"{self.finding}; {self.grounds}."


def beyond(interval: Interval, margin: float) -> int:
    """1 where the whole interval is above the margin, -1 where it is below the mirrored one, otherwise 0."""
    return int(interval.low > 1 + margin) - int(interval.high < 1 - margin)


def leans(interval: Interval, margin: float) -> int:
    """1 where the estimate is above the margin by more than its standard error, -1 likewise below, otherwise 0."""
    low, high = (math.exp(interval.centre + sign * interval.error) for sign in (-1, 1))
    return int(low > 1 + margin) - int(high < 1 - margin)


def decide(over: Interval, sides: Sequence[int], margin: float, *, usable: bool = True) -> tuple[Change, bool | None]:
    """The change, and whether it recurred, from the interval over all pairs and the side that each pair leans to.

    ``sides`` holds what :func:`leans` says of every pair.
    """
    direction = beyond(over, margin)
    suspected = any(sides)
    recurred = max(sides.count(1), sides.count(-1)) > 1 if suspected else None
    if direction and usable and sides.count(direction) > 1 and -direction not in sides:
        return (Change.REGRESSION if direction > 0 else Change.IMPROVEMENT), True
    if over.low >= 1 - margin and over.high <= 1 + margin:
        return Change.SAME, recurred
    return Change.INCONCLUSIVE, recurred


def finding(over: Interval, change: Change, margin: float, recurred: bool | None) -> str:
    """The sentence's first half: how much, with its interval, and what that means beside the margin."""
    interval = f"95 % interval {over.low - 1:+.1%} to {over.high - 1:+.1%}"
    if change is Change.REGRESSION:
        return f"{over.ratio - 1:.1%} slower ({interval}), beyond the margin of {margin:.0%} and found again"
    if change is Change.IMPROVEMENT:
        return f"{1 - over.ratio:.1%} faster ({interval}), beyond the margin of {margin:.0%} and found again"
    if change is Change.SAME:
        return f"no difference beyond the margin of {margin:.0%} ({over.ratio - 1:+.1%}, {interval})"
    again = ", and what one pair of processes showed was not found in another" if recurred is False else ""
    return f"a difference beyond {margin:.0%} is neither shown nor excluded ({over.ratio - 1:+.1%}, {interval}){again}"
