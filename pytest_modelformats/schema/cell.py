"""Points of the matrix, the way to each, and whether it is run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_modelformats.schema.outcome import Outcome


@dataclass(frozen=True, slots=True)
class Environment:
    """An interpreter that workers run under; ``python`` is "" for pytest's own."""

    name: str = ""
    python: str = ""


@dataclass(frozen=True, slots=True)
class Cell:
    """One point of the matrix.

    ``variant`` is the part of the id that says how the artifact came to be: the format,
    or ``format.route`` for a route that is not the default one.
    """

    model: str
    format: str
    precision: str
    backend: str
    device: str
    environment: str = ""
    route: str = ""
    candidate: str = ""

    @property
    def variant(self) -> str:
        """The format, with the route where it is not the default one."""
        return f"{self.format}.{self.route}" if self.route else self.format

    @property
    def id(self) -> str:
        """``<model>[~<file stem>]-<format>-<precision>-<backend>@<device>[+<environment>]``."""
        stem = f"~{self.candidate}" if self.candidate else ""
        suffix = f"+{self.environment}" if self.environment else ""
        return f"{self.model}{stem}-{self.variant}-{self.precision}-{self.backend}@{self.device}{suffix}"


@dataclass(frozen=True, slots=True)
class Step:
    """One conversion of a chain: a converter by name and the precision it is to produce."""

    converter: str
    precision: str


@dataclass(frozen=True, slots=True)
class Decision:
    """Why a cell runs (``outcome`` is None) or does not."""

    outcome: Outcome | None = None
    reason: str = ""
    install: str = ""

    @property
    def runs(self) -> bool:
        """Whether the cell is to be executed."""
        return self.outcome is None


@dataclass(frozen=True, slots=True)
class PlannedCell:
    """A cell, the chain of conversions that leads to its artifact, and the decision."""

    cell: Cell
    chain: tuple[Step, ...]
    artifact_precision: str
    decision: Decision
    candidate_path: str = ""
    candidate_kind: str = ""

    def __str__(self) -> str:
        """Return the cell's id: what pytest, the record and the report call it."""
        return self.cell.id


@dataclass(frozen=True, slots=True)
class Plan:
    """Every cell with its decision, in the order in which they are executed."""

    cells: tuple[PlannedCell, ...]
