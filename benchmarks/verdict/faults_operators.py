"""Faults in how an operator computes: its attributes, its kind, the precision of its result."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.verdict.graph_edits import Graph, NoSite, attribute, fault, set_attribute, some

if TYPE_CHECKING:
    import random

    import onnx

NORMS = ("BatchNormalization", "LayerNormalization", "InstanceNormalization", "GroupNormalization")
ACTIVATIONS = ("Relu", "LeakyRelu", "PRelu", "Sigmoid", "Tanh", "Elu", "HardSwish", "Gelu", "Clip", "Exp")
FOURTH = 4  # the rank of an image tensor


@fault("epsilon changed")
def epsilon_changed(graph: Graph, random: random.Random) -> str:
    """1e-5 became Keras' 1e-3."""
    node = random.choice(graph.of(*NORMS))
    set_attribute(node, "epsilon", 1e-3 if attribute(node, "epsilon", 1e-5) < 1e-4 else 1e-5)  # noqa: PLR2004
    return str(node.name)


@fault("epsilon changed a little")
def epsilon_little(graph: Graph, random: random.Random) -> str:
    """1e-5 became 1e-6, the other common default."""
    node = random.choice(graph.of(*NORMS))
    set_attribute(node, "epsilon", attribute(node, "epsilon", 1e-5) / 10)
    return str(node.name)


def _padded(graph: Graph) -> list[onnx.NodeProto]:
    pads = [(n, attribute(n, "pads", [])) for n in graph.of("Conv")]
    return some(n for n, amounts in pads if any(amounts) and len(amounts) == FOURTH)


@fault("padding mode")
def padding_mode(graph: Graph, random: random.Random) -> str:
    """A border of zeros became the repeated edge; a Pad has another mode."""
    import numpy as np

    pads = [n for n in graph.nodes if n.op_type == "Pad"]
    node = random.choice(pads or _padded(graph))
    if node.op_type == "Pad":
        set_attribute(node, "mode", "edge" if attribute(node, "mode", b"constant") != b"edge" else "reflect")
        return str(node.name)
    top, left, bottom, right = attribute(node, "pads", [])
    amount = graph.add_constant(np.array([0, 0, top, left, 0, 0, bottom, right], np.int64), "pads")
    set_attribute(node, "pads", [0, 0, 0, 0])
    graph.before(node, 0, "Pad", [amount], mode="edge")
    return str(node.name)


@fault("padding amount")
def padding_amount(graph: Graph, random: random.Random) -> str:
    """All at the end instead of on both sides, as TensorFlow's SAME does with strides."""
    node = random.choice(_padded(graph))
    top, left, bottom, right = attribute(node, "pads", [])
    set_attribute(node, "pads", [0, 0, top + bottom, left + right])
    return str(node.name)


@fault("dilation")
def dilation(graph: Graph, random: random.Random) -> str:
    """A 3 × 3 kernel is spread over 5 × 5, or drawn together; the padding makes up for it."""
    nodes = some(n for n in _padded(graph) if attribute(n, "kernel_shape", [3, 3])[0] >= 3)  # noqa: PLR2004
    node = random.choice(nodes)
    kernel = attribute(node, "kernel_shape", [3, 3])
    old = attribute(node, "dilations", [1, 1])
    new = [1 if d > 1 else 2 for d in old]
    change = [(k - 1) * (a - b) for k, a, b in zip(kernel, new, old, strict=True)]
    top, left, bottom, right = attribute(node, "pads", [])
    down, along = change[0] // 2, change[1] // 2
    set_attribute(node, "dilations", new)
    set_attribute(node, "pads", [top + down, left + along, bottom + change[0] - down, right + change[1] - along])
    return str(node.name)


@fault("stride")
def stride(graph: Graph, random: random.Random) -> str:
    """A stride of 2 is taken for 1, and the result cut to the size that was expected."""
    import numpy as np

    nodes = some(n for n in graph.of("Conv") if attribute(n, "strides", [1, 1]) == [2, 2])
    node = random.choice(nodes)
    height, width = graph.shape(node.output[0])[2:]
    set_attribute(node, "strides", [1, 1])
    limits = [np.array(v, np.int64) for v in ([0, 0], [height, width], [2, 3], [1, 1])]
    graph.after(node, "Slice", [graph.add_constant(v, "slice") for v in limits])
    return str(node.name)


@fault("resize coordinate mode")
def resize_mode(graph: Graph, random: random.Random) -> str:
    node = random.choice(graph.of("Resize"))
    old = attribute(node, "coordinate_transformation_mode", b"half_pixel").decode()
    others = [m for m in ("half_pixel", "asymmetric", "align_corners") if m != old.replace("pytorch_", "")]
    set_attribute(node, "coordinate_transformation_mode", random.choice(others))
    return str(node.name)


