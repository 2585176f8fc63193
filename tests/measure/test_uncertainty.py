"""How far a median may be off is right for samples whose truth is known: quiet, stepping, bimodal, few, disturbed."""

from __future__ import annotations

import math
import random
from statistics import median

import pytest

from pytest_modelformats.measure import sampling as measure
from pytest_modelformats.measure import uncertainty

MS = 1_000_000
QUIET = {"involuntary_switches": 2, "sampling_s": 2.0, "foreign_share": 0.01, "steal_share": 0.0, "throttled": 0}


def quiet(seed=0, count=300, centre=5 * MS, spread=0.02):
    generator = random.Random(seed)
    return [int(centre * math.exp(generator.gauss(0, spread))) for _ in range(count)]


def unusable(samples, **evidence):
    return measure.soundness(samples, {**QUIET, **evidence})["unusable"]


# --- numbers


def test_outliers_are_those_far_out_by_tukeys_rule():
    """Of a set with known quartiles exactly those beyond three interquartile ranges count."""
    samples = [*range(1000, 1101)]  # quartiles 1025 and 1075
    assert uncertainty.outliers(samples) == 0
    fence = 1075 + 3 * 50
    assert uncertainty.outliers([*samples, fence]) == 0  # the quartiles move a little outwards
    assert uncertainty.outliers([*samples, 2000, 3000, 10]) == pytest.approx(3 / 104)


def test_outliers_of_a_clock_in_steps_are_none():
    """An interquartile range of nothing does not make a tick of the clock an outlier."""
    assert uncertainty.outliers([10_000] * 95 + [10_040] * 5) == 0
    assert uncertainty.outliers([10_000] * 95 + [20_000] * 5) == pytest.approx(0.05)


@pytest.mark.parametrize("count", [0, 3])
def test_no_quartiles_are_no_outliers(count):
    assert uncertainty.outliers([7] * count) is None


@pytest.mark.parametrize("change", [0.7, 0.98, 1.0, 1.3])
def test_drift_is_the_ratio_of_the_halves(change):
    """A step in the middle is the drift, whatever its size; below 5 % it is not called one."""
    samples = quiet(1, 200) + [int(change * value) for value in quiet(2, 200)]
    assert uncertainty.drift(samples) == pytest.approx(change - 1, abs=0.01)
    assert uncertainty.drifted(samples) == (abs(change - 1) > uncertainty.DRIFT)


def test_drift_needs_an_interval_in_each_half():
    assert uncertainty.drift([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]) is None
    assert uncertainty.drift([1] * 6 + [2] * 6) == 1.0


# --- how far the median may be off, and why


def test_a_quiet_measurement_is_as_uncertain_as_its_interval():
    samples = quiet()
    low, high = uncertainty.median_interval(sorted(samples))
    share, reason = uncertainty.median_uncertainty(samples, {**QUIET, "involuntary_switches": 0})
    assert reason == "interval"
    assert share == pytest.approx((high - low) / 2 / sorted(samples)[150], rel=0.01)
    assert unusable(samples) == ""


def test_samples_without_duration_have_no_uncertainty():
    assert uncertainty.median_uncertainty([0] * 10, {}) == (0.0, "interval")


@pytest.mark.parametrize(("step", "used"), [(1.1, True), (1.4, True), (2.0, False)])
def test_a_step_is_used_while_either_half_is_near_the_median(step, used):
    """A frequency that doubles half-way leaves no median that means anything."""
    samples = quiet(3) + [int(step * value) for value in quiet(4)]
    found = unusable(samples)
    assert (found == "") is used
    if not used:
        assert "it moved while it was measured" in found


@pytest.mark.parametrize(("share", "used"), [(0.15, True), (0.5, False)])
def test_two_modes_make_it_unusable_where_a_repetition_may_choose(share, used):
    """A lesser mode is noted; two of about the same size say that the median is a coin toss."""
    generator = random.Random(5)
    samples = [int(generator.gauss(13_600 if generator.random() < share else 9_800, 150)) for _ in range(400)]
    stated = measure.soundness(samples, QUIET)
    assert "two modes" in stated["disturbed"]
    assert (stated["unusable"] == "") is used


