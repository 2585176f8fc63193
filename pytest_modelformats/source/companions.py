"""Which other files belong to a model's: read from the file itself, with the standard library alone.

Source: the protobuf encoding specification; field numbers of ``onnx.proto``.
"""

from __future__ import annotations

import importlib
import mmap
from pathlib import Path

from pytest_modelformats.errors import SourceError
from pytest_modelformats.schema import registry

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_VARINT_BYTES = 10
_CONTINUED = 0x80
# Where messages that may hold a tensor lie: message -> field number -> message.
_WITHIN: dict[str, dict[int, str]] = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}
_KEY, _VALUE = 1, 2
# A graph of 200,000 nodes with ten fields each; beyond that the file is made to keep us busy.
_LARGEST_FIELD_COUNT = 4_000_000


def companions(path: Path, form: str) -> tuple[Path, ...]:
    """The other files that belong to a model's, sorted.

    Raises: SourceError where one is missing or lies outside the model's folder.
    """
    hook = getattr(importlib.import_module(registry.formats()[form].module), "companions", None)
    if hook is not None:
        return tuple(sorted(hook(path)))
    if form == "openvino":
        weights = path.with_suffix(".bin")
        return (weights,) if weights.is_file() else ()
    if form != "onnx":
        return ()
    return tuple(_inside(path, location) for location in external_locations(path))


def renamed(path: Path, form: str, name: str) -> dict[str, str]:
    """What the companions of a model's file are to be called where the file itself is called ``name``.

    Both relative to the model's folder. Those that are found by the file's name follow it. Those that the file names
    keep theirs, but where that is made of the file's own (``model.onnx.data``): ``relocate`` of the format then writes
    the new one into the file.
    """
    found = [other.relative_to(path.parent).as_posix() for other in companions(path, form)]
    if form == "openvino":
        return {other: Path(name).with_suffix(".bin").name for other in found}
    if not hasattr(importlib.import_module(registry.formats()[form].module), "relocate"):
        return {other: other for other in found}
    return {other: name + other[len(path.name) :] if other.startswith(path.name) else other for other in found}


def _inside(path: Path, location: str) -> Path:
    target = path.parent / location
    if "\0" in location or not target.resolve().is_relative_to(path.parent.resolve()):
        msg = f"'{path.name}' keeps data in '{location}', outside its own folder; refused"
        raise SourceError(msg)
    if not target.is_file():
        msg = f"'{path.name}' keeps data in '{location}', which does not lie beside it; copy it there"
        raise SourceError(msg)
    return target


def external_locations(path: Path) -> tuple[str, ...]:
    """The ``location`` of every external tensor, as written in the file, sorted, each once.

    Raises: SourceError where the file is not well-formed protobuf or has too many fields.
    """
    if path.stat().st_size == 0:
        return ()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            return tuple(sorted(_locations(data)))
        except (IndexError, UnicodeDecodeError) as error:
            msg = f"'{path.name}' is damaged: its fields do not fit into one another; export or copy it again"
            raise SourceError(msg) from error
        except _TooManyError as error:
            msg = f"'{path.name}' has more than {_LARGEST_FIELD_COUNT} fields; it is not read any further"
            raise SourceError(msg) from error


class _TooManyError(Exception):
    """The walk is longer than any model justifies."""


def _locations(data: mmap.mmap) -> set[str]:
    found: set[str] = set()
    spans = [("model", 0, len(data))]
    fields = 0
    while spans:
        message, at, end = spans.pop()
        texts: dict[int, bytes] = {}
        while at < end:
            fields += 1
            if fields > _LARGEST_FIELD_COUNT:
                raise _TooManyError
            number, start, at = _field(data, at, end)
            inner = _WITHIN.get(message, {}).get(number)
            if inner:
                spans.append((inner, start, at))
            elif message == "entry":
                texts[number] = data[start:at]
        if texts.get(_KEY) == b"location":
            found.add(texts.get(_VALUE, b"").decode())
    return found


def _field(data: mmap.mmap, at: int, end: int) -> tuple[int, int, int]:
    """A field's number, where its payload starts, and where the next field does."""
    key, at = _varint(data, at)
    kind = key & 7
    if kind == _VARINT:
        start, following = at, _varint(data, at)[1]
    elif kind == _LENGTH:
        length, start = _varint(data, at)
        following = start + length
    elif kind in {_FIXED64, _FIXED32}:
        start, following = at, at + (8 if kind == _FIXED64 else 4)
    else:
        raise IndexError
    if following > end:
        raise IndexError
    return key >> 3, start, following


def _varint(data: mmap.mmap, at: int) -> tuple[int, int]:
    value = 0
    for position in range(_VARINT_BYTES):
        byte = data[at + position]
        value |= (byte & (_CONTINUED - 1)) << (7 * position)
        if byte < _CONTINUED:
            return value, at + position + 1
    raise IndexError