@fault("pooling count_include_pad")
def count_include_pad(graph: Graph, random: random.Random) -> str:
    nodes = some(n for n in graph.of("AveragePool") if any(attribute(n, "pads", [])))
    node = random.choice(nodes)
    set_attribute(node, "count_include_pad", 1 - attribute(node, "count_include_pad", 0))
    return str(node.name)


@fault("pooling ceil mode")
def ceil_mode(graph: Graph, random: random.Random) -> str:
    node = random.choice(graph.of("MaxPool", "AveragePool"))
    set_attribute(node, "ceil_mode", 1 - attribute(node, "ceil_mode", 0))
    return str(node.name)


@fault("pooling kind swapped")
def pooling_kind(graph: Graph, random: random.Random) -> str:
    from onnx import helper

    node = random.choice(graph.of("MaxPool", "AveragePool"))
    kept = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    kept = {k: v for k, v in kept.items() if k in {"kernel_shape", "strides", "pads", "ceil_mode"}}
    other = "AveragePool" if node.op_type == "MaxPool" else "MaxPool"
    graph.replace(node, helper.make_node(other, list(node.input), list(node.output), **kept))
    return str(next(n.name for n in graph.nodes if n.output[0] == node.output[0]))


@fault("axis of softmax")
def softmax_axis(graph: Graph, random: random.Random) -> str:
    nodes = some(n for n in graph.of("Softmax", "LogSoftmax") if len(graph.shape(n.output[0])) > 1)
    node = random.choice(nodes)
    rank = len(graph.shape(node.output[0]))
    set_attribute(node, "axis", rank - 2)
    return str(node.name)


@fault("opset semantics of softmax")
def softmax_semantics(graph: Graph, random: random.Random) -> str:
    """Before opset 13, Softmax worked over all dimensions from its axis on, which was 1 by default."""
    from onnx import helper

    nodes = some(n for n in graph.of("Softmax") if len(graph.shape(n.output[0])) > 2)  # noqa: PLR2004
    node = random.choice(nodes)
    given, result = node.input[0], node.output[0]
    flat, soft, shape = (f"{node.name}_{part}" for part in ("flat", "soft", "shape"))
    graph.replace(
        node,
        helper.make_node("Shape", [given], [shape]),
        helper.make_node("Flatten", [given], [flat], axis=1),
        helper.make_node("Softmax", [flat], [soft], axis=-1),
        helper.make_node("Reshape", [soft, shape], [result]),
    )
    return str(node.name)


@fault("axis of a reduction")
def reduce_axis(graph: Graph, random: random.Random) -> str:
    """A reduction runs along another axis than its own, over a tensor of the shape that was expected."""
    import numpy as np

    node = random.choice(graph.of("ReduceMean", "ReduceSum", "ReduceMax", "ArgMax"))
    axes = graph.constant(node.input[1]) if len(node.input) > 1 else np.array([attribute(node, "axis", 0)])
    shape = graph.shape(node.input[0])
    if axes is None or not shape or any(size is None for size in shape[1:]):
        raise NoSite
    own = {int(axis) % len(shape) for axis in axes.flat}
    axis, other = min(own), random.choice(some(i for i in range(1, len(shape)) if i not in own))
    order = list(range(len(shape)))
    order[axis], order[other] = other, axis
    graph.before(node, 0, "Transpose", perm=order)
    graph.before(node, 0, "Reshape", [graph.add_constant(np.array([0, *shape[1:]], np.int64), "shape")])
    return str(node.name)


@fault("activation swapped")
def activation_swapped(graph: Graph, random: random.Random) -> str:
    """For another one that is near: an exporter's or a fusion's mistake."""
    from onnx import helper

    swaps = {
        "Relu": ("LeakyRelu", {"alpha": 0.01}),
        "LeakyRelu": ("Relu", {}),
        "Sigmoid": ("HardSigmoid", {}),
        "Tanh": ("Softsign", {}),
        "Elu": ("Selu", {}),
        "HardSwish": ("Relu", {}),
        "Gelu": ("Relu", {}),
    }
    node = random.choice(graph.of(*swaps))
    kind, attributes = swaps[node.op_type]
    graph.replace(node, helper.make_node(kind, list(node.input[:1]), list(node.output), **attributes))
    return str(node.name)


