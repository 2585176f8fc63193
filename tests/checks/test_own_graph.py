"""An error as large as another precision's that the file makes itself: a fault, and not what a runtime did."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

RANDOM = np.random.default_rng(5)
WEIGHTS = {
    "w": RANDOM.standard_normal((8, 32)).astype(np.float32),
    "b": (RANDOM.standard_normal(32) / 2000).astype(np.float32),
    "v": (RANDOM.standard_normal((32, 4)) * 3).astype(np.float32),
}


def rounded(values):
    return values.astype(np.float16).astype(np.float32)


def write(path, weights=WEIGHTS, *, through=0):
    """A classifier that is all but certain: every fault moves its probabilities in nearly one direction."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], "first"),
        helper.make_node("Add", ["a", "b"], ["s"], "bias"),
        helper.make_node("Relu", ["s"], ["h"], "relu"),
        helper.make_node("MatMul", ["h", "v"], ["z"], "last"),
        helper.make_node("Softmax", ["z"], ["y"], "softmax", axis=-1),
    ]
    if through:
        nodes[3].input[0] = "h_wide"
        nodes.insert(3, helper.make_node("Cast", ["h"], ["h_narrow"], "down", to=through))
        nodes.insert(4, helper.make_node("Cast", ["h_narrow"], ["h_wide"], "up", to=TensorProto.FLOAT))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])],
        [numpy_helper.from_array(values, name) for name, values in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)


FILES = {
    "lost_bias": ({**WEIGHTS, "b": 0 * WEIGHTS["b"]}, {}, "bias"),
    "one_tensor": ({**WEIGHTS, "v": rounded(WEIGHTS["v"])}, {}, "last"),
    "one_result": (WEIGHTS, {"through": TensorProto.FLOAT16}, "down"),
}


def test_a_fault_of_another_precisions_size_is_a_fault_and_has_a_place(run, pytester):
    """Not so a file whose weights are all rounded; the runtime computes in fp32, says so, and is not contradicted."""
    write(str(pytester.path / "model.onnx"))
    for name, (weights, more, _) in FILES.items():
        write(str(pytester.path / f"{name}.onnx"), weights, **more)
    write(str(pytester.path / "all_tensors.onnx"), {n: rounded(v) for n, v in WEIGHTS.items()})
    given = [part for name in (*FILES, "all_tensors") for part in ("--mf-candidate", f"{name}.onnx")]
    lanes = ("--mf-formats", "onnx", "--mf-precisions", "fp32", "--mf-suites", "parity", "--mf-devices", "cpu")
    ran = run("--mf-model", "model.onnx", *lanes, "--mf-backends", "onnxruntime", *given)
    for name, (_, _, node) in FILES.items():
        line = ran.checks[f"model~{name}-onnx-fp32-onnxruntime@cpu", "parity"]
        assert (line["outcome"], line["failure_kind"]) == ("failed", "numeric"), line["sentence"]
        assert line["data"]["localisation"]["node"] == node, line["sentence"]
        assert not line["data"]["outputs"][0]["effective_precision"]
    line = ran.checks["model~all_tensors-onnx-fp32-onnxruntime@cpu", "parity"]
    assert line["outcome"] == "fallback", line["sentence"]
    assert line["data"]["outputs"][0]["effective_precision"] == "fp16-weights"
    assert "contradict" not in line["sentence"]
