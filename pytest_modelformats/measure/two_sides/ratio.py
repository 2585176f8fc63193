"""The ratio of two latencies and its interval, from interleaved blocks; pure arithmetic on samples.

A *quad* is four blocks, A B B A or B A A B: whatever drifts linearly while it lasts cancels. It gives one number, the
log of the ratio of its medians. A *round* is as many quads as take a tenth of a second, and its number the
Hodges-Lehmann estimate of theirs (the median of all pairwise means: a quarter of them may be spoilt). Rounds are
gathered in *pairs* of processes, both fresh.

- Within a pair: the Hodges-Lehmann estimate of the rounds' log ratios, and its variance by a bootstrap that resamples
  whole rounds, so that what varies from block to block, and for as long as a round, is in it. With few rounds that
  variance is too small by (n - 1) / n, and a normal interval too narrow: it is scaled, and Student's t with n - 1
  degrees of freedom is used.
- Between pairs: one process of a pair may be faster for as long as it lives (memory layout, address randomisation).
  Few pairs say little of how much, so what they say is moderated by a prior: Smyth (2004).

Coverage of the 95 % interval, of 300 synthetic comparisons each (its tests repeat a part of them), with
noise between rounds that is normal, heavy-tailed (Student's t, 3 degrees of freedom), bimodal, or spoilt by half in one
round of ten: 93 to 99 % for one pair of 6 to 28 rounds; 94 to 100 % over one, two and four pairs whose processes differ
as expected (0.57 %). Where they differ by 1.3 % it falls to 73 to 99 %: therefore a difference must also recur, pair by
pair, and of 300 comparisons of such identical code none was reported at a margin of 2 %.

Source: Kalibera & Jones (2013), "Rigorous benchmarking in reasonable time" (levels of repetition; ratios with
intervals instead of tests of single runs); Hodges & Lehmann (1963), "Estimates of location based on rank tests"; Efron
& Tibshirani (1993), "An introduction to the bootstrap", 6.2 and 12; DerSimonian & Laird (1986), "Meta-analysis in
clinical trials" (weights of pairs); Smyth (2004), "Linear models and empirical Bayes methods" (a moderated variance);
Satterthwaite (1946) for the degrees of freedom; Mytkowicz et al. (2009), "Producing wrong data without doing anything
obviously wrong!" (what differs between processes of one program).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean, median, variance
from typing import TYPE_CHECKING

from pytest_modelformats.measure.two_sides import student

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Interval", "Quad", "Round", "Within", "over_pairs", "quad", "within"]

# Pinned, the median of a small model varied by 0.4 % from process to process (design §7): the ratio of two of them by
# the square root of two times that.
PAIR_SPREAD = 0.004 * math.sqrt(2)
# By how much a session's ratio differs from that of the same code opened again, where its layout stays for all rounds.
# Eight cells (four runtimes, two models), 7 pairs of processes each: 0.3 to 3 % in all, 1.4 % in the middle.
LAYOUT_SPREAD = 0.013
# How many pairs' worth of trust that figure gets: three models gave 0.4 to 1.3 %, a tenfold range of variances, which
# is what three draws of a variance with four degrees of freedom show.
PRIOR_FREEDOM = 4.0
RESAMPLES = 400
# The shares between which one standard deviation to either side of a normal distribution lies. The variance itself
# would be that of the few resamples in which spoilt rounds are the majority: intervals up to ten times as wide.
ONE_SIGMA = (0.158655, 0.841345)
# Of fewer rounds the larger of both is taken: six rounds in two modes were covered in 91 % by those shares alone.
FEW_ROUNDS = 9
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Quad:
    """Four blocks: the log of (after / before), the medians on both sides in ns, and what delayed them.

    ``before_delay`` and ``after_delay`` are the share that was lost to other work, in the worse block of a side.
    """

    log_ratio: float
    before_ns: float
    after_ns: float
    before_delay: float = 0.0
    after_delay: float = 0.0
    samples: int = 0


@dataclass(frozen=True, slots=True)
class Round:
    """Quads in a row as one number: their Hodges-Lehmann log ratio, and the medians on both sides in ns."""

    quads: tuple[Quad, ...]
    log_ratio: float
    before_ns: float
    after_ns: float
    session: int = 0

    @classmethod
    def of(cls, quads: Sequence[Quad], session: int = 0) -> Round:
        """The round of at least one quad, measured in one session of each side."""
        logs = [q.log_ratio for q in quads]
        centre = median((one + other) / 2 for at, one in enumerate(logs) for other in logs[at:])
        return cls(tuple(quads), centre, median(q.before_ns for q in quads), median(q.after_ns for q in quads), session)

    @property
    def samples(self) -> int:
        """The calls on both sides."""
        return sum(q.samples for q in self.quads)


@dataclass(frozen=True, slots=True)
class Within:
    """What the rounds of one pair say: the log ratio, the variance of that estimate, and how many are behind it."""

    centre: float
    variance: float
    rounds: int
    sessions: int

    def interval(self) -> Interval:
        """The 95 % interval as if no two processes differed."""
        return Interval(self.centre, math.sqrt(self.variance), max(1.0, self.rounds - 1.0))


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate of a log ratio, its standard error, and the degrees of freedom of that."""

    centre: float
    error: float
    freedom: float

    @property
    def ratio(self) -> float:
        """The ratio itself, after over before."""
        return math.exp(self.centre)

    @property
    def low(self) -> float:
        """The lower end of the 95 % interval of the ratio."""
        return math.exp(self.centre - self._width())

    @property
    def high(self) -> float:
        """The upper end of the 95 % interval of the ratio."""
        return math.exp(min(700.0, self.centre + self._width()))

    def p_above(self, ratio: float) -> float:
        """The one-sided p-value of "the true ratio is at most this"."""
        distance = self.centre - math.log(ratio)
        if self.error == 0:
            return 0.0 if distance > 0 else 1.0
        return student.upper_tail(distance / self.error, self.freedom)

    def p_below(self, ratio: float) -> float:
        """The one-sided p-value of "the true ratio is at least this"."""
        return Interval(-self.centre, self.error, self.freedom).p_above(1 / ratio)

    def _width(self) -> float:
        return self.error * _two_sided(round(self.freedom, 3))


