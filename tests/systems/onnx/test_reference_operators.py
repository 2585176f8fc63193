"""The operators that stand in for onnx.reference's own are those of ONNX, as ONNX Runtime and PyTorch compute them."""

from __future__ import annotations

import itertools

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from pytest_modelformats.systems.onnx.reference import operators

SEEDS = range(60)


def both(kind, feed, attributes, opset=18):
    """What ONNX Runtime gives in fp32, and the reference on the same numbers in float64."""
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, a.shape) for name, a in feed.items()]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    node = helper.make_node(kind, list(feed), ["y"], **attributes)
    graph = helper.make_graph([node], "one", inputs, [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    theirs = session.run(None, feed)[0]
    wide = {name: a.astype(np.float64) for name, a in feed.items()}
    return theirs, operators.evaluator()(model).run(None, wide)[0]


def alike(theirs, ours):
    assert ours.shape == theirs.shape
    assert ours.dtype == np.float64
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def drawn(seed, *, transposed=False):
    """A random convolution: input, weights, bias, and attributes of every kind that ONNX has."""
    draw = np.random.default_rng(seed)
    rank, group = int(draw.integers(1, 4)), int(draw.choice([1, 1, 2, 3]))
    inside, outside = group * int(draw.integers(1, 4)), group * int(draw.integers(1, 4))
    kernel, strides, dilations = (draw.integers(1, high, rank).tolist() for high in (4, 4, 3))
    shape = (inside, outside // group, *kernel) if transposed else (outside, inside // group, *kernel)
    places = draw.integers(8, 12, rank) if rank < 3 else draw.integers(8, 10, rank)
    feed = {"x": draw.normal(size=(2, inside, *places)), "w": draw.normal(size=shape)}
    if draw.random() < 0.5:
        feed["b"] = draw.normal(size=outside)
    attributes = {"strides": strides, "dilations": dilations, "group": group}
    pads = draw.integers(0, 3, 2 * rank).tolist()
    chosen = str(draw.choice(["pads", "none", "VALID", "SAME_UPPER", "SAME_LOWER"]))
    if chosen == "pads":
        attributes["pads"] = pads
    elif chosen != "none":
        attributes["auto_pad"] = chosen
        if chosen.startswith("SAME") and not transposed:
            attributes["dilations"] = [1] * rank  # ONNX Runtime takes no others with it
    return {name: a.astype(np.float32) for name, a in feed.items()}, attributes, draw


@pytest.mark.parametrize("seed", SEEDS)
def test_a_convolution_is_that_of_onnx_runtime(seed):
    feed, attributes, _ = drawn(seed)
    alike(*both("Conv", feed, attributes))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_transposed_convolution_is_that_of_onnx_runtime(seed):
    """Also in groups, for which onnx.reference slices the weights by the wrong dimension."""
    feed, attributes, draw = drawn(seed, transposed=True)
    if draw.random() < 0.5 and "auto_pad" not in attributes:
        attributes["output_padding"] = [int(s > 1) for s in attributes["strides"]]
    if attributes.get("auto_pad", "").startswith("SAME"):
        attributes["dilations"] = [1] * (feed["x"].ndim - 2)
        # A stride beyond the kernel would need places that nothing is spread to: ONNX Runtime leaves them out.
        attributes["strides"] = [min(s, k) for s, k in zip(attributes["strides"], feed["w"].shape[2:], strict=True)]
    alike(*both("ConvTranspose", feed, attributes))


@pytest.mark.parametrize("seed", SEEDS)
def test_the_largest_of_a_window_is_that_of_onnx_runtime(seed):
    feed, attributes, draw = drawn(seed)
    kernel = draw.integers(1, 4, feed["x"].ndim - 2).tolist()
    del attributes["group"]
    if "pads" in attributes:  # not more than the kernel
        attributes["pads"] = [min(p, k - 1) for p, k in zip(attributes["pads"], kernel * 2, strict=True)]
    if "auto_pad" not in attributes:
        attributes["ceil_mode"] = int(draw.random() < 0.5)
    elif attributes["auto_pad"].startswith("SAME"):  # with a stride beyond the kernel ONNX Runtime refuses it
        attributes["strides"] = [min(s, k) for s, k in zip(attributes["strides"], kernel, strict=True)]
    alike(*both("MaxPool", {"x": feed["x"]}, {**attributes, "kernel_shape": kernel}))


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_the_largest_of_all_places_is_taken_per_channel(rank):
    """onnx.reference takes it over the channels as well, unless there are two dimensions of places."""
    x = np.random.default_rng(rank).normal(size=(2, 3, *[5] * rank)).astype(np.float32)
    alike(*both("GlobalMaxPool", {"x": x}, {}))


def test_the_places_of_the_largest_are_still_those_of_onnx():
    """With a second output onnx.reference's own operator answers."""
    x = np.random.default_rng(0).normal(size=(1, 2, 6, 6)).astype(np.float32)
    node = helper.make_node("MaxPool", ["x"], ["y", "places"], kernel_shape=[2, 2], strides=[2, 2])
    ports = [
        helper.make_tensor_value_info(name, kind, None)
        for name, kind in (("y", TensorProto.FLOAT), ("places", TensorProto.INT64))
    ]
    graph = helper.make_graph([node], "one", [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)], ports)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for theirs, ours in zip(session.run(None, {"x": x}), operators.evaluator()(model).run(None, {"x": x}), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(("opset", "momentum"), list(itertools.product((9, 13, 15), (0.5, 0.9))))
def test_normalisation_takes_the_stored_statistics_at_every_opset(opset, momentum):
    draw = np.random.default_rng(opset)
    feed = {"x": draw.normal(size=(2, 3, 4)), "scale": draw.normal(size=3), "bias": draw.normal(size=3)}
    feed |= {"mean": draw.normal(size=3), "var": draw.uniform(0.5, 2, 3)}
    feed = {name: a.astype(np.float32) for name, a in feed.items()}
    alike(*both("BatchNormalization", feed, {"momentum": momentum}, opset))
