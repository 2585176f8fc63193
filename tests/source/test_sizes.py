"""The sizes of free dimensions: as they are stated, or the smallest that the source takes."""

from __future__ import annotations

import shlex

import numpy as np
import pytest

from pytest_modelformats.errors import RunError
from pytest_modelformats.schema import TensorSpec
from pytest_modelformats.schema.sizes import DATA, METADATA, Dimension
from pytest_modelformats.source import sizes, stated_inputs

IMAGE = [TensorSpec("x", "float32", ("p2o.Dim.0", 3, "p2o.Dim.1", "W"))]


def multiples(of):
    """A source that takes sides of whole multiples."""
    return lambda dims: "" if not any(size % of for size in dims.values()) else f"{dims} do not fit"


def test_the_smallest_that_the_source_takes_is_used_and_others_are_kept():
    found = sizes.tried("net", IMAGE, (), multiples(32))
    assert found.by_symbol == {"p2o.Dim.1": 64, "W": 64}
    assert [tuple(one.values()) for one in found.further] == [(64, 96), (224, 224)]
    found = sizes.tried("net", IMAGE, (), multiples(224))
    assert (found.by_symbol, found.further) == ({"p2o.Dim.1": 224, "W": 224}, ())


def test_no_further_size_is_below_the_first_in_any_dimension():
    found = sizes.tried("net", IMAGE, (), lambda dims: "" if dims["W"] != 96 else "no")
    first = found.by_symbol
    assert found.further
    assert all(one[symbol] >= first[symbol] for one in found.further for symbol in first)


def test_a_size_that_is_stated_stays():
    stated = (Dimension("W", "x", 3, 320, METADATA, "imgsz"),)
    asked = []
    found = sizes.tried("net", IMAGE, stated, lambda dims: asked.append(dims) or "")
    assert {dims["W"] for dims in asked} == {320}
    assert [d.by for d in found.dimensions] == ["tried", "metadata"]


def test_a_source_that_takes_none_is_said_to_with_what_was_tried_and_what_to_add():
    with pytest.raises(RunError) as caught:
        sizes.tried("net", IMAGE, (), lambda dims: "the runtime does not take it.")
    said = str(caught.value)
    assert "nothing states the size of dimension 2 of 'x' and 'W'" in said
    assert "x[2] 64, W 64" in said
    assert "the runtime does not take it. Next: state the sizes, as in --mf-input 'x:float32[N,3,64,64]'" in said


def test_the_sentence_names_the_dimensions_the_sizes_and_the_option():
    said = sizes.notice("net", sizes.tried("net", IMAGE, (), multiples(32)))
    assert "net: nothing states the size of dimension 2 of 'x' and 'W'; x[2] 64, W 64 is the smallest tried" in said
    assert "judged at x[2] 64, W 64; x[2] 64, W 96; x[2] 224, W 224" in said
    assert "--mf-input 'x:float32[N,3,64,64]'" in said
    assert sizes.notice("net", sizes.Sizes((Dimension("W", "x", 3, 320, DATA),))) == ""


def test_what_is_proposed_can_be_pasted():
    """Also for names with a colon or a quote; an input of which nothing is free needs no option."""
    inputs = [TensorSpec("a", "float32", ("N", 4)), TensorSpec("it's:0", "float32", ("N", "S")), IMAGE[0]]
    pins = sizes.pins(inputs, {"S": 16, "p2o.Dim.1": 64, "W": 96})
    assert pins == ("it's:0:float32[N,16]", "x:float32[N,3,64,96]")
    pasted = shlex.split(sizes.options(pins))
    assert pasted[::2] == ["--mf-input", "--mf-input"]
    merged, _ = stated_inputs.apply("m.onnx", inputs, [], [TensorSpec.parse(text) for text in pasted[1::2]])
    assert [spec.shape for spec in merged] == [("N", 4), ("N", 16), ("N", 3, 64, 96)]
    assert [(d.symbol, d.size, d.by) for d in sizes.pinned(inputs, merged)] == [
        ("S", 16, "--mf-input"),
        ("p2o.Dim.1", 64, "--mf-input"),
        ("W", 96, "--mf-input"),
    ]


def test_sizes_of_samples_are_those_of_the_arrays():
    found = sizes.of_feed(IMAGE, {"x": np.zeros((5, 3, 7, 9))}, DATA, "val.npz")
    assert found.by_symbol == {"p2o.Dim.1": 7, "W": 9}
    assert sizes.said(found.dimensions) == "x[2] 7, W 9 (by the samples: val.npz)"
    assert sizes.why_no_latency(found) == ""


def test_the_sizes_of_images_that_are_in_use_are_all_that_inputs_are_generated_at():
    found = sizes.tried("net", [*IMAGE, TensorSpec("ids", "float32", ("N", "S"))], (), multiples(32))
    assert set(sizes.of_images(IMAGE, found)) == {"p2o.Dim.1", "W"}
    assert 64 in sizes.of_images(IMAGE, found)["W"]
