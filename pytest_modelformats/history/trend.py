"""A cell's metric over the runs of one machine, read from the history, with the steps in it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timezone
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from pytest_modelformats.errors import ConfigurationError
from pytest_modelformats.history import steps
from pytest_modelformats.history.database.rows import OUTCOME, Versions, decoded
from pytest_modelformats.history.database.tables import tables
from pytest_modelformats.schema.names import suggest
from pytest_modelformats.schema.numbers import plural

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

DEFAULT_METRIC = "latency_p50_ns"
# A metric that several checks have is looked for in these first.
_FIRST = ("latency", "parity", "")
_EVERYWHERE = "all"
_NAMED = 5
_EXACT_UNITS = ("", "bytes")


@dataclass(frozen=True, slots=True)
class Point:
    """One run's value; ``started`` in seconds since 1970."""

    run: str
    started: int
    value: float | None
    low: float | None
    high: float | None
    outcome: str
    disturbed: str
    samples: int | None
    versions: Versions
    # What is another than in the point before: "onnxruntime 1.26.0 → 1.32.0".
    changed: tuple[str, ...] = ()
    # Relative to the undisturbed value before: 0.1 is 10 % more.
    relative: float | None = None

    @property
    def date(self) -> str:
        """The day and minute, in UTC."""
        return f"{datetime.fromtimestamp(self.started, timezone.utc):%Y-%m-%d %H:%M}"


@dataclass(frozen=True, slots=True)
class Marked:
    """A step, with the first point of its new level and what changed since the last one of the old."""

    step: steps.Step
    point: Point
    changed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Trend:
    """The points of one series, oldest first; ``about_steps`` says why none are looked for."""

    cell: str
    machine: str
    machine_facts: str
    check: str
    metric: str
    unit: str
    points: tuple[Point, ...]
    steps: tuple[Marked, ...] = ()
    about_steps: str = ""


@dataclass(frozen=True, slots=True)
class Known:
    """A cell of which the history has runs: how many, and what the last one said."""

    cell: str
    machine: str
    runs: int
    started: int
    outcome: str
    value: float | None = None
    disturbed: str = ""
    metric: str = DEFAULT_METRIC


def known_cells(connection: Connection, machine: str, metric: str = DEFAULT_METRIC) -> tuple[Known, ...]:
    """Every cell with its number of runs and its last outcome and value, by cell and machine."""
    from sqlalchemy import and_, func, or_, select

    t = tables()
    m, series = t.measurements, t.series
    check, name = _split(metric)
    last = (
        select(m.c.series_id, func.count().label("runs"), func.max(m.c.started).label("started"))
        .join(series, series.c.id == m.c.series_id)
        .where(or_(and_(series.c.metric == OUTCOME, series.c.check == ""), series.c.metric == name))
        .group_by(m.c.series_id)
        .subquery()
    )
    query = (
        select(
            *(t.cells.c.cell, t.machines.c.identity, series.c.check, series.c.metric),
            *(last.c.runs, last.c.started, m.c.outcome, m.c.value, m.c.disturbed),
        )
        .join(series, series.c.id == last.c.series_id)
        .join(t.cells, t.cells.c.id == series.c.cell_id)
        .join(t.machines, t.machines.c.id == series.c.machine_id)
        .join(m, and_(m.c.series_id == last.c.series_id, m.c.started == last.c.started))
        .order_by(t.cells.c.cell, t.machines.c.identity, m.c.run_id)
    )
    outcomes: dict[tuple[str, str], Any] = {}
    values: dict[tuple[str, str], dict[str, Any]] = {}
    for row in connection.execute(query):
        at = row.cell, row.identity
        if not (machine == _EVERYWHERE or row.identity.startswith(machine)):
            continue
        if row.metric == OUTCOME and row.check == "":
            outcomes[at] = row
        if row.metric == name and check in (None, row.check):
            values.setdefault(at, {})[row.check] = row
    found = []
    for (cell, identity), row in outcomes.items():
        named = values.get((cell, identity), {})
        value = named[_preferred(named)] if named else None
        known = Known(cell, identity, row.runs, row.started, row.outcome, metric=metric)
        found.append(replace(known, value=value.value, disturbed=value.disturbed) if value else known)
    return tuple(found)


def trends(connection: Connection, cell: str, metric: str, machine: str, last: int) -> tuple[Trend, ...]:
    """The trends of the cells that a name or glob stands for, one per cell and machine.

    Raises: ConfigurationError where the history has no such cell, metric or machine, naming those that it has.
    """
    from sqlalchemy import Text, cast, select

    t = tables()
    names = list(connection.execute(select(t.cells.c.cell)).scalars())
    cells = [cell] if cell in names else [name for name in names if fnmatchcase(name, cell)]
    if not cells:
        raise ConfigurationError(_no_cell(cell, names))
    query = (
        select(
            # As text: the library's own decoding ends in its own error.
            *(t.cells.c.cell, t.machines.c.identity, cast(t.machines.c.facts, Text).label("facts")),
            *(t.series.c.id, t.series.c.check, t.series.c.metric, t.series.c.unit),
        )
        .join(t.cells, t.cells.c.id == t.series.c.cell_id)
        .join(t.machines, t.machines.c.id == t.series.c.machine_id)
        .order_by(t.cells.c.cell, t.machines.c.identity)
    )
    if len(cells) == 1:
        query = query.where(t.cells.c.cell == cells[0])
    wanted = set(cells)
    rows = [row for row in connection.execute(query) if row.cell in wanted]
    here = [row for row in rows if machine == _EVERYWHERE or row.identity.startswith(machine)]
    if not here:
        others = ", ".join(f"{row.identity} ({_about(row)})" for row in {r.identity: r for r in rows}.values())
        msg = f"the history has '{cell}' of no machine '{machine}', only of {others}; choose with --machine ID or all"
        raise ConfigurationError(msg)
    check, name = _split(metric)
    chosen: dict[tuple[str, str], dict[str, Any]] = {}
    for row in here:
        if row.metric == name and check in (None, row.check):
            chosen.setdefault((row.cell, row.identity), {})[row.check] = row
    if not chosen:
        known = {row.metric for row in here}
        msg = f"the history has no metric '{metric}' of '{cell}'{suggest(metric, known)}"
        raise ConfigurationError(msg)
    return tuple(_trend(connection, of[_preferred(of)], last) for of in chosen.values())


