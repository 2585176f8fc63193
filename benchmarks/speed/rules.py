"""What others' rules say of two sets of samples.

Sources: pytest-benchmark's ``--benchmark-compare-fail=mean:5%`` (``pytest_benchmark.utils.PercentageRegressionCheck``:
the run fails where the new mean exceeds the old one by more than 5 %). asv's ``is_different`` (``asv/_stats.py``):
Mann-Whitney's U, two-sided p < 0.002 by the normal approximation for more than 20 samples, the exact distribution
otherwise; ``asv continuous`` and ``asv compare`` call it a regression where the ratio also exceeds their ``--factor``,
1.1 by default. A sample of asv's is the mean of as many calls as take 10 ms, and there are at most 10 of each of two
processes; the same number is taken here.
"""

from __future__ import annotations

from statistics import fmean, median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

ASV_P = 0.002
ASV_FACTOR = 1.1
ASV_SAMPLE_NS = 10_000_000
ASV_SAMPLES = 20
MEAN_LIMIT = 0.05


def said(before: Sequence[int], after: Sequence[int], prefix: str) -> dict[str, bool]:
    """Whether each rule calls the second set slower, by the rule's name."""
    ours, theirs = asv_samples(before), asv_samples(after)
    different = mann_whitney(ours, theirs) < ASV_P
    ratio = median(theirs) / median(ours)
    return {
        f"{prefix}: pytest-benchmark, mean:5%": fmean(after) > (1 + MEAN_LIMIT) * fmean(before),
        f"{prefix}: Mann-Whitney p < 0.002": different and ratio > 1,
        f"{prefix}: asv, p < 0.002 and factor 1.1": different and ratio > ASV_FACTOR,
    }


def asv_samples(calls: Sequence[int]) -> list[float]:
    """The calls as asv would have sampled them: means over 10 ms each, at most 20 of them, evenly taken."""
    samples: list[float] = []
    total = count = 0
    for call in calls:
        total, count = total + call, count + 1
        if total >= ASV_SAMPLE_NS:
            samples.append(total / count)
            total = count = 0
    if not samples:
        return [total / max(count, 1)]
    step = max(1, len(samples) // ASV_SAMPLES)
    return samples[::step][:ASV_SAMPLES]


def mann_whitney(before: Sequence[float], after: Sequence[float]) -> float:
    """The two-sided p-value, exact up to 20 samples a side, by the normal approximation beyond, as asv has it."""
    from scipy import stats

    method = "exact" if max(len(before), len(after)) <= ASV_SAMPLES else "asymptotic"
    return float(stats.mannwhitneyu(before, after, alternative="two-sided", method=method).pvalue)
