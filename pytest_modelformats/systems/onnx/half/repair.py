"""Mends the element types of a graph that was turned to fp16: a cast where one is missing, none where it is wrong.

The types are followed from the inputs and weights through every node, by the operators' specifications. What fits is
left as it is.
"""

from __future__ import annotations

from collections import ChainMap, Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_modelformats.systems.onnx import graph as onnx_graph
from pytest_modelformats.systems.onnx.half import element_types as types
from pytest_modelformats.systems.onnx.half import structure
from pytest_modelformats.systems.onnx.half.element_types import FLOAT, FLOATS, HALF

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx

    Kinds = Sequence[str | None]

# They take any type and give one that does not follow from it: they need no fp16.
_INDIFFERENT = frozenset({"Cast", "Shape", "Size", "IsNaN", "IsInf", "ArgMax", "ArgMin", "NonZero"})
# BitCast takes the bits as they are; the body that ONNX specifies for the other one has fp32 constants.
_ONLY_FP32 = frozenset({"BitCast", "MeanVarianceNormalization"})
# Of ONNX Runtime's own operators. Source: its docs/ContribOperators.md.
_FLOATS_OF_INTEGERS = frozenset(
    {"DequantizeLinear", "DynamicQuantizeLSTM", "DynamicQuantizeMatMul", "MatMulIntegerToFloat", "QAttention"}
)
_QUANTISING = ("Quant", "QLinear", "Integer", "NBits")
_BEFORE_LOOP_STATE, _BEFORE_BODY_STATE = 2, 1  # trip count and condition; the condition
_SCAN_WITHOUT_LENGTHS = 9  # before opset 9 Scan had an input of lengths before its state


def repair(
    model: onnx.ModelProto, source: onnx.ModelProto, blocked: frozenset[str]
) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """The fp16 model mended, and in a few words each what was done to it; the model given is used up.

    Its inputs and outputs are of the source's types.

    ``source`` is the fp32 model that it was made of, which has the values of constants that stay fp32. ``blocked`` are
    the operators that compute in fp32: their inputs are cast to it.
    """
    mender = _Mender(model, source, blocked)
    mender.done["nodes put in order"] = int(structure.sort(model.graph))
    mender.casts_of_the_source()
    structure.state_interface(model, source)
    kinds = mender.graph(model.graph, _Place(model.graph))
    mender.outputs(kinds)
    model, mender.done["stated types inferred anew"] = _restated(model)
    return model, tuple(f"{what} ({count})" if count > 1 else what for what, count in mender.done.items() if count)


def _restated(model: onnx.ModelProto) -> tuple[onnx.ModelProto, int]:
    """The types and shapes of intermediate values inferred anew, and how many had another type stated."""
    import onnx

    stated = _stated(model)
    for graph in onnx_graph.graphs(model):
        del graph.value_info[:]
    try:
        model = onnx.shape_inference.infer_shapes(model)
    except (ValueError, RuntimeError, onnx.shape_inference.InferenceError):
        # Above 2 GiB nothing is inferred, nor where the checker will say why: the values are then of no stated type.
        return model, len(stated)
    now = _stated(model)
    return model, sum(name in now and now[name] != kind for name, kind in stated.items())


def _stated(model: onnx.ModelProto) -> dict[str, str | None]:
    return {value.name: types.of_value(value) for graph in onnx_graph.graphs(model) for value in graph.value_info}


@dataclass(slots=True)
class _Place:
    """A graph that is being mended: the types of what can be seen in it, and what has to stand before the next node.

    ``cast`` has what was cast already: (name, type) -> the name in that type.
    """

    graph: onnx.GraphProto
    types: ChainMap[str, str | None] = field(default_factory=ChainMap)
    cast: ChainMap[tuple[str, str], str] = field(default_factory=ChainMap)
    before: list[onnx.NodeProto] = field(default_factory=list)

    def of(self, node: onnx.NodeProto) -> list[str | None]:
        """The types of a node's inputs."""
        return [self.types.get(name) for name in node.input]

    def inside(self, body: onnx.GraphProto) -> _Place:
        """A body, in which all of this can be seen."""
        return _Place(body, self.types.new_child(), self.cast.new_child())


