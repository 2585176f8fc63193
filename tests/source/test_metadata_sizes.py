"""What the metadata of model files state of the sizes of their inputs."""

from __future__ import annotations

import json

import pytest

from pytest_modelformats.schema import TensorSpec
from pytest_modelformats.source import metadata_sizes

IMAGE = [TensorSpec.parse("images:float32[batch,3,height,width]")]
LAST = [TensorSpec.parse("x:float32[N,H,W,3]")]
TOKENS = [TensorSpec.parse("ids:int64[N,S]{0..9}"), TensorSpec.parse("mask:int64[N,S]{0..1}")]


def sizes(specs, metadata):
    return {symbol: size for symbol, (size, _) in metadata_sizes.stated(specs, metadata).items()}


@pytest.mark.parametrize(
    "metadata",
    [
        {"imgsz": "[640, 480]"},  # ultralytics
        {"imgsz": "(640, 480)"},
        {"input_shape": "[1, 3, 640, 480]"},
        {"input_shape": "[-1, 3, 640, 480]"},
        {"input_size": "3, 640, 480"},
        {"inputSize": "640x480"},
        {"height": "640", "width": "480"},
        {"config": json.dumps({"input_size": [3, 640, 480]})},
        {"preprocessor_config": json.dumps({"size": {"height": 640, "width": 480}})},
        {"input_shapes": json.dumps({"images": [1, 3, 640, 480]})},
        {"pre": json.dumps({"size": {"height": 800, "width": 800}, "crop_size": {"height": 640, "width": 480}})},
    ],
)
def test_height_and_width_are_read(metadata):
    assert sizes(IMAGE, metadata) == {"height": 640, "width": 480}


def test_one_number_is_both_sides():
    assert sizes(IMAGE, {"imgsz": "640"}) == {"height": 640, "width": 640}
    assert sizes(IMAGE, {"p": json.dumps({"size": {"shortest_edge": 224}})}) == {"height": 224, "width": 224}


def test_the_layout_is_the_inputs_own():
    assert sizes(LAST, {"imgsz": "[640, 480]"}) == {"H": 640, "W": 480}
    assert sizes(LAST, {"input_shape": "[1, 640, 480, 3]"}) == {"H": 640, "W": 480}


def test_a_dimension_that_is_named_is_read_for_what_it_is():
    assert sizes(TOKENS, {"s": "128"}) == {"S": 128}
    assert sizes(TOKENS, {"input_shape": "[1, 128]"}) == {"S": 128}


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"imgsz": "large"},
        {"imgsz": "[0, 0]"},
        {"imgsz": "[640.5, 480]"},
        {"imgsz": "[1, 1, 640, 480]"},  # another number of channels
        {"imgsz": "[" * 5000},
        {"size": "12150158"},  # of the file, say
        {"names": "{0: 'size', 1: 'imgsz'}"},
        {"stride": "32", "batch": "1", "batch_size": "8"},
        {"note": "x" * 200_000},
    ],
)
def test_what_states_no_size_of_such_inputs_is_left_alone(metadata):
    assert sizes(IMAGE, metadata) == {}


def test_the_key_and_its_value_are_named():
    (one, _) = metadata_sizes.dimensions(IMAGE, {"imgsz": "[640, 480]"})
    assert (one.symbol, one.input, one.axis, one.size) == ("height", "images", 2, 640)
    assert (one.by, one.detail) == ("metadata", "imgsz [640, 480]")
