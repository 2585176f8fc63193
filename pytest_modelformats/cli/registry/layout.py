"""A model registry on disk: ``<model>/<version>/<format>/model<_precision><suffix>`` and one ``metadata.json`` each.

A version's folder is written aside, looked at, and moved into place whole.
"""

from __future__ import annotations

import importlib
import json
import shutil
import uuid
from collections import defaultdict
from datetime import datetime, timezone
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from pytest_modelformats import __version__
from pytest_modelformats.convert.cache import METADATA, sha256_of
from pytest_modelformats.errors import ConfigurationError
from pytest_modelformats.schema import registry
from pytest_modelformats.source.companions import companions, renamed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pytest_modelformats.cli.registry.artifact import Chosen
    from pytest_modelformats.cli.registry.choice import Choice

SCHEMA_VERSION = 1


def export(choice: Choice, target: Path, version: str, *, overwrite: bool) -> list[tuple[Path, dict[str, Any]]]:
    """Every chosen artifact is in the registry under a version of its model; returns where each is, and what is told.

    Raises: ConfigurationError where a version is there already or files do not fit together; OSError.
    """
    models: dict[str, list[Chosen]] = defaultdict(list)
    for one in choice.artifacts:
        models[one.model].append(one)
    for model in models:
        if not overwrite:
            _refuse_existing(target / model / version, version)
    aside = target / f".{uuid.uuid4().hex}"
    written = []
    try:
        for model, artifacts in models.items():
            told = _write(aside / model, model, version, artifacts, choice)
            written += [(target / model / version / str(one["file"]), one) for one in told]
        for model in models:
            _move(aside, model, target / model / version)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return written


def _refuse_existing(folder: Path, version: str) -> None:
    if folder.exists() or folder.is_symlink():
        msg = f"{folder} is there already; name another version than {version} with --version, or add --overwrite"
        raise ConfigurationError(msg)


def _move(aside: Path, model: str, final: Path) -> None:
    """Put a finished version in its place; what was there comes back where that fails."""
    final.parent.mkdir(parents=True, exist_ok=True)
    before = aside / f"{model}.before"
    if final.exists() or final.is_symlink():
        final.rename(before)
    try:
        (aside / model).rename(final)
    except OSError:
        if before.exists():
            before.rename(final)
        raise


def _write(folder: Path, model: str, version: str, artifacts: Sequence[Chosen], choice: Choice) -> list[dict[str, Any]]:
    told = [_told(one, _copied(one, folder / one.folder), folder) for one in artifacts]
    metadata = {
        "schema": SCHEMA_VERSION,
        "model": model,
        "version": version,
        "exported_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "tool": __version__,
        "source": (choice.sources or {}).get(model),
        "run": choice.run,
        "artifacts": told,
    }
    (folder / METADATA).write_text(json.dumps(metadata, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return told


def _copied(one: Chosen, folder: Path) -> dict[str, str]:
    """Copy an artifact with all that belongs to it under its new name; returns each file's hash by its name."""
    places = renamed(one.main, one.format, one.name)
    names = {}
    for file in one.files:
        old = file.relative_to(one.main.parent).as_posix()
        new = one.name if file == one.main else places.get(old, old)
        if PurePosixPath(new).is_absolute() or ".." in PurePosixPath(new).parts or new == METADATA:
            raise ConfigurationError(f"a file of {one.model} is called '{old}', which cannot be laid out in a folder")
        names[file] = new
    for file, new in names.items():
        place = folder / new
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.exists() and sha256_of(place) != sha256_of(file):
            msg = f"two artifacts of {one.model} both need a file {one.folder}/{new}, each with other content"
            raise ConfigurationError(f"{msg}; export them as two versions")
        shutil.copyfile(file, place)
    moved = {old: new for old, new in places.items() if old != new}
    relocate = getattr(importlib.import_module(registry.formats()[one.format].module), "relocate", None)
    if moved and relocate is not None:
        relocate(folder / one.name, moved)
    _check(one, folder, set(places.values()))
    return {new: sha256_of(folder / new) for new in names.values()}


def _check(one: Chosen, folder: Path, wanted: set[str]) -> None:
    """Under its new name the artifact still finds all that belongs to it."""
    found = {path.relative_to(folder).as_posix() for path in companions(folder / one.name, one.format)}
    if found != wanted:
        lost = ", ".join(sorted(wanted ^ found))
        raise ConfigurationError(
            f"called {one.name}, the model in {one.main} no longer finds the files beside it: {lost}"
        )


def _told(one: Chosen, files: dict[str, str], folder: Path) -> dict[str, Any]:
    """What ``metadata.json`` says of an artifact: its files, what ran it and how that ended, and how it was made."""
    return {
        "file": f"{one.folder}/{one.name}",
        "format": one.format,
        "precision": one.precision,
        "size_bytes": sum((folder / one.folder / name).stat().st_size for name in files),
        "sha256": {f"{one.folder}/{name}": digest for name, digest in files.items()},
        "cells": list(one.cells),
        "provenance": dict(one.provenance),
    }