def _no_cell(cell: str, names: list[str]) -> str:
    if not names:
        return "the history has no run yet"
    near = suggest(cell, names)
    if len(names) > _NAMED and "did you mean" not in near:
        near = f"; it has {len(names):,}: 'modelformats history --machine all' lists them"
    return f"the history has no cell '{cell}'{near}"


def _split(metric: str) -> tuple[str | None, str]:
    """``parity.noise_ratio`` as check and metric; the check is ``None`` where it is not named."""
    head, dot, tail = metric.partition(".")
    return (head, tail) if dot and "[" not in head else (None, metric)


def _preferred(checks: dict[str, Any]) -> str:
    order = ("", *_FIRST) if OUTCOME in {row.metric for row in checks.values()} else _FIRST
    return next((check for check in order if check in checks), min(checks))


def _are_facts(said: Any) -> bool:
    return said is None or (isinstance(said, dict) and isinstance(said.get("gpu") or [], list))


def _about(row: Any) -> str:
    """The machine of a row in words, such as ``AMD EPYC (zen4), 2 cores``; raises DamagedText."""
    text = "{}" if row.facts is None else row.facts
    facts = decoded(text, f"the facts of the machine {row.identity}", _are_facts) or {}
    cores = facts.get("physical_cores") or facts.get("cores")
    return ", ".join(str(part) for part in (facts.get("cpu"), f"{cores} cores", *(facts.get("gpu") or ())) if part)


def _trend(connection: Connection, series: Any, last: int) -> Trend:
    from sqlalchemy import select

    t = tables()
    m = t.measurements
    query = (
        select(
            *(t.runs.c.run, m.c.started, m.c.value, m.c.low, m.c.high),
            *(m.c.outcome, m.c.disturbed, m.c.samples, t.runtimes.c.versions),
        )
        .join(t.runs, t.runs.c.id == m.c.run_id)
        .join(t.runtimes, t.runtimes.c.id == m.c.runtime_id)
        .where(m.c.series_id == series.id)
        .order_by(m.c.started.desc(), m.c.run_id.desc())
        .limit(last)
    )
    points: list[Point] = []
    known: float | None = None
    for row in reversed(connection.execute(query).all()):
        versions = Versions.from_text(row.versions)
        changed = changes(points[-1].versions, versions) if points else ()
        # Of a value that was disturbed nothing is concluded, neither from it nor to it.
        steady = row.value if not row.disturbed else None
        relative = steady / known - 1 if steady is not None and known else None
        known = steady if steady is not None else known
        facts = {name: value for name, value in row._mapping.items() if name != "versions"}  # noqa: SLF001 - its name
        points.append(Point(**facts, versions=versions, changed=changed, relative=relative))
    marked, about = marks(points, exact=series.unit in _EXACT_UNITS)
    head = (series.cell, series.identity, _about(series), series.check, series.metric, series.unit)
    return Trend(*head, tuple(points), marked, about)


def changes(before: Versions, after: Versions) -> tuple[str, ...]:
    """What is another version, the runtime's first."""
    old, new = before.all, after.all
    names = dict.fromkeys((*after.runtime, *before.runtime, *after.beside, *before.beside))
    return tuple(
        f"{name} {old.get(name, 'none')} → {new.get(name, 'none')}" for name in names if old.get(name) != new.get(name)
    )


def marks(points: Sequence[Point], *, exact: bool) -> tuple[tuple[Marked, ...], str]:
    """The steps of what was not disturbed, or why none are looked for."""
    steady = [p for p in points if p.value is not None and not p.disturbed]
    if not any(p.value is not None for p in points):
        return (), ""
    if not steps.available():
        return (), f"Steps are looked for where ruptures is installed: {steps.INSTALL}"
    found = steps.find([p.value for p in steady if p.value is not None], exact=exact)
    marked = tuple(
        Marked(s, steady[s.index], changes(steady[s.index - 1].versions, steady[s.index].versions)) for s in found
    )
    count, verb = plural(len(steady), "undisturbed run"), "is" if len(steady) == 1 else "are"
    if not marked and len(steady) < steps.SHORTEST:
        return (), f"No steps: {count} {verb} too few to tell one from chance; {steps.SHORTEST} are enough."
    return marked, "" if marked else f"No steps in {count}."
