"""How far a median of latency can be trusted: its interval, outliers, drift, modes, and what disturbed it.

Standard library only; every function is one of samples (and of the evidence that ``measure.sample`` gives).
"""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import fmean, median, quantiles, stdev
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# P(the median lies outside the range of n samples) = 2 * 0.5**n is below 5 % from n = 6 on.
FEWEST_SAMPLES = 6
# Pinned and undisturbed, medians of repeated runs of three models varied by 0.4 to 1.3 % (one standard deviation):
# halves of one run that are 5 % apart are not explained by that.
DRIFT = 0.05
# Tukey (1977), "Exploratory Data Analysis": beyond three interquartile ranges from the quartiles is "far out".
FAR_OUT = 3.0
# A clock that counts in steps has an interquartile range of 0; no sample within 1 % of the median is far out.
LEAST_RANGE = 0.01
# Ashman's D of the best split into two groups; Ashman, Bird & Zepf (1994), "Detecting bimodality", call 2 the least for
# two given groups. Choosing the split makes it larger: of 500 one-humped sets (uniform, normal, exponential, lognormal)
# of 20 samples at most 1 % exceeded 6 (26 % exceeded 4), of 64 samples none.
SEPARATION = 6.0
SAMPLES_FOR_MODES = 20
SMALLEST_SHARE = 0.1
SMALLEST_MODE = 5
# From here on a tenth of the samples changing sides takes the median from one mode into the other.
EVEN_MODES = 0.4
# A median that may be off by more than this is not used. Unpinned medians of one model scattered by 9.4 % (one standard
# deviation), so that a quarter is beyond what an ordinary run does; two jobs on the same cores doubled a latency.
UNUSABLE = 0.25


def median_interval(ordered: Sequence[int]) -> tuple[float, float]:
    """The 95 % confidence interval of the median from sorted samples; their range when there are fewer than six."""
    rank = _interval_rank(len(ordered))
    return float(ordered[rank]), float(ordered[-1 - rank])


@lru_cache(maxsize=256)
def _interval_rank(count: int) -> int:
    """The rank r, from 0, for which [x_r, x_(n-1-r)] covers the median with at least 95 %.

    Exact: the number of samples below the median is binomial (n, 1/2), so the interval
    misses it with twice the probability of at most r of them.
    """
    rank, term, below = 0, 1, 1
    while True:
        term = term * (count - rank) // (rank + 1)
        below += term
        # 2 * below / 2**count <= 0.05, in whole numbers
        if 40 * below > 1 << count or 2 * (rank + 1) >= count:
            return rank
        rank += 1


def outliers(samples: Sequence[int]) -> float | None:
    """The share of samples that are far out by Tukey's rule; ``None`` below four samples, which have no quartiles.

    Source: Tukey (1977): below Q1 - 3 IQR or above Q3 + 3 IQR.
    """
    if len(samples) < 4:  # noqa: PLR2004 - quartiles
        return None
    lower, middle, upper = quantiles(samples, n=4, method="inclusive")
    fence = FAR_OUT * max(upper - lower, LEAST_RANGE * middle)
    return sum(not lower - fence <= value <= upper + fence for value in samples) / len(samples)


def drift(samples: Sequence[int]) -> float | None:
    """The median of the second half over that of the first, less one; ``None`` where a half has no interval."""
    first, second = _halves(samples)
    if not first or not median(first):
        return None
    return median(second) / median(first) - 1


def drifted(samples: Sequence[int]) -> bool:
    """Whether the halves' medians are further apart than ``DRIFT`` and their intervals do not meet."""
    change = drift(samples)
    if change is None or abs(change) <= DRIFT:
        return False
    (low_1, high_1), (low_2, high_2) = (median_interval(sorted(half)) for half in _halves(samples))
    return low_1 > high_2 or low_2 > high_1


def _halves(samples: Sequence[int]) -> tuple[Sequence[int], Sequence[int]]:
    half = len(samples) // 2
    return (samples[:half], samples[half:]) if half >= FEWEST_SAMPLES else ((), ())