@lru_cache(maxsize=1024)
def _two_sided(freedom: float) -> float:
    return student.quantile((1 + CONFIDENCE) / 2, freedom)


def quad(
    before: Sequence[Sequence[int]],
    after: Sequence[Sequence[int]],
    delays: tuple[Sequence[float], Sequence[float]] = ((), ()),
) -> Quad:
    """Two blocks of each side as one number: the mean log median after, less that before."""
    medians = [[float(median(block)) for block in side] for side in (before, after)]
    logs = [fmean(math.log(max(value, 1.0)) for value in side) for side in medians]
    count = sum(len(block) for side in (before, after) for block in side)
    worst = [max(side, default=0.0) for side in delays]
    return Quad(logs[1] - logs[0], math.exp(logs[0]), math.exp(logs[1]), worst[0], worst[1], count)


def within(log_ratios: Sequence[float], seed: int, sessions: int | None = None) -> Within:
    """The Hodges-Lehmann estimate of one pair's rounds and the bootstrap variance of it.

    ``sessions`` is how many times both sides were opened for them; ``None``: for each round anew.
    Raises: ValueError with fewer than two rounds: there is no variance.
    """
    if len(log_ratios) < 2:  # noqa: PLR2004 - the fewest of which something can vary
        raise ValueError("one round says nothing about how much rounds vary; gather at least two")
    return _within(tuple(log_ratios), seed, sessions or len(log_ratios))


# A comparison asks again for pairs that are complete, at every look at the one that is not.
@lru_cache(maxsize=64)
def _within(log_ratios: tuple[float, ...], seed: int, sessions: int) -> Within:
    import numpy as np

    count = len(log_ratios)
    values = np.asarray(log_ratios, float)
    first, second = np.triu_indices(count)
    centre = float(np.median((values[first] + values[second]) / 2))
    drawn = values[np.random.default_rng([seed, count]).integers(0, count, (RESAMPLES, count))]
    centres = np.median((drawn[:, first] + drawn[:, second]) / 2, axis=1)
    low, high = np.quantile(centres, ONE_SIGMA)
    spread = float(high - low) / 2
    if count < FEW_ROUNDS:
        spread = max(spread, float(centres.std()))
    return Within(centre, spread**2 * count / (count - 1), count, sessions)


def over_pairs(pairs: Sequence[Within], spread: float = PAIR_SPREAD, trust: float = PRIOR_FREEDOM) -> Interval:
    """One interval over all pairs, in which the difference between two processes of the same code is allowed for.

    ``spread`` is the standard deviation of a pair's log ratio that is expected for the same code on both sides, and
    ``trust`` the degrees of freedom that this expectation is worth beside what the pairs themselves show. Where
    sessions were not opened anew for every round, how they differ by their layout is not in the rounds' variance, and
    is expected beside it.
    """
    layouts = fmean(LAYOUT_SPREAD**2 / p.sessions if p.sessions < p.rounds else 0.0 for p in pairs)
    spread = math.sqrt(spread**2 + layouts)
    count = len(pairs)
    shown = 0.0
    if count > 1:
        shown = max(0.0, variance([p.centre for p in pairs]) - fmean(p.variance for p in pairs))
    freedom = trust + count - 1
    between = (trust * spread**2 + (count - 1) * shown) / freedom
    # A variance that is small by chance would weigh too much: weights see it halfway to the mean of all.
    usual = fmean(p.variance for p in pairs)
    weights = [1 / ((p.variance + usual) / 2 + between) for p in pairs]
    shares = [weight / math.fsum(weights) for weight in weights]
    inner = [share**2 * p.variance for share, p in zip(shares, pairs, strict=True)]
    outer = between * math.fsum(share**2 for share in shares)
    total = math.fsum(inner) + outer
    doubt = math.fsum(v**2 / max(1, p.rounds - 1) for v, p in zip(inner, pairs, strict=True)) + outer**2 / freedom
    centre = math.fsum(share * p.centre for share, p in zip(shares, pairs, strict=True))
    return Interval(centre, math.sqrt(total), total**2 / doubt)
