"""Raw samples as a record stores them, and back.

Form: ``{"encoding": "differences+zlib+base64", "data": ...}``, where the data are base64 of zlib of a JSON list: the
first sample, then each one's difference to the one before. 2000 samples of 5 ms take 9.1 KB so, 16.0 KB as a list;
whole numbers packed by hand took 7.4 KB and could not be read with two calls of any language's library. A list that
is not longer stays a list, as in records of earlier versions.
"""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from itertools import accumulate
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ENCODING = "differences+zlib+base64"
# A record comes from anywhere: what it unpacks to is bounded. A measurement has 2000 samples; this holds a million.
_MOST_BYTES = 16_000_000


def pack(samples: Sequence[int]) -> list[int] | dict[str, str]:
    """The samples as the record stores them: compactly, or as the list where that is shorter."""
    values = [int(value) for value in samples]
    differences = [value - before for value, before in zip(values, [0, *values], strict=False)]
    text = json.dumps(differences, separators=(",", ":")).encode()
    form = {"encoding": ENCODING, "data": base64.b64encode(zlib.compress(text, 9)).decode("ascii")}
    plain = json.dumps(values, separators=(",", ":"))
    return form if len(json.dumps(form, separators=(",", ":"))) < len(plain) else values


def unpack(stored: Sequence[float] | Mapping[str, Any]) -> tuple[float, ...]:
    """Undo :func:`pack`; a plain list is what it says.

    Raises: ValueError, saying what is wrong with it.
    """
    if not hasattr(stored, "get"):
        return tuple(stored)
    if stored.get("encoding") != ENCODING:
        msg = f"the encoding {stored.get('encoding')!r} is not known, only '{ENCODING}' is"
        raise ValueError(msg)
    try:
        inflater = zlib.decompressobj()
        text = inflater.decompress(base64.b64decode(str(stored.get("data")), validate=True), _MOST_BYTES)
        differences = json.loads(text) if inflater.eof else None
    except (binascii.Error, zlib.error, ValueError, RecursionError):
        differences = None
    if not isinstance(differences, list) or not all(type(value) in {int, float} for value in differences):
        msg = "the packed samples are damaged"
        raise ValueError(msg)
    return tuple(accumulate(differences))