def modes(samples: Sequence[int]) -> tuple[float, float, float] | None:
    """(share of the lower group, its median, the upper group's median) where two groups stand clearly apart.

    They are split where Otsu's method splits.
    """
    ordered = [float(value) for value in sorted(samples)]
    count = len(ordered)
    if count < SAMPLES_FOR_MODES:
        return None
    fewest = max(SMALLEST_MODE, math.ceil(SMALLEST_SHARE * count))  # fewer are outliers, not a mode
    total, left, best, cut = math.fsum(ordered), 0.0, -1.0, 0
    for index, value in enumerate(ordered[:-1], start=1):
        left += value
        between = index * (count - index) * (left / index - (total - left) / (count - index)) ** 2
        if between > best:
            best, cut = between, index
    if not fewest <= cut <= count - fewest:
        return None
    low, high = ordered[:cut], ordered[cut:]
    distance = fmean(high) - fmean(low)
    spread = math.sqrt((stdev(low) ** 2 + stdev(high) ** 2) / 2)
    if distance <= max(SEPARATION * spread, DRIFT * fmean(low)):
        return None
    return len(low) / count, median(low), median(high)


def median_uncertainty(samples: Sequence[int], evidence: Mapping[str, Any]) -> tuple[float, str]:
    """The share by which the median may be off, and by which of the four reasons most.

    - *interval*: half of the median's 95 % interval;
    - *drift*: the distance from the median to that of the further half, where the halves differ;
    - *modes*: the distance of two groups of about equal size, between which a repetition may choose (not where the
      halves differ, which makes two groups by itself);
    - *other work*: with a share e of the samples disturbed, every one of them lengthened, the undisturbed median is at
      least the quantile (1 - e) / 2 of what was measured. A context switch against our will disturbs one sample; once
      there are as many of them as samples, every sample was disturbed, by the share of time that others had.

    Source: Huber (1964), "Robust estimation of a location parameter", for the bias of the median under contamination.
    """
    ordered = sorted(samples)
    middle = median(ordered)
    if not middle:
        return 0.0, "interval"
    low, high = median_interval(ordered)
    found = {"interval": (high - low) / 2 / middle, "other work": _contamination(ordered, middle, evidence)}
    groups = modes(samples)
    if drifted(samples):  # a step in the middle makes two groups too, and is the simpler reason
        found["drift"] = max(abs(median(half) / middle - 1) for half in _halves(samples))
    elif groups is not None and EVEN_MODES <= groups[0] <= 1 - EVEN_MODES:
        found["modes"] = (groups[2] - groups[1]) / middle
    reason = max(found, key=lambda name: found[name])
    return found[reason], reason


def mean_uncertainty(samples: Sequence[int], evidence: Mapping[str, Any]) -> float:
    """The share of the samples' whole time that other work may have added.

    Every context switch against our will lengthens one sample: at most by what the longest ones exceed the median.
    """
    switches = evidence.get("involuntary_switches") or 0
    total = sum(samples)
    if not switches or not total:
        return 0.0
    middle = median(samples)
    return sum(max(0.0, value - middle) for value in sorted(samples)[-switches:]) / total


def _contamination(ordered: Sequence[int], middle: float, evidence: Mapping[str, Any]) -> float:
    stolen = evidence.get("steal_share") or 0.0
    hit = (evidence.get("involuntary_switches") or 0) / len(ordered) + stolen
    if hit >= 1:
        return min(1.0, (evidence.get("foreign_share") or 0.0) + stolen)
    return 1 - ordered[int((1 - hit) / 2 * (len(ordered) - 1))] / middle if hit else 0.0


def unusable(samples: Sequence[int], evidence: Mapping[str, Any], found: str) -> str:
    """Why the median is not to be used, "" where it is; ``found`` is what ``measure.disturbance`` says."""
    share, reason = median_uncertainty(samples, evidence)
    if share <= UNUSABLE:
        return ""
    words = {
        "interval": f"its 95 % interval is that wide after {len(samples)} samples",
        "drift": "it moved while it was measured",
        "modes": "the samples fall into two groups of about the same size",
        "other work": "other work ran on the same cores",
    }
    more = f" ({found})" if found else ""
    return f"The median latency may be off by {share:.0%}: {words[reason]}{more}"
