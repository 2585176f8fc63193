"""Which operator a comparison of two graphs names, and which it does not: faithful ones round, casts pass on."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from pytest_modelformats.checks.localise import by_runtime, localise
from pytest_modelformats.checks.localise.nouns import Localised
from pytest_modelformats.compare.truths import Writer
from pytest_modelformats.schema import PRECISIONS
from pytest_modelformats.systems.onnx.localise import requests as onnx_localise

ROWS = np.random.default_rng(3).standard_normal((8, 8)).astype(np.float32)
WEIGHTS = {
    "a.weight": (np.random.default_rng(1).standard_normal((8, 32)) / 3).astype(np.float32),
    "b.weight": (np.random.default_rng(2).standard_normal((32, 5)) / 5).astype(np.float32),
}


def write(path, weights=WEIGHTS, casts=False, last=()):
    """Two products with a ReLU between them; ``casts`` as a converter to fp16 puts them around."""
    dtype = TensorProto.FLOAT16 if casts else TensorProto.FLOAT
    nodes = [
        helper.make_node("MatMul", ["x_cast" if casts else "x", "a.weight"], ["a"], "A"),
        helper.make_node("Relu", ["a"], ["h"], "R"),
        helper.make_node("MatMul", ["h", "b.weight"], ["y_cast" if casts else "y"], "B"),
        *last,
    ]
    if casts:
        nodes.insert(0, helper.make_node("Cast", ["x"], ["x_cast"], "in", to=TensorProto.FLOAT16))
        nodes.append(helper.make_node("Cast", ["y_cast"], ["y"], "out", to=TensorProto.FLOAT))
    own = [
        numpy_helper.from_array(w.astype(helper.tensor_dtype_to_np_dtype(dtype)), name) for name, w in weights.items()
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 5])],
        own,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path


@pytest.fixture
def found(tmp_path):
    """Compare a file with the reference at a precision; returns what is named."""
    np.save(tmp_path / "x.npy", ROWS)
    write(tmp_path / "reference.onnx")

    def compare(path, precision):
        told = onnx_localise.compare(
            reference=str(tmp_path / "reference.onnx"),
            artifact=str(path),
            feed={"x": str(tmp_path / "x.npy")},
            precision=precision,
            truths=str(tmp_path / f"truths-{precision}"),
            folder=str(tmp_path / "part"),
            seconds=60,
            limit=PRECISIONS[precision].limit,
            expected=[],
        )
        assert not told["reason"]
        return told["found"]

    return compare


def negated(name):
    weight = WEIGHTS[name].copy()
    weight[2, 3] *= -1
    return {**WEIGHTS, name: weight}


def test_no_operator_of_a_faithful_fp16_graph_is_named(found, tmp_path):
    """Its weights are rounded, so each is off by a share of its noise; none by more than rounding explains."""
    assert found(write(tmp_path / "half.onnx", casts=True), "fp16") is None
    assert found(write(tmp_path / "plain.onnx", {n: w.astype(np.float16) for n, w in WEIGHTS.items()}), "fp16") is None


def test_an_error_below_the_limit_names_no_operator_at_fp32_either(found, tmp_path):
    off = {**WEIGHTS, "a.weight": WEIGHTS["a.weight"] * np.float32(1 + 1.2e-7)}
    assert found(write(tmp_path / "off.onnx", off), "fp32") is None


@pytest.mark.parametrize(("name", "node"), [("a.weight", "A"), ("b.weight", "B")])
def test_not_the_cast_but_the_operator_before_it_is_first(found, tmp_path, name, node):
    told = found(write(tmp_path / "wrong.onnx", negated(name), casts=True), "fp16")
    assert told["node"] == node, told
    assert told["how"].startswith(f"'{name}' differs from the reference's in 1 of")


def test_a_cast_that_is_wrong_itself_is_named(found, tmp_path):
    """It cuts off what stands behind the point: what it takes is right."""
    model = onnx.load(write(tmp_path / "wrong.onnx", casts=True))
    model.graph.node[-1].input[0] = "cut"
    last = helper.make_node("Cast", ["y_cast"], ["cut"], "cuts", to=TensorProto.INT32)
    model.graph.node.insert(len(model.graph.node) - 1, last)
    onnx.save(model, str(tmp_path / "wrong.onnx"))
    assert found(tmp_path / "wrong.onnx", "fp16")["node"] in {"cuts", "out"}


def test_what_a_cast_takes_may_be_of_another_kind(found, tmp_path):
    """Whole numbers as floats: the operator before the Cast is right, and so is the Cast."""
    reference = onnx.load(tmp_path / "reference.onnx")
    del reference.graph.node[-1]
    reference.graph.node.append(helper.make_node("ArgMax", ["h"], ["y"], "M", axis=1))
    reference.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    onnx.save(reference, str(tmp_path / "reference.onnx"))
    del reference.graph.node[-1]
    for operator, given, made, name, more in (
        ("ArgMax", "h", "m", "M", {"axis": 1}),
        ("Cast", "m", "f", "to", {"to": TensorProto.FLOAT}),
        ("Abs", "f", "g", "P", {}),
        ("Cast", "g", "y", "from", {"to": TensorProto.INT64}),
    ):
        reference.graph.node.append(helper.make_node(operator, [given], [made], name, **more))
    onnx.save(reference, str(tmp_path / "floats.onnx"))
    assert found(tmp_path / "floats.onnx", "fp32") is None


def test_a_result_that_is_rounded_on_its_way_is_named_at_fp32(found, tmp_path):
    """The casts are the file's own: where fp32 is asked for they count, at fp16 they are part of the precision."""
    model = onnx.load(write(tmp_path / "through.onnx"))
    model.graph.node[1].input[0] = "a_wide"
    for place, (given, made, to) in enumerate((("a", "a_half", 10), ("a_half", "a_wide", 1)), start=1):
        model.graph.node.insert(place, helper.make_node("Cast", [given], [made], f"cast{place}", to=to))
    onnx.save(model, str(tmp_path / "through.onnx"))
    assert found(tmp_path / "through.onnx", "fp32")["operator"] == "Cast"
    assert found(tmp_path / "through.onnx", "fp16") is None


