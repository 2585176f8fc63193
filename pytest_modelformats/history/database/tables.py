"""The tables of the history: runs, the machines they ran on, and what was measured of each cell.

One row of ``measurements`` is one metric of one check of one cell in one run. Cell, machine, check and metric
together are a series, and a measurement's key starts with its series and time: in SQLite one series over time lies
in one place, so that a trend reads as many rows as it shows, however many there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy import MetaData, Table
    from sqlalchemy.schema import SchemaItem

# Raise it with every change of the tables that an older reader would misunderstand.
VERSION = 1
PREFIX = "modelformats_"


@dataclass(frozen=True, slots=True)
class Tables:
    """The tables, and what creates them all; the prefix keeps them apart from others in a shared database."""

    metadata: MetaData
    schema: Table
    machines: Table
    runs: Table
    cells: Table
    series: Table
    runtimes: Table
    measurements: Table


@cache
def tables() -> Tables:
    """Declare the tables once."""
    from sqlalchemy import (
        JSON,
        BigInteger,
        Boolean,
        Column,
        Float,
        ForeignKey,
        Index,
        Integer,
        MetaData,
        String,
        Table,
        Text,
        UniqueConstraint,
    )

    metadata = MetaData()

    def table(name: str, *parts: SchemaItem, sqlite_with_rowid: bool = True) -> Table:
        return Table(PREFIX + name, metadata, *parts, sqlite_with_rowid=sqlite_with_rowid)

    def key() -> Column[object]:
        return Column("id", Integer, primary_key=True)

    def of(name: str, *, primary: bool = False) -> Column[object]:
        return Column(
            f"{name.rstrip('s')}_id" if name != "series" else "series_id",
            Integer,
            ForeignKey(f"{PREFIX}{name}.id"),
            nullable=False,
            primary_key=primary,
        )

    return Tables(
        metadata,
        schema=table("schema", Column("version", Integer, nullable=False)),
        machines=table(
            "machines", key(), Column("identity", String(64), nullable=False, unique=True), Column("facts", JSON)
        ),
        runs=table(
            "runs",
            key(),
            Column("key", String(64), nullable=False, unique=True),
            Column("run", Text, nullable=False),
            of("machines"),
            Column("started", BigInteger, nullable=False, index=True),
            Column("tool", Text, nullable=False),
            Column("command", JSON),
            Column("versions", JSON),
            Column("complete", Boolean, nullable=False),
            Column("checks", Integer, nullable=False),
        ),
        cells=table("cells", key(), Column("cell", Text, nullable=False, unique=True)),
        series=table(
            "series",
            key(),
            of("cells"),
            of("machines"),
            Column("check", Text, nullable=False),
            Column("metric", Text, nullable=False),
            Column("unit", Text, nullable=False),
            UniqueConstraint("cell_id", "machine_id", "check", "metric"),
        ),
        runtimes=table("runtimes", key(), Column("versions", Text, nullable=False, unique=True)),
        measurements=table(
            "measurements",
            of("series", primary=True),
            Column("started", BigInteger, primary_key=True),
            of("runs", primary=True),
            of("runtimes"),
            Column("value", Float(53)),
            Column("low", Float(53)),
            Column("high", Float(53)),
            Column("outcome", String(32), nullable=False),
            Column("disturbed", Text, nullable=False),
            Column("samples", Integer),
            Index(f"{PREFIX}measurements_of_run", "run_id"),
            sqlite_with_rowid=False,
        ),
    )
