"""Strategies: every drawn input obeys the specification, and the kinds of inputs that were promised come."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from pytest_modelformats.checks.fuzz import inputs
from pytest_modelformats.run.workers.calls import LAYOUTS
from pytest_modelformats.schema import TensorSpec
from pytest_modelformats.source.samples import make_samples

SPECS = [
    TensorSpec("x", "float32", ("N", 3, "S")),
    TensorSpec("ids", "int64", ("N", "S"), 2, 29),
    TensorSpec("mask", "bool", ("N", "S")),
    TensorSpec("half", "float16", ("N",)),
    TensorSpec("share", "float32", ("N", 2), 0, 1),
]
SAMPLES = make_samples(SPECS, 8, 0)
IMAGES = make_samples([TensorSpec("x", "float32", ("N", 3, "H", "W"))], 2, 0, {"H": 32, "W": 48})
STRATEGY = inputs.strategy(SPECS, SAMPLES)
QUIET = settings(max_examples=150, deadline=None, database=None, suppress_health_check=list(HealthCheck))


def drawn(count=400):
    """Many inputs, from one seed."""
    found = []

    @settings(max_examples=count, deadline=None, database=None, derandomize=True)
    @given(STRATEGY)
    def collect(one):
        found.append(one)

    collect()
    return found


@pytest.fixture(scope="module")
def many():
    return drawn()


@QUIET
@given(STRATEGY)
def test_every_input_obeys_the_specification(one):
    assert list(one.feed) == [s.name for s in SPECS]
    n, _, s = one.feed["x"].shape
    assert {name: a.shape for name, a in one.feed.items()} == {
        "x": (n, 3, s), "ids": (n, s), "mask": (n, s), "half": (n,), "share": (n, 2),
    }  # fmt: skip
    assert [a.dtype.name for a in one.feed.values()] == [s.dtype for s in SPECS]
    assert one.feed["ids"].min() >= 2
    assert one.feed["ids"].max() <= 29
    assert ((one.feed["share"] >= 0) & (one.feed["share"] <= 1)).all()
    assert all(np.isfinite(a).all() for a in one.feed.values())
    assert set(one.layouts.values()) <= set(LAYOUTS)


@QUIET
@given(inputs.strategy([TensorSpec("x", "float32", ("N", 3, "H", "W"))], IMAGES, of_images={"H": (32,), "W": (32, 48)}))
def test_images_have_the_sizes_in_use(one):
    """Of one pixel they may be what a source takes and nobody means."""
    assert one.feed["x"].shape[2:] in {(32, 32), (32, 48)}


def test_sizes_are_one_two_odd_and_the_largest(many):
    assert {one.feed["x"].shape[0] for one in many} == set(inputs.BATCH_SIZES)
    assert {1, 2, 3, 7, 16} <= {one.feed["x"].shape[2] for one in many}


@pytest.mark.parametrize(
    "kind",
    [
        lambda x: not x.any(),
        lambda x: (x != 0).sum() == 1,
        lambda x: x.size > 1 and (x == x.flat[0]).all() and x.any(),
        lambda x: (x < 0).all(),
        lambda x: ((x != 0) & (abs(x) < np.finfo(np.float32).tiny)).any(),
        lambda x: abs(x).max() > 50,
        lambda x: x.any() and abs(x[x != 0]).max() / abs(x[x != 0]).min() > 1e4,
    ],
    ids=["zeros", "one element", "constant", "negative", "denormal", "large", "mixed magnitudes"],
)
def test_the_promised_floats_come(many, kind):
    assert any(kind(one.feed["x"]) for one in many)


@pytest.mark.parametrize("token", [2, 3, 28, 29])
def test_tokens_at_the_edges_come(many, token):
    assert any((one.feed["ids"] == token).any() for one in many)


def test_every_memory_layout_comes(many):
    assert {one.layouts["x"] for one in many} == set(LAYOUTS)


def test_only_the_named_layouts_come():
    @QUIET
    @given(inputs.strategy(SPECS, SAMPLES, LAYOUTS[:1]))
    def check(one):
        assert set(one.layouts.values()) == {LAYOUTS[0]}

    check()


def test_a_range_that_nobody_states_is_the_samples():
    specs = [TensorSpec("ids", "int64", ("N", 4))]
    samples = make_samples([TensorSpec("ids", "int64", ("N", 4), 5, 9)], 8, 0)

    @QUIET
    @given(inputs.strategy(specs, samples))
    def check(one):
        assert 5 <= one.feed["ids"].min() <= one.feed["ids"].max() <= 9

    check()


def test_dimensions_without_a_name_are_equal_where_they_must_be():
    specs = [TensorSpec("a", "float32", ("?", "?")), TensorSpec("b", "float32", ("?", "?"))]

    @QUIET
    @given(inputs.strategy(specs, make_samples(specs, 8, 0)))
    def check(one):
        assert one.feed["a"].shape == one.feed["b"].shape

    check()


def test_a_fixed_shape_stays():
    specs = [TensorSpec("a", "float32", (2, 5))]

    @QUIET
    @given(inputs.strategy(specs, make_samples(specs, 8, 0)))
    def check(one):
        assert one.feed["a"].shape == (2, 5)

    check()


def test_a_digest_tells_inputs_apart():
    x = np.zeros((1, 2), np.float32)
    one = inputs.Generated({"x": x}, {"x": LAYOUTS[0]})
    assert one.digest == inputs.Generated({"x": x.copy()}, {"x": LAYOUTS[0]}, {"x": "zeros"}).digest
    others = [
        inputs.Generated({"x": x}, {"x": LAYOUTS[1]}),
        inputs.Generated({"x": x.reshape(2, 1)}, {"x": LAYOUTS[0]}),
        inputs.Generated({"x": x.astype(np.float16)}, {"x": LAYOUTS[0]}),
        inputs.Generated({"x": -x}, {"x": LAYOUTS[0]}),
    ]
    assert one.digest not in {o.digest for o in others}
