"""Faults in what a graph holds: weights, biases, statistics, constants, quantisation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.verdict.graph_edits import Graph, NoSite, fault, some

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    import numpy as np
    import onnx

LARGE = 1e3  # above it a constant is a mask, not a value
GATES = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2)}  # what torch's own order would be read as


def bf16(value: np.ndarray) -> np.ndarray:
    """The values rounded to bfloat16, to the nearest even, as float32."""
    import numpy as np

    bits = np.ascontiguousarray(value, np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    return rounded.astype(np.uint32).view(np.float32)


def fp16(value: np.ndarray) -> np.ndarray:
    """The values rounded to float16, as float32."""
    import numpy as np

    return value.astype(np.float16).astype(np.float32)


def one_element(value: np.ndarray, random: random.Random, change: Callable[[float], float]) -> np.ndarray:
    """The array with one element changed, one of the half whose magnitude is larger."""
    import numpy as np

    changed = value.copy()
    large = np.flatnonzero(np.abs(value) >= np.median(np.abs(value)))
    place = int(large[random.randrange(len(large))])
    changed.flat[place] = change(float(value.flat[place]))
    return changed


def _in_one_weight(graph: Graph, random: random.Random, change: Callable[[np.ndarray], np.ndarray]) -> str:
    node, index, value = random.choice(graph.weights())
    graph.set_own_constant(node, index, change(value))
    return str(node.name)


@fault("one weight zeroed")
def weight_zeroed(graph: Graph, random: random.Random) -> str:
    return _in_one_weight(graph, random, lambda w: one_element(w, random, lambda _: 0.0))


@fault("weights scaled by 1.01")
def weights_scaled(graph: Graph, random: random.Random) -> str:
    return _in_one_weight(graph, random, lambda w: (w * 1.01).astype(w.dtype))


@fault("sign of one weight flipped")
def weight_sign(graph: Graph, random: random.Random) -> str:
    return _in_one_weight(graph, random, lambda w: one_element(w, random, lambda v: -v))


@fault("weights transposed")
def weights_transposed(graph: Graph, random: random.Random) -> str:
    """The last two dimensions change places, where they are equal."""
    square = [w for w in graph.weights() if w[2].shape[-1] == w[2].shape[-2] > 1]
    node, index, value = random.choice(some(square))
    graph.set_own_constant(node, index, value.swapaxes(-1, -2).copy())
    return str(node.name)


@fault("one tensor rounded to fp16")
def tensor_fp16(graph: Graph, random: random.Random) -> str:
    return _in_one_weight(graph, random, fp16)


@fault("one tensor rounded to bf16")
def tensor_bf16(graph: Graph, random: random.Random) -> str:
    return _in_one_weight(graph, random, bf16)


def _in_all(graph: Graph, change: Callable[[np.ndarray], np.ndarray]) -> str:
    for node, index, value in graph.weights():
        graph.set_own_constant(node, index, change(value))
    return ""


@fault("all tensors rounded to fp16")
def all_fp16(graph: Graph, _random: random.Random) -> str:
    return _in_all(graph, fp16)


@fault("all tensors rounded to bf16")
def all_bf16(graph: Graph, _random: random.Random) -> str:
    return _in_all(graph, bf16)


def _biases(graph: Graph) -> list[tuple[onnx.NodeProto, int, np.ndarray]]:
    """Added vectors: the third input of Conv and Gemm, the B of a recurrent layer, the vector of an Add."""
    import numpy as np

    found = []
    for node in graph.nodes:
        places = {"Conv": (2,), "Gemm": (2,), "LSTM": (3,), "GRU": (3,), "Add": (0, 1)}.get(node.op_type, ())
        for index in (i for i in places if i < len(node.input)):
            value = graph.constant(node.input[index])
            if value is not None and value.dtype == np.float32 and np.any(value):
                found.append((node, index, value))
    return some(found)


@fault("bias dropped")
def bias_dropped(graph: Graph, random: random.Random) -> str:
    node, index, value = random.choice(_biases(graph))
    graph.set_own_constant(node, index, value * 0)
    return str(node.name)


@fault("one bias element off by 1 %")
def bias_element(graph: Graph, random: random.Random) -> str:
    node, index, value = random.choice(_biases(graph))
    graph.set_own_constant(node, index, one_element(value, random, lambda v: v * 1.01))
    return str(node.name)


@fault("channel order reversed")
def channels_reversed(graph: Graph, random: random.Random) -> str:
    """A convolution takes its input channels in reverse, as an RGB model fed with BGR does."""
    convolutions = [w for w in graph.weights() if w[0].op_type == "Conv" and w[1] == 1 and w[2].shape[1] > 1]
    node, index, value = random.choice(some(convolutions))
    graph.set_own_constant(node, index, value[:, ::-1].copy())
    return str(node.name)


@fault("batch-norm statistics stale")
def stale_statistics(graph: Graph, random: random.Random) -> str:
    """Mean and variance lag behind: one more step of a moving average would have been due."""
    import numpy as np

    node = random.choice(graph.of("BatchNormalization"))
    mean, variance = (graph.constant(node.input[i]) for i in (3, 4))
    if mean is None or variance is None:
        raise NoSite
    graph.set_own_constant(node, 3, (0.9 * mean).astype(np.float32))
    graph.set_own_constant(node, 4, (0.9 * variance + 0.1).astype(np.float32))
    return str(node.name)


@fault("gate order of a recurrent layer")
def gate_order(graph: Graph, random: random.Random) -> str:
    """The gates of torch's order are taken for ONNX's."""
    import numpy as np

    node = random.choice(graph.of("LSTM", "GRU"))
    order = GATES[node.op_type]
    for index, groups in ((1, 1), (2, 1), (3, 2)):
        value = graph.constant(node.input[index])
        if value is None:
            raise NoSite
        blocks = np.split(value, groups * len(order), 1)
        moved = [blocks[g * len(order) + place] for g in range(groups) for place in order]
        graph.set_own_constant(node, index, np.concatenate(moved, 1))
    return str(node.name)


def _mask_constants(graph: Graph) -> list[tuple[onnx.NodeProto, int, np.ndarray]]:
    import numpy as np

    found = []
    for node in graph.nodes:
        for index, name in enumerate(node.input):
            value = graph.constant(name)
            if value is not None and value.dtype == np.float32 and value.size and value.min() < -LARGE:
                found.append((node, index, value))
    return some(found)


@fault("attention mask dropped")
def mask_dropped(graph: Graph, random: random.Random) -> str:
    """In one layer, no position is masked any more."""
    import numpy as np

    node, index, _ = random.choice(_mask_constants(graph))
    if node.op_type == "Where":
        condition = graph.constant(node.input[0])
        if condition is None:
            raise NoSite
        keeps_masked = index == 1
        graph.set_own_constant(node, 0, np.full_like(condition, not keeps_masked))
    else:
        graph.set_own_constant(node, index, np.zeros_like(graph.constant(node.input[index])))
    return str(node.name)


@fault("a constant factor off by 1 %")
def factor_off(graph: Graph, random: random.Random) -> str:
    """Such as the scale of attention."""
    import numpy as np

    found = []
    for node in graph.nodes:
        for index, name in enumerate(node.input):
            value = graph.constant(name) if node.op_type in ("Mul", "Div") else None
            if value is not None and value.dtype == np.float32 and value.size == 1:
                found.append((node, index, value))
    node, index, value = random.choice(some(found))
    graph.set_own_constant(node, index, (value * 1.01).astype(np.float32))
    return str(node.name)


@fault("quantisation scale off")
def scale_off(graph: Graph, random: random.Random) -> str:
    """By one step of 255: the range was taken over 256 values."""
    import numpy as np

    node = random.choice(graph.of("DequantizeLinear"))
    scale = graph.constant(node.input[1])
    if scale is None:
        raise NoSite
    graph.set_own_constant(node, 1, (scale * np.float32(256 / 255)).astype(np.float32))
    return str(node.name)


@fault("quantisation zero point off by one")
def zero_point_off(graph: Graph, random: random.Random) -> str:
    node = random.choice(graph.of("DequantizeLinear"))
    zero = graph.constant(node.input[2])
    if zero is None:
        raise NoSite
    graph.set_own_constant(node, 2, zero + zero.dtype.type(1))
    return str(node.name)
