"""Which tensors of two ONNX graphs are the same: by name, else by the values that they hold."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any, Protocol

from pytest_modelformats.systems.onnx.reference import steps as onnx_steps

if TYPE_CHECKING:
    import numpy as np
    import onnx

    from pytest_modelformats.systems.onnx.reference.lazy import LazyModel

# Names are trusted where at least this share of the tensors has a namesake made by the same operator. Two
# exports of one network by torch's two exporters share none; a graph with one fault in it shares nearly all.
_LINEAGE = 0.5
# Two exporters that fold the same batch norm into the same weights differ by a few units in the last place.
_ROUNDED = 8


class Matched(Protocol):
    """What a comparison asks of the reference that it compares with."""

    named: bool
    alien: str
    inputs: dict[str, str]
    outputs: dict[str, str]
    tensors: dict[str, str]

    def twin(self, node: onnx.NodeProto, /) -> object:
        """What the reference has in a node's place, if anything."""
        ...

    def difference(self, node: onnx.NodeProto, /) -> str:
        """In which way a node is another one than the reference's, in words, "" where it is none."""
        ...

    def missing(self, node: onnx.NodeProto, /) -> list[onnx.NodeProto]:
        """The reference's nodes that are left out before a node."""
        ...

    def wiring(self, node: onnx.NodeProto, /) -> list[str]:
        """The reference's tensors that a node's twin takes, where only values say which tensors are the same."""
        ...


