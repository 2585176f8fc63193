"""Quantisation, gathering and fused convolutions in float64, and when two runs far apart are one model all the same."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from pytest_modelformats.schema import Source
from pytest_modelformats.systems.onnx.reference import evaluate, one_by_one, operators

DRAW = np.random.default_rng(8)


def model_of(nodes, x, constants=(), kind=TensorProto.FLOAT, opset=18, domains=()):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", helper.np_dtype_to_tensor_dtype(x.dtype), ["N", *x.shape[1:]])],
        [helper.make_tensor_value_info("y", kind, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in dict(constants).items()],
    )
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def by_runtime(model, x):
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(
        None, {"x": x}
    )[0]


def by_reference(model, x):
    return operators.evaluator()(model).run(None, {"x": x})[0]


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
@pytest.mark.parametrize("axis", [None, 1])
@pytest.mark.parametrize("opset", [11, 13, 18, 19, 21])
def test_quantising_is_that_of_onnx_runtime_at_every_opset(opset, axis, dtype):
    """Also before opset 19, for which onnx.reference has none."""
    if opset < 13 and axis is not None:
        axis = None  # one scale for all, until opset 13
    x = (DRAW.standard_normal((3, 4, 5)) * 40).astype(np.float32)
    shape = [] if axis is None else [4]
    scale = DRAW.uniform(0.1, 0.5, shape).astype(np.float32)
    zero = DRAW.integers(0, 20, shape).astype(dtype)
    more = {} if axis is None else {"axis": axis}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"], **more),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"], **more),
    ]
    model = model_of(nodes, x, {"scale": scale, "zero": zero}, opset=opset)
    np.testing.assert_allclose(by_reference(model, x), by_runtime(model, x), rtol=1e-6)


def test_a_scale_of_a_tensors_own_range_is_that_of_onnx_runtime_and_of_float64(tmp_path):
    x = (DRAW.standard_normal((3, 50)) * 3 - 1).astype(np.float32)
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ]
    model = model_of(nodes, x)
    onnx.save(model, str(tmp_path / "m.onnx"))
    source = Source("m", str(tmp_path / "m.onnx"), "file", "onnx")
    (outputs,), method = evaluate.evaluate_onnx(source, [{"x": x}], "float64")
    assert method.startswith("float64")
    np.testing.assert_allclose(outputs[0], by_runtime(model, x), rtol=1e-5, atol=1e-6)
    assert outputs[0].dtype == np.float64
    assert not np.array_equal(outputs[0], outputs[0].astype(np.float32))  # its scale is no float32


@pytest.mark.parametrize(("axis", "places"), [(0, (70, 3)), (1, (2, 90)), (-1, (2, 3)), (0, (3, 5))])
def test_gathering_takes_fewer_places_than_there_are(axis, places):
    """And more than the 64 that numpy.choose stops at."""
    x = DRAW.standard_normal((100, 90)).astype(np.float32)
    indices = DRAW.integers(-x.shape[axis], x.shape[axis], places)
    model = model_of([helper.make_node("GatherElements", ["x", "i"], ["y"], axis=axis)], x, {"i": indices})
    np.testing.assert_array_equal(by_reference(model, x), by_runtime(model, x))


@pytest.mark.parametrize(
    ("activation", "parameters"),
    [("Relu", ()), ("LeakyRelu", (0.2,)), ("Tanh", ()), ("Sigmoid", ()), ("HardSigmoid", (0.3, 0.4)), ("Clip", (0, 1))],
)
@pytest.mark.parametrize("added", [False, True])
def test_a_fused_convolution_is_that_of_onnx_runtime(activation, parameters, added):
    x = DRAW.standard_normal((2, 4, 9, 8)).astype(np.float32)
    constants = {"w": DRAW.standard_normal((6, 2, 3, 3)), "b": DRAW.standard_normal(6)}
    if added:
        constants["z"] = DRAW.standard_normal((2, 6, 5, 4))
    more = {"activation_params": [float(p) for p in parameters]} if parameters else {}
    names = ["x", "w", "b", "z"] if added else ["x", "w", "b"]
    node = helper.make_node(
        *("FusedConv", names, ["y"]),
        domain="com.microsoft",
        activation=activation,
        group=2,
        pads=[1, 1, 1, 1],
        strides=[2, 2],
        **more,
    )
    constants = {name: value.astype(np.float32) for name, value in constants.items()}
    model = model_of([node], x, constants, domains=("com.microsoft",))
    found = by_reference(model, x)
    np.testing.assert_allclose(found, by_runtime(model, x), rtol=1e-4, atol=1e-5)


def test_an_activation_that_nobody_knows_is_said():
    with pytest.raises(NotImplementedError, match="'Own' is unknown"):
        operators.activated(DRAW.standard_normal(3), "Own", ())


# --- far apart, and every operator right


def amplifying(path):
    """What stands behind the 24th bit of a sum is all that is left: fp32 loses some 5 % of it, float64 nothing."""
    nodes = [
        helper.make_node("Add", ["x", "large"], ["sum"]),
        helper.make_node("Sub", ["sum", "large"], ["left"]),
        helper.make_node("Sigmoid", ["left"], ["y"]),
    ]
    x = DRAW.standard_normal((6, 40)).astype(np.float32)
    onnx.save(model_of(nodes, x, {"large": np.float32(2.0**21)}), str(path))
    return Source("m", str(path), "file", "onnx"), [{"x": x}]


def test_a_model_that_amplifies_rounding_has_a_real_truth(tmp_path):
    source, feeds = amplifying(tmp_path / "m.onnx")
    outputs, method = evaluate.evaluate_onnx(source, feeds, "float64")
    assert method.startswith("float64"), method
    np.testing.assert_allclose(outputs[0][0], 1 / (1 + np.exp(-feeds[0]["x"].astype(np.float64))), rtol=1e-9)
    fp32, _ = evaluate.evaluate_onnx(source, feeds, "fp32")
    assert np.abs(fp32[0][0] - outputs[0][0]).max() > 1e-2


def test_where_an_operator_is_wrong_the_truth_stays_an_estimate_and_it_is_named(tmp_path, monkeypatch):
    from onnx.reference.ops import op_sub

    monkeypatch.setattr(op_sub.Sub, "_run", lambda _self, a, b: (a - 1.5 * b,))
    source, feeds = amplifying(tmp_path / "m.onnx")
    assert one_by_one.first_disagreement(tmp_path / "m.onnx", feeds[0]) == "Sub 'left'"
    evaluate._last.clear()
    _, method = evaluate.evaluate_onnx(source, feeds, "float64")
    assert method.startswith("estimated")
