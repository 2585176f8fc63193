"""The cells of one model as a table: rows are format and precision, columns where it ran."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pytest_modelformats.record.nouns import CellRecord


@dataclass(frozen=True, slots=True)
class Row:
    """One artifact, and what became of it in every column; ``None`` where nothing was planned."""

    variant: str
    precision: str
    cells: tuple[CellRecord | None, ...]


@dataclass(frozen=True, slots=True)
class Matrix:
    """Rows whose cells stand in the order of ``columns``."""

    columns: tuple[str, ...]
    rows: tuple[Row, ...]


def matrix(cells: Iterable[CellRecord], columns: Iterable[str] | None = None) -> Matrix:
    """The table of these cells, or of those in some columns; rows without a cell are left out.

    The rows keep the order of ``cells``.
    """
    placed: dict[tuple[str, str], dict[str, CellRecord]] = {}
    for cell in cells:
        placed.setdefault(cell.row, {})[cell.column] = cell
    chosen = tuple(columns) if columns is not None else tuple(sorted({c for row in placed.values() for c in row}))
    rows = (Row(*label, tuple(row.get(c) for c in chosen)) for label, row in placed.items())
    return Matrix(chosen, tuple(row for row in rows if any(row.cells)))
