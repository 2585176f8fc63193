"""What a file of the PyTorch family holds, found out without loading it.

Standard library only, and nothing of the file is executed: zip folders are listed, pickles
are read as a list of opcodes. ``sniff`` of the three PyTorch formats stands on this.
"""

from __future__ import annotations

import pickletools
import re
import zipfile
from functools import lru_cache
from typing import IO, TYPE_CHECKING

from pytest_modelformats.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ZIP_MAGIC = b"PK\x03\x04"
# torch.save before 1.6 starts with this pickled number (torch.serialization.MAGIC_NUMBER).
LEGACY_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"
# torch stores its records uncompressed: anything far above 1 is not a model but an attack on memory.
_INFLATION_LIMIT = 20
_INFLATION_FLOOR_BYTES = 64 << 20
# A state_dict of 10,000 tensors has a data.pkl of about 2 MB.
_PICKLE_LIMIT_BYTES = 64 << 20
_TORCH_SUFFIXES = frozenset({".pt", ".pth", ".pt2", ".ts", ".bin", ".ckpt"})
_TORCH_RECORD = re.compile(r"(^|/)(data\.pkl|archive_format|\.format_version|serialized_exported_program\.json)$")

# What tensors alone need: the part of torch's own weights_only list that state_dicts use.
_TENSOR_GLOBALS = re.compile(
    r"collections\.(OrderedDict|Counter|defaultdict)|torch\.([A-Za-z0-9]+Storage|Size|device|Tensor|dtype)"
    r"|torch\.(float|bfloat|complex|int|uint|bool|double|half|long|short|qint|quint)\w*"
    r"|torch\._utils\._rebuild_\w+|torch\._tensor\._rebuild_from_type_v2|torch\.storage\.\w*Storage"
    r"|torch\.nn\.parameter\.(Parameter|Buffer)|torch\.serialization\._get_layout|_codecs\.encode"
    r"|(__builtin__|builtins)\.(set|frozenset|bytearray|dict|list)"
)


def zip_entries(path: Path, head: bytes) -> frozenset[str] | None:
    """Name the entries of a zip folder below its top folder, or return ``None`` where the file is no zip.

    Raises: SourceError where a zip of PyTorch's is cut off or would unpack to an absurd size.
    """
    if not head.startswith(ZIP_MAGIC):
        return None
    try:
        status = path.stat()
        infos = _listed(path, status.st_size, status.st_mtime_ns)
        if infos and min(info.header_offset for info in infos) > 0:
            # A .pt2 file has zips inside: cut off, the last of them is what is found when reading from the end.
            msg = "its list of entries is missing"
            raise zipfile.BadZipFile(msg)  # noqa: TRY301 - one message for every way to be cut off
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        if not _looks_like_torch(path, head):
            return None
        msg = f"'{path.name}' is a damaged PyTorch file ({error}); it was cut off on the way, fetch or save it again"
        raise SourceError(msg) from error
    names = [info.filename for info in infos]
    unpacked, packed = sum(info.file_size for info in infos), path.stat().st_size
    if unpacked > max(_INFLATION_LIMIT * packed, _INFLATION_FLOOR_BYTES) and any(map(_TORCH_RECORD.search, names)):
        msg = (
            f"'{path.name}' would unpack from {packed:,} to {unpacked:,} bytes, which no PyTorch file does; "
            "it is not loaded"
        )
        raise SourceError(msg)
    return frozenset(name.partition("/")[2] or name for name in names)


def extra_files(path: Path, largest: int) -> dict[str, str]:
    """Return the texts that whoever saved a TorchScript put beside the model (``_extra_files``), by name."""
    found = {}
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            _, extra, name = info.filename.partition("/extra/")
            if extra and name and info.file_size <= largest:
                found[name] = archive.read(info).decode("utf-8", "replace")
    return found


@lru_cache(maxsize=1)
def _listed(path: Path, _size: int, _mtime_ns: int) -> list[zipfile.ZipInfo]:
    """List a zip's entries; the last answer is kept, because three formats ask for it one after another."""
    with zipfile.ZipFile(path) as archive:
        return archive.infolist()


def _looks_like_torch(path: Path, head: bytes) -> bool:
    name_length = int.from_bytes(head[26:28], "little")
    first = head[30 : 30 + name_length].decode("utf-8", "replace")
    return path.suffix.lower() in _TORCH_SUFFIXES or _TORCH_RECORD.search(first) is not None


def is_legacy(head: bytes) -> bool:
    """Whether the file starts as ``torch.save`` wrote it before the zip format."""
    return head[:1] == b"\x80" and head[2:14].startswith(LEGACY_MAGIC)


def is_safetensors(head: bytes, size_bytes: int) -> bool:
    """Whether the file starts with a length and a JSON header, as safetensors does."""
    length = int.from_bytes(head[:8], "little")
    return head[8:9] == b"{" and len("{}") <= length <= size_bytes - 8


def foreign_globals(path: Path, head: bytes) -> tuple[str, ...]:
    """Name the Python objects that unpickling the file would call for beyond those tensors need.

    Raises: SourceError where the pickle is cut off, or too large to be one of tensors.
    """
    try:
        if not head.startswith(ZIP_MAGIC):
            with path.open("rb") as stream:
                return _foreign(stream, pickles=5)
        with zipfile.ZipFile(path) as archive:
            record = next(name for name in archive.namelist() if name.split("/", 1)[-1] == "data.pkl")
            if archive.getinfo(record).file_size > _PICKLE_LIMIT_BYTES:
                msg = f"'{path.name}' has a data.pkl above {_PICKLE_LIMIT_BYTES >> 20} MB, which no model needs"
                raise SourceError(msg)
            with archive.open(record) as stream:
                return _foreign(stream, pickles=1)
    except (zipfile.BadZipFile, ValueError, OSError, EOFError, IndexError) as error:
        msg = f"'{path.name}' is a damaged PyTorch file ({error}); fetch or save it again"
        raise SourceError(msg) from error


def _foreign(stream: IO[bytes], pickles: int) -> tuple[str, ...]:
    """Scan the pickles one after another; the legacy format has five before its raw tensors."""
    found: dict[str, None] = {}
    for _ in range(pickles):
        found.update(dict.fromkeys(n for n in _globals(stream) if not _TENSOR_GLOBALS.fullmatch(n)))
    return tuple(found)


def _globals(stream: IO[bytes]) -> Iterator[str]:
    """Yield ``module.name`` of every global that one pickle asks for, read without executing it."""
    strings: list[str] = []
    memo: dict[int, str] = {}
    for opcode, argument, _ in pickletools.genops(stream):
        if opcode.name in ("GLOBAL", "INST"):
            yield str(argument).replace(" ", ".", 1)
        elif opcode.name == "STACK_GLOBAL":
            yield ".".join(strings[-2:])
        elif opcode.name.startswith("EXT"):
            yield f"copyreg extension {argument}"
        elif opcode.name == "MEMOIZE":
            memo[len(memo)] = strings[-1] if strings else ""
        elif opcode.name in ("BINPUT", "LONG_BINPUT", "PUT"):
            memo[int(argument or 0)] = strings[-1] if strings else ""
        elif opcode.name in ("BINGET", "LONG_BINGET", "GET"):
            strings.append(memo.get(int(argument or 0), ""))
        elif isinstance(argument, str):
            strings.append(argument)
