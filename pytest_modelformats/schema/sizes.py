"""The sizes of the dimensions that a model leaves free, and who states them."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# Who states a size, the first one that does. A golden bundle holds the samples that it was exported with.
PINNED, DATA, METADATA, ARCHITECTURE, BUNDLE, TRIED = BY = (
    "--mf-input",
    "--mf-data",
    "metadata",
    "architecture",
    "bundle",
    "tried",
)
# A name that a person gave; the others are an exporter's (p2o.DynamicDimension.1), or the tool's (D2).
_GIVEN = re.compile(r"(?!D\d+$)[A-Za-z_][A-Za-z_0-9]*")


@dataclass(frozen=True, slots=True)
class Dimension:
    """A dimension of an input that may vary, the batch aside, at the size that a run uses.

    ``symbol`` is what the model calls it, ``input`` and ``axis`` are the first place where it stands. ``by`` is one of
    ``BY``, ``detail`` in whose words.
    """

    symbol: str
    input: str
    axis: int
    size: int
    by: str
    detail: str = ""

    @property
    def name(self) -> str:
        """Its name where somebody gave it one, else its place: ``x[2]``."""
        return self.symbol if _GIVEN.fullmatch(self.symbol) else f"{self.input}[{self.axis}]"

    @property
    def title(self) -> str:
        """The same in words."""
        return f"'{self.symbol}'" if _GIVEN.fullmatch(self.symbol) else f"dimension {self.axis} of '{self.input}'"

    def to_json(self) -> dict[str, Any]:
        """The plain form that crosses the process border and goes into a record."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Dimension:
        """Undo :meth:`to_json`."""
        return cls(**data)


def by_name(dimensions: Iterable[Dimension]) -> dict[str, int]:
    """The sizes by the names that a reader knows: what stands beside a figure."""
    return {d.name: d.size for d in dimensions}


def written(sizes: Mapping[str, int]) -> str:
    """Sizes in words: ``height 320, width 320``."""
    return ", ".join(f"{name} {size}" for name, size in sizes.items())
