"""Comparing the stored samples of two earlier runs: weaker than measuring both now, as the interval says."""

from __future__ import annotations

import math
from statistics import median, stdev
from typing import TYPE_CHECKING

from pytest_modelformats.measure.sampling import FEWEST_SAMPLES, median_interval
from pytest_modelformats.measure.two_sides.decision import Measured, beyond, finding
from pytest_modelformats.measure.two_sides.ratio import Interval
from pytest_modelformats.schema import Change

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["compare_samples"]

# Medians of repeated runs of three models, one standard deviation, in percent: 0.4 to 1.3 pinned, up to 9 unpinned
# (design §7, measure/sampling.py). The larger figure is taken: of an earlier run nobody knows which of them it was.
RUN_SPREAD = 0.013
UNPINNED_SPREAD = 0.09
BATCHES = 10


def compare_samples(
    before_ns: Sequence[int], after_ns: Sequence[int], *, margin: float = 0.05, seed: int = 0, pinned: bool = True
) -> Measured:
    """Two stored runs are compared, with the interval widened by what two runs of the same code differ.

    Within a run, the variance of the median is the larger of what its distribution-free interval says and what the
    medians of ten batches of successive samples say (batch means: successive samples are not independent). To it is
    added the variance between runs, which no number of samples lowers: 1.3 % for each side, 9 % where a run was
    not ``pinned``. A difference below about 4 % can therefore not be told, and nothing has recurred.

    Source: Alexopoulos & Seila (1998) on batch means; ``measure.median_interval``.
    """
    del seed  # nothing is drawn
    count = min(len(before_ns), len(after_ns))
    spread = RUN_SPREAD if pinned else UNPINNED_SPREAD
    middles = [float(median(side)) if side else math.nan for side in (before_ns, after_ns)]
    few = f"only {count} samples" if count < FEWEST_SAMPLES else ""
    if few or min(middles) <= 0:
        over = Interval(0.0, math.inf, 1.0)
    else:
        errors = [_error_of_median(side) for side in (before_ns, after_ns)]
        over = Interval(math.log(middles[1] / middles[0]), math.hypot(*errors, spread * math.sqrt(2)), float(count - 1))
    direction = beyond(over, margin) if not few else 0
    inside = over.low >= 1 - margin and over.high <= 1 + margin
    change = {1: Change.REGRESSION, -1: Change.IMPROVEMENT, 0: Change.SAME if inside else Change.INCONCLUSIVE}[
        direction
    ]
    return Measured(
        ratio=over.ratio if not few else math.nan,
        ratio_low=over.low,
        ratio_high=over.high,
        p_value=over.p_above(1 + margin) if not few else 1.0,
        p_value_faster=over.p_below(1 - margin) if not few else 1.0,
        before_ns=middles[0],
        after_ns=middles[1],
        change=change,
        recurred=None,
        blocks=0,
        seconds=0.0,
        disturbed=few,
        finding=_stored_finding(over, change, margin, few),
        grounds=f"stored samples: a run differs from the next by {spread:.1%} without any change, so this is weaker",
        how="stored",
    )


def _stored_finding(over: Interval, change: Change, margin: float, few: str) -> str:
    if few:
        return f"nothing can be said from {few}"
    return finding(over, change, margin, None).replace(" and found again", "")


def _error_of_median(samples_ns: Sequence[int]) -> float:
    """The standard error of the log of the median, allowing for samples that hang together."""
    low, high = median_interval(sorted(samples_ns))
    middle = max(1.0, float(median(samples_ns)))
    free = math.log(max(high, 1.0) / max(low, 1.0)) / (2 * 1.96)
    size = len(samples_ns) // BATCHES
    if size < FEWEST_SAMPLES:
        return free
    batches = [float(median(samples_ns[i * size : (i + 1) * size])) for i in range(BATCHES)]
    # The median of a batch varies sqrt(BATCHES) times as much as that of all.
    return max(free, stdev(batches) / middle / math.sqrt(BATCHES))
