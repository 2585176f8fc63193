"""What a comparison can detect, from how rounds and pairs of processes varied: the rule itself, run on drawn ones.

No formula stands for the rule, which looks several times and asks for recurrence: it is executed, many times, on rounds
that are drawn from those measured, with a slow-down of known size added.
"""

from __future__ import annotations

import math
import random
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import fmean, variance
from typing import TYPE_CHECKING

from pytest_modelformats.measure.two_sides import ratio
from pytest_modelformats.measure.two_sides.interleaved import CALLS, DELAYED, LEFT, ROUND_S, compare_latency
from pytest_modelformats.schema import Change

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_modelformats.measure.two_sides.ratio import Round

__all__ = ["Variation", "found_share", "smallest_slowdown", "variation"]

POWER = 0.95
TRIALS = 60
# So many of the trials find it, at least.
FOUND = math.ceil(POWER * TRIALS)
# What is tried beyond the margin; twice as slow is where the search ends.
STEPS = (0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.06, 0.08, 0.12, 0.2, 0.4, 1.0)
# So slow that a round is one quad, and what is drawn is drawn once for it.
_BEFORE_NS = ROUND_S * 1e9 / (4 * CALLS)


@dataclass(frozen=True, slots=True)
class Variation:
    """How the same code varied against itself: each round about its pair, pairs about one, and what they took.

    ``renewed``: every round was measured in sessions of its own.
    """

    residuals: tuple[float, ...]
    delays: tuple[tuple[float, float], ...]
    pair_spread: float
    start_s: float
    round_s: float
    renewed: bool = True


def variation(pairs: Sequence[Sequence[Round]], start_s: float, round_s: float) -> Variation:
    """What pairs of processes of the same code showed; each has at least two rounds.

    Raises: ValueError where there is no pair.
    """
    if not pairs:
        raise ValueError("no pair of processes was measured; measure at least one")
    said = [ratio.within([r.log_ratio for r in rounds], seed) for seed, rounds in enumerate(pairs)]
    centres = [one.centre for one in said]
    shown = max(0.0, variance(centres) - fmean(one.variance for one in said)) if len(said) > 1 else 0.0
    # Residuals about an estimate from n rounds are too small by the square root of (n - 1) / n.
    residuals = [
        (r.log_ratio - one.centre) * math.sqrt(len(rounds) / (len(rounds) - 1))
        for one, rounds in zip(said, pairs, strict=True)
        for r in rounds
    ]
    delays = [_delays(r) for rounds in pairs for r in rounds]
    renewed = all(rounds[-1].session == len(rounds) - 1 for rounds in pairs)
    return Variation(tuple(residuals), tuple(delays), math.sqrt(shown), start_s, round_s, renewed)


def _delays(one: Round) -> tuple[float, float]:
    """What delayed a round: nothing where enough of its quads are left, else the worst on each side."""
    worst = max(q.before_delay for q in one.quads), max(q.after_delay for q in one.quads)
    calm = sum(max(q.before_delay, q.after_delay) <= DELAYED for q in one.quads)
    return (0.0, 0.0) if calm >= max(1, LEFT * len(one.quads)) else worst


def found_share(
    seen: Variation, slowdown: float, *, margin: float, budget_s: float, trials: int = TRIALS, enough: float = 0.0
) -> float:
    """The share of drawn comparisons that report a change where ``after`` is slower by ``slowdown``.

    It is not drawn to its end, and too small, as soon as ``enough`` cannot be reached any more.
    """
    found = 0
    for trial in range(trials):
        if found + trials - trial < enough * trials:
            break
        drawn = _Drawn(seen, slowdown, random.Random(f"{trial}-{slowdown}"))  # noqa: S311 - no secret
        told = compare_latency(drawn.pair, margin=margin, budget_s=budget_s, seed=trial, clock=drawn.clock)
        wanted = (Change.REGRESSION,) if slowdown else (Change.REGRESSION, Change.IMPROVEMENT)
        found += told.change in wanted
    return found / trials


def smallest_slowdown(seen: Variation, *, margin: float, budget_s: float, trials: int = TRIALS) -> float | None:
    """The least slow-down that is found with 95 % power within the budget; ``None`` where twice as slow is not."""
    low, high = -1, len(STEPS)
    while high - low > 1:
        middle = (low + high) // 2
        slowdown = margin + STEPS[middle]
        share = found_share(seen, slowdown, margin=margin, budget_s=budget_s, trials=trials, enough=POWER)
        low, high = (low, middle) if share >= POWER else (middle, high)
    return None if high == len(STEPS) else margin + STEPS[high]


class _Drawn:
    """Pairs whose rounds are drawn with replacement from those that were measured."""

    def __init__(self, seen: Variation, slowdown: float, draw: random.Random) -> None:
        self.renewed = seen.renewed
        self._seen, self._shift, self._draw = seen, math.log1p(slowdown), draw
        self._now = 0.0

    def clock(self) -> float:
        return self._now

    @contextmanager
    def pair(self) -> Iterator[tuple[_Side, _Side]]:
        self._now += self._seen.start_s
        rounds = _Rounds(self, self._draw.gauss(0, self._seen.pair_spread))
        yield _Side(rounds, after=False), _Side(rounds, after=True)

    def round(self) -> tuple[float, tuple[float, float]]:
        self._now += self._seen.round_s
        # The one and the other side are the same code: the sign of a residual is arbitrary.
        index = self._draw.randrange(len(self._seen.residuals))
        sign = self._draw.choice((-1, 1))
        delays = self._seen.delays[index]
        return self._shift + sign * self._seen.residuals[index], delays if sign > 0 else delays[::-1]


class _Rounds:
    def __init__(self, drawn: _Drawn, bias: float) -> None:
        self._drawn, self._bias = drawn, bias
        self.renewed = drawn.renewed
        self._asked = 0
        self._log, self._delays = 0.0, (0.0, 0.0)

    def block(self, *, after: bool) -> tuple[list[int], float]:
        if self._asked % 4 == 0:
            self._log, self._delays = self._drawn.round()
        self._asked += 1
        latency = _BEFORE_NS * math.exp(self._log + self._bias) if after else _BEFORE_NS
        return [round(latency)], self._delays[after]


class _Side:
    def __init__(self, rounds: _Rounds, *, after: bool) -> None:
        self._rounds, self._after = rounds, after
        self.delay = 0.0

    def block(self, seconds: float) -> list[int]:
        del seconds
        samples, self.delay = self._rounds.block(after=self._after)
        return samples

    def renew(self) -> float:
        """It is in the rounds drawn, and in their time."""
        return 0.0 if self._rounds.renewed else math.inf
