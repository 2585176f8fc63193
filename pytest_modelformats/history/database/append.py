"""A run's rows into the history; whoever calls holds the lock that lets one process append at a time."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

from pytest_modelformats.history.database.tables import tables

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator, Mapping

    from sqlalchemy import Column, Connection, Select, Table

    from pytest_modelformats.history.database.rows import Entry

# Below the smallest limit of variables of any SQLite that Python 3.10 comes with (32,766).
_AT_ONCE = 5000


def append(connection: Connection, entry: Entry) -> bool:
    """The run is in the history; returns whether it was not, or not yet with all of its checks."""
    from sqlalchemy import delete, insert, select

    known = tables()
    runs, measurements = known.runs, known.measurements
    before = connection.execute(select(runs.c.id, runs.c.checks).where(runs.c.key == entry.key)).first()
    if before is not None and before.checks >= entry.checks:
        return False
    if before is not None:  # it was added while it was still going on
        connection.execute(delete(measurements).where(measurements.c.run_id == before.id))
        connection.execute(delete(runs).where(runs.c.id == before.id))
    machines = _ids(connection, known.machines, known.machines.c.identity, [entry.identity], {"facts": entry.facts})
    machine = machines[entry.identity]
    about = {name: getattr(entry, name) for name in ("key", "run", "started", "tool", "complete", "checks")}
    about |= {"machine_id": machine, "command": list(entry.command), "versions": dict(entry.versions)}
    (run,) = connection.execute(insert(runs).values(about)).inserted_primary_key or (0,)
    found = entry.measurements
    texts = _ids(connection, known.runtimes, known.runtimes.c.versions, {m.versions for m in found})
    cells = _ids(connection, known.cells, known.cells.c.cell, {m.cell for m in found})
    units = {(cells[m.cell], m.check, m.metric): m.unit for m in found}
    series = _series(connection, machine, units)
    rows: list[dict[str, Any]] = [
        {
            "series_id": series[cells[m.cell], m.check, m.metric],
            "started": entry.started,
            "run_id": run,
            "runtime_id": texts[m.versions],
            "value": m.value,
            "low": m.low,
            "high": m.high,
            "outcome": m.outcome,
            "disturbed": m.disturbed,
            "samples": m.samples,
        }
        for m in found
    ]
    if rows:
        rows.sort(key=lambda row: row["series_id"])
        connection.execute(insert(measurements), rows)
    return True


def _ids(
    connection: Connection,
    table: Table,
    column: Column[Any],
    wanted: Iterable[str],
    more: Mapping[str, Any] | None = None,
) -> dict[str, int]:
    """The id of every wanted value; what is not there yet is added."""
    from sqlalchemy import insert, select

    found: dict[str, int] = {}
    for part in _parts(sorted(set(wanted))):
        query = select(column, table.c.id).where(column.in_(part))
        there = _pairs(connection, query)
        missing = [value for value in part if value not in there]
        if missing:
            connection.execute(insert(table), [{column.name: value, **(more or {})} for value in missing])
            query = select(column, table.c.id).where(column.in_(missing))
            there |= _pairs(connection, query)
        found |= there
    return found


def _series(
    connection: Connection, machine: int, units: Mapping[tuple[int, str, str], str]
) -> dict[tuple[int, str, str], int]:
    """The id of every (cell, check, metric) on a machine; what is not there yet is added."""
    from sqlalchemy import insert, select

    series = tables().series
    found: dict[tuple[int, str, str], int] = {}

    def look(cells: list[int]) -> None:
        columns = (series.c.cell_id, series.c.check, series.c.metric, series.c.id)
        query = select(*columns).where(series.c.machine_id == machine, series.c.cell_id.in_(cells))
        found.update({(cell, check, metric): number for cell, check, metric, number in connection.execute(query)})

    for part in _parts(sorted({cell for cell, _, _ in units})):
        look(part)
    missing = sorted(key for key in units if key not in found)
    if missing:
        names = ("cell_id", "check", "metric")
        rows = [{**dict(zip(names, key, strict=True)), "machine_id": machine, "unit": units[key]} for key in missing]
        connection.execute(insert(series), rows)
        for part in _parts(sorted({cell for cell, _, _ in missing})):
            look(part)
    return found


def _pairs(connection: Connection, query: Select[Any]) -> dict[str, int]:
    return {str(value): int(number) for value, number in connection.execute(query)}


def _parts(items: Iterable[Hashable]) -> Iterator[list[Any]]:
    rest = iter(items)
    while part := list(islice(rest, _AT_ONCE)):
        yield part
