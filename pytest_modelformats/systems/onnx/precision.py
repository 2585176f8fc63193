"""The precision that an ONNX file's weights are written down in, from its wire format, with the standard library alone.

Source: ``onnx.proto`` for the field numbers.
"""

from __future__ import annotations

from collections import Counter
from math import prod
from typing import TYPE_CHECKING, BinaryIO

from pytest_modelformats.systems.onnx.protobuf import data, fields, varint

if TYPE_CHECKING:
    from pathlib import Path

MODEL_GRAPH = 7
GRAPH_NODE, GRAPH_INITIALIZER = 1, 5
NODE_INPUT, NODE_OP_TYPE = 1, 4
TENSOR_DIMS, TENSOR_DATA_TYPE, TENSOR_NAME = 1, 2, 8
FLOAT, FLOAT16, DOUBLE = 1, 10, 11
LONGEST_TEXT = 4096


def precision(path: Path) -> str:
    """``fp16`` where more than half of the float weights that operators take as they are is fp16, else ``fp32``.

    A weight that is converted before its use (weights stored in fp16, computed in fp32) counts for neither; nor does
    what cannot be read, which is told when the model is loaded.
    """
    try:
        with path.open("rb") as file:
            return "fp16" if _is_half(file, path.stat().st_size) else "fp32"
    except (OSError, ValueError):
        return "fp32"


def _is_half(file: BinaryIO, size: int) -> bool:
    graph = next(((start, end) for number, start, end in fields(file, 0, size) if number == MODEL_GRAPH), None)
    if graph is None:
        return False
    weights = [_tensor(file, start, end) for number, start, end in fields(file, *graph) if number == GRAPH_INITIALIZER]
    if not any(kind == FLOAT16 for _, kind, _ in weights):
        return False
    converted: set[bytes] = set()
    for number, start, end in fields(file, *graph):
        if number == GRAPH_NODE:
            converted |= _converted(file, start, end)
    elements: Counter[int] = Counter()
    for name, kind, count in weights:
        elements[kind] += 0 if name in converted else count
    return elements[FLOAT16] > elements[FLOAT] + elements[DOUBLE]


def _tensor(file: BinaryIO, start: int, end: int) -> tuple[bytes, int, int]:
    """Name, data type and number of elements of a TensorProto."""
    name, kind, dims = b"", 0, []
    for number, first, last in fields(file, start, end):
        if number == TENSOR_NAME:
            name = data(file, first, last, LONGEST_TEXT)
        elif number == TENSOR_DATA_TYPE:
            kind = first
        elif number == TENSOR_DIMS and last < 0:
            dims.append(first)
        elif number == TENSOR_DIMS:  # packed
            file.seek(first)
            while file.tell() < last:
                dims.append(varint(file))
    return name, kind, prod(dims)


def _converted(file: BinaryIO, start: int, end: int) -> set[bytes]:
    """What a NodeProto converts to another type, where it does."""
    inputs, operator = [], b""
    for number, first, last in fields(file, start, end):
        if number == NODE_INPUT:
            inputs.append(data(file, first, last, LONGEST_TEXT))
        elif number == NODE_OP_TYPE:
            operator = data(file, first, last, LONGEST_TEXT)
    return set(inputs) if operator == b"Cast" else set()
