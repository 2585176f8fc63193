"""Models with dimensions that are free, small enough for whole runs: of images, and of sequences."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CLASSES = 3


def pooled(path, *, dims=("N", 1, "height", "width"), divisor=None, metadata=None):
    """An ONNX model of the mean over an image; with a ``divisor`` it is right where there are so many pixels."""
    random = np.random.default_rng(0)
    weights = {
        "kernel": random.normal(size=(4, 1, 3, 3)).astype(np.float32),
        "w": random.normal(size=(4, CLASSES)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "kernel"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Tanh", ["c"], ["t"]),
    ]
    if divisor is None:
        nodes.append(helper.make_node("ReduceMean", ["t"], ["m"], axes=[2, 3], keepdims=0))
    else:
        weights |= {"axes": np.array([2, 3], np.int64), "divisor": np.array(divisor, np.float32)}
        nodes.append(helper.make_node("ReduceSum", ["t", "axes"], ["s"], keepdims=0))
        nodes.append(helper.make_node("Div", ["s", "divisor"], ["m"]))
    nodes.append(helper.make_node("MatMul", ["m", "w"], ["y"]))
    return _saved(path, nodes, weights, dims, [dims[0], CLASSES], metadata)


def grouped(path, *, group=32, dims=("N", "length")):
    """An ONNX model of a sequence that takes lengths of whole groups alone."""
    weights = {
        "shape": np.array([0, -1, group], np.int64),
        "w": np.random.default_rng(0).normal(size=(group, CLASSES)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Reshape", ["x", "shape"], ["r"]),
        helper.make_node("Tanh", ["r"], ["t"]),
        helper.make_node("ReduceMean", ["t"], ["m"], axes=[1], keepdims=0),
        helper.make_node("MatMul", ["m", "w"], ["y"]),
    ]
    return _saved(path, nodes, weights, dims, [dims[0], CLASSES], None)


def _saved(path, nodes, weights, dims, out, metadata):
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, list(dims))
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, out)
    graph = helper.make_graph(nodes, "free", [x], [y], [numpy_helper.from_array(w, n) for n, w in weights.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    helper.set_model_props(model, metadata or {})
    onnx.save(model, str(path))
    return path
