"""What an ONNX model's reference rounds and moves, and what it is where an estimate has no numbers."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from special_outputs import FLOAT, GRID, NO_FLOAT64, save, write_without_estimate

from pytest_modelformats.errors import Unsupported
from pytest_modelformats.schema import Source
from pytest_modelformats.systems.onnx import format as onnx_format
from pytest_modelformats.systems.onnx.reference import rounding

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(6, 4)).astype(np.float32)


def source_of(path, nodes, constants, *, as_nodes=False, opset=18, outputs=None):
    """A model of x:float32[N,4] with these nodes, its constants initialisers or Constant nodes."""
    tensors = [numpy_helper.from_array(np.asarray(v), n) for n, v in constants.items()]
    if as_nodes:
        nodes = [("Constant", [], [t.name], {"value": t}) for t in tensors] + nodes
        tensors = []
    save(path, nodes, outputs or {"y": (FLOAT, ["N", 4])}, tensors)
    if opset != 18:
        model = onnx.load(path)
        model.opset_import[0].version = opset
        onnx.save(model, path)
    return Source(name="m", location=str(path), format="onnx", kind="file")


def evaluated(source, precision):
    outputs, method = onnx_format.evaluate(source, [{"x": X, "scale": np.array(1, np.float32)}], precision)
    return outputs[0][0], method


def test_a_square_is_no_reason_for_nan_in_an_estimate(tmp_path):
    """An exponent of 2 that is moved by a rounding unit has no power of a negative number."""
    nodes = [*NO_FLOAT64, ("Pow", ["scaled", "two"], ["y"], {})]
    source = source_of(tmp_path / "m.onnx", nodes, {**GRID, "two": np.float32(2)})
    truth, how = evaluated(source, "float64")
    noise, method = evaluated(source, "fp32")
    assert how.startswith("estimated")
    assert "inputs and weights perturbed" in method
    assert 0 < np.abs(noise - truth).max() < 1e-5


def test_an_estimate_that_leaves_a_domain_moves_the_weights_of_products_alone(tmp_path):
    """Two equal constants no longer are when they are moved, and the root of their difference is NaN."""
    nodes = [
        *NO_FLOAT64, ("Sub", ["a", "b"], ["d"], {}), ("Sqrt", ["d"], ["r"], {}), ("Add", ["r", "scaled"], ["y"], {}),
    ]  # fmt: skip
    equal = np.full(4, 0.3, np.float32)
    source = source_of(tmp_path / "m.onnx", nodes, {**GRID, "a": equal, "b": equal})
    truth, _ = evaluated(source, "float64")
    noise, method = evaluated(source, "fp32")
    assert "inputs and the weights of products perturbed" in method
    assert 0 < np.abs(noise - truth).max() < 1e-5


def test_where_no_estimate_has_numbers_it_is_the_estimate_that_failed(tmp_path):
    location = write_without_estimate(tmp_path / "m.onnx")
    source = Source(name="m", location=str(location), format="onnx", kind="file")
    assert np.isfinite(evaluated(source, "float64")[0]).all()
    with pytest.raises(Unsupported, match="the estimate in its place failed: moved by one rounding unit of fp32") as no:
        evaluated(source, "fp32")
    assert "where the source itself gives numbers. Next: " in str(no.value)


def test_batch_normalisation_of_an_older_opset_has_a_float64_truth(tmp_path):
    """With the momentum of training written in the node, as every exporter writes it, it still is inference."""
    names = ("factor", "shift", "mean", "var")
    nodes = [("BatchNormalization", ["x", *names], ["y"], {"epsilon": 1e-5, "momentum": 0.9})]
    values = RANDOM.uniform(0.5, 2, (4, 4)).astype(np.float32)
    source = source_of(tmp_path / "m.onnx", nodes, dict(zip(names, values, strict=True)), opset=12)
    truth, method = evaluated(source, "float64")
    assert method.startswith("float64: upcast graph")
    factor, shift, mean, var = values.astype(np.float64)
    np.testing.assert_allclose(truth, (X - mean) / np.sqrt(var + np.float32(1e-5)) * factor + shift, rtol=1e-12)


@pytest.mark.parametrize("as_nodes", [False, True])
def test_weights_are_rounded_wherever_they_stand(tmp_path, as_nodes):
    """In initialisers and in Constant nodes alike; a single number stays as it is."""
    weight, bias = RANDOM.normal(size=(4, 4)).astype(np.float32), np.float32(0.1)
    nodes = [("MatMul", ["x", "w"], ["p"], {}), ("Add", ["p", "b"], ["y"], {})]
    source = source_of(tmp_path / "m.onnx", nodes, {"w": weight, "b": bias}, as_nodes=as_nodes)
    got, _ = evaluated(source, "fp16-weights")
    expected = X.astype(np.float64) @ weight.astype(np.float16).astype(np.float64) + bias
    np.testing.assert_allclose(got, expected, atol=1e-6)
    assert np.abs(got - (X @ weight + bias)).max() > 1e-5


def test_only_weights_that_something_is_folded_into_are_rounded_on_other_grids(tmp_path):
    weight, factor = RANDOM.normal(size=(4, 4)).astype(np.float32), RANDOM.normal(size=4).astype(np.float32)
    plain = source_of(tmp_path / "p.onnx", [("MatMul", ["x", "w"], ["y"], {})], {"w": weight})
    with pytest.raises(Unsupported, match="no weight of it meets a constant"):
        evaluated(plain, "fp16-weights~1")
    nodes = [("MatMul", ["x", "w"], ["p"], {}), ("Mul", ["p", "f"], ["y"], {})]
    folded = source_of(tmp_path / "f.onnx", nodes, {"w": weight, "f": factor})
    assert rounding.folded_weights(onnx.load(folded.location)) >= {"w"}
    truth = evaluated(folded, "float64")[0]
    errors = [evaluated(folded, p)[0] - truth for p in ("fp16-weights", "fp16-weights~1", "fp16-weights~2")]
    assert all(np.abs(e).max() > 1e-5 for e in errors)
    assert not np.allclose(errors[0], errors[1], atol=1e-6)
    assert not np.allclose(errors[1], errors[2], atol=1e-6)


@pytest.mark.parametrize("given", [np.float32, np.float64])
def test_what_a_source_computes_in_float64_costs_fp32_too(tmp_path, given):
    """A converter to fp32 makes fp32 of it; ONNX Runtime's own run, which keeps float64, is no measure of that."""
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(given))
    nodes = [
        helper.make_node("Cast", ["x"], ["wide"], to=TensorProto.DOUBLE),
        helper.make_node("Mul", ["wide", "three"], ["scaled"]),
        helper.make_node("Exp", ["scaled"], ["grown"]),
        helper.make_node("Cast", ["grown"], ["y"], to=TensorProto.FLOAT),
    ]
    inputs = [helper.make_tensor_value_info("x", kind, ["N", 4])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])]
    constants = [numpy_helper.from_array(np.array(3.1, np.float64), "three")]
    graph = helper.make_graph(nodes, "g", inputs, outputs, constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), tmp_path / "m.onnx")
    source = Source(name="m", location=str(tmp_path / "m.onnx"), format="onnx", kind="file")
    feed = {"x": X.astype(given)}
    (truth,), how = onnx_format.evaluate(source, [feed], "float64")
    (fp32,), _ = onnx_format.evaluate(source, [feed], "fp32")
    assert how.startswith("float64")
    np.testing.assert_allclose(truth[0], np.exp(3.1 * feed["x"].astype(np.float64)), rtol=1e-12)
    off = np.sqrt(np.mean(np.square(fp32[0] / truth[0] - 1)))
    written = np.sqrt(np.mean(np.square(truth[0].astype(np.float32) / truth[0] - 1)))
    assert 2 * written < off < 1e-5
