"""Records that are to become one, and what one line of a record is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

Line = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Part:
    """One record: its lines, the kind of machine it ran on, and its label ("" where none was given)."""

    path: Path
    label: str
    identity: str
    header: Line
    footer: Line | None
    torn: bool
    models: tuple[Line, ...]
    cells: Mapping[str, Line]
    checks: Mapping[str, tuple[Line, ...]]

    @property
    def kind(self) -> str:
        """What makes it a shard of another: its label, or the kind of machine."""
        return self.label or self.identity

    @property
    def name(self) -> str:
        """What sentences call it."""
        return self.label or f"{self.path.parent.name or '.'}/{self.path.name}"


@dataclass(frozen=True, slots=True)
class Merged:
    """The lines of the joined record, and from where to where files that they name are to be copied."""

    lines: tuple[Line, ...]
    files: tuple[tuple[Path, str], ...]
    notes: tuple[str, ...]
