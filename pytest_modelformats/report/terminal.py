"""A run as text for pytest's terminal summary: the matrix, what failed, what did not run and why."""

from __future__ import annotations

import os
import re
import shlex
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_modelformats.record.nouns import INTERRUPTED, REMARKS
from pytest_modelformats.report import comparisons
from pytest_modelformats.report.facts import sizes
from pytest_modelformats.report.matrix import matrix
from pytest_modelformats.report.measurements import measurements, throughput_table
from pytest_modelformats.schema import numbers
from pytest_modelformats.schema.outcome import FAILURES
from pytest_modelformats.schema.sizes import written

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rich.console import Console
    from rich.table import Table

    from pytest_modelformats.record.nouns import CellRecord
    from pytest_modelformats.record.read import Run
    from pytest_modelformats.report.matrix import Matrix
    from pytest_modelformats.report.measurements import Table as FigureTable

_STYLES = {"passed": "green", **{o.value: "red" for o in FAILURES}, **{o.value: "yellow" for o in REMARKS}}
_NAMED = 6
_FIGURES = 30
_CHANGES = 20
_CHANGE_STYLES = {"regression": "red", "improvement": "green"}
# One character of padding on the right of a column, and one for the divider that is not drawn.
_GAP = 2


def render(run: Run, width: int, color: bool) -> str:
    """The report, no line of it wider than ``width`` characters; escape sequences only with ``color``."""
    console = _console(width, color)
    _say(console, run.summary, "" if run.complete else "bold red")
    for why in run.unchecked:
        _say(console, why, "yellow")
    for doubt in run.doubts:
        _say(console, doubt, "bold red")
    if run.reused:
        _say(console, run.reused, "yellow")
    for name in run.model_names:
        known = next((model for model in run.models if model.model == name), None)
        _model(console, name, [cell for cell in run.cells if cell.model == name], sizes(known) if known else "")
    compared = comparisons.table(run)
    if compared is not None:
        console.print()
        _changes(console, compared)
    _stories(console, "Failures", run.failures, run.folder)
    _stories(console, "Undecided, and failing as expected", run.remarks, run.folder)
    for cell in run.contradictions:
        if cell not in run.failures and cell.parity:  # a failure's sentence says it already
            _say(console, f"{cell.cell}: {cell.parity.contradiction}", "yellow")
    _not_run(console, run)
    return _written(console)


def render_changes(compared: comparisons.Table, width: int, color: bool) -> str:
    """What changed between two runs, and only that."""
    console = _console(width, color)
    _changes(console, compared)
    return _written(console)


def _console(width: int, color: bool) -> Console:
    from rich.console import Console

    return Console(
        file=StringIO(),
        width=width,
        force_terminal=color,
        color_system="standard" if color else None,
        highlight=False,
        markup=False,
        emoji=False,
        legacy_windows=False,
    )


def _written(console: Console) -> str:
    written = console.file.getvalue() if isinstance(console.file, StringIO) else ""
    return "\n".join(line.rstrip() for line in written.splitlines()) + "\n"


