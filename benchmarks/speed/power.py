"""A slow-down planted inside the backend: how many of them are found, and in what time; and so under the load."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.speed import aa, cells
from benchmarks.speed.load import load

if TYPE_CHECKING:
    from benchmarks.speed.run import Kept

# (planted share, margin): a slow-down of 5 % is by construction not beyond a margin of 5 %.
PLANTS = ((0.05, 0.02), (0.10, 0.05))


def rows(arguments: Kept) -> list[dict[str, Any]]:
    """One row per comparison, half as many per plant as identical cells are compared; nothing else runs."""
    return _rows(arguments, "power", loaded=False)


def rows_under_load(arguments: Kept) -> list[dict[str, Any]]:
    """The same, under the background load."""
    return _rows(arguments, "power_under_load", loaded=not arguments.no_load)


def _rows(arguments: Kept, part: str, *, loaded: bool) -> list[dict[str, Any]]:
    done = len(arguments.kept(part))
    wanted = len(PLANTS) * max(1, arguments.count // 2)
    if done >= wanted:
        return arguments.kept(part)
    with (
        tempfile.TemporaryDirectory(prefix="bench-speed-") as folder,
        cells.ready(Path(folder)) as ready,
        load(arguments.seed * 1000 + 500 + done, wanted=loaded),
    ):
        names = sorted(ready.openings)
        for number in range(done, wanted):
            share, margin = PLANTS[number % len(PLANTS)]
            opening = ready.openings[names[number // len(PLANTS) % len(names)]]
            sides = (opening, cells.slowed(opening, share))
            row = aa.compared(ready, sides, margin, arguments.budget, arguments.seed + 10_000 + number)
            arguments.keep(part, {**row, "planted": share})
            aa.tell(f"{part} {share:.0%}", number, wanted, row)
    return arguments.kept(part)
