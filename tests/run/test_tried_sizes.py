"""Finding sizes by running the source: what it refuses, and what it returns and nothing can be made of."""

from __future__ import annotations

import numpy as np
import pytest

from pytest_modelformats.errors import RunError, Unsupported, WorkerTimeout
from pytest_modelformats.run import sizes
from pytest_modelformats.schema import Description, TensorSpec

IMAGE = Description((TensorSpec("x", "float32", ("N", 3, "H", "W")),), (TensorSpec("y", "float32", ("N",)),), "")


def found(evaluate):
    return sizes.find("net", IMAGE, "", lambda: None, evaluate, 0)


def evaluating(of_side):
    return lambda feeds: [[np.full(1, of_side(feeds[0]["x"].shape[2]), np.float32)]]


@pytest.mark.parametrize("nothing", [np.nan, np.inf])
def test_a_size_at_which_the_source_returns_no_number_is_not_taken(nothing):
    got = found(evaluating(lambda height: 1.0 if height == 48 else nothing))
    assert got.by_symbol == {"H": 48, "W": 320}


def test_where_no_size_gives_a_number_it_is_not_the_size():
    """The values are to blame, and the verdict says so; no size is run twice."""
    heights = []

    def evaluate(feeds):
        heights.append(feeds[0]["x"].shape[2:])
        if heights[-1] == (64, 64):
            raise RunError("too small")
        return [[np.full(1, np.nan, np.float32)]]

    assert found(evaluate).by_symbol == {"H": 64, "W": 96}
    assert len(heights) == len(set(heights))
    with pytest.raises(RunError, match="takes none of those that were tried"):
        found(lambda feeds: (_ for _ in ()).throw(RunError("no")))


def test_an_empty_output_is_none():
    def evaluate(feeds):
        return [[np.zeros(feeds[0]["x"].shape[2] // 224, np.float32)]]

    assert found(evaluate).by_symbol == {"H": 224, "W": 224}


@pytest.mark.parametrize("error", [Unsupported("no such operator"), WorkerTimeout("too long")])
def test_what_is_no_matter_of_the_size_is_not_taken_for_one(error):
    def evaluate(feeds):
        raise error

    with pytest.raises(type(error)):
        found(evaluate)


def test_one_row_is_run_of_each_size():
    rows = []

    def evaluate(feeds):
        rows.append(len(feeds[0]["x"]))
        return [[np.ones(1, np.float32)]]

    found(evaluate)
    assert rows == [1, 1, 1]
