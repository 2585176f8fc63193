"""The fields of a protobuf message in a file, read with the standard library alone; what is skipped is not read.

Source: the protobuf encoding specification.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Iterator

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
VARINT_BYTES = 10
# A graph has as many fields as nodes and tensors, each a few bytes to skip.
MOST_FIELDS = 2_000_000


def fields(file: BinaryIO, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(Number, start, end) of every field of a message; of a varint, its value and -1.

    Raises: ValueError where it is no message.
    """
    place = start
    for _ in range(MOST_FIELDS):
        if place >= end:
            return
        file.seek(place)
        key = varint(file)
        number, kind = key >> 3, key & 7
        if kind == VARINT:
            value = varint(file)
            place = file.tell()
            yield number, value, -1
            continue
        if kind not in {FIXED64, LENGTH, FIXED32}:
            raise ValueError("a field is of no kind that protobuf knows")
        length = varint(file) if kind == LENGTH else {FIXED64: 8, FIXED32: 4}[kind]
        first = file.tell()
        place = first + length
        if place > end:
            raise ValueError("a field is longer than what it stands in")
        yield number, first, place
    raise ValueError("it has more fields than any model")


def data(file: BinaryIO, start: int, end: int, longest: int) -> bytes:
    """The bytes of a field; none of a varint, nor of one that is longer than ``longest``."""
    if not 0 <= end - start <= longest:
        return b""
    file.seek(start)
    return file.read(end - start)


def varint(file: BinaryIO) -> int:
    """The number that stands where the file is; raises ValueError where none does."""
    value = 0
    for position in range(VARINT_BYTES):
        byte = file.read(1)
        if not byte:
            raise ValueError("it ends in the middle of a field")
        value |= (byte[0] & 0x7F) << (7 * position)
        if byte[0] < 0x80:  # noqa: PLR2004 - the continuation bit of a varint
            return value
    raise ValueError("a number has no end")
