"""The nodes of an ONNX file that run in training mode, read from its wire format with the standard library alone.

A session worker asks, and it need not have onnx. Weights are skipped, not read. A reproduction bundle holds this
file as it is, so it imports nothing of this package.

Source: the operator specifications of Dropout (opsets 1 to 13) and BatchNormalization (1 to 15), and
``onnx.proto`` for the field numbers.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
# Field numbers.
MODEL_GRAPH, MODEL_OPSET, MODEL_FUNCTION = 7, 8, 25
GRAPH_NODE, GRAPH_INITIALIZER, FUNCTION_NODE, FUNCTION_OPSET = 1, 5, 7, 9
OPSET_DOMAIN, OPSET_VERSION = 1, 2
NODE_INPUT, NODE_OUTPUT, NODE_NAME, NODE_TYPE, NODE_ATTRIBUTE, NODE_DOMAIN = 1, 2, 3, 4, 5, 7
ATTRIBUTE_NAME, ATTRIBUTE_FLOAT, ATTRIBUTE_INT, ATTRIBUTE_TENSOR, ATTRIBUTE_GRAPH, ATTRIBUTE_GRAPHS = 1, 2, 3, 5, 6, 11
TENSOR_NAME = 8
TENSOR_VALUES = (4, 5, 7, 9, 10, 11)  # float, int32, int64, raw, double, uint64
# A flag is one byte; with a long name and its shape it stays far below this, and a weight does not matter.
SMALL_BYTES = 4096
OWN_DOMAIN = ("", "ai.onnx")
# Since opset 7 Dropout and BatchNormalization have no ``is_test``; the modes are an input since 12, an attribute
# since 14. In between Dropout has one mode, and more outputs than one mean that BatchNormalization trains.
WITHOUT_IS_TEST, DROPOUT_INPUT, NORMALIZATION_ATTRIBUTE = 7, 12, 14


class DamagedError(Exception):
    """The bytes end in the middle of a field."""


@dataclass
class _Node:
    type: str = ""
    name: str = ""
    domain: str = ""
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    # Whole numbers as they are, of floats and tensors whether they are other than zero.
    numbers: dict[str, int] = field(default_factory=dict)
    graphs: list[bytes] = field(default_factory=list)

    def given(self, index: int) -> str:
        return self.inputs[index] if index < len(self.inputs) else ""


def training_nodes(artifact: Path) -> list[tuple[str, str]]:
    """The (operator, name) of every node that runs in training mode; of a nameless one, its output's name.

    Where a mode is computed and not a constant, nothing is claimed; nor of a Dropout with the constant ratio 0.
    """
    size = artifact.stat().st_size
    functions, found, opset = [], list[tuple[str, str]](), 0
    graph: tuple[int, int] | None = None
    with artifact.open("rb") as file:
        try:
            for number, _, length in _fields(file, size):
                if number == MODEL_GRAPH:
                    graph = (file.tell(), length)
                elif number == MODEL_OPSET:
                    opset = max(opset, _opset(file.read(length)))
                elif number == MODEL_FUNCTION:
                    functions.append(file.read(length))
            if graph is None:
                return []
            file.seek(graph[0])
            _search(file, sum(graph), opset, {}, found)
            for function in functions:
                _search_function(function, opset, found)
        except DamagedError:
            return []
    return found


def _fields(file: BinaryIO, end: int) -> Iterator[tuple[int, int, int]]:
    """(number, value, length) of each field up to ``end``; the file stands at the bytes of one that has a length."""
    while file.tell() < end:
        key = varint(file)
        number, kind = key >> 3, key & 7
        if kind == VARINT:
            yield number, varint(file), 0
            continue
        length = varint(file) if kind == LENGTH else {FIXED64: 8, FIXED32: 4}.get(kind, 0)
        after = file.tell() + length
        yield number, 0, length
        file.seek(after)


def varint(file: BinaryIO) -> int:
    """Read a number of variable length; raises DamagedError."""
    value = shift = 0
    while True:
        byte = file.read(1)
        if not byte:
            raise DamagedError
        value |= (byte[0] & 0x7F) << shift
        shift += 7
        if byte[0] < 0x80:  # noqa: PLR2004 - the continuation bit of a varint
            return value


def _in(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """The same of a message that was read: (number, value, bytes)."""
    file = io.BytesIO(data)
    for number, value, length in _fields(file, len(data)):
        yield number, value, file.read(length)


def _opset(data: bytes) -> int:
    """The version of the operators that this is about, 0 for those of other domains."""
    domain, version = "", 0
    for number, value, content in _in(data):
        if number == OPSET_DOMAIN:
            domain = content.decode(errors="replace")
        elif number == OPSET_VERSION:
            version = value
    return version if domain in OWN_DOMAIN else 0


def _search(file: BinaryIO, end: int, opset: int, outer: Mapping[str, int], found: list[tuple[str, str]]) -> None:
    """Add the nodes of a graph and of those inside it; ``outer`` are the constants that it sees."""
    nodes, constants = [], dict(outer)
    for number, _, length in _fields(file, end):
        if number == GRAPH_NODE:
            nodes.append(_node(file.read(length)))
        elif number == GRAPH_INITIALIZER and length <= SMALL_BYTES:
            name, value = _tensor(file.read(length))
            if value is not None:
                constants[name] = value
    _judge(nodes, opset, constants, found)


def _search_function(data: bytes, opset: int, found: list[tuple[str, str]]) -> None:
    nodes = [_node(content) for number, _, content in _in(data) if number == FUNCTION_NODE]
    own = max((_opset(content) for number, _, content in _in(data) if number == FUNCTION_OPSET), default=0)
    _judge(nodes, own or opset, {}, found)


def _judge(nodes: list[_Node], opset: int, constants: dict[str, int], found: list[tuple[str, str]]) -> None:
    for node in nodes:  # in topological order
        if node.type == "Constant" and node.numbers and node.outputs:
            constants[node.outputs[0]] = next(iter(node.numbers.values()))
        elif node.type in {"Identity", "Cast"} and node.given(0) in constants and node.outputs:
            constants[node.outputs[0]] = constants[node.given(0)]
        if node.domain in OWN_DOMAIN and _trains(node, opset, constants):
            found.append((node.type, node.name or next(iter(node.outputs), "")))
        for graph in node.graphs:
            _search(io.BytesIO(graph), len(graph), opset, constants, found)


def _trains(node: _Node, opset: int, constants: Mapping[str, int]) -> bool:
    if node.type not in {"Dropout", "BatchNormalization"} or not opset:
        return False
    if opset < WITHOUT_IS_TEST:
        return not node.numbers.get("is_test", 0)
    if node.type == "Dropout":
        drops = constants.get(node.given(1), 1) != 0
        return opset >= DROPOUT_INPUT and drops and bool(constants.get(node.given(2), 0))
    if opset < NORMALIZATION_ATTRIBUTE:
        return sum(map(bool, node.outputs)) > 1
    return bool(node.numbers.get("training_mode", 0))


def _node(data: bytes) -> _Node:
    node = _Node()
    for number, _, content in _in(data):
        if number == NODE_INPUT:
            node.inputs.append(content.decode(errors="replace"))
        elif number == NODE_OUTPUT:
            node.outputs.append(content.decode(errors="replace"))
        elif number == NODE_NAME:
            node.name = content.decode(errors="replace")
        elif number == NODE_TYPE:
            node.type = content.decode(errors="replace")
        elif number == NODE_DOMAIN:
            node.domain = content.decode(errors="replace")
        elif number == NODE_ATTRIBUTE:
            _attribute(content, node)
    return node


def _attribute(data: bytes, node: _Node) -> None:
    """Add what an attribute holds to its node."""
    name, held = "", None
    for number, value, content in _in(data):
        if number == ATTRIBUTE_NAME:
            name = content.decode(errors="replace")
        elif number == ATTRIBUTE_INT:
            held = value
        elif number == ATTRIBUTE_FLOAT:
            held = int(any(content))
        elif number == ATTRIBUTE_TENSOR and len(content) <= SMALL_BYTES:
            held = _tensor(content)[1]
        elif number in (ATTRIBUTE_GRAPH, ATTRIBUTE_GRAPHS):
            node.graphs.append(content)
    if held is not None:
        node.numbers[name] = held


def _tensor(data: bytes) -> tuple[str, int | None]:
    """The name of a small tensor and whether anything in it is other than zero; ``None`` where it lies elsewhere."""
    name, held = "", None
    for number, value, content in _in(data):
        if number == TENSOR_NAME:
            name = content.decode(errors="replace")
        elif number in TENSOR_VALUES:
            held = int(bool(held) or bool(value) or any(content))
    return name, held
