"""What an ONNX file states of its inputs, and its metadata: read with the standard library, for ``modelformats plan``.

Source: ``onnx.proto`` for the field numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

from pytest_modelformats.errors import SourceError
from pytest_modelformats.schema import TensorSpec
from pytest_modelformats.source import stated_inputs
from pytest_modelformats.systems.onnx import protobuf

if TYPE_CHECKING:
    from pathlib import Path

# Numbers of fields, by message.
GRAPH, METADATA = 7, 14
INITIALIZER, INPUT, SPARSE_INITIALIZER = 5, 11, 15
TENSOR_NAME, SPARSE_VALUES = 8, 1
KEY, VALUE = 1, 2
NAME, TYPE, TENSOR_TYPE, ELEM_TYPE, SHAPE, DIM, DIM_VALUE, DIM_PARAM = 1, 2, 1, 1, 2, 1, 1, 2
DTYPES = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    8: "string",
    9: "bool",
    10: "float16",
    11: "float64",
    12: "uint32",
    13: "uint64",
    16: "bfloat16",
}
# A name, a shape, what metadata state.
LONGEST = 1 << 20


def stated(path: Path) -> tuple[tuple[TensorSpec, ...], dict[str, str]]:
    """The graph's inputs, and the metadata by key; nothing of the file is loaded.

    Raises: SourceError where the file is no ONNX model; OSError.
    """
    inputs: list[TensorSpec | None] = []
    initialisers: set[str] = set()
    metadata: dict[str, str] = {}
    try:
        with path.open("rb") as file:
            for number, start, end in protobuf.fields(file, 0, path.stat().st_size):
                if number == METADATA:
                    entry = {n: _text(file, s, e) for n, s, e in protobuf.fields(file, start, end)}
                    metadata[entry.get(KEY, "")] = entry.get(VALUE, "")
                elif number == GRAPH:
                    _of_graph(file, start, end, inputs, initialisers)
    except ValueError as error:
        msg = f"'{path.name}' cannot be read as an ONNX model: {error}"
        raise SourceError(msg) from error
    return tuple(spec for spec in inputs if spec is not None and spec.name not in initialisers), metadata


def _of_graph(file: BinaryIO, start: int, end: int, inputs: list[TensorSpec | None], initialisers: set[str]) -> None:
    for number, first, last in protobuf.fields(file, start, end):
        if number == INPUT:
            inputs.append(_spec(file, first, last))
        elif number == INITIALIZER:
            initialisers.add(_name(file, first, last))
        elif number == SPARSE_INITIALIZER:
            values = [_name(file, s, e) for n, s, e in protobuf.fields(file, first, last) if n == SPARSE_VALUES]
            initialisers.update(values)


def _spec(file: BinaryIO, start: int, end: int) -> TensorSpec | None:
    """An input as the file states it; ``None`` for a sequence or an optional."""
    found = {number: (first, last) for number, first, last in protobuf.fields(file, start, end)}
    kinds = {n: (s, e) for n, s, e in protobuf.fields(file, *found[TYPE])} if TYPE in found else {}
    if NAME not in found or TENSOR_TYPE not in kinds:
        return None
    dtype, shape = 0, None
    for number, first, last in protobuf.fields(file, *kinds[TENSOR_TYPE]):
        if number == ELEM_TYPE:
            dtype = first
        elif number == SHAPE:
            shape = [_dim(file, s, e) for n, s, e in protobuf.fields(file, first, last) if n == DIM]
    dims = None if shape is None else stated_inputs.symbolic(shape)
    return TensorSpec(_text(file, *found[NAME]), DTYPES.get(dtype, str(dtype)), dims)


def _dim(file: BinaryIO, start: int, end: int) -> int | str:
    for number, first, last in protobuf.fields(file, start, end):
        # An input is never empty: exporters write 0 there for a size that they do not know.
        if number == DIM_VALUE and 0 < first < 1 << 62:
            return first
        if number == DIM_PARAM:
            return _text(file, first, last)
    return ""


def _name(file: BinaryIO, start: int, end: int) -> str:
    return next((_text(file, s, e) for n, s, e in protobuf.fields(file, start, end) if n == TENSOR_NAME), "")


def _text(file: BinaryIO, start: int, end: int) -> str:
    return protobuf.data(file, start, end, LONGEST).decode("utf-8", "replace")
