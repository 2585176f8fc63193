"""Laws that need no reference: repeats and batches."""

from __future__ import annotations

import numpy as np
import pytest

from pytest_modelformats.compare import between_runs
from pytest_modelformats.compare.noise import Noise
from pytest_modelformats.schema import PRECISIONS, FailureKind, Outcome, Verdict

FP32 = PRECISIONS["fp32"]
NOISE = {"fp32": [Noise(1e-6, 4e-6, 1e-6)], "fp16": [Noise(1e-2, 4e-2, 1e-2)], "bf16": [Noise(8e-2, 0.3, 8e-2)]}
ONE = [np.linspace(-1, 1, 64, dtype=np.float32).reshape(2, 32)]


def law(again=ONE, fresh=ONE):
    return between_runs.determinism(["y"], ONE, again, fresh, NOISE, FP32)


def moved(by):
    rng = np.random.default_rng(0)
    return [ONE[0] + (by * rng.standard_normal(ONE[0].shape)).astype(np.float32)]


def test_the_same_bits_pass():
    assert law().passed
    assert "same bits" in law().sentence


def test_rounding_apart_passes_and_is_reported():
    verdict = law(again=moved(1e-6))
    assert verdict.passed
    assert verdict.sentence.startswith("Not bit-equal in the second run")


@pytest.mark.parametrize("where", ["again", "fresh"])
def test_more_than_rounding_apart_fails(where):
    verdict = law(**{where: moved(1e-4)})
    assert (verdict.outcome, verdict.failure_kind) == (Outcome.FAILED, FailureKind.NUMERIC)
    assert ("the second run" if where == "again" else "a fresh session") in verdict.sentence


def test_nan_that_comes_and_goes_fails():
    broken = [ONE[0].copy()]
    broken[0][1, 3] = np.nan
    assert law(again=broken).failure_kind is FailureKind.NAN


def test_a_missing_output_is_never_equal():
    assert not between_runs.bit_equal(ONE, [])
    assert law(fresh=[]).failure_kind is FailureKind.CONTRACT


def test_minus_zero_is_not_the_same_bits_but_the_same_number():
    assert not between_runs.bit_equal([np.zeros(3)], [-np.zeros(3)])


def test_the_first_law_that_is_broken_is_named():
    good = Verdict(Outcome.PASSED, None, "fine")
    bad = Verdict(Outcome.FAILED, FailureKind.NUMERIC, "it is off")
    assert between_runs.worst({"a": good}, "all agree").sentence == "all agree"
    assert between_runs.worst({"a": good, "batch 3": bad, "c": good}, "all agree").sentence == "batch 3: it is off"
