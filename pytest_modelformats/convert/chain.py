"""Runs a planned chain of converters, one cached step after the other."""

from __future__ import annotations

import platform
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_modelformats import __version__
from pytest_modelformats.convert.cache import key_of
from pytest_modelformats.convert.code_digest import imported_digest
from pytest_modelformats.schema import registry
from pytest_modelformats.settings.machine import versions
from pytest_modelformats.source.companions import companions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pytest_modelformats.convert.cache import Cache
    from pytest_modelformats.schema import Converter, Description, PlannedCell, Source


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


@dataclass(frozen=True, slots=True)
class KeyedStep:
    """A step of a chain, and the key of what it makes.

    ``parts`` is everything that the key is made of: ``source`` says what the chain starts from, ``steps`` every
    conversion up to this one. It stands in the entry's ``metadata.json``, so that two keys can be told apart later.
    """

    converter: Converter
    key: str
    parts: Mapping[str, Any]

    @property
    def own(self) -> Mapping[str, Any]:
        """The step itself: converter, version, code, precision, options and libraries."""
        last: Mapping[str, Any] = self.parts["steps"][-1]
        return last


def keyed_steps(planned: PlannedCell, origin: Origin) -> tuple[KeyedStep, ...]:
    """The steps of a cell's chain with the keys of what they make; nothing is converted."""
    source = {
        "content": origin.content,
        "fingerprint": origin.description.fingerprint,
        "inputs": [str(s) for s in origin.description.inputs],
        "outputs": [str(s) for s in origin.description.outputs],
    }
    steps: list[dict[str, Any]] = []
    keyed = []
    for step in planned.chain:
        converter = registry.converters()[step.converter]
        own = {
            "converter": converter.name,
            "version": converter.version,
            "code": imported_digest(converter.entry.partition(":")[0]),
            "precision": step.precision,
            "options": {name: origin.options[name] for name in converter.options},
            "libraries": versions(converter.libraries),
        }
        steps = [*steps, own]
        parts = {"source": source, "steps": steps}
        keyed.append(KeyedStep(converter, chain_key(parts), parts))
    return tuple(keyed)


def chain_key(parts: Mapping[str, Any]) -> str:
    """The key of what the last step makes, of the parts alone."""
    key = key_of(parts["source"])
    for step in parts["steps"]:
        key = key_of(
            {
                "after": key,
                "converter": [step["converter"], step["version"], *([step["code"]] if "code" in step else [])],
                **{name: step[name] for name in ("precision", "options", "libraries")},
            }
        )
    return key


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
    current, held = Path(start), "fp32"
    made = cached = elapsed = 0
    content = ""
    facts: dict[str, Any] = {}
    for step in keyed_steps(planned, origin):
        converter, precision = step.converter, str(step.own["precision"])
        name = "model" + registry.formats()[converter.target].suffix

        def make(
            folder: Path,
            converter: Converter = converter,
            name: str = name,
            job: dict[str, Any] = _job(origin, current, held, step),  # noqa: B008
        ) -> Mapping[str, Any]:
            answer = ask(converter, {**job, "output": str(folder / name)})
            return {**answer["facts"], "convert_ns": answer["convert_ns"]}

        entry = cache.get_or_make(step.key, _provenance(planned.cell.model, step), make)
        current, held = entry.folder / name, precision
        made, cached = made + entry.made, cached + (not entry.made)
        elapsed += int(entry.metadata["facts"]["convert_ns"])
        facts.update(entry.metadata["facts"])
        content = key_of(entry.metadata["files"])
    facts.pop("convert_ns", None)
    size = sum(f.stat().st_size for f in current.parent.rglob("*") if f.is_file() and f.name != "metadata.json")
    return Artifact(current, planned.cell.format, held, size, elapsed, made, cached, facts, content)


def _job(origin: Origin, current: Path, held: str, step: KeyedStep) -> dict[str, Any]:
    return {
        "source": origin.source.to_json(),
        "input": str(current),
        "input_precision": held,
        "precision": step.own["precision"],
        "inputs": [s.to_json() for s in origin.description.inputs],
        "outputs": [s.to_json() for s in origin.description.outputs],
        "example": dict(origin.example),
        "options": dict(step.own["options"]),
        "checker": registry.formats()[step.converter.target].module,
    }


def _provenance(model: str, step: KeyedStep) -> dict[str, Any]:
    """What ``metadata.json`` says beside the key: enough to make the artifact again, and to tell keys apart."""
    source, own = step.parts["source"], step.own
    return {
        "what": "artifact",
        "model": model,
        "format": step.converter.target,
        "precision": own["precision"],
        "source_sha256": source["content"],
        "fingerprint": source["fingerprint"],
        "inputs": source["inputs"],
        "outputs": source["outputs"],
        "converter": own["converter"],
        "chain": [f"{s['converter']}:{s['precision']}" for s in step.parts["steps"]],
        "options": own["options"],
        "libraries": own["libraries"],
        "key_parts": step.parts,
        "tool": __version__,
        "python": platform.python_version(),
    }


def _size_of(planned: PlannedCell, path: Path) -> int | None:
    if not path.is_file():
        return None
    return sum(p.stat().st_size for p in (path, *companions(path, planned.cell.format)) if p.is_file())
