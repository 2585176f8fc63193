"""What was measured, each figure a column with its unit: the tables that HTML, Markdown and the terminal show.

A column that no cell has anything for (device memory on a machine without one) is left out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pytest_modelformats.schema import numbers
from pytest_modelformats.schema.sizes import written

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from pytest_modelformats.record.nouns import CellRecord, ThroughputFigure


@dataclass(frozen=True, slots=True)
class Column:
    """A figure by its title; ``name`` is the attribute of a measurement that holds it.

    ``short`` is its title in a terminal, "" where it is not shown there.
    """

    title: str
    name: str
    write: Callable[[float | None], str]
    short: str = ""


COLUMNS = (
    Column("conversion", "convert_ns", numbers.duration),
    Column("load", "load_ns", numbers.duration, short="load"),
    Column("first inference", "first_inference_ns", numbers.duration),
    Column("p50", "latency_p50_ns", numbers.duration, short="p50"),
    Column("p90", "latency_p90_ns", numbers.duration),
    Column("p95", "latency_p95_ns", numbers.duration, short="p95"),
    Column("p99", "latency_p99_ns", numbers.duration),
    Column("mean", "latency_mean_ns", numbers.duration),
    Column("std", "latency_std_ns", numbers.duration),
    Column("one at a time", "items_per_s", numbers.rate),
    Column("artifact", "size_bytes", numbers.size, short="size"),
    Column("memory above idle", "memory_above_idle_bytes", numbers.memory, short="memory"),
    Column("grows per call", "memory_growth_bytes", numbers.size),
    Column("device memory", "device_memory_bytes", numbers.size),
    Column("host to device", "host_to_device_ns", numbers.duration),
    Column("compute", "compute_ns", numbers.duration),
    Column("device to host", "device_to_host_ns", numbers.duration),
    Column("energy per call", "energy_j", numbers.energy),
)
MODES = {"sync": "one after the other", "threads": "a thread per request", "async": "asynchronous"}


@dataclass(frozen=True, slots=True)
class Entry:
    """A value as it is sorted by (``None`` last) and as it is read."""

    value: float | None
    text: str


@dataclass(frozen=True, slots=True)
class Row:
    """A cell, its figures in the table's order, and what speaks against them."""

    cell: str
    entries: tuple[Entry, ...]
    doubt: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Titles and rows; empty where nothing was measured."""

    titles: tuple[str, ...]
    rows: tuple[Row, ...]


def measurements(cells: Iterable[CellRecord], *, short: bool = False) -> Table:
    """The latency, cost and footprint of every measured cell; ``short`` has the columns that fit a terminal."""
    found = [(cell.cell, cell.latency) for cell in cells if cell.latency]
    columns = [
        column
        for column in COLUMNS
        if (column.short or not short) and any(getattr(latency, column.name) is not None for _, latency in found)
    ]
    rows = tuple(
        Row(
            name,
            tuple(Entry(value, c.write(value)) for c in columns for value in (getattr(latency, c.name),)),
            "unusable" if latency.unusable else "disturbed" if latency.disturbed else "",
            latency.unusable or latency.disturbed,
        )
        for name, latency in found
    )
    table = Table(tuple(column.short if short else column.title for column in columns), rows)
    return table if short else _with_sizes(table, [latency.sizes for _, latency in found])


def _with_sizes(table: Table, sizes: Sequence[Mapping[str, Any]]) -> Table:
    """The table with a column that says at which sizes each row was measured, where a model leaves some free."""
    if not any(sizes):
        return table
    rows = (
        replace(row, entries=(*row.entries, Entry(None, written(at) or numbers.ABSENT)))
        for row, at in zip(table.rows, sizes, strict=True)
    )
    return Table((*table.titles, "at"), tuple(rows))


def throughput(cells: Iterable[CellRecord]) -> tuple[tuple[str, ThroughputFigure], ...]:
    """(Cell, figure) of everything that was kept busy, cell by cell, in the order in which it was measured."""
    return tuple((cell.cell, figure) for cell in cells for figure in cell.throughput)


def throughput_table(cells: Iterable[CellRecord], *, short: bool = False) -> Table:
    """Items per second as a table with a column per scenario and mode, a row per cell; ``short`` is for a terminal."""
    figures = throughput(cells)
    scenarios = list(dict.fromkeys((f.batch, f.concurrency, f.mode) for _, f in figures))
    scenarios.sort(key=lambda s: (s[1], s[0], list(MODES).index(s[2]) if s[2] in MODES else len(MODES)))
    by_cell: dict[str, dict[tuple[int, int, str], ThroughputFigure]] = {}
    for name, figure in figures:
        by_cell.setdefault(name, {})[figure.batch, figure.concurrency, figure.mode] = figure
    rows = tuple(_throughput_row(name, [found.get(s) for s in scenarios]) for name, found in by_cell.items())
    table = Table(tuple(_scenario(*s, short=short) for s in scenarios), rows)
    at = [next((f.sizes for f in found.values() if f.sizes), {}) for found in by_cell.values()]
    return table if short else _with_sizes(table, at)


def _throughput_row(name: str, figures: Sequence[ThroughputFigure | None]) -> Row:
    entries = tuple(Entry(f.items_per_s if f else None, numbers.rate(f.items_per_s if f else None)) for f in figures)
    present = [figure for figure in figures if figure]
    unusable = [figure.unusable for figure in present if figure.unusable]
    said = unusable or [figure.disturbed for figure in present if figure.disturbed]
    why_not = [f"{MODES.get(f.mode, f.mode)}: {f.why_not}" for f in present if f.why_not]
    doubt = "unusable" if unusable else "disturbed" if said else ""
    return Row(name, entries, doubt, "; ".join(dict.fromkeys([*said, *why_not])))


def _scenario(batch: int, concurrency: int, mode: str, *, short: bool) -> str:
    if mode == "sync":
        return f"batch {batch}"
    if short:
        return f"{batch} × {concurrency} {mode}"
    return f"batch {batch}, {concurrency} in flight, {mode}"