class _Mender:
    """One repair: the model, the names that are taken in it, and what was done."""

    def __init__(self, model: onnx.ModelProto, source: onnx.ModelProto, blocked: frozenset[str]) -> None:
        from onnx import TensorProto

        self._model = model
        self._operators = types.Operators(model)
        self._blocked = blocked
        self._constants = structure.constants(source, TensorProto.FLOAT)
        self._taken = structure.names(model)
        self.done: Counter[str] = Counter()

    def casts_of_the_source(self) -> None:
        """Let the Casts to fp32 that the converter left behind give fp16 where something takes their result in fp16."""
        from onnx import TensorProto

        users = defaultdict[str, list[tuple["onnx.NodeProto", int]]](list)
        for node in onnx_graph.nodes(self._model):
            for position, name in enumerate(node.input):
                users[name].append((node, position))
        kept = {value.name for value in self._model.graph.output if types.of_value(value) == FLOAT}
        for node in onnx_graph.nodes(self._model):
            to = next((a for a in node.attribute if node.op_type == "Cast" and a.name == "to"), None)
            if to is None or to.i != TensorProto.FLOAT or node.output[0] in kept:
                continue
            if any(self._takes_half(user, position) for user, position in users[node.output[0]]):
                to.i = TensorProto.FLOAT16
                self.done["casts to fp32 made casts to fp16"] += 1

    def _takes_half(self, node: onnx.NodeProto, position: int) -> bool:
        if node.op_type in _INDIFFERENT:
            return False
        schema = self._operators.schema(node)
        if schema is None or any(structure.bodies(node)):
            return True
        return any(
            position in positions and self._wanted(node, types.allowed(schema, variable)) == HALF
            for variable, positions in types.groups(node, schema).items()
        )

    def _wanted(self, node: onnx.NodeProto, may_be: frozenset[str]) -> str | None:
        """The type in which a node takes floats: fp32 where it is blocked or has no fp16."""
        wanted = [t for t in (HALF, FLOAT) if t in may_be]
        blocked = node.op_type in self._blocked | _ONLY_FP32
        return FLOAT if FLOAT in wanted and blocked else next(iter(wanted), None)

    def graph(self, graph: onnx.GraphProto, place: _Place) -> list[str | None]:
        """Mend a graph and its bodies, and say of what types its outputs are."""
        place.types.update({value.name: types.of_value(value) for value in graph.input})
        place.types.update({tensor.name: types.named(tensor.data_type) for tensor in graph.initializer})
        mended: list[onnx.NodeProto] = []
        for node in graph.node:
            place.types.update(zip(node.output, self._node(node, place), strict=False))
            mended += [*place.before, node]
            place.before = []
        structure.replace(graph, mended)
        return [place.types.get(value.name) for value in graph.output]

    def _node(self, node: onnx.NodeProto, place: _Place) -> Kinds:
        """Mend a node, and say of what types its outputs are."""
        schema = self._operators.schema(node)
        if schema is None:
            return self._unspecified(node, place)
        if node.op_type == "If":
            return self._branches(node, place)
        if node.op_type in {"Loop", "Scan"}:
            return self._repeated(node, place)
        for variable, positions in types.groups(node, schema).items():
            may_be = types.allowed(schema, variable)
            self._group(node, positions, may_be - {HALF} if node.op_type in _ONLY_FP32 else may_be, place)
        return types.outputs(node, schema, place.of(node))

    def _group(self, node: onnx.NodeProto, positions: Sequence[int], may_be: frozenset[str], place: _Place) -> None:
        """Bring inputs that must be of one type to one that the operator has."""
        held = {place.types.get(node.input[i]) for i in positions} & FLOATS
        wanted = self._wanted(node, may_be)
        if not held or (len(held) == 1 and held <= may_be) or wanted is None:
            return
        for i in positions:
            if place.types.get(node.input[i]) in FLOATS - {wanted}:
                node.input[i] = self._as(node.input[i], wanted, place)

    def _unspecified(self, node: onnx.NodeProto, place: _Place) -> Kinds:
        """An operator of another domain is taken to compute in one float type, which is its first output's too.

        Those that quantise have rules of their own: nothing is known of them but of the ones that give floats again.
        """
        positions = [i for i, kind in enumerate(place.of(node)) if kind in FLOATS]
        if node.op_type in _FLOATS_OF_INTEGERS:
            self._group(node, positions, frozenset({FLOAT}), place)
            return [FLOAT] * len(node.output)
        if not positions or any(word in node.op_type for word in _QUANTISING):
            return [None] * len(node.output)
        self._group(node, positions, FLOATS, place)
        return [place.of(node)[positions[0]], *[None] * (len(node.output) - 1)]

    def _as(self, name: str, wanted: str, place: _Place) -> str:
        """The name of a value in another type: the source's own constant, what was cast before, or a new Cast."""
        key = (name, wanted)
        if key not in place.cast:
            found = structure.unused(f"{name}_as_{'fp32' if wanted == FLOAT else 'fp16'}", self._taken)
            if wanted == FLOAT and name in self._constants:
                constant = place.graph.initializer.add()
                constant.CopyFrom(self._constants[name])
                constant.name = found
                self.done["constants kept in fp32"] += 1
            else:
                place.before.append(self._cast(name, found, wanted))
            place.cast[key] = found
            place.types[found] = wanted
        return place.cast[key]

    def _cast(self, name: str, found: str, wanted: str) -> onnx.NodeProto:
        from onnx import TensorProto, helper

        self.done["casts inserted"] += 1
        to = TensorProto.FLOAT if wanted == FLOAT else TensorProto.FLOAT16
        return helper.make_node("Cast", [name], [found], structure.unused(f"{found}_cast", self._taken), to=to)

    def _branches(self, node: onnx.NodeProto, place: _Place) -> Kinds:
        """Mend an If: its branches give the same types, fp16 where either does."""
        branches = list(structure.bodies(node))
        kinds = [self.graph(body, place.inside(body)) for body in branches]
        together = [HALF if {*of_output} == FLOATS else of_output[0] for of_output in zip(*kinds, strict=False)]
        for body, own in zip(branches, kinds, strict=True):
            self._leave(body, own, together)
        return together

    def _repeated(self, node: onnx.NodeProto, place: _Place) -> Kinds:
        """Mend a Loop or Scan: what enters the body, the body, and what it hands to its next round."""
        body = next(structure.bodies(node))
        first, before, states = 0, 0, len(node.input)
        if node.op_type == "Loop":
            first, before, states = _BEFORE_LOOP_STATE, _BEFORE_BODY_STATE, states - _BEFORE_LOOP_STATE
        elif self._operators.opset >= _SCAN_WITHOUT_LENGTHS:
            states -= next(a.i for a in node.attribute if a.name == "num_scan_inputs")
        else:
            return [None] * len(node.output)
        for position in range(first, len(node.input)):
            self._enter(node, position, body.input[position], place)
        kinds = self.graph(body, place.inside(body))
        entered = [types.of_value(value) for value in body.input[first : first + states]]
        together = [*kinds[:before], *entered, *kinds[before + states :]]
        self._leave(body, kinds, together)
        return together[before:]

    def _enter(self, node: onnx.NodeProto, position: int, value: onnx.ValueInfoProto, place: _Place) -> None:
        """Give a body's input and what it gets one type: fp16 where either is."""
        given, stated = place.types.get(node.input[position]), types.of_value(value)
        if given == FLOAT and stated == HALF:
            node.input[position] = self._as(node.input[position], HALF, place)
        elif given in FLOATS and given != stated:
            types.state(value, given)
            self.done["types of bodies mended"] += 1

    def _leave(self, body: onnx.GraphProto, kinds: Kinds, wanted: Kinds) -> None:
        """Let the outputs of a body be of these types, and state them so."""
        for value, kind, want in zip(body.output, kinds, wanted, strict=False):
            if want in FLOATS and kind in FLOATS and kind != want:
                found = structure.unused(f"{value.name}_left", self._taken)
                body.node.append(self._cast(value.name, found, str(want)))
                value.name = found
            if want in FLOATS and types.of_value(value) != want:
                types.state(value, want)
                self.done["types of bodies mended"] += 1

    def outputs(self, kinds: Kinds) -> None:
        """Give the model's outputs the types that they state."""
        graph = self._model.graph
        for value, kind in zip(graph.output, kinds, strict=True):
            stated = types.of_value(value)
            if stated in FLOATS and kind in FLOATS and kind != stated:
                inner = structure.unused(f"{value.name}_inside", self._taken)
                structure.rename(graph, value.name, inner)
                graph.node.append(self._cast(inner, value.name, str(stated)))
