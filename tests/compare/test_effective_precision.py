"""Where the size of an error fits two precisions, it is named after the one that makes such an error."""

from __future__ import annotations

import numpy as np
import pytest

from pytest_modelformats.compare import effective_precision
from pytest_modelformats.compare.noise import Noise
from pytest_modelformats.schema import PRECISIONS, Outcome, OutputParity, Verdict

RANDOM = np.random.default_rng(0)
TF32, FP16, WEIGHTS, OTHER = (RANDOM.standard_normal((7, 10)) for _ in range(4))
NOISE = {p: [Noise(rms, 4 * rms, rms)] for p, rms in {"fp32": 1e-7, "tf32": 1.0, "fp16": 1.5, "bf16": 10.0}.items()}
NOISE["fp16-weights"] = [Noise(0.8, 3.0, 0.8)]
ROUNDED = {"tf32": [TF32], "fp16": [FP16], "fp16-weights": [WEIGHTS]}
FP32 = PRECISIONS["fp32"]


def fallback(ran, error_rms=1.0):
    output = OutputParity("y", Outcome.FALLBACK, None, "said", error_rms, 4.0, 1e-7, 4e-7, 1e7, 1e7, ran)
    return Verdict(Outcome.FALLBACK, None, "said", (output,))


def name(error, ran="fp16", noise=NOISE, error_rms=1.0, rounded=ROUNDED):
    found = effective_precision.named(fallback(ran, error_rms), [error], rounded, noise, FP32)
    return found.outputs[0].effective_precision, found.sentence


@pytest.mark.parametrize("by_size", ["tf32", "fp16"])
@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (TF32 + 0.1 * OTHER, "tf32"),
        (WEIGHTS + 0.1 * OTHER, "fp16-weights"),
        (FP16 + 1.5 * OTHER, "fp16"),
        (FP16 + TF32, "fp16"),  # half alike is not alike
        (OTHER, "fp16"),
    ],
)
def test_the_pattern_of_the_error_decides_and_not_its_size(error, expected, by_size):
    """TF32 and rounded weights repeat their errors; fp16 arithmetic is what neither of them made."""
    ran, sentence = name(error, by_size)
    assert ran == expected
    assert f"asked for fp32, {expected} is what ran. Next: judge or ship it as {expected}," in sentence


def test_an_error_of_another_size_is_not_named_for_its_pattern():
    """A wrong factor makes the pattern of a rounded one; its size gives it away."""
    smaller = {**NOISE, "fp16-weights": [Noise(100.0, 400.0, 100.0)], "fp16": [Noise(100.0, 400.0, 100.0)]}
    assert name(WEIGHTS, "tf32", smaller) == ("tf32", "said")


def test_what_cannot_be_mistaken_is_left_alone():
    """bf16 is eight times coarser than both."""
    assert not effective_precision.ambiguous(fallback("bf16"))
    assert effective_precision.ambiguous(fallback("tf32"))
    assert not effective_precision.ambiguous(Verdict(Outcome.PASSED, None, ""))
    assert name(TF32, "bf16") == ("bf16", "said")


def test_without_another_evaluation_the_size_decides():
    """Nothing to compare with: the verdict stays."""
    assert name(TF32, "fp16", rounded={}) == ("fp16", "said")


def test_several_outputs_get_one_name():
    """One process runs at one precision: the output that is least alike decides for all."""
    two = Verdict(Outcome.FALLBACK, None, "said", fallback("fp16").outputs * 2)
    noise = {p: values * 2 for p, values in NOISE.items()}
    rounded = {p: values * 2 for p, values in ROUNDED.items()}
    both = effective_precision.named(two, [TF32, TF32], rounded, noise, FP32)
    assert [o.effective_precision for o in both.outputs] == ["tf32", "tf32"]
    one = effective_precision.named(two, [TF32, OTHER], rounded, noise, FP32)
    assert [o.effective_precision for o in one.outputs] == ["fp16", "fp16"]


def test_differences_are_of_floats():
    """A boolean has no difference; numpy refuses to subtract it."""
    got, truth = [np.array([True, False]), np.ones(2, np.float32)], [np.array([False, False]), np.zeros(2)]
    assert [e.tolist() for e in effective_precision.errors(got, truth)] == [[0, 0], [1, 1]]


# --- the file itself, evaluated in float64


@pytest.mark.parametrize(
    ("graph", "outcome"),
    [
        (OTHER, Outcome.FAILED),  # a lost bias, another threshold, one rounded tensor: the file's own error
        (0.3 * OTHER, Outcome.FALLBACK),  # most of the error is not the file's
        (0 * OTHER, Outcome.FALLBACK),  # the file is right: what ran it rounds
    ],
)
def test_a_file_that_makes_the_error_itself_is_no_other_precision(graph, outcome):
    verdict = effective_precision.settle_by_graph(fallback("fp16"), "fp16", [OTHER], [graph])
    assert verdict.outcome is outcome
    assert (verdict.outputs[0].effective_precision == "") is (outcome is Outcome.FAILED)
    assert ("evaluated in float64" in verdict.sentence) is (outcome is Outcome.FAILED)


def test_errors_in_one_direction_are_not_the_same_error():
    assert effective_precision.apart(3 * OTHER, OTHER) == pytest.approx(2)
    assert effective_precision.apart(OTHER, OTHER) == 0
    assert effective_precision.correlation(3 * OTHER, OTHER) == pytest.approx(1)
