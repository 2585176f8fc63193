"""A golden bundle as a file: a zip with ``golden.json`` and ``.npy`` arrays. What is read is not trusted.

Nothing in it is executed: arrays are read from their header and bytes, without pickle, the
description names no code, every array has its SHA-256, and everything is bounded before it is read.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import zipfile
import zlib
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pytest_modelformats.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np

KIND = "modelformats-golden"
VERSION = 1
MANIFEST = "golden.json"
# A thousand classes over 256 rows are 2 MB; a bundle of a large model stays below 100 MB.
LARGEST_BYTES = 1_000_000_000
LARGEST_MANIFEST_BYTES = 16_000_000
MOST_MEMBERS = 20_000
LONGEST_TEXT = 1000
# Random samples hardly shrink; anything far above this is made to fill the memory.
INFLATION_LIMIT = 50
INFLATION_FLOOR_BYTES = 64_000_000
_MEMBER = re.compile(r"(golden\.json|(inputs|evaluated|positions|labels)(/\d{1,6}){1,2}\.npy)")
_DTYPES = frozenset("biuf")
_HEADERS = {(1, 0): "read_array_header_1_0", (2, 0): "read_array_header_2_0"}
_WRONG = (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError, OverflowError)


@dataclass(frozen=True, slots=True, eq=False)
class GoldenFile:
    """What the file says (``manifest``) and holds (``arrays`` by their names in the zip)."""

    path: Path
    manifest: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]


def is_golden(path: Path, head: bytes) -> bool:
    """Whether a file is a golden bundle, by its first entry; raises SourceError where it is damaged."""
    name = head[30 : 30 + int.from_bytes(head[26:28], "little")]
    if not head.startswith(b"PK\x03\x04") or name != MANIFEST.encode():
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            _members(archive, path.name, path.stat().st_size)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise _damaged(path.name, f"its list of entries cannot be read ({error})") from error
    return True


def read(path: Path) -> GoldenFile:
    """The file, checked; raises SourceError, in one sentence."""
    try:
        status = path.stat()
    except OSError as error:
        msg = f"the golden bundle {path} cannot be read: {error.strerror}"
        raise SourceError(msg) from error
    return _read(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=2)
def _read(path: Path, size: int, _mtime_ns: int) -> GoldenFile:
    try:
        with zipfile.ZipFile(path) as archive:
            infos = _members(archive, path.name, size)
            manifest = _manifest(archive.read(infos[MANIFEST]), path.name)
            arrays = {}
            for name, info in infos.items():
                if name != MANIFEST:
                    data = archive.read(info)
                    if hashlib.sha256(data).hexdigest() != manifest["arrays"].get(name):
                        raise _damaged(path.name, f"'{name}' is not what was written (its SHA-256 differs)")
                    arrays[name] = read_array(data, f"{path.name}: {name}")
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, NotImplementedError, RuntimeError) as error:
        raise _damaged(path.name, str(error) or type(error).__name__) from error
    except _WRONG as error:
        raise _damaged(path.name, f"its description does not fit together ({type(error).__name__}: {error})") from error
    return GoldenFile(path, manifest, arrays)


def _damaged(name: str, why: str) -> SourceError:
    return SourceError(f"'{name}' is a damaged golden bundle: {shown(why)}; export or copy it again")


def shown(text: str, longest: int = 200) -> str:
    """A text of the file as a message may hold it: bounded, and nothing in it that a terminal acts on."""
    return "".join(c if c.isprintable() else "?" for c in text[:longest])


def _members(archive: zipfile.ZipFile, name: str, size: int) -> dict[str, zipfile.ZipInfo]:
    """The entries by name: known names, each once, not too many and not too large."""
    infos = archive.infolist()
    for info in infos:
        if not _MEMBER.fullmatch(info.filename):
            raise _damaged(name, f"it holds '{info.filename[:80]!a}', which no golden bundle has")
        if info.flag_bits & 1:
            raise _damaged(name, "it is encrypted")
    found = {info.filename: info for info in infos}
    if len(found) != len(infos) or len(infos) > MOST_MEMBERS:
        raise _damaged(name, f"it has {len(infos)} entries, some of them twice or too many")
    if MANIFEST not in found:
        raise _damaged(name, f"it has no {MANIFEST}")
    unpacked = sum(info.file_size for info in infos)
    if unpacked > min(LARGEST_BYTES, max(INFLATION_LIMIT * size, INFLATION_FLOOR_BYTES)):
        raise _damaged(name, f"it would unpack from {size:,} to {unpacked:,} bytes")
    if found[MANIFEST].file_size > LARGEST_MANIFEST_BYTES:
        raise _damaged(name, f"its {MANIFEST} has {found[MANIFEST].file_size:,} bytes")
    return found


def _manifest(data: bytes, name: str) -> dict[str, Any]:
    manifest = json.loads(data.decode("utf-8"))
    if not isinstance(manifest, dict) or manifest.get("kind") != KIND:
        raise _damaged(name, f"its {MANIFEST} is not one of a golden bundle")
    if manifest.get("version") != VERSION:
        found = shown(str(manifest.get("version")), 20)
        msg = (
            f"'{name}' is a golden bundle of version {found}, and {VERSION} is what can be read here; "
            "export it with this version of pytest-modelformats"
        )
        raise SourceError(msg)
    return manifest


def read_array(data: bytes, what: str) -> np.ndarray:
    """The array of an ``.npy`` file; its header is checked against its bytes before anything is allocated.

    Raises: SourceError where it holds objects, or another number of bytes than its shape needs.
    """
    import numpy as np

    stream = io.BytesIO(data)
    try:
        reader = _HEADERS[np.lib.format.read_magic(stream)]
        shape, fortran, dtype = getattr(np.lib.format, reader)(stream)
    except (KeyError, ValueError, SyntaxError) as error:
        raise _damaged(what, f"no .npy header ({str(error)[:80]})") from error
    if dtype.hasobject or dtype.kind not in _DTYPES:
        raise _damaged(what, f"it holds {dtype}, and only numbers are read")
    start = stream.tell()
    count = 1
    for size in shape:
        count *= size
    if count < 0 or count * dtype.itemsize != len(data) - start:
        raise _damaged(what, f"shape {list(shape)} of {dtype} does not fit its {len(data) - start} bytes")
    array = np.frombuffer(data, dtype, count, start)
    whole = np.ascontiguousarray(array.reshape(shape, order="F" if fortran else "C"))
    whole.shape = shape  # of a single number it has made a row
    return whole


def write(path: Path, manifest: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Write the file aside and move it into place; the same content gives the same bytes. Raises OSError."""
    import numpy as np

    files = {}
    for name, array in arrays.items():
        stream = io.BytesIO()
        np.lib.format.write_array(stream, np.ascontiguousarray(array).reshape(array.shape), allow_pickle=False)
        files[name] = stream.getvalue()
    sums = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    said = {"kind": KIND, "version": VERSION, **manifest, "arrays": sums}
    text = json.dumps(said, indent=1, allow_nan=False).encode()
    aside = path.with_name(f".{path.name}.part")
    try:
        with zipfile.ZipFile(aside, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
            for name, data in {MANIFEST: text, **files}.items():
                archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
