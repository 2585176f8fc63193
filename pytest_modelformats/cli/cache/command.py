"""``modelformats cache``: what is kept of earlier conversions, and why one is made again."""

from __future__ import annotations

import contextlib
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click  # noqa: TID253 - a command of modelformats: only its entry point imports it

from pytest_modelformats.cli.env import done, loaded, watched
from pytest_modelformats.cli.options import with_options
from pytest_modelformats.errors import ConfigurationError
from pytest_modelformats.schema.names import suggest
from pytest_modelformats.settings.options import OPTIONS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_modelformats.cli.cache.why import Found
    from pytest_modelformats.convert.cache import Cache, Entry
    from pytest_modelformats.schema import PlannedCell, Source
    from pytest_modelformats.settings.nouns import Settings

# Beside what decides which cells there are: what the model is and how it is converted, and what a command line of
# pytest has as well and no key holds.
_TAKEN = frozenset(
    {
        *("model", "data", "opset", "static", "timeout", "memory", "cache", "isolate", "config"),
        *("samples", "seed", "threads", "ort_optimization"),
    }
)


@click.group(name="cache")
def cache_commands() -> None:
    """Converted artifacts that are kept between runs: what there is, and why one is made again."""


@cache_commands.command()
@click.argument("cell")
@click.option("--all", "everything", is_flag=True, help="Compare with every entry of the kind, not the nearest three.")
@partial(with_options, [option for option in OPTIONS if option.selects or option.key in _TAKEN])
def why(cell: str, *, everything: bool, **chosen: Any) -> None:
    """Explain why the conversions of CELL (as 'modelformats plan' shows it) are in the cache or are not.

    For each conversion of its chain: whether its result is in the cache; if not, which entries of the same model,
    format and precision are there under another key, and which parts of the key differ: content of the source, code
    of its architecture, inputs, converters, options, versions of libraries. The model is loaded, nothing is converted.
    Give the options of the run in question.
    """
    from pytest_modelformats.cli.cache import why as cache_why
    from pytest_modelformats.convert.cache import Cache
    from pytest_modelformats.settings import load as configuration
    from pytest_modelformats.source.identify import find_sources

    given = {key: list(value) if isinstance(value, tuple) else value for key, value in chosen.items() if value}
    settings = configuration.load(configuration.project_root(Path.cwd()), given)
    sources = find_sources(settings)
    if not sources:
        msg = "the keys of a cell need its model; give it, as in 'modelformats cache why CELL --mf-model model.onnx'"
        raise ConfigurationError(msg)
    planned = _planned(settings, sources, cell)
    if not planned.chain:
        where = planned.candidate_path or next(s.location for s in sources if s.name == planned.cell.model)
        click.echo(f"{cell}: nothing is converted for it, so nothing is cached; it opens {where} as it is.")
        return
    if not planned.decision.runs:
        click.echo(f"A run leaves {cell} out: {planned.decision.reason}.", err=True)
    cache = Cache(settings.cache, write=False)
    found = _explained(settings, sources, planned, cache)
    click.echo("\n".join(cache_why.told(cell, found, settings.cache, everything=everything)))


def _planned(settings: Settings, sources: Sequence[Source], cell: str) -> PlannedCell:
    """The cell of the plan, by whatever route; raises ConfigurationError where there is none."""
    from dataclasses import replace

    from pytest_modelformats.plan.build import build_plan
    from pytest_modelformats.settings import machine
    from pytest_modelformats.source.identify import find_candidates

    everywhere = replace(settings, all_routes=True)
    plan = build_plan(everywhere, sources, find_candidates(everywhere), machine.machine())
    known = {planned.cell.id: planned for planned in plan.cells}
    if cell not in known:
        near = suggest(cell, known)
        hint = near if "did you mean" in near else "; 'modelformats plan MODEL' shows the cells"
        raise ConfigurationError(f"there is no cell '{cell}'{hint}")
    return known[cell]


def _explained(settings: Settings, sources: Sequence[Source], planned: PlannedCell, cache: Cache) -> tuple[Found, ...]:
    """What the cache has of the cell's chain; a worker loads the model and says what it is."""
    from pytest_modelformats.cli.cache import why as cache_why
    from pytest_modelformats.run.models import Models, origin_of
    from pytest_modelformats.run.workers.asking import Asker
    from pytest_modelformats.run.workers.pool import Pool
    from pytest_modelformats.source.identify import find_data

    pool = Pool(memory_bytes=settings.memory_bytes, threads=settings.threads, isolate=settings.isolate)
    asker = Asker(pool, settings.timeout_s, watched)
    models = Models(settings, sources, find_data(settings), asker, cache)
    try:
        return cache_why.explain(planned, origin_of(models, settings, planned.cell.model, {}), cache)
    finally:
        done()
        pool.close()


@cache_commands.command(name="list")
@click.option("--mf-cache", "cache", metavar="DIR", help="The cache folder to look into.")
def list_(cache: str | None) -> None:
    """Show the artifacts in the cache, the largest first, and what everything takes."""
    click.echo("\n".join(lines(loaded(cache))))


def lines(settings: Settings) -> Iterator[str]:
    """A line per artifact, then the sums."""
    from pytest_modelformats.convert.cache import Cache
    from pytest_modelformats.schema.numbers import plural, size

    entries = list(Cache(settings.cache, write=False).entries())
    if not entries:
        yield f"In {settings.cache}: nothing."
        return
    sizes = {entry.key: _size(entry.folder) for entry in entries}
    artifacts = [entry for entry in entries if entry.metadata.get("what") == "artifact"]
    artifacts.sort(key=lambda entry: (-sizes[entry.key], entry.key))
    rows = [("key", "size", "made", "artifact"), *(_row(entry, size(sizes[entry.key])) for entry in artifacts)]
    yield f"In {settings.cache}:"
    if artifacts:
        width = max(len(row[1]) for row in rows)
        yield from (f"  {key:<12}  {taken:>{width}}  {made:<20}  {what}" for key, taken, made, what in rows)
    damaged = [entry for entry in entries if entry.damaged]
    others = len(entries) - len(artifacts) - len(damaged)
    spoilt = f", {len(damaged)} damaged" if damaged else ""
    total = size(sum(sizes.values()))
    yield f"{plural(len(artifacts), 'artifact')}, {plural(others, 'reference')}{spoilt}: {total}"


def _row(entry: Entry, taken: str) -> tuple[str, str, str, str]:
    from pytest_modelformats.cli.cache.why import format_of, when

    metadata = entry.metadata
    what = f"{metadata.get('model')} {format_of(metadata)} {metadata.get('precision')} ({metadata.get('converter')})"
    return entry.key[:12], taken, when(entry), what


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # another process may be discarding it
            total += path.stat().st_size if path.is_file() else 0
    return total
