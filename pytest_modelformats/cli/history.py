"""``modelformats history``: what became of a cell's metrics over the runs, with the steps in them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click  # noqa: TID253 - a command of modelformats: only its entry point imports it

from pytest_modelformats.errors import ConfigurationError

if TYPE_CHECKING:
    from pytest_modelformats.settings.nouns import Settings

# Steps are looked for in no more runs than these; a year of nightly runs.
_LAST = 365


@click.command()
@click.argument("cell", metavar="[CELL|GLOB]", required=False)
@click.option("--metric", default="latency_p50_ns", show_default=True, help="A metric, or check.metric; 'outcome' too.")
@click.option("--machine", default="this", show_default=True, help="this, all, or the beginning of a machine's id.")
@click.option("--last", type=click.IntRange(1), default=_LAST, show_default=True, help="How many of the newest runs.")
@click.option("--format", "form", type=click.Choice(["terminal", "md", "json"]), default="terminal", show_default=True)
@click.option(
    "--add", "added", multiple=True, type=click.Path(path_type=Path), metavar="RECORD",
    help="First append this record (a results.jsonl, or a folder of runs), of a run that was killed or from elsewhere.",
)  # fmt: skip
@click.option("--mf-history", "where", metavar="FILE|URL", help="The database. Default: that of the configuration.")
@click.option("--mf-cache", "cache", metavar="DIR", help="The cache folder that holds the default database.")
def history(
    cell: str | None,
    metric: str,
    machine: str,
    last: int,
    form: str,
    added: tuple[Path, ...],
    where: str | None,
    cache: str | None,
) -> None:
    """Show how a metric of CELL went over the runs of a machine, and its steps; without CELL, every known cell."""
    from pytest_modelformats.settings import load as configuration
    from pytest_modelformats.settings.machine import machine as facts

    given = {key: value for key, value in (("history", where), ("cache", cache)) if value}
    settings = configuration.load(configuration.project_root(Path.cwd()), given)
    if settings.history == "none":
        raise ConfigurationError("the history is switched off; say which one with --mf-history FILE or URL")
    if added:
        click.echo(_add(settings, added), err=True)
        if cell is None:
            return
    here = facts()["identity"] if machine == "this" else machine
    click.echo(_shown(settings, cell, metric, here, last, form), nl=False)


def _add(settings: Settings, records: tuple[Path, ...]) -> str:
    """Append records; returns how many runs were new."""
    from pytest_modelformats.cli.merge.join import records_in
    from pytest_modelformats.history.database import store as database
    from pytest_modelformats.history.database.append import append
    from pytest_modelformats.history.database.rows import entry_of
    from pytest_modelformats.record import read as lines

    entries = [entry_of(lines.read(path)) for record in records for path in records_in(record)]
    with database.opened(settings.history, settings.cache, write=True) as connection:
        new = sum(append(connection, entry) for entry in entries) if connection is not None else 0
    again = len(entries) - new
    return f"{new} added" + (f", {again} of which the history has already" if again else "")


def _shown(settings: Settings, cell: str | None, metric: str, machine: str, last: int, form: str) -> str:
    from pytest_modelformats.history import show as report
    from pytest_modelformats.history.database import store as database
    from pytest_modelformats.history.database.rows import unit_of
    from pytest_modelformats.history.trend import known_cells, trends

    with database.opened(settings.history, settings.cache) as connection:
        if connection is None:
            return ""
        if cell is not None:
            found = trends(connection, cell, metric, machine, last)
        else:
            known = known_cells(connection, machine, metric)
            elsewhere = known or known_cells(connection, "all", metric)
    if cell is not None:
        return {"md": report.as_markdown, "json": report.as_json, "terminal": report.as_text}[form](found)
    if not known:
        others = ", ".join(sorted({k.machine for k in elsewhere})) or "none"
        msg = f"the history has no cell of the machine '{machine}'; its machines are: {others}; choose with --machine"
        raise ConfigurationError(msg)
    return report.listed(known, form, metric, unit_of(metric.rpartition(".")[2]))
