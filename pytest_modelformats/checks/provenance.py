"""Which artifact and which code a result is of: what a record says of them, so that a later run finds them again."""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_modelformats.convert.cache import key_of
from pytest_modelformats.convert.code_digest import MEASURE, imported_digest, modules_digest
from pytest_modelformats.errors import ModelFormatsError
from pytest_modelformats.schema import package, registry
from pytest_modelformats.source.identify import content_hash

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_modelformats.checks.cell import Stages
    from pytest_modelformats.convert.chain import Artifact
    from pytest_modelformats.schema import PlannedCell


def stated(stages: Stages, planned: PlannedCell) -> dict[str, Any]:
    """The keys of a check line that lead back to the artifact and the code; empty where nothing could be made."""
    try:
        artifact = stages.artifact(planned)
        return {"artifact": artifact_facts(stages, planned, artifact), "runtime": {"code": code_of(planned)}}
    except ModelFormatsError:
        return {}


def artifact_facts(stages: Stages, planned: PlannedCell, artifact: Artifact) -> dict[str, Any]:
    """Where an artifact is, and what is in it.

    ``where``: ``cache`` (``path`` is relative to the cache folder), ``file`` (a file of the user's, ``path`` relative
    to the project's root where it lies in there) or ``code`` (a callable builds it). ``sha256`` covers its content,
    ``fingerprint`` the code of its architecture. ``conversion``, of what was converted, says by what, and what was
    changed beside the format.
    """
    fingerprint = stages.models.description(planned.cell.model).fingerprint
    if planned.chain:
        path = artifact.path.absolute().relative_to(stages.cache.folder.absolute())
        place = {"where": "cache", "path": path.as_posix(), "key": artifact.path.parent.name}
        made = _conversion(artifact.facts)
        return {**place, "sha256": artifact.content, **({"conversion": made} if made else {})}
    source = stages.models.source(planned.cell.model)
    if planned.candidate_path:
        source = replace(
            source, location=planned.candidate_path, format=planned.cell.format, kind=planned.candidate_kind
        )
    content = content_hash(source)
    return {
        "where": "file" if content else "code",
        "path": _from_root(source.location, stages.rootdir) if content else source.location,
        "format": source.format,
        "sha256": content,
        "fingerprint": fingerprint,
    }


def _conversion(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Of what a converter states of its work, what a record has a place for."""
    exporter, repaired, truncated = (facts.get(name) for name in ("exporter", "repaired", "truncated_values"))
    return {
        **({"exporter": exporter} if isinstance(exporter, str) and exporter else {}),
        **({"repaired": [str(what) for what in repaired]} if isinstance(repaired, list) and repaired else {}),
        **({"truncated_values": truncated} if isinstance(truncated, int) and truncated else {}),
    }


def _from_root(location: str, root: Path) -> str:
    path = Path(location)
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else location


@cache
def _code_of(entry: str) -> str:
    module = entry.partition(":")[0]
    top = module.partition(".")[0]
    found = importlib.util.find_spec(top)
    if found is None or not found.origin:
        return ""
    if top == package.NAME:
        return key_of({"core": modules_digest(MEASURE), "backend": imported_digest(module)})
    origin = Path(found.origin)
    places = [origin.parent] if origin.name == "__init__.py" else [origin]
    files = sorted(file for place in places for file in (place.rglob("*.py") if place.is_dir() else [place]))
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.relative_to(origin.parent)}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def is_own(planned: PlannedCell) -> bool:
    """Whether the cell's backend is of this package: what opens both sides of a comparison is then no part of it."""
    return registry.backends()[planned.cell.backend].entry.partition(".")[0] == package.NAME


def code_of(planned: PlannedCell) -> str:
    """A hash of the code that opens and runs a cell: this package's, or that of the package it is from."""
    return _code_of(registry.backends()[planned.cell.backend].entry)
