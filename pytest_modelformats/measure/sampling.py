"""Warm-up, sampling, and the statistics of time.

``sample`` runs inside a worker, also under a foreign interpreter: standard library only.
``statistics`` turns samples into the fields of :class:`pytest_modelformats.schema.Timing`
in the pytest process.
"""

from __future__ import annotations

import math
import time
from statistics import fmean, median, stdev
from typing import TYPE_CHECKING, Any

from pytest_modelformats.measure import machine_state, uncertainty
from pytest_modelformats.measure.conditions import (
    difference,
    memory,
    pinned_to_cores,
    readings,
    reset_peak,
    without_collector,
)
from pytest_modelformats.measure.uncertainty import FEWEST_SAMPLES, median_interval

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = [
    "FEWEST_SAMPLES",
    "disturbance",
    "median_interval",
    "memory",
    "reset_peak",
    "sample",
    "soundness",
    "statistics",
]

# p90 is earned with 64 samples, so a call that is fast enough always gets that column.
MIN_SAMPLES = 64
# Five time slices of a scheduler at 250 Hz: 64 calls of 3 us are over in 0.2 ms, and what they then show is how things
# stood at that moment.
SHORTEST_SPAN_S = 0.02
WARMUP_SHARE = 0.25
WARMUP_WINDOW = 5
WARMUP_AGREEMENT = 0.02

# Wilks (1941), "Determination of sample sizes for setting tolerance limits": the fewest n for which, with 99 %
# confidence, at least two samples lie beyond the percentile p: 1 - n p^(n-1) + (n-1) p^n >= 0.99.
SAMPLES_FOR_PERCENTILE = {0.90: 64, 0.95: 130, 0.99: 662}

VARIATION = 0.2
# Pinned to one of two cores, a spinning process was switched out 3 times a second; 125 times a second while another
# process spun on that core.
SWITCHES_PER_S = 20.0
FOREIGN_SHARE = 0.05
# What the counters of the system say of the time in which the samples were taken.
COUNTED = (
    *("sampling_s", "load_before", "load_after", "involuntary_switches"),
    *("foreign_share", "steal_share", "throttled"),
)


