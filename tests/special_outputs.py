"""A tiny ONNX model whose outputs are everything but one matrix of ordinary numbers, and wrong copies of it."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT, INT, BOOL, DOUBLE = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL, TensorProto.DOUBLE
OUTPUTS = {
    "big": (FLOAT, ["N", 3]),
    "tiny": (FLOAT, ["N", 3]),
    "best": (INT, ["N"]),
    "flag": (BOOL, ["N", 3]),
    "none": (FLOAT, ["N", 0]),
    "alone": (FLOAT, []),
    "logs": (FLOAT, ["N", 3]),
    "masked": (FLOAT, ["N", 3]),
    "same": (FLOAT, ["N", 4]),
}
# What is wrong with a copy: the nodes that it has in the place of the right ones, and the type that changes with them.
WRONG = {
    "big_scaled": ("big", [("Mul", ["h", "million_off"], ["big"], {})], None),
    "tiny_scaled": ("tiny", [("Mul", ["h", "millionth_off"], ["tiny"], {})], None),
    "best_is_worst": ("best", [("ArgMin", ["h"], ["best"], {"axis": 1, "keepdims": 0})], None),
    "flag_inverted": ("flag", [("Less", ["h", "zero"], ["flag"], {})], None),
    "none_has_one": ("none", [("Gather", ["h", "first"], ["none"], {"axis": 1})], (FLOAT, ["N", 1])),
    "none_is_double": (
        "none",
        [("Gather", ["h", "nothing"], ["n"], {"axis": 1}), ("Cast", ["n"], ["none"], {"to": DOUBLE})],
        (DOUBLE, ["N", 0]),
    ),
    "alone_is_a_vector": (
        "alone",
        [("Tanh", ["scale"], ["a"], {}), ("Reshape", ["a", "one"], ["alone"], {})],
        (FLOAT, [1]),
    ),
    "alone_is_another": ("alone", [("Sin", ["scale"], ["alone"], {})], None),
    "logs_of_absolutes": ("logs", [("Abs", ["h"], ["p"], {}), ("Log", ["p"], ["logs"], {})], None),
    "masked_with_a_number": ("masked", [("Where", ["f", "h", "lowest"], ["masked"], {})], None),
    "same_is_not": ("same", [("Mul", ["x", "nearly_one"], ["same"], {})], None),
}  # fmt: skip


def _right():
    return {
        "big": [("Mul", ["h", "million"], ["big"], {})],
        "tiny": [("Mul", ["h", "millionth"], ["tiny"], {})],
        "best": [("ArgMax", ["h"], ["best"], {"axis": 1, "keepdims": 0})],
        "flag": [("Greater", ["h", "zero"], ["flag"], {})],
        "none": [("Gather", ["h", "nothing"], ["none"], {"axis": 1})],
        "alone": [("Tanh", ["scale"], ["alone"], {})],
        "logs": [("Log", ["h"], ["logs"], {})],
        "masked": [("Where", ["f", "h", "minus_infinity"], ["masked"], {})],
        "same": [("Identity", ["x"], ["same"], {})],
    }


def write(path, wrong=""):
    """Write the model, or the copy that is wrong in the named way; returns the path."""
    nodes, types = _right(), dict(OUTPUTS)
    if wrong:
        name, changed, kind = WRONG[wrong]
        nodes[name] = changed
        types[name] = kind or types[name]
    numbers = {
        "w": np.random.default_rng(5).normal(size=(4, 3)),
        "million": 1e6, "million_off": 1.0001e6, "millionth": 1e-6, "millionth_off": 1.0001e-6, "zero": 0.0,
        "minus_infinity": -np.inf, "lowest": -1e9, "nearly_one": 1.00001,
    }  # fmt: skip
    initialisers = [numpy_helper.from_array(np.asarray(v, np.float32), n) for n, v in numbers.items()]
    for name, values in {"nothing": [], "first": [0], "one": [1]}.items():
        initialisers.append(numpy_helper.from_array(np.asarray(values, np.int64), name))
    every = [
        ("MatMul", ["x", "w"], ["h"], {}),
        ("Greater", ["h", "zero"], ["f"], {}),
        *(n for some in nodes.values() for n in some),
    ]
    return save(path, every, types, initialisers)


def save(path, nodes, types, initialisers=()):
    """Write a model of ``x:float32[N,4]`` and ``scale:float32[]`` with these nodes and outputs."""
    inputs = [helper.make_tensor_value_info("x", FLOAT, ["N", 4]), helper.make_tensor_value_info("scale", FLOAT, [])]
    outputs = [helper.make_tensor_value_info(n, *t) if isinstance(t, tuple) else t for n, t in types.items()]
    made = [helper.make_node(kind, taken, given, **more) for kind, taken, given, more in nodes]
    graph = helper.make_graph(made, "special", inputs, outputs, list(initialisers))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, str(path))
    return path


# onnx.reference computes this operator in float32, so what holds one has no float64 truth.
NO_FLOAT64 = [
    ("Unsqueeze", ["x", "axes"], ["image"], {}),
    ("GridSample", ["image", "grid"], ["sampled"], {}),
    ("ReduceSum", ["sampled"], ["total"], {"keepdims": 0}),
    ("Mul", ["x", "total"], ["scaled"], {}),
]
GRID = {
    "axes": np.array([0, 1]),
    "grid": np.random.default_rng(0).uniform(-1, 1, (1, 4, 4, 2)).astype(np.float32),
}


def write_without_estimate(path):
    """Write a model whose every estimate is NaN in places: the root of the difference of two equal products."""
    weight = np.random.default_rng(1).normal(size=(4, 4)).astype(np.float32)
    nodes = [
        *NO_FLOAT64, ("MatMul", ["x", "w"], ["p"], {}), ("MatMul", ["x", "v"], ["q"], {}),
        ("Sub", ["p", "q"], ["d"], {}), ("Sqrt", ["d"], ["r"], {}), ("Add", ["r", "scaled"], ["y"], {}),
    ]  # fmt: skip
    tensors = [numpy_helper.from_array(v, n) for n, v in {**GRID, "w": weight, "v": weight}.items()]
    return save(path, nodes, {"y": (FLOAT, ["N", 4])}, tensors)
