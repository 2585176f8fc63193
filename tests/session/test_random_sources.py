"""A source that draws numbers has no truth: its randomness is not taken for rounding noise."""

from __future__ import annotations

import numpy as np
import pytest

from pytest_modelformats.run.workers.repeating import differing

ROWS = np.random.default_rng(0).normal(size=(1, 5)) * 1e3


@pytest.mark.parametrize(
    "other",
    [
        ROWS,
        ROWS * (1 + 2.0**-50),  # another order of a sum
        np.where(ROWS > 0, np.nan, ROWS),
        np.where(ROWS > 0, np.inf, ROWS),
        np.zeros((0, 3)),
        np.array([[1, 2]]),
    ],
)
def test_what_repeats_is_not_random(other):
    assert differing([other], [other.copy()]) == ""


def test_the_order_of_a_sum_is_no_randomness():
    assert differing([ROWS], [ROWS * (1 + 2.0**-50)]) == ""


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (ROWS, ROWS * (1 + 2.0**-30)),
        (ROWS, np.where(ROWS > 0, np.nan, ROWS)),
        (np.where(ROWS > 0, np.inf, ROWS), ROWS),
        (np.array([1, 2]), np.array([1, 3])),
        (np.zeros((3, 2)), np.zeros((4, 2))),
    ],
)
def test_what_does_not_repeat_is(one, other):
    assert differing([ROWS, one], [ROWS, other]).startswith("the same input gives")
    assert "output 1" in differing([ROWS, one], [ROWS, other])


RANDOM = """
import torch

class Dropped(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(5, 64)
        self.last = torch.nn.Linear(64, 3)

    def forward(self, x):
        return self.last(torch.nn.functional.dropout(self.first(x), 0.5, training={always}))

def model():
    torch.manual_seed(0)
    return Dropped().eval()
"""


@pytest.mark.slow
@pytest.mark.parametrize("always", [True, False])
def test_a_dropout_that_is_always_on_leaves_nothing_to_judge(run, pytester, always):
    """Neither parity nor determinism pass by it, and the sentence says what it is; without it both are judged."""
    name = "always" if always else "still"
    (pytester.path / f"{name}.py").write_text(RANDOM.format(always=always))
    ran = run(
        f"--mf-model={name}.py:model", "--mf-input=x:float32[N,5]", "--mf-backends=torch", "--mf-precisions=fp32",
        "--mf-devices=cpu", "--mf-suites=contract,parity,determinism",
    )  # fmt: skip
    (cell,) = {c for c, _ in ran.outcomes}
    wanted = "inconclusive" if always else "passed"
    assert [ran.outcomes[cell, check] for check in ("parity", "determinism")] == [wanted] * 2
    if always:
        assert "is random: the same input gives other values" in ran.checks[cell, "parity"]["sentence"]
