"""The artifact that a recorded cell ran, found again and seen to be the same: in the cache, or a file of the user's."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_modelformats.convert.cache import key_of
from pytest_modelformats.errors import ConfigurationError
from pytest_modelformats.schema import Source, registry
from pytest_modelformats.source.companions import companions
from pytest_modelformats.source.identify import content_hash

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_modelformats.convert.cache import Cache
    from pytest_modelformats.record.nouns import CellRecord

_KEY = re.compile(r"[0-9a-f]{64}")
# A part of a path as this tool names models, formats and routes; a record is a file that anybody may have written.
_PART = re.compile(r"(?!\.+$)[A-Za-z0-9_.][A-Za-z0-9_.+-]*")


@dataclass(frozen=True, slots=True)
class Chosen:
    """An artifact: its files as they lie now, ``<folder>/<name>`` as it will, and what is known of it.

    ``precision`` is what the file holds. ``cells`` are all that ran it, with their outcomes.
    """

    model: str
    folder: str
    name: str
    format: str
    precision: str
    main: Path
    files: tuple[Path, ...]
    sha256: str
    provenance: Mapping[str, Any]
    cells: tuple[Mapping[str, Any], ...] = ()


def stated(cell: CellRecord) -> Mapping[str, Any]:
    """What the record says of the artifact that a cell ran; empty where it says nothing."""
    found = (check.data.get("artifact") for check in cell.checks)
    return next((said for said in found if isinstance(said, dict)), {})


def of_cell(cell: CellRecord, cache: Cache, root: Path) -> Chosen:
    """The artifact of a cell; ``root`` is the project's.

    Raises: ConfigurationError where it is not there any more, or is another one than the run had.
    """
    said = stated(cell)
    folder, stem = f"{cell.format}.{cell.route}" if cell.route else cell.format, cell.candidate or "model"
    for text in (cell.model, folder, stem):
        part(text, f"the record's cell {cell.cell}")
    precision = held(cell)
    if said["where"] == "cache":
        main, files, provenance = _cached(cell.cell, said, cache)
    else:
        main, files, provenance = _file(cell, said, root)
    name = named(stem, precision, main.suffix)
    return Chosen(cell.model, folder, name, cell.format, precision, main, files, str(said.get("sha256")), provenance)


def named(stem: str, precision: str, suffix: str) -> str:
    """``model.onnx``, or ``model_fp16.onnx`` where it does not hold fp32."""
    ending = "" if precision == "fp32" or stem.endswith(f"_{precision}") else f"_{precision}"
    return f"{stem}{ending}{suffix}"


def part(text: str, what: str) -> str:
    """A text that can be a folder or file name; raises ConfigurationError."""
    if not _PART.fullmatch(text):
        raise ConfigurationError(f"{what}: '{text}' cannot be a folder's name; use letters, digits and . _ - +")
    return text


def held(cell: CellRecord) -> str:
    """The precision that a cell's artifact holds; a runtime may compute at another one."""
    if cell.chain:
        return cell.chain[-1].rpartition(":")[2]
    if not cell.candidate:
        return "fp32"
    backend = registry.backends().get(cell.backend)
    kinds = backend.precisions.items() if backend else ()
    holding = [h for (form, h), runs in kinds if form == cell.format and cell.precision in runs]
    return cell.precision if cell.precision in holding or not holding else holding[0]


def _cached(cell: str, said: Mapping[str, Any], cache: Cache) -> tuple[Path, tuple[Path, ...], Mapping[str, Any]]:
    key = str(said.get("key"))
    entry, damaged = cache.look(key) if _KEY.fullmatch(key) else (None, "")
    if entry is None:
        state = (
            f"is damaged in the cache {cache.folder} ({damaged})" if damaged else f"is not in the cache {cache.folder}"
        )
        msg = f"the artifact of {cell} {state}; run again, or say with --mf-cache where that run kept it"
        raise ConfigurationError(msg)
    if key_of(entry.metadata["files"]) != said.get("sha256"):
        msg = f"the artifact of {cell} was made again since that run and has other content, which nothing has judged"
        raise ConfigurationError(f"{msg}; run again")
    files = tuple(entry.folder / name for name in entry.metadata["files"])
    return entry.folder / Path(str(said.get("path"))).name, files, entry.metadata


def _file(cell: CellRecord, said: Mapping[str, Any], root: Path) -> tuple[Path, tuple[Path, ...], Mapping[str, Any]]:
    path = root / str(said.get("path"))
    if not path.is_file():
        raise ConfigurationError(f"the artifact of {cell.cell} is no longer there: {path}; call this where it was run")
    form = str(said.get("format") or cell.format)
    if content_hash(Source(cell.model, str(path), "", form)) != said.get("sha256"):
        raise ConfigurationError(f"{path} has changed since {cell.cell} was run; run again")
    what = "candidate" if cell.candidate else "source"
    provenance = {"what": what, "file": path.name, **{k: v for k, v in said.items() if k not in {"where", "path"}}}
    return path, (path, *companions(path, form)), provenance