def sample(
    call: Callable[[], object],
    *,
    budget_s: float,
    target: float = 0.01,
    min_samples: int = MIN_SAMPLES,
    max_samples: int = 2000,
    threads: int = 1,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> dict[str, Any]:
    """Time single calls until the median is known to ±``target``, or the budget or ``max_samples`` ends.

    Short calls are sampled for ``SHORTEST_SPAN_S`` or up to ``max_samples`` in any case.
    The process is pinned and its garbage collector off meanwhile; both are as before
    afterwards. The interval is looked at only at 64, 96, 144 … samples, and the call after
    a look is not recorded, because the look has evicted what the call keeps in caches.
    Stopping by it costs nothing to speak of: it held the true median in 94.8 % of 1000
    simulated runs. ``FEWEST_SAMPLES`` are taken even where that exceeds the budget: without them there is
    no interval. The answer holds plain values only, the evidence of a disturbance among them.

    Units: samples in nanoseconds as ``clock`` counts them, ``budget_s`` in seconds.
    """
    started = clock()
    deadline = started + int(budget_s * 1e9)
    with without_collector(), pinned_to_cores(threads) as pinned:
        warmup_runs, settled = _warm_up(call, clock, int(budget_s * 1e9))
        looks = 0
        before = readings(pinned)
        span_ends = clock() + int(SHORTEST_SPAN_S * 1e9)
        samples = _take(call, clock, min(min_samples, max_samples), deadline, FEWEST_SAMPLES)
        while (
            len(samples) < max_samples
            and clock() < deadline
            and not (clock() >= span_ends and _narrow(samples, target))
        ):
            looks += 1
            call()
            samples += _take(call, clock, min(max(1, len(samples) // 2), max_samples - len(samples)), deadline, 1)
        after = readings(pinned)
        state = machine_state.state(pinned)
    return {
        "samples_ns": samples,
        "calls": len(samples) + looks,
        "warmup_runs": warmup_runs,
        "settled": settled,
        "threads": threads,
        "pinned": list(pinned),
        "state": state,
        **difference(before, after, len(pinned)),
    }


def statistics(samples_ns: Sequence[int], batch: int, evidence: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The fields of ``schema.Timing`` that follow from the samples alone.

    The interval of the median is distribution-free, 95 %. A percentile is the sample at
    its nearest rank, ``None`` until earned. ``items_per_s`` is what was delivered: items
    over the sum of the samples. ``evidence`` is the answer of :func:`sample`.

    Raises: ValueError without samples.
    Source: design §7; Wilks (1941) for the percentiles.
    """
    if not samples_ns:
        raise ValueError("no samples were taken; there is nothing to state about them")
    ordered = sorted(samples_ns)
    mean = fmean(ordered)
    deviation = stdev(ordered) if len(ordered) > 1 else 0.0
    low, high = median_interval(ordered)
    percentiles = {
        f"latency_p{round(share * 100)}_ns": _nearest_rank(ordered, share) if len(ordered) >= needed else None
        for share, needed in SAMPLES_FOR_PERCENTILE.items()
    }
    return {
        "samples_ns": tuple(samples_ns),
        "batch": batch,
        "latency_p50_ns": float(median(ordered)),
        "latency_p50_low_ns": low,
        "latency_p50_high_ns": high,
        "latency_mean_ns": mean,
        "latency_std_ns": deviation,
        "variation": deviation / mean if mean else 0.0,
        **percentiles,
        "items_per_s": batch * 1e9 / mean if mean else 0.0,
        **soundness(samples_ns, evidence or {}),
    }


def soundness(samples_ns: Sequence[int], evidence: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of ``schema.Timing`` that say how far the median can be trusted, and the machine's state with them."""
    found = disturbance(samples_ns, evidence)
    state = {**evidence.get("state", {}), **{name: evidence.get(name) for name in COUNTED}}
    return {
        "disturbed": found,
        "unusable": uncertainty.unusable(samples_ns, evidence, found),
        "outliers": uncertainty.outliers(samples_ns),
        "drift": uncertainty.drift(samples_ns),
        "median_uncertainty": uncertainty.median_uncertainty(samples_ns, evidence)[0],
        "machine_state": {name: value for name, value in state.items() if value is not None},
    }


def disturbance(samples_ns: Sequence[int], evidence: Mapping[str, Any]) -> str:
    """What speaks against an undisturbed measurement, in words; "" when nothing does."""
    found = []
    count = len(samples_ns)
    if count < FEWEST_SAMPLES:
        found.append(f"only {count} samples: the interval of the median is their range")
    mean = fmean(samples_ns)
    variation = stdev(samples_ns) / mean if count > 1 and mean else 0.0
    switches, seconds = evidence.get("involuntary_switches") or 0, evidence.get("sampling_s") or 0.0
    if variation > VARIATION and switches > SWITCHES_PER_S * seconds:
        found.append(f"variation {variation:.2f} with {switches} involuntary context switches in {seconds:.1f} s")
    if (evidence.get("foreign_share") or 0.0) > FOREIGN_SHARE:
        found.append(f"other work took {evidence['foreign_share']:.0%} of the pinned cores")
    if (evidence.get("steal_share") or 0.0) > FOREIGN_SHARE:
        found.append(f"the hypervisor took {evidence['steal_share']:.0%} of the pinned cores")
    if evidence.get("throttled"):
        found.append(f"the processor throttled {evidence['throttled']} times")
    found += [text for text in (_drift(samples_ns), _two_modes(samples_ns)) if text]
    return "; ".join(found)


def _warm_up(call: Callable[[], object], clock: Callable[[], int], budget_ns: int) -> tuple[int, bool]:
    """Call until the medians of successive windows agree; return the number of calls, and whether they did.

    A window is five calls or a fiftieth of the budget, whichever is longer: five calls of a
    few microseconds agree long before a processor has reached its frequency.
    """
    deadline = clock() + int(WARMUP_SHARE * budget_ns)
    runs, count, previous = 0, WARMUP_WINDOW, math.inf
    while True:
        window = _take(call, clock, count, deadline, 1)
        runs += len(window)
        current = median(window)
        if abs(current - previous) <= WARMUP_AGREEMENT * current:
            return runs, True
        if clock() >= deadline:
            return runs, False
        previous = current
        count = min(10_000, max(WARMUP_WINDOW, int(budget_ns / 50 / max(current, 1))))


def _take(call: Callable[[], object], clock: Callable[[], int], count: int, deadline: int, at_least: int) -> list[int]:
    """Time ``count`` calls one after the other, fewer if the deadline passes after ``at_least`` of them."""
    taken: list[int] = []
    append = taken.append
    for _ in range(count):
        started = clock()
        call()
        ended = clock()
        append(ended - started)
        if ended >= deadline and len(taken) >= at_least:
            break
    return taken


def _narrow(samples: Sequence[int], target: float) -> bool:
    ordered = sorted(samples)
    middle = median(ordered)
    low, high = median_interval(ordered)
    return low >= middle * (1 - target) and high <= middle * (1 + target)


def _nearest_rank(ordered: Sequence[int], share: float) -> float:
    return float(ordered[math.ceil(round(share * len(ordered), 9)) - 1])


def _drift(samples: Sequence[int]) -> str:
    if not uncertainty.drifted(samples):
        return ""
    return f"the median drifted by {uncertainty.drift(samples):+.0%} from the first half to the second"


def _two_modes(samples: Sequence[int]) -> str:
    found = uncertainty.modes(samples)
    if found is None:
        return ""
    share, low, high = found
    return f"two modes: {share:.0%} of the samples near {low / 1e6:.3g} ms, the others near {high / 1e6:.3g} ms"
