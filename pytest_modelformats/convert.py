"""Runs a planned chain of converters, one cached step after the other."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_modelformats import registry
from pytest_modelformats.cache import key_of
from pytest_modelformats.companions import companions
from pytest_modelformats.machine import versions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pytest_modelformats.cache import Cache
    from pytest_modelformats.schema import Converter, Description, PlannedCell, Source

# Every converter lives in the worker of this name: what is timed never shares a process with it.
RUNTIME = "convert"


@dataclass(frozen=True, slots=True)
class Artifact:
    """A model in a cell's format: the file, what it took to make it, and whether it came from the cache.

    ``size_bytes`` covers everything that is part of it. ``convert_ns`` is the time that the
    chain took when it was run; ``None`` when there was nothing to convert. ``content`` is a hash of what was made,
    "" when nothing was.
    """

    path: Path
    format: str
    precision: str
    size_bytes: int | None
    convert_ns: int | None = None
    made: int = 0
    cached: int = 0
    facts: Mapping[str, Any] = field(default_factory=dict)
    content: str = ""


@dataclass(frozen=True, slots=True)
class Origin:
    """What every step of a chain needs to know of the source."""

    source: Source
    description: Description
    content: str
    example: Mapping[str, str]
    options: Mapping[str, Any]


def convert(
    planned: PlannedCell, origin: Origin, cache: Cache, ask: Callable[[Converter, dict[str, Any]], dict[str, Any]]
) -> Artifact:
    """The artifact of a cell: the source's own file, the candidate's, or what its chain makes.

    ``ask(converter, job)`` has a worker convert and check. Raises: ConvertError, Unsupported,
    CacheError, and what a dead worker raises.
    """
    start = planned.candidate_path or origin.source.location
    if not planned.chain:
        path = Path(start)
        return Artifact(path, planned.cell.format, planned.artifact_precision, _size_of(planned, path))
    current, held, key = Path(start), "fp32", _start_key(origin)
    made = cached = elapsed = 0
    content = ""
    facts: dict[str, Any] = {}
    for step in planned.chain:
        converter = registry.converters()[step.converter]
        options = {name: origin.options[name] for name in converter.options}
        libraries = versions(converter.libraries)
        key = key_of(
            {
                "after": key,
                "converter": [converter.name, converter.version],
                "precision": step.precision,
                "options": options,
                "libraries": libraries,
            }
        )
        name = "model" + registry.formats()[converter.target].suffix
        provenance = _provenance(planned, origin, converter, step.precision, options, libraries)

        def make(
            folder: Path,
            converter: Converter = converter,
            name: str = name,
            job: dict[str, Any] = _job(origin, converter, current, held, step.precision, options),  # noqa: B008
        ) -> Mapping[str, Any]:
            answer = ask(converter, {**job, "output": str(folder / name)})
            return {**answer["facts"], "convert_ns": answer["convert_ns"]}

        entry = cache.get_or_make(key, provenance, make)
        current, held = entry.folder / name, step.precision
        made, cached = made + entry.made, cached + (not entry.made)
        elapsed += int(entry.metadata["facts"]["convert_ns"])
        facts.update(entry.metadata["facts"])
        content = key_of(entry.metadata["files"])
    facts.pop("convert_ns", None)
    size = sum(f.stat().st_size for f in current.parent.rglob("*") if f.is_file() and f.name != "metadata.json")
    return Artifact(current, planned.cell.format, held, size, elapsed, made, cached, facts, content)


def _start_key(origin: Origin) -> str:
    return key_of(
        {
            "content": origin.content,
            "fingerprint": origin.description.fingerprint,
            "inputs": [str(s) for s in origin.description.inputs],
            "outputs": [str(s) for s in origin.description.outputs],
        }
    )


def _job(
    origin: Origin, converter: Converter, current: Path, held: str, precision: str, options: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        "source": origin.source.to_json(),
        "input": str(current),
        "input_precision": held,
        "precision": precision,
        "inputs": [s.to_json() for s in origin.description.inputs],
        "outputs": [s.to_json() for s in origin.description.outputs],
        "example": dict(origin.example),
        "options": dict(options),
        "checker": registry.formats()[converter.target].module,
    }


def _provenance(
    planned: PlannedCell,
    origin: Origin,
    converter: Converter,
    precision: str,
    options: Mapping[str, Any],
    libraries: Mapping[str, str],
) -> dict[str, Any]:
    """What ``metadata.json`` says beside the key: enough to make the artifact again."""
    return {
        "what": "artifact",
        "model": planned.cell.model,
        "source_sha256": origin.content,
        "fingerprint": origin.description.fingerprint,
        "converter": converter.name,
        "chain": [f"{s.converter}:{s.precision}" for s in planned.chain],
        "precision": precision,
        "options": dict(options),
        "libraries": dict(libraries),
        "inputs": [str(s) for s in origin.description.inputs],
        "outputs": [str(s) for s in origin.description.outputs],
    }


def _size_of(planned: PlannedCell, path: Path) -> int | None:
    if not path.is_file():
        return None
    return sum(p.stat().st_size for p in (path, *companions(path, planned.cell.format)) if p.is_file())
