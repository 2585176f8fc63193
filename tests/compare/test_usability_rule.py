"""Is the conversion faithful, and does the source survive the precision: two questions, and both are asked."""

from __future__ import annotations

import numpy as np
import pytest

from pytest_modelformats.compare.noise import Noise
from pytest_modelformats.compare.usability import examined, largest_error, ranges, signal_db
from pytest_modelformats.compare.verdict import judge
from pytest_modelformats.schema import PRECISIONS, FailureKind, Outcome

TRUTH = np.random.default_rng(0).normal(size=(64, 16))


def judged(error, noise, precision="fp16", fp32=1e-7, truth=TRUTH, off=None, spans=(), **more):
    """A verdict on an output that is ``error`` rms off, where rounding makes ``noise`` rms."""
    off = np.random.default_rng(1).normal(size=truth.shape) if off is None else off
    got = (truth + error * off / np.sqrt(np.mean(off**2))).astype(np.float32)
    floors = {p: [Noise(rms, 5 * rms, rms)] for p, rms in (("fp32", fp32), (precision, noise))}
    first = judge(["y"], [[truth]], [[got]], floors, PRECISIONS[precision], dtypes=["float32"], **more)
    return first, examined(first, floors, PRECISIONS[precision], spans)


@pytest.mark.parametrize("precision", ["fp16", "bf16", "fp16-weights"])
@pytest.mark.parametrize("error", [0.3, 0.52, 3.0])
def test_a_faithful_conversion_of_a_model_that_the_precision_destroys_fails(precision, error):
    """r is 1: the conversion is what rounding makes of the source, and it is of no use."""
    first, verdict = judged(error, error, precision)
    assert first.passed, first.sentence
    assert (verdict.outcome, verdict.failure_kind) == (Outcome.FAILED, FailureKind.PRECISION)
    assert f"{precision} is too coarse for this model" in verdict.sentence
    assert "no converter can help. Next: keep the operators that lose it in fp32, or ship fp32 (" in verdict.sentence


def test_another_half_precision_that_keeps_the_signal_is_named():
    off = np.random.default_rng(1).normal(size=TRUTH.shape)
    floors = {p: [Noise(rms, 9.0, rms)] for p, rms in (("fp32", 1e-7), ("bf16", 0.02), ("fp16", 0.5))}
    got = (TRUTH + 0.5 * off).astype(np.float32)
    verdict = judge(["y"], [[TRUTH]], [[got]], floors, PRECISIONS["fp16"], dtypes=["float32"])
    assert "or ship bf16 (34 dB) or fp32 (140 dB)." in examined(verdict, floors, PRECISIONS["fp16"]).sentence


@pytest.mark.parametrize(("error", "noise"), [(0.001, 0.001), (0.1, 0.1), (0.05, 0.1)])
def test_a_precision_that_keeps_the_signal_stays_as_it_was(error, noise):
    first, verdict = judged(error, noise)
    assert first.passed
    assert verdict.outputs == first.outputs


@pytest.mark.parametrize(
    ("error", "margin", "lost"),
    [(0.1, 0.01, True), (0.1, 3.0, False), (0.02, 0.01, False)],  # 20 dB, 20 dB with clear answers, 34 dB
)
def test_a_classifier_that_decides_otherwise_is_of_no_use_though_its_signal_is_left(error, margin, lost):
    """Two classes with less between them than rounding costs; 30 dB below the signal it is a matter of near-ties."""
    truth = TRUTH.copy()
    truth[:, 0] = truth[:, 1:].max(axis=1) + margin
    first, verdict = judged(error, error, truth=truth, classifier=True)
    assert first.passed
    assert (verdict.failure_kind is FailureKind.PRECISION) is lost, verdict.sentence
    assert ("of the samples are decided otherwise (the limit is 10%)" in verdict.sentence) is lost