def test_few_samples_of_a_wide_range_are_not_used():
    """The interval of six samples is their range: a wide one says nothing, a narrow one is enough."""
    assert "after 6 samples" in unusable([100, 110, 120, 200, 210, 220])
    assert unusable([100, 101, 102, 103, 104, 105]) == ""


def test_slow_calls_beside_other_work_are_not_used():
    """Every call was interrupted: what others had of the cores is in every sample."""
    samples = quiet(6, 40, 80 * MS)
    beside = {"involuntary_switches": 400, "foreign_share": 0.5}
    assert "The median latency may be off by 50%: other work ran on the same cores" in unusable(samples, **beside)
    assert unusable(samples, involuntary_switches=400, foreign_share=0.1) == ""


def test_fast_calls_beside_other_work_are_used():
    """Thirty interruptions among five hundred calls move no median."""
    samples = quiet(7, 500, 20_000)
    for index in range(0, 500, 17):
        samples[index] += 4 * MS
    beside = {"involuntary_switches": 30, "foreign_share": 0.5}
    share, _ = uncertainty.median_uncertainty(samples, {**QUIET, **beside})
    assert share < 0.01
    assert unusable(samples, **beside) == ""


@pytest.mark.parametrize("hit", [0.1, 0.3, 0.6])
def test_the_undisturbed_median_lies_within_what_other_work_explains(hit):
    """Of 200 sets with a known share of lengthened samples, the untouched ones' median is within the stated share."""
    generator = random.Random(hit)
    for seed in range(200):
        clean = quiet(seed, 200)
        longer = [int(generator.expovariate(1 / (2 * MS))) + 1 if generator.random() < hit else 0 for _ in clean]
        samples = [value + more for value, more in zip(clean, longer, strict=True)]
        share, _ = uncertainty.median_uncertainty(samples, {"involuntary_switches": sum(more > 0 for more in longer)})
        untouched = median(value for value, more in zip(clean, longer, strict=True) if not more)
        assert median(samples) * (1 - share) <= untouched * (1 + 1e-9) <= median(samples) * 1.01


def test_the_time_that_others_added_to_the_mean_is_at_most_that_of_the_longest_samples():
    """Ten calls of 1 ms, two of them lengthened by 4 ms, are 18 ms of which 8 may be others'."""
    samples = [MS] * 8 + [5 * MS] * 2
    assert uncertainty.mean_uncertainty(samples, {"involuntary_switches": 2}) == pytest.approx(8 / 18)
    assert uncertainty.mean_uncertainty(samples, {"involuntary_switches": 1}) == pytest.approx(4 / 18)
    assert uncertainty.mean_uncertainty(samples, {"involuntary_switches": 0}) == 0
    assert uncertainty.mean_uncertainty(samples, {}) == 0


def test_time_that_the_hypervisor_took_counts():
    """Stolen time is other work, and its share is said."""
    samples = quiet(8, 40, 80 * MS)
    stated = measure.soundness(samples, {**QUIET, "steal_share": 0.4, "involuntary_switches": 100})
    assert "the hypervisor took 40% of the pinned cores" in stated["disturbed"]
    assert "may be off by 41%" in stated["unusable"]


def test_missing_evidence_is_not_evidence():
    stated = measure.soundness(quiet(), {})
    assert (stated["unusable"], stated["disturbed"], stated["machine_state"]) == ("", "", {})


def test_the_state_holds_what_was_read_and_nothing_else():
    """Gauges and counters stand together; what could not be read is absent, not null."""
    evidence = {**QUIET, "throttled": None, "state": {"governor": "performance", "frequency_hz": [3_000_000_000]}}
    state = measure.soundness(quiet(), evidence)["machine_state"]
    assert state["governor"] == "performance"
    assert state["steal_share"] == 0.0
    assert "throttled" not in state