def unknown(path, out):
    """An operator of somebody's own behind the last product: no evaluator knows it."""
    model = onnx.load(path)
    model.graph.node[-1].output[0] = "z"
    model.graph.node.append(helper.make_node("Own", ["z"], ["y"], "own", domain="somebody"))
    model.opset_import.append(helper.make_opsetid("somebody", 1))
    onnx.save(model, str(out))
    return out


@pytest.mark.parametrize(("name", "node"), [("a.weight", "A"), ("b.weight", "B"), ("", "")])
def test_graphs_that_cannot_be_run_are_read(tmp_path, name, node):
    np.save(tmp_path / "x.npy", ROWS)
    reference = unknown(write(tmp_path / "plain.onnx"), tmp_path / "reference.onnx")
    weights = negated(name) if name else WEIGHTS
    told = onnx_localise.compare(
        reference=str(reference),
        artifact=str(unknown(write(tmp_path / "wrong.onnx", weights), tmp_path / "own.onnx")),
        feed={"x": str(tmp_path / "x.npy")},
        precision="fp32",
        truths=str(tmp_path / "truths"),
        folder=str(tmp_path / "part"),
        seconds=60,
        limit=4.0,
        expected=[],
    )
    if not name:
        assert told["found"] is None
        assert "lacks an operator" in told["reason"]
        assert "it is the graph of the model itself" in told["reason"]
        return
    assert (told["found"]["node"], told["found"]["output_error"]) == (node, None)
    assert "in 1 of" in told["found"]["how"]
    said = Localised("onnx-reading", operator="MatMul", node=node, how="x differs", unevaluated=told["unevaluated"])
    assert "read and not run: Node type 'Own'" in localise.sentence(said, "onnxruntime")


# --- what is not finite


@pytest.fixture
def overflowing(tmp_path):
    """A tensor whose second element is -800 in float64 and -Inf at fp32, as the logarithm of a small softmax is."""
    writer = Writer(tmp_path, "fp32")
    truth = np.array([[-1.0, -800.0, -3.0]])
    writer.add("log", "Log", truth, np.array([[-1.0 - 1e-7, -np.inf, -3.0]], np.float32))
    return writer.close()


def test_what_is_not_finite_in_the_reference_at_the_precision_either_is_no_error(overflowing):
    told = overflowing.distance("log", np.array([[-1.0, -np.inf, -3.0 - 2e-7]], np.float32))
    assert told.overflows
    assert told.ratio < 4


@pytest.mark.parametrize("got", [[-np.inf, -np.inf, -3.0], [-1.0, np.nan, -3.0], [-1.0, -np.inf, np.nan]])
def test_what_is_not_finite_elsewhere_or_otherwise_is_one(overflowing, got):
    assert overflowing.distance("log", np.array([got], np.float32)).ratio == math.inf


def test_beside_what_is_not_finite_the_rest_is_compared(overflowing):
    assert overflowing.distance("log", np.array([[-1.0, -np.inf, -3.1]], np.float32)).ratio > 1000
    wider = overflowing.distance("log", np.array([[-1.0, -800.0, -3.0]]))
    assert (wider.ratio, wider.overflows) == (0.0, False)


def test_an_operator_that_gives_the_infinities_of_its_precision_is_not_wrong(tmp_path, monkeypatch):
    """The logarithm of a softmax that fp32 rounds to zero: the runtime does what arithmetic at fp32 does."""
    nodes = [
        helper.make_node("Mul", ["x", "scale"], ["m"], "M"),
        helper.make_node("Softmax", ["m"], ["s"], "S"),
        helper.make_node("Log", ["s"], ["y"], "L"),
        helper.make_node("Neg", ["y"], ["z"], "N"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 8])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", 8])],
        [numpy_helper.from_array(np.float32(300), "scale")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, str(tmp_path / "model.onnx"))
    np.save(tmp_path / "x.npy", ROWS)
    asked = []

    def run_to_files(_, path, feed):
        session = onnxruntime.InferenceSession(str(path))
        names = [output.name for output in session.get_outputs()]
        results = session.run(names, {name: np.load(file) for name, file in feed.items()})
        for name, result in zip(names, results, strict=True):
            np.save(tmp_path / f"out-{name}.npy", result)
        return {name: str(tmp_path / f"out-{name}.npy") for name in names}

    def ask(entry, **arguments):
        asked.append(entry.partition(":")[2])
        return getattr(onnx_localise, asked[-1])(**arguments)

    monkeypatch.setattr(by_runtime, "run_to_files", run_to_files)
    search = SimpleNamespace(
        folder=tmp_path / "search",
        key=lambda _: "key",
        written=lambda: {"x": str(tmp_path / "x.npy")},
        precision="fp32",
        limit=4.0,
        seconds=60.0,
        ask=ask,
        planned=SimpleNamespace(cell=SimpleNamespace(backend="onnxruntime")),
    )
    found = by_runtime.in_runtime(search, tmp_path / "model.onnx")
    assert found.operator == ""
    told = localise.sentence(found, "onnxruntime")
    assert told.startswith("No operator is wrong: Log 'L' is the first whose results are not finite"), told
    assert "distances" in asked