def _plain(text: str) -> str:
    """``text`` on one line, its control characters made visible: a model file may have written it."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", "?", " ".join(text.split()))


def _say(console: Console, text: str, style: str = "", indent: int = 0) -> None:
    from rich.padding import Padding
    from rich.text import Text

    console.print(Padding(Text(_plain(text), style=style, overflow="fold"), (0, 0, 0, indent)))


def _model(console: Console, name: str, cells: Sequence[CellRecord], said: str) -> None:
    console.print()
    _say(console, f"{name}   (outcome, below it r · p50)", "bold")
    at = said or "; ".join(dict.fromkeys(written(c.latency.sizes) for c in cells if c.latency and c.latency.sizes))
    if at:
        _say(console, f"sizes: {at}")
    table = matrix(cells)
    ran = {cell.column for cell in cells if cell.ran}
    kept = [column for column in table.columns if column in ran]
    idle = [column for column in table.columns if column not in ran]
    for number, columns in enumerate(_blocks(table, kept, console.width)):
        if number:
            console.print()
        console.print(_table(matrix(cells, columns)))
    _figures(console, "Measurements", measurements(cells, short=True))
    _figures(console, "Throughput (batch × in flight)", throughput_table(cells, short=True))
    if idle:
        _say(console, f"Nothing ran on {', '.join(idle)}.", "dim")


def _blocks(table: Matrix, columns: Sequence[str], width: int) -> Iterator[list[str]]:
    """The columns in as many blocks as it takes for each to fit."""
    labels = max((len(row.variant) + len(row.precision) for row in table.rows), default=0) + 2 * _GAP
    block: list[str] = []
    used = labels
    for column in columns:
        place = table.columns.index(column)
        needed = _GAP + max(
            len(_plain(line))
            for text in (column, *map(_entry, (row.cells[place] for row in table.rows)))
            for line in text.split("\n")
        )
        if block and used + needed - _GAP > width:
            yield block
            block, used = [], labels
        block.append(column)
        used += needed
    if block:
        yield block


def _entry(cell: CellRecord | None) -> str:
    if cell is None:
        return ""
    if not cell.ran or (cell.outcome in FAILURES and not cell.parity and not cell.latency):
        return cell.word
    r = "no parity" if cell.unchecked else numbers.ratio(cell.parity.noise_ratio if cell.parity else None)
    return f"{cell.word}\n{r} · {numbers.duration(cell.latency.latency_p50_ns if cell.latency else None)}"


def _style(cell: CellRecord) -> str:
    return "yellow" if cell.unchecked else _STYLES.get(cell.word, "dim")


def _table(part: Matrix) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for title in ("format", "precision", *part.columns):
        table.add_column(Text(_plain(title)), overflow="fold")
    for row in part.rows:
        entries = [Text(_entry(cell), style=_style(cell) if cell else "") for cell in row.cells]
        table.add_row(Text(_plain(row.variant)), row.precision, *entries)
    return table


def _figures(console: Console, title: str, part: FigureTable) -> None:
    """A table of figures by cell, as many of them as a screen holds; the model's name goes without saying."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    if not part.rows:
        return
    console.print()
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    names = [
        _plain(row.cell.partition("-")[2] or row.cell) + ("*" if row.doubt else "") for row in part.rows[:_FIGURES]
    ]
    table.add_column(title, overflow="fold")
    for name in part.titles:
        table.add_column(Text(_plain(name)), justify="right", overflow="fold")
    for name, row in zip(names, part.rows, strict=False):
        table.add_row(Text(name), *(Text(entry.text) for entry in row.entries))
    console.print(table)
    if any(row.doubt for row in part.rows[:_FIGURES]):
        _say(console, "* disturbed while it was measured; the report says by what", "dim")
    if len(part.rows) > _FIGURES:
        _say(console, f"{len(part.rows) - _FIGURES:,} further cells are in the report", "dim")


def _stories(console: Console, title: str, cells: Iterable[CellRecord], folder: str) -> None:
    for number, cell in enumerate(cells):
        if number == 0:
            console.print()
            _say(console, title, "bold")
        _say(console, cell.cell, _style(cell), 2)
        for word, names, sentence in cell.sentences() or [(cell.word, "", cell.reason)]:
            about = f" in {names}" if names else ""
            _say(console, f"{word}{about}: {sentence or 'no sentence was recorded'}", indent=4)
        if cell.bundle:
            script = os.path.relpath(Path(folder, cell.bundle, "repro.py"))
            _say(console, f"reproduce: python {shlex.quote(script)}", indent=4)


def _changes(console: Console, compared: comparisons.Table) -> None:
    """What changed from the baseline, and only that; then what all of it adds up to."""
    _say(console, compared.title, "bold")
    changed = [row for row in compared.rows if row.changed]
    for row in changed[:_CHANGES]:
        _say(console, f"{row.word}: {row.cell}", _CHANGE_STYLES.get(row.word, "yellow"), 2)
        _say(console, f"{row.metric}: {row.before} → {row.after}, {row.ratio} ({row.how})", "", 4)
    if len(changed) > _CHANGES:
        _say(console, f"and {len(changed) - _CHANGES:,} more, in the report", "dim", 2)
    for word, cells in (("appeared", compared.appeared), ("vanished", [cell for cell, _ in compared.vanished])):
        if cells:
            more = f" and {len(cells) - _NAMED:,} more" if len(cells) > _NAMED else ""
            _say(console, f"{word}: {', '.join(cells[:_NAMED])}{more}", "yellow", 2)
    _say(console, compared.summary, "dim", 2)


def _not_run(console: Console, run: Run) -> None:
    for number, group in enumerate(run.not_run):
        if number == 0:
            console.print()
            _say(console, "Not run, and why", "bold")
        style = "red" if group.word == INTERRUPTED else "dim"
        _say(console, f"{group.word}, {numbers.plural(len(group.cells), 'cell')}: {group.reason}", style, 2)
        if group.install:
            _say(console, group.install, indent=4)
        more = f" and {len(group.cells) - _NAMED:,} more" if len(group.cells) > _NAMED else ""
        _say(console, ", ".join(cell.cell for cell in group.cells[:_NAMED]) + more, "dim", 4)
