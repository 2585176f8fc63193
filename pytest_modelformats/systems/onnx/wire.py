"""Recognising an ONNX file from its protobuf wire format, with the standard library alone.

Source: the protobuf encoding specification, and ``onnx.proto`` for the field numbers of ModelProto.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, BinaryIO

from pytest_modelformats.errors import SourceError

if TYPE_CHECKING:
    from pathlib import Path

IR_VERSION, GRAPH = 1, 7
LARGEST_IR_VERSION = 1000
LARGEST_FIELD_COUNT = 100_000  # a ModelProto has a dozen fields, one more per local function and metadata entry
VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
VARINT_BYTES = 10
SHOWN_TEXT = 24


class _NotProtobufError(Exception):
    """The bytes cannot be a ModelProto."""


class _TruncatedError(Exception):
    """A field reaches beyond the end of the file."""


def sniff_onnx(path: Path, head: bytes) -> str | None:
    """Return ``onnx`` for a whole ModelProto, ``None`` for anything else.

    Raises: SourceError where the file is called ``.onnx`` and is something else or is cut off.
    """
    claims = path.suffix.lower() == ".onnx"
    if not head:
        if claims:
            msg = f"'{path.name}' is empty (0 bytes); export or copy the model again"
            raise SourceError(msg)
        return None
    try:
        trouble = _walk(path)
    except _TruncatedError as cut:
        if not claims:
            return None
        msg = f"'{path.name}' is a truncated ONNX model: {cut}; export or copy it again"
        raise SourceError(msg) from None
    except _NotProtobufError:
        trouble = _looks_like(head)
    if trouble and claims:
        msg = f"'{path.name}' is not an ONNX model: {trouble}; export or copy it again"
        raise SourceError(msg)
    return None if trouble else "onnx"


def _walk(path: Path) -> str:
    """What is wrong with the top-level fields, "" if nothing is; reads a few bytes per field."""
    size = path.stat().st_size
    ir_version: int | None = None
    has_graph = False
    with path.open("rb") as file:
        for _ in range(LARGEST_FIELD_COUNT):
            if file.tell() == size:
                break
            number, value = _field(file, size, trusted=ir_version is not None)
            if number == IR_VERSION:
                ir_version = value
            has_graph = has_graph or number == GRAPH
        else:
            raise _NotProtobufError
    if ir_version is None or not 0 < ir_version < LARGEST_IR_VERSION:
        raise _NotProtobufError
    return "" if has_graph else f"it states IR version {ir_version} but holds no graph"


def _field(file: BinaryIO, size: int, *, trusted: bool) -> tuple[int, int]:
    """Skip one field and return its number and, for a varint, its value."""
    key = _varint(file, trusted=trusted)
    number, kind = key >> 3, key & 7
    if number == 0 or (number in (IR_VERSION, GRAPH) and kind != (VARINT if number == IR_VERSION else LENGTH)):
        raise _NotProtobufError
    if kind == VARINT:
        return number, _varint(file, trusted=trusted)
    lengths = {FIXED64: 8, FIXED32: 4}
    if kind != LENGTH and kind not in lengths:
        raise _NotProtobufError
    length = _varint(file, trusted=trusted) if kind == LENGTH else lengths[kind]
    missing = file.tell() + length - size
    if missing > 0:
        if not trusted:
            raise _NotProtobufError
        what = "the graph" if number == GRAPH else f"field {number}"
        msg = f"{what} is stated to be {length} bytes long, the file ends {missing} bytes short of that"
        raise _TruncatedError(msg)
    file.seek(length, os.SEEK_CUR)
    return number, 0


def _varint(file: BinaryIO, *, trusted: bool) -> int:
    value = 0
    for position in range(VARINT_BYTES):
        byte = file.read(1)
        if not byte:
            if trusted:
                msg = "the file ends in the middle of a field"
                raise _TruncatedError(msg)
            raise _NotProtobufError
        value |= (byte[0] & 0x7F) << (7 * position)
        if byte[0] < 0x80:  # noqa: PLR2004 - the continuation bit of a varint
            return value
    raise _NotProtobufError


def _looks_like(head: bytes) -> str:
    """What the first bytes of a file look like, in words."""
    if head.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer; run 'git lfs pull'"
    if head.startswith(b"PK\x03\x04"):
        return "it is a zip archive, which is what PyTorch writes (.pt, .pt2)"
    text = head[:SHOWN_TEXT].decode("utf-8", "replace")
    if all(c.isprintable() or c in "\r\n\t" for c in text.rstrip("\ufffd")):
        shown = text.splitlines()[0] if text.strip() else text
        return f"it starts with the text '{shown}'"
    return f"its first bytes are {head[:8].hex(' ')}, which is no protobuf model"
