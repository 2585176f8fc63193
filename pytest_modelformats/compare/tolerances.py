"""The fixed tolerances of the configuration: which output of a cell has one."""

from __future__ import annotations

import fnmatch
from typing import TYPE_CHECKING

from pytest_modelformats.compare import floating

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pytest_modelformats.schema.limits import Tolerance


def for_cell(tolerances: Sequence[Tolerance], cell: str, outputs: Sequence[str]) -> dict[str, floating.Tolerance]:
    """The tolerance of every output that has one; what names an output outranks what is said of all."""
    every: dict[str, floating.Tolerance] = {}
    own: dict[str, floating.Tolerance] = {}
    for tolerance in tolerances:
        if fnmatch.fnmatchcase(cell, tolerance.glob):
            chosen = floating.Tolerance(tolerance.atol, tolerance.rtol)
            for pattern in tolerance.outputs or ("*",):
                (every if pattern == "*" else own).update(dict.fromkeys(matching(pattern, outputs), chosen))
    return {**every, **own}


def matching(pattern: str, names: Iterable[str]) -> list[str]:
    """The names that a pattern of the user's matches."""
    return [name for name in names if name == pattern or fnmatch.fnmatchcase(name, pattern)]
