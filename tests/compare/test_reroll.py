"""Rounding is re-rolled when the inputs move by one unit of rounding, a fault is not."""

from __future__ import annotations

import numpy as np
import pytest

from pytest_modelformats.compare.effective_precision import (
    correlation,
    moved,
    settle,
    settle_by_place,
    settle_by_statement,
    suspects,
)
from pytest_modelformats.schema import PRECISIONS, FailureKind, Outcome, OutputParity, Verdict

RNG = np.random.default_rng(0)
PATTERN = RNG.standard_normal((7, 10))
OTHER = RNG.standard_normal((7, 10))


def verdict(ran="bf16"):
    output = OutputParity("y", Outcome.FALLBACK, None, "bf16 is what ran", 0.1, 0.4, 1e-6, 4e-6, 1e5, 1e5, ran)
    return Verdict(Outcome.FALLBACK, None, output.sentence, (output,))


def test_an_error_that_changes_with_the_inputs_stays_a_fallback():
    settled = settle(verdict(), "bf16", [PATTERN], [0.9 * PATTERN + 0.44 * OTHER], None)
    assert settled.outcome is Outcome.FALLBACK


def test_an_error_that_stays_the_same_is_a_fault():
    settled = settle(verdict(), "bf16", [PATTERN], [PATTERN + 0.01 * OTHER], None)
    assert (settled.outcome, settled.failure_kind) == (Outcome.FAILED, FailureKind.NUMERIC)
    assert "stays the same when the inputs move" in settled.sentence
    assert settled.outputs[0].effective_precision == ""


def test_an_error_that_the_source_with_rounded_weights_makes_is_a_fallback():
    settled = settle(verdict("fp16"), "fp16", [PATTERN], [PATTERN], [PATTERN + 0.1 * OTHER])
    assert settled.outcome is Outcome.FALLBACK
    part_of_it = settle(verdict("fp16"), "fp16", [PATTERN], [PATTERN], [PATTERN + 2 * OTHER])
    assert part_of_it.outcome is Outcome.FAILED


def test_only_a_coarser_precision_is_suspect():
    assert suspects(verdict("bf16"), PRECISIONS["fp32"]) == "bf16"
    assert suspects(verdict("bf16"), PRECISIONS["fp16"]) == "bf16"
    assert suspects(verdict("fp32"), PRECISIONS["fp16"]) == ""
    assert suspects(Verdict(Outcome.PASSED, None, ""), PRECISIONS["fp32"]) == ""


@pytest.mark.parametrize(("precision", "unit"), [("fp16", 2**-11), ("bf16", 2**-8)])
def test_every_float_moves_by_one_unit_and_integers_stay(precision, unit):
    feed = {"x": np.linspace(1, 2, 50, dtype=np.float32), "ids": np.arange(3)}
    other = moved(feed, precision)
    assert np.allclose(np.abs(other["x"] / feed["x"] - 1), unit, rtol=1e-3)
    assert other["x"].dtype == np.float32
    assert (other["ids"] == feed["ids"]).all()


def test_no_error_correlates_with_nothing():
    assert correlation(np.zeros(4), np.ones(4)) == 0.0
    assert correlation(np.array([1.0, np.nan]), np.array([2.0, 1.0])) == pytest.approx(1.0)


# --- inputs that cannot be moved


def test_an_error_in_some_rows_alone_is_a_fault():
    """One wrong row of an embedding: what rounding at bf16 would change is right elsewhere."""
    wrong = np.zeros_like(PATTERN)
    wrong[3:5] = 2 * OTHER[3:5]
    settled = settle_by_place(verdict(), "bf16", [wrong + 1e-6 * OTHER], [PATTERN])
    assert (settled.outcome, settled.failure_kind) == (Outcome.FAILED, FailureKind.NUMERIC)
    assert "many elements that it would change are right" in settled.sentence
    assert settled.outputs[0].effective_precision == ""


def test_an_error_everywhere_stays_a_fallback():
    """Two runs at bf16, also where some elements are zero in both (a ReLU)."""
    dead = (np.arange(70) % 3 > 0).reshape(7, 10)
    assert settle_by_place(verdict(), "bf16", [OTHER], [PATTERN]).outcome is Outcome.FALLBACK
    assert settle_by_place(verdict(), "bf16", [OTHER * dead], [PATTERN * dead]).outcome is Outcome.FALLBACK
    assert settle_by_place(verdict(), "bf16", [PATTERN], [PATTERN]).outcome is Outcome.FALLBACK


def test_what_the_runtime_states_decides_where_inputs_cannot_be_moved():
    """A size that fits is the weaker ground; an error that is the rounded weights' stays what it is called."""
    settled = settle_by_statement(verdict(), "bf16", [PATTERN], None)
    assert (settled.outcome, settled.failure_kind) == (Outcome.FAILED, FailureKind.NUMERIC)
    assert "states another precision for every operator" in settled.sentence
    weights = settle_by_statement(verdict("fp16"), "fp16", [PATTERN], [PATTERN + 0.1 * OTHER])
    assert weights.outcome is Outcome.FALLBACK
    part_of_it = settle_by_statement(verdict("fp16"), "fp16", [PATTERN], [PATTERN + 2 * OTHER])
    assert part_of_it.outcome is Outcome.FAILED
