"""Artifacts for a model registry straight from the cache: whatever was converted, whether a run judged it or not."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from pytest_modelformats.cli.cache.why import format_of, made, parts_of, when
from pytest_modelformats.cli.registry.artifact import Chosen, named, part
from pytest_modelformats.cli.registry.choice import Choice, matched
from pytest_modelformats.convert.cache import key_of
from pytest_modelformats.errors import ConfigurationError
from pytest_modelformats.plan.graph import artifacts
from pytest_modelformats.schema import Cell, registry

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pytest_modelformats.convert.cache import Cache, Entry


def from_cache(cache: Cache, globs: Sequence[str]) -> Choice:
    """The newest artifact of every model, format and precision in the cache that one of the globs matches.

    A glob is matched with the ids of the cells that could run an artifact.

    Raises: ConfigurationError where the cache has none, a glob matches nothing, or an artifact is damaged.
    """
    entries: dict[str, list[Entry]] = defaultdict(list)
    cells: dict[str, list[str]] = defaultdict(list)
    for entry in cache.entries():
        for cell in _cells(entry.metadata):
            entries[cell.id].append(entry)
            cells[entry.key].append(cell.id)
    if not entries:
        msg = f"there is no artifact in the cache {cache.folder}; run pytest --mf-model MODEL first, or say --mf-cache"
        raise ConfigurationError(msg)
    chosen: dict[str, Chosen] = {}
    notes: dict[str, None] = {}
    for name in matched(sorted(entries), globs, "artifacts of the cache could be run as"):
        newest, *older = sorted(entries[name], key=made, reverse=True)
        if newest.key not in chosen:
            chosen[newest.key] = _of_entry(newest, cache)
        for entry in older:
            notes[f"{entry.key[:12]}, made {when(entry)}: a newer artifact of {name.partition('@')[0]} is taken"] = None
    return Choice(tuple(chosen.values()), notes=tuple(notes))


def _cells(metadata: Mapping[str, Any]) -> Iterator[Cell]:
    """The cells that could run an entry's artifact; none where it is no artifact, or of converters unknown here."""
    route = _route(metadata)
    if metadata.get("what") != "artifact" or route is None:
        return
    model, form, holds = str(metadata.get("model")), format_of(metadata), str(metadata.get("precision"))
    for backend in registry.backends().values():
        for precision in backend.precisions.get((form, holds), ()):
            for device in backend.runs_on(precision):
                yield Cell(model, form, precision, backend.name, device, route=route)


def _route(metadata: Mapping[str, Any]) -> str | None:
    """The route by which an entry was made, "" for the default one."""
    steps = [(step.get("converter"), step.get("precision")) for step in parts_of(metadata)[0]["steps"]]
    first = registry.converters().get(str(steps[0][0]))
    paths = artifacts(first.source) if first else ()
    return next((p.route for p in paths if [(s.converter, s.precision) for s in p.steps] == steps), None)


def _of_entry(entry: Entry, cache: Cache) -> Chosen:
    whole, damaged = cache.look(entry.key)
    if whole is None:
        msg = f"the entry {entry.key[:12]} of the cache {cache.folder} is damaged ({damaged or 'it is gone'})"
        raise ConfigurationError(f"{msg}; the next run makes it again")
    model, form = part(str(whole.metadata.get("model")), "an entry of the cache"), format_of(whole.metadata)
    precision, route = str(whole.metadata.get("precision")), _route(whole.metadata)
    main = whole.folder / f"model{registry.formats()[form].suffix}"
    files = tuple(whole.folder / name for name in whole.metadata["files"])
    folder = f"{form}.{route}" if route else form
    name = named("model", precision, main.suffix)
    content = key_of(whole.metadata["files"])
    return Chosen(model, folder, name, form, precision, main, files, content, whole.metadata)