@fault("activation approximated")
def activation_approximated(graph: Graph, random: random.Random) -> str:
    """GELU by tanh; the hyperbolic tangent by a fraction that is right to a few thousandths up to 2."""
    import numpy as np
    from onnx import helper

    node = random.choice(graph.of("Gelu", "Tanh"))
    if node.op_type == "Gelu":
        set_attribute(node, "approximate", "none" if attribute(node, "approximate", b"none") == b"tanh" else "tanh")
        return str(node.name)
    x, y, n = node.input[0], node.output[0], node.name
    numbers = {v: graph.add_constant(np.array(v, np.float32), "number") for v in (27.0, 9.0, -1.0, 1.0)}
    # Source: the Padé approximant x (27 + x²) / (27 + 9 x²), clipped to ±1.
    graph.replace(
        node,
        helper.make_node("Mul", [x, x], [f"{n}_square"]),
        helper.make_node("Add", [f"{n}_square", numbers[27.0]], [f"{n}_top"]),
        helper.make_node("Mul", [f"{n}_top", x], [f"{n}_upper"]),
        helper.make_node("Mul", [f"{n}_square", numbers[9.0]], [f"{n}_nine"]),
        helper.make_node("Add", [f"{n}_nine", numbers[27.0]], [f"{n}_lower"]),
        helper.make_node("Div", [f"{n}_upper", f"{n}_lower"], [f"{n}_ratio"]),
        helper.make_node("Clip", [f"{n}_ratio", numbers[-1.0], numbers[1.0]], [y]),
    )
    return str(node.name)


@fault("activation's parameter off")
def activation_parameter(graph: Graph, random: random.Random) -> str:
    """The slope of a leaky ReLU, the ceiling of ReLU6: 6 became 5.9."""
    import numpy as np

    node = random.choice(graph.of("LeakyRelu", "Elu", "Clip", "PRelu"))
    if node.op_type in ("LeakyRelu", "Elu"):
        set_attribute(node, "alpha", attribute(node, "alpha", 1.0 if node.op_type == "Elu" else 0.01) * 1.01)
        return str(node.name)
    index = 1 if node.op_type == "PRelu" else 2
    value = graph.constant(node.input[index]) if index < len(node.input) else None
    if value is None:
        raise NoSite
    graph.set_own_constant(node, index, (value * np.float32(0.98333)).astype(np.float32))
    return str(node.name)


def _floating(graph: Graph) -> list[onnx.NodeProto]:
    kinds = {"Conv", "Gemm", "MatMul", "Add", *ACTIVATIONS, *NORMS, "Softmax"}
    return some(n for n in graph.nodes if n.op_type in kinds)


def _through(graph: Graph, random: random.Random, narrow: int) -> str:
    from onnx import TensorProto, helper

    node = random.choice(_floating(graph))
    out = node.output[0]
    node.output[0] = f"{node.name}_wide"
    place = graph.nodes.index(node) + 1
    casts = (
        helper.make_node("Cast", [f"{node.name}_wide"], [f"{node.name}_narrow"], to=narrow, name=f"{node.name}_down"),
        helper.make_node("Cast", [f"{node.name}_narrow"], [out], to=TensorProto.FLOAT, name=f"{node.name}_up"),
    )
    for new in reversed(casts):
        graph.graph.node.insert(place, new)
    return str(node.name)


@fault("one result rounded to fp16")
def result_fp16(graph: Graph, random: random.Random) -> str:
    from onnx import TensorProto

    return _through(graph, random, TensorProto.FLOAT16)


@fault("one result rounded to bf16")
def result_bf16(graph: Graph, random: random.Random) -> str:
    from onnx import TensorProto

    return _through(graph, random, TensorProto.BFLOAT16)


@fault("dropout left on")
def dropout_on(graph: Graph, random: random.Random) -> str:
    """A tenth of the values that enter a node is lost, others each time.

    It is written with a random mask: ONNX Runtime's optimiser removes a Dropout even in training mode.
    """
    import numpy as np
    from onnx import helper

    weighted = graph.of("Gemm", "MatMul", "Conv")
    node = random.choice(some(n for n in weighted if graph.constant(n.input[0]) is None))
    given, n = node.input[0], node.name
    numbers = [graph.add_constant(np.array(v, np.float32), "number") for v in (0.1, 1 / 0.9, 0.0)]
    new = (
        helper.make_node("RandomUniformLike", [given], [f"{n}_random"], name=f"{n}_before_random"),
        helper.make_node("Less", [f"{n}_random", numbers[0]], [f"{n}_lost"], name=f"{n}_before_less"),
        helper.make_node("Mul", [given, numbers[1]], [f"{n}_scaled"], name=f"{n}_before_scale"),
        helper.make_node("Where", [f"{n}_lost", numbers[2], f"{n}_scaled"], [f"{n}_kept"], name=f"{n}_before_where"),
    )
    place = graph.nodes.index(node)
    node.input[0] = f"{n}_kept"
    for one in reversed(new):
        graph.graph.node.insert(place, one)
    return str(node.name)


@fault("recurrent variant")
def recurrent_variant(graph: Graph, random: random.Random) -> str:
    """A GRU applies its reset gate before the product instead of after it; an LSTM reads its sequence backwards."""
    node = random.choice(graph.of("GRU", "LSTM"))
    if node.op_type == "GRU":
        set_attribute(node, "linear_before_reset", 1 - attribute(node, "linear_before_reset", 0))
    elif attribute(node, "direction", b"forward") == b"forward":
        set_attribute(node, "direction", "reverse")
    else:
        raise NoSite
    return str(node.name)
