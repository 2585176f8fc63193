"""Earlier runs by name: found, and kept under one."""

from __future__ import annotations

import json
import re
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_modelformats.errors import ConfigurationError
from pytest_modelformats.schema.names import suggest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_modelformats.settings.nouns import Settings

RECORD = "results.jsonl"
FOLDER = "baselines"
KEPT = "artifacts"
LATEST = "latest"
_NAME = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.+-]*")


@dataclass(frozen=True, slots=True)
class Baseline:
    """What a run is compared with: a record (``path``), or the same cells in an ``environment``.

    ``title`` is what reports call it.
    """

    ref: str
    title: str
    path: Path | None = None
    environment: str = ""


def find(ref: str, settings: Settings, what: str = "--mf-baseline") -> Baseline:
    """The baseline that a text names: ``+ENV``, a saved name, a run's id, ``latest``, or a path, in this order.

    Raises: ConfigurationError, with what there is to choose from.
    """
    if ref.startswith("+"):
        return _environment(ref, settings, what)
    for folder, title in (
        (settings.cache / FOLDER / ref, ref),
        (_latest(settings) if ref == LATEST else settings.report_dir / ref, f"run {ref}"),
        (Path(ref).expanduser(), ref),
        (settings.rootdir / Path(ref).expanduser(), ref),
    ):
        path = folder / RECORD if folder.is_dir() else folder
        if path.is_file():
            # ``latest`` is another run tomorrow, and another one at the end of this run.
            return Baseline(ref, f"run {path.resolve().parent.name}" if ref == LATEST else title, path.resolve())
    names = saved(settings)
    known = f"saved are {', '.join(names)}" if names else "none is saved yet: --mf-save-baseline NAME keeps one"
    near = suggest(ref, names) if names else ""
    hint = near if "did you mean" in near else ""
    raise ConfigurationError(
        f"{what}: '{ref}' is no saved baseline, no run in {settings.report_dir} and no folder or file with a record "
        f"({known}){hint}"
    )


def saved(settings: Settings) -> list[str]:
    """The names under which runs are kept, sorted."""
    return sorted(path.parent.name for path in (settings.cache / FOLDER).glob(f"*/{RECORD}"))


def check_name(name: str) -> str:
    """A name that a baseline can be saved under; raises ConfigurationError."""
    if not _NAME.fullmatch(name) or name == LATEST or set(name) <= {"."}:
        raise ConfigurationError(
            f"--mf-save-baseline: '{name}' cannot be a baseline's name; use letters, digits and . _ - + (not first), "
            f"and not '{LATEST}'"
        )
    return name


def keep(name: str, record: Path, settings: Settings) -> str:
    """The run's record, and those of its artifacts that no cache holds, are kept under a name; says so.

    Raises: OSError where the cache folder cannot be written.
    """
    target = settings.cache / FOLDER / name
    aside = settings.cache / FOLDER / f".{uuid.uuid4().hex}"
    replaced = _started(target / RECORD)
    try:
        aside.mkdir(parents=True)
        shutil.copyfile(record, aside / RECORD)
        _keep_files(record, aside / KEPT, settings.rootdir)
        if target.exists():
            shutil.rmtree(target)
        aside.rename(target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    instead = f", in place of the run of {replaced}" if replaced else ""
    return f"kept as the baseline '{name}' ({target / RECORD}){instead}; compare with --mf-baseline {name}"


def kept_file(record: Path, artifact: Mapping[str, Any]) -> Path | None:
    """The copy of an artifact that was kept beside a record, if there is one."""
    path = record.parent / KEPT / str(artifact.get("sha256")) / Path(str(artifact.get("path"))).name
    return path if path.is_file() else None


def _environment(ref: str, settings: Settings, what: str) -> Baseline:
    declared = [entry.name for entry in settings.environments]
    name = ref[1:]
    if name not in declared:
        known = f"declared are {', '.join(declared)}" if declared else "none is; see [environments.NAME] and --mf-env"
        raise ConfigurationError(f"{what}: there is no environment '{name}' ({known})")
    return Baseline(ref, f"environment {name}", None, name)


def _latest(settings: Settings) -> Path:
    """The newest run's folder; ``latest.txt`` stands in where there are no links."""
    link, text = settings.report_dir / LATEST, settings.report_dir / f"{LATEST}.txt"
    if not link.exists() and text.is_file():
        return settings.report_dir / text.read_text(encoding="utf-8").strip()
    return link


def _started(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as handle:
            return str(json.loads(handle.readline())["started"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _keep_files(record: Path, folder: Path, root: Path) -> None:
    """Copy the artifacts that lie outside of the cache: candidates, and sources that run as they are."""
    from pytest_modelformats.source.companions import companions

    with record.open(encoding="utf-8") as handle:
        for text in handle:
            line = json.loads(text)
            data = line.get("data") or {}
            artifact = data.get("artifact") or {}
            place = folder / str(artifact.get("sha256"))
            path = root / str(artifact.get("path"))
            if artifact.get("where") != "file" or (place / path.name).exists() or not path.is_file():
                continue
            place.mkdir(parents=True, exist_ok=True)
            for part in (path, *companions(path, str(artifact.get("format")))):
                copy = place / part.relative_to(path.parent)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(part, copy)