class Match:
    """What is known of two graphs before anything is computed.

    ``tensors`` maps a tensor of the artifact to one of the reference, ``named`` says whether
    names are to be trusted. Without names, ``twins`` are tensors made by operators that stand
    at the same place in both sequences of operators: a hint, not a match.
    """

    alien = "the reference has no such node there"

    def __init__(self, artifact: LazyModel, reference: LazyModel) -> None:
        """Match the outputs by position where their names differ, everything else by name."""
        own, other = _made(artifact), _made(reference)
        same = [name for name, node in own.items() if name in other and other[name].op_type == node.op_type]
        self.artifact, self.reference = artifact, reference
        self.makers, self.reference_makers = own, other
        self.named = len(same) >= _LINEAGE * len(own)
        self.tensors = {name: name for name in own if name in other} if self.named else {}
        self.inputs = _paired(artifact.inputs, reference.inputs)
        self.tensors |= self.inputs
        self.outputs = _paired(artifact.outputs, reference.outputs)
        self.tensors |= {mine: theirs for mine, theirs in self.outputs.items() if mine not in self.tensors}
        self.twins = dict(self.tensors) if self.named else _aligned(own, other) | self.tensors
        self._look_through_casts()

    def _look_through_casts(self) -> None:
        """What a Cast takes that the reference does not have is to equal what it gives: its maker is the twin."""
        for node in reversed(self.artifact.nodes):
            if node.op_type != "Cast" or node.output[0] not in self.tensors or node.input[0] in self.tensors:
                continue
            theirs = self.tensors[node.output[0]]
            if theirs in self.reference_makers and self.reference_makers[theirs].op_type != "Cast":
                self.tensors[node.input[0]] = self.twins[node.input[0]] = theirs
                self.twins.pop(node.output[0], None)

    def twin(self, node: onnx.NodeProto) -> onnx.NodeProto | None:
        """The node of the reference that makes what this one makes."""
        name = next((self.twins[o] for o in node.output if o in self.twins), "")
        return self.reference_makers.get(name)

    def difference(self, node: onnx.NodeProto) -> str:
        """In which way a node is another one than its twin, in words; "" where it is the same or has none."""
        twin = self.twin(node)
        if twin is None:
            return ""
        if (twin.domain, twin.op_type) != (node.domain, node.op_type):
            return f"it is {_a(node.op_type)}, in the reference {_a(twin.op_type)}"
        stated = _attributes(node, twin, self.reference)
        if stated:
            return stated
        for place, (mine, theirs) in enumerate(zip(_padded(node, twin), _padded(twin, node), strict=True)):
            if bool(mine) != bool(theirs):
                return f"input {place} is {'given' if mine else 'left out'}, in the reference it is not"
        # Among the constants alone: the operands of a sum may stand in another order.
        own = [(n, c) for n in node.input if (c := constant(self.artifact, n)) is not None]
        other = [c for n in twin.input if (c := constant(self.reference, n)) is not None]
        said = (_unequal(name, mine, theirs) for (name, mine), theirs in zip(own, other, strict=False))
        return next((words for words in said if words), "")

    def missing(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """The reference's nodes whose results its twin takes, where this node takes something else."""
        twin = self.twin(node)
        if twin is None or not self.named:
            return []
        mine = {self.tensors.get(name, name) for name in node.input}
        left = [name for name in twin.input if name in self.reference_makers and name not in mine]
        return [self.reference_makers[name] for name in left if name not in self.makers]

    def wiring(self, node: onnx.NodeProto) -> list[str]:
        """What its twin takes, where names are not trusted; nothing where they are."""
        twin = None if self.named else self.twin(node)
        return [] if twin is None or twin.op_type != node.op_type else list(twin.input)


def constant(model: LazyModel, name: str) -> np.ndarray | None:
    """The values of a tensor that is an initialiser or a Constant, ``None`` of any other."""
    from onnx import numpy_helper

    if name in model.tensors:
        return model.weight(name)
    for node in model.nodes:
        if name in node.output and node.op_type == "Constant":
            return next((numpy_helper.to_array(a.t) for a in node.attribute if a.name == "value"), None)
    return None


def _unequal(name: str, mine: np.ndarray, theirs: np.ndarray) -> str:
    """In how many elements two constants differ by more than writing them down explains, in words."""
    import numpy as np

    if mine.shape != theirs.shape:
        return f"'{name}' has shape {list(mine.shape)}, in the reference {list(theirs.shape)}"
    if mine.dtype.kind != "f" or theirs.dtype.kind != "f":
        unequal = mine != theirs
    else:
        own, other = mine.astype(np.float64), theirs.astype(np.float64)
        unit = float(np.finfo(mine.dtype if mine.dtype.itemsize < theirs.dtype.itemsize else theirs.dtype).eps)
        unequal = np.abs(own - other) > _ROUNDED * unit * np.maximum(np.abs(own), np.abs(other))
    count = int(np.count_nonzero(unequal))
    return f"'{name}' differs from the reference's in {count} of {mine.size} elements" if count else ""


def _made(model: LazyModel) -> dict[str, onnx.NodeProto]:
    """The tensors that depend on the inputs, and the node that makes each."""
    names = onnx_steps.dependent(model.nodes, model.inputs)
    return {name: node for node in model.nodes for name in node.output if name in names}


def _paired(mine: list[str], theirs: list[str]) -> dict[str, str]:
    """By name, where both have the same names; else by position."""
    if set(mine) == set(theirs) or len(mine) != len(theirs):
        return {name: name for name in mine if name in theirs}
    return dict(zip(mine, theirs, strict=True))


def _aligned(own: dict[str, Any], other: dict[str, Any]) -> dict[str, str]:
    """The tensors that stand at the same place in the longest common runs of operators."""
    mine, theirs = list(own), list(other)
    matcher = difflib.SequenceMatcher(
        None, [own[n].op_type for n in mine], [other[n].op_type for n in theirs], autojunk=False
    )
    return {mine[a + step]: theirs[b + step] for a, b, size in matcher.get_matching_blocks() for step in range(size)}


def _padded(node: onnx.NodeProto, other: onnx.NodeProto) -> list[str]:
    return [*node.input, *[""] * (len(other.input) - len(node.input))]


def _attributes(node: onnx.NodeProto, twin: onnx.NodeProto, model: LazyModel) -> str:
    """The first attribute in which two nodes differ, in words."""
    from onnx import helper

    defaults = _defaults(twin, model)
    mine = defaults | {a.name: a for a in node.attribute}
    theirs = defaults | {a.name: a for a in twin.attribute}
    for name in sorted({*mine, *theirs}):
        one, two = mine.get(name), theirs.get(name)
        if one is not None and two is not None and one.SerializeToString() == two.SerializeToString():
            continue
        values = [_shown(helper.get_attribute_value(a)) if a is not None else "not given" for a in (one, two)]
        if values[0] != values[1]:
            return f"'{name}' is {values[0]}, in the reference {values[1]}"
    return ""


def _defaults(node: onnx.NodeProto, model: LazyModel) -> dict[str, onnx.AttributeProto]:
    """What the operator takes an attribute for that is not given."""
    from onnx import defs

    version = next((o.version for o in model.structure.opset_import if o.domain == node.domain), 1)
    try:
        stated = defs.get_schema(node.op_type, version, node.domain).attributes
    except defs.SchemaError:
        return {}
    return {name: a.default_value for name, a in stated.items() if a.default_value.name}


def _a(noun: str) -> str:
    return f"{'an' if noun[0] in 'AEIO' else 'a'} {noun}"


def _shown(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (int, list)):
        return str(value)[:60]
    return f"another {type(value).__name__}"
