"""A single generated input is judged by what rounding costs there, and around it."""

from __future__ import annotations

import numpy as np
import pytest

from pytest_modelformats.compare import single_input
from pytest_modelformats.compare.noise import Noise
from pytest_modelformats.schema import PRECISIONS, FailureKind, Outcome, TensorSpec

FP32 = PRECISIONS["fp32"]
WEIGHTS = np.random.default_rng(0).normal(size=(12, 5))
TINY = np.float32(np.finfo(np.float32).tiny)


def source(feed, precision):
    """A linear layer in float64, and at fp32 or fp16 with every result rounded."""
    x = feed["x"].astype(np.float64)
    if precision == "float64":
        return [x @ WEIGHTS]
    dtype = {"fp32": np.float32, "fp16": np.float16}[precision]
    with np.errstate(over="ignore", invalid="ignore"):
        return [(x.astype(dtype) @ WEIGHTS.astype(dtype)).astype(np.float32)]


class Asked:
    """The source, and what it was asked."""

    def __init__(self, law=source):
        self.law = law
        self.precisions = []

    def __call__(self, feeds, precision):
        self.precisions += [precision] * len(feeds)
        return [self.law(feed, precision) for feed in feeds]


def judgement(asked, precision=FP32):
    usual = single_input.Usual(1e-7, 1e-7, 0.0)
    return single_input.Judgement([TensorSpec("y", "float32", ("N", 5))], precision, [usual], {"x": 1.0}, asked)


def judged(x, got, asked=None, **more):
    asked = asked or Asked()
    judge = judgement(asked, **more)
    feed = {"x": x}
    truth, rounded = judge.expected(feed)
    return judge.settled(feed, truth, rounded, [got(x)])


def backwards(x):
    return (x[:, ::-1] @ WEIGHTS[::-1].astype(np.float32)).astype(np.float32)


X = np.random.default_rng(1).normal(size=(3, 12)).astype(np.float32)


@pytest.mark.parametrize("x", [X, X * 0, np.ones_like(X), X * 1e4, X[:1], np.full((2, 12), 1e-40, np.float32)])
def test_another_order_of_summation_is_right(x):
    assert judged(x, backwards).passed


@pytest.mark.parametrize("by", [1e-3, 1e-4])
def test_a_fault_is_a_fault(by):
    verdict = judged(X, lambda x: backwards(x) * np.float32(1 + by))
    assert verdict.failure_kind is FailureKind.NUMERIC


def test_nothing_more_is_asked_of_the_source_where_the_first_look_passes():
    asked = Asked()
    assert judged(X, backwards, asked).passed
    assert asked.precisions == ["float64", "fp32"]


def test_rounding_that_happens_to_be_exact_is_measured_again_around_the_input():
    """On this one input the source's rounding costs nothing; on its neighbours it does."""

    def law(feed, precision):
        truth = source(feed, "float64")
        return (
            truth if precision == "float64" or (feed["x"] == 1).all() else [truth[0] + 1e-3 * np.sin(feed["x"].sum())]
        )

    ones = np.ones((1, 12), np.float32)
    asked = Asked(law)
    verdict = judged(ones, lambda x: backwards(x) + np.float32(2e-4), asked)
    assert verdict.passed, verdict.sentence
    assert len(asked.precisions) == 2 + 2 * single_input.MOVES


def test_a_result_without_numbers_is_no_fault_and_asks_no_more_of_the_source():
    asked = Asked(lambda feed, _: [feed["x"][:, :5].astype(np.float64) * np.nan])
    verdict = judged(X, lambda x: np.full((3, 5), np.nan, np.float32), asked)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert len(asked.precisions) == 2


def test_denormals_may_be_flushed_and_nothing_else():
    x = np.full((1, 12), TINY / 16, np.float32)
    assert judged(x, lambda x: backwards(x * 0)).passed
    wrong = judged(x, lambda x: backwards(x * 0) + np.float32(1e-3))
    assert not wrong.passed
    nan = judged(x, lambda x: backwards(x) * np.float32("nan"))
    assert nan.failure_kind is FailureKind.NAN


def test_zeros_stay_and_normal_numbers_are_not_flushed():
    feed = {"x": np.array([0, TINY, TINY / 2, -TINY / 2, 1], np.float32), "ids": np.array([1])}
    assert single_input.has_denormals(feed)
    flushed = single_input.flush(feed)
    assert flushed["x"].tolist() == [0, float(TINY), 0, 0, 1]
    assert flushed["ids"] is feed["ids"]
    assert not single_input.has_denormals(flushed)


def test_what_overflows_in_the_source_itself_is_not_judged():
    with pytest.raises(single_input.OverflowsItself):
        judged(X * np.float32(1e5), backwards, precision=PRECISIONS["fp16"])
    assert judged(X * np.float32(1e5), backwards).passed


def test_equal_rows_in_are_equal_rows_out():
    """The float64 rows of a product differ in their last bits; that a result has none of that is no fault."""

    def law(feed, precision):
        (y,) = source(feed, precision)
        return [y * (1 + 1e-16 * np.arange(len(y))[:, None])] if precision == "float64" else [y]

    rows = np.repeat(X[:1], 4, 0)
    assert judged(rows, lambda x: np.repeat(backwards(x[:1]), len(x), 0), Asked(law)).passed


def test_rows_that_differ_must_come_out_different():
    verdict = judged(X, lambda x: np.repeat(backwards(x[:1]), len(x), 0))
    assert not verdict.passed


def test_a_neighbour_moves_zeros_too_and_leaves_integers():
    feed = {"x": np.zeros((2, 3), np.float32), "ids": np.arange(3)}
    one, other = (single_input.neighbour(feed, 23, {"x": 4.0}, seed) for seed in (0, 1))
    assert np.allclose(np.abs(one["x"]), 4 * 2.0**-24)
    assert not np.array_equal(one["x"], other["x"])
    assert one["ids"] is feed["ids"]


def test_the_usual_noise_is_relative_to_the_size_of_the_outputs():
    truths = [[np.full((2, 2), 100.0)], [np.full((2, 2), 100.0)]]
    (usual,) = single_input.usual_noise(truths, [Noise(1e-3, 5e-3, 1e-3)])
    assert (usual.rms, usual.max) == pytest.approx((1e-5, 5e-5))
    quiet = [np.full((1, 2), 10.0)]
    (noise,) = single_input.noise_of(quiet, quiet, [usual], FP32)
    assert (noise.rms, noise.max) == pytest.approx((1e-4, 5e-4))


def test_what_counts_is_what_is_seen_at_the_outputs_usual_size():
    """1e-10 off where outputs are 1 and their noise 1e-7 is nothing, also on an input whose output is 1e-12."""
    usual = single_input.usual_noise([[np.ones((4, 5))]], [Noise(1e-7, 3e-7, 1e-7)])
    judge = single_input.Judgement([TensorSpec("y", "float32", ("N", 5))], FP32, usual, {"x": 1.0}, Asked())
    small = X * np.float32(1e-12)
    truth, rounded = judge.expected({"x": small})
    assert judge.settled({"x": small}, truth, rounded, [backwards(small) + np.float32(1e-10)]).passed
    wrong = judge.settled({"x": small}, truth, rounded, [backwards(small) + np.float32(1e-6)])
    assert wrong.failure_kind is FailureKind.NUMERIC