@pytest.mark.parametrize(("error", "lost"), [(0.1, True), (0.02, False)])
def test_one_element_at_the_other_end_of_the_range_is_no_use(error, lost):
    """Its size is told by the range of what the output holds; the rms of all elements hides it."""
    off = np.zeros(TRUTH.shape)
    off[3, 5] = 1.0
    floors = [Noise(error, 40 * error, error)]
    span = float(TRUTH.max() - TRUTH.min())
    got = (TRUTH + off * error * np.sqrt(off.size)).astype(np.float32)
    noise = {"fp32": [Noise(1e-7, 1e-6, 1e-7)], "fp16": floors}
    first = judge(["y"], [[TRUTH]], [[got]], noise, PRECISIONS["fp16"], dtypes=["float32"])
    assert first.passed, first.sentence
    verdict = examined(first, noise, PRECISIONS["fp16"], [span / 3])
    assert (verdict.failure_kind is FailureKind.PRECISION) is lost, verdict.sentence
    assert ("the range of all its values (the limit is 0.5 ×)" in verdict.sentence) is lost
    assert examined(first, noise, PRECISIONS["fp16"], [3 * span]).passed
    if lost:
        assert largest_error(verdict.outputs[0]) == pytest.approx(0.9 * error, rel=1e-3)


def test_the_range_of_an_output_is_over_all_feeds_and_of_numbers_alone():
    feeds = [[np.array([1.0, np.inf]), np.array([1, 2])], [np.array([-2.0, np.nan]), np.array([3, 4])]]
    assert ranges(feeds) == [3.0, 0.0]


def test_a_fault_stays_a_fault():
    first, verdict = judged(0.1, 0.001)
    assert (verdict.outcome, verdict.failure_kind) == (Outcome.FAILED, FailureKind.NUMERIC)
    assert verdict.sentence == first.sentence


def test_where_the_noise_is_as_large_as_the_signal_no_error_explains_anything():
    """Twice the noise is nothing like the model either, and three times is no fault of the converter."""
    for error in (0.6, 3.0):
        _, verdict = judged(error, 1.0)
        assert verdict.failure_kind is FailureKind.PRECISION


@pytest.mark.parametrize(
    ("error", "outcome"), [(1e-7, Outcome.PASSED), (0.02, Outcome.PASSED), (0.1, Outcome.INCONCLUSIVE)]
)
def test_what_a_runtime_keeps_that_the_source_loses_is_judged_by_the_truth(error, outcome):
    """No precision is named by the size of an error that says nothing."""
    _, verdict = judged(error, 1.0)
    assert verdict.outcome is outcome
    assert "fp32 is what ran" not in verdict.sentence
    assert "the source's own rounding (1) is" in verdict.sentence


def test_what_fp32_does_not_know_either_has_no_signal_to_lose():
    tiny = 1e-8 * TRUTH
    first, verdict = judged(1e-3, 1e-3, truth=tiny)
    assert verdict.outputs == first.outputs


def test_fp32_and_the_users_own_tolerance_are_not_asked():
    from pytest_modelformats.compare.floating import Tolerance

    assert judged(1.0, 1.0, "fp32", fp32=1.0)[1].passed
    first, verdict = judged(1.0, 1.0, tolerances={"y": Tolerance(10.0, 0.0)})
    assert verdict.passed
    assert verdict.outputs == first.outputs


def test_other_verdicts_stay():
    wrong = TRUTH.astype(np.float32)
    wrong[0, 0] = np.nan
    floors = {"fp16": [Noise(1.0, 5.0, 1.0)]}
    verdict = judge(["y"], [[TRUTH]], [[wrong]], floors, PRECISIONS["fp16"], dtypes=["float32"])
    assert examined(verdict, floors, PRECISIONS["fp16"]).failure_kind is FailureKind.NAN


def test_the_signal_over_the_error_is_in_decibels():
    assert signal_db(1.0, 0.1) == pytest.approx(20.0)
    assert signal_db(1.0, 0.0) == float("inf")
    assert signal_db(0.0, 1.0) == -float("inf")
