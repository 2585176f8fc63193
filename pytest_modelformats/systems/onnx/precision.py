"""The precision that an ONNX file's weights are written down in, from its wire format, with the standard library alone.

Source: ``onnx.proto`` for the field numbers, the protobuf encoding specification for the rest.
"""

from __future__ import annotations

import os
from collections import Counter
from math import prod
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MODEL_GRAPH = 7
GRAPH_NODE, GRAPH_INITIALIZER = 1, 5
NODE_INPUT, NODE_OP_TYPE = 1, 4
TENSOR_DIMS, TENSOR_DATA_TYPE, TENSOR_NAME = 1, 2, 8
FLOAT, FLOAT16, DOUBLE = 1, 10, 11
VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
VARINT_BYTES = 10
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
    graph = next((span for number, span in _fields(file, 0, size) if number == MODEL_GRAPH), None)
    if not isinstance(graph, tuple):
        return False
    weights = [
        _tensor(file, *span)
        for number, span in _fields(file, *graph)
        if number == GRAPH_INITIALIZER and isinstance(span, tuple)
    ]
    if not any(kind == FLOAT16 for _, kind, _ in weights):
        return False
    converted: set[bytes] = set()
    for number, span in _fields(file, *graph):
        if number == GRAPH_NODE and isinstance(span, tuple):
            converted |= _converted(file, *span)
    elements: Counter[int] = Counter()
    for name, kind, count in weights:
        elements[kind] += 0 if name in converted else count
    return elements[FLOAT16] > elements[FLOAT] + elements[DOUBLE]


def _tensor(file: BinaryIO, start: int, end: int) -> tuple[bytes, int, int]:
    """Name, data type and number of elements of a TensorProto."""
    name, kind, dims = b"", 0, []
    for number, value in _fields(file, start, end):
        if number == TENSOR_NAME:
            name = _text(file, value)
        elif number == TENSOR_DATA_TYPE and isinstance(value, int):
            kind = value
        elif number == TENSOR_DIMS and isinstance(value, int):
            dims.append(value)
        elif number == TENSOR_DIMS and isinstance(value, tuple):  # packed
            file.seek(value[0])
            while file.tell() < value[1]:
                dims.append(_varint(file))
    return name, kind, prod(dims)


def _converted(file: BinaryIO, start: int, end: int) -> set[bytes]:
    """What a NodeProto converts to another type, where it does."""
    inputs, operator = [], b""
    for number, value in _fields(file, start, end):
        if number == NODE_INPUT:
            inputs.append(_text(file, value))
        elif number == NODE_OP_TYPE:
            operator = _text(file, value)
    return set(inputs) if operator == b"Cast" else set()


def _fields(file: BinaryIO, start: int, end: int) -> Iterator[tuple[int, int | tuple[int, int]]]:
    """The fields of a message: number, and the value of a varint or where the bytes of any other begin and end.

    Raises: ValueError where it is no message.
    """
    position = start
    while position < end:
        file.seek(position)
        key = _varint(file)
        number, kind = key >> 3, key & 7
        if kind == VARINT:
            value = _varint(file)
            position = file.tell()
            yield number, value
            continue
        lengths = {FIXED64: 8, FIXED32: 4}
        if kind != LENGTH and kind not in lengths:
            raise ValueError("no protobuf message")
        length = _varint(file) if kind == LENGTH else lengths[kind]
        first = file.tell()
        position = first + length
        if position > end:
            raise ValueError("a field ends beyond its message")
        yield number, (first, position)


def _text(file: BinaryIO, span: int | tuple[int, int]) -> bytes:
    if isinstance(span, int) or span[1] - span[0] > LONGEST_TEXT:
        return b""
    file.seek(span[0], os.SEEK_SET)
    return file.read(span[1] - span[0])


def _varint(file: BinaryIO) -> int:
    value = 0
    for position in range(VARINT_BYTES):
        byte = file.read(1)
        if not byte:
            raise ValueError("the file ends in the middle of a field")
        value |= (byte[0] & 0x7F) << (7 * position)
        if byte[0] < 0x80:  # noqa: PLR2004 - the continuation bit of a varint
            return value
    raise ValueError("no varint")
