"""A run as Markdown, for a job summary or an issue: what failed is readable without unfolding anything."""

from __future__ import annotations

import html
import re
import shlex
from typing import TYPE_CHECKING

from pytest_modelformats.record.nouns import UNCHECKED
from pytest_modelformats.report import comparisons
from pytest_modelformats.report.facts import changed as changed_by_conversion
from pytest_modelformats.report.facts import environments, executed, sizes
from pytest_modelformats.report.measurements import measurements, throughput_table
from pytest_modelformats.schema import numbers

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from pytest_modelformats.record.nouns import CellRecord
    from pytest_modelformats.record.read import Run
    from pytest_modelformats.report.measurements import Table

# GitHub refuses a job summary above 1 MiB; 1000 rows and reasons of a sentence stay well below.
_ROWS = 1000
# A row of figures is three times as long.
_FIGURES = 300
_NAMED = 12
VERDICTS = (
    "What each outcome means and what to do about it: docs/verdict.md of pytest-modelformats, "
    '"What does this verdict mean?".'
)


def render(run: Run) -> str:
    """The run as GitHub-flavoured Markdown."""
    title = ", ".join(run.model_names) or "no model"
    parts = [f"## {_text(title)}", "", _text(run.summary) + ".", ""]
    parts += [f"- {_text(why)}" for why in run.unchecked] + ([""] if run.unchecked else [])
    if run.doubts:
        parts += ["> [!CAUTION]"] + [f"> {_text(doubt)}" for doubt in run.doubts] + [""]
    parts += [_text(run.reused), ""] if run.reused else []
    parts += _sizes(run) + _table(run) + _changes(run) + _stories("Failures", run.failures)
    parts += _stories("Undecided, and failing as expected", run.remarks)
    parts += _figures("What was measured", measurements(run.cells)) + _throughput(run)
    parts += _contradictions(run) + _conversions(run) + _execution(run) + _not_run(run) + _environment(run)
    return "\n".join(parts).rstrip() + "\n"


def _text(text: str) -> str:
    """``text`` on one line, with nothing in it that Markdown or HTML would act on."""
    line = html.escape(" ".join(text.split()), quote=False)
    line = re.sub(r"([\\`*\[\]|~$])", r"\\\1", line)
    return re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", line)


def _code(text: str) -> str:
    """``text`` as code; the fence is longer than any run of backticks in it."""
    line = " ".join(text.split()).replace("|", "\\|")
    fence = "`" * (max((len(ticks) for ticks in re.findall("`+", line)), default=0) + 1)
    return f"{fence} {line} {fence}" if "`" in line else f"`{line}`"


def _sizes(run: Run) -> list[str]:
    """The sizes of what the models leave free: every figure below is one at these."""
    lines = [f"- Sizes of {_code(model.model)}: {_text(text)}" for model in run.models if (text := sizes(model))]
    return [*lines, ""] if lines else []


def _table(run: Run) -> list[str]:
    if not run.cells:
        return []
    shown = run.cells
    if len(shown) > _ROWS:
        first = {cell.cell for cell in run.failures} | {cell.cell for cell in run.remarks}
        shown = tuple(sorted(shown, key=lambda cell: cell.cell not in first)[:_ROWS])
    rows = [_row(cell) for cell in shown]
    left = len(run.cells) - len(shown)
    note = [f"{left:,} further cells are in the HTML report; what failed comes first here.", ""] if left else []
    return [
        "| cell | outcome | r | flips | p50 | size | peak memory |",
        "|---|---|--:|--:|--:|--:|--:|",
        *rows,
        "",
        *note,
    ]


def _outcome(cell: CellRecord) -> str:
    if cell.unchecked:
        return f"**{cell.word}**: {UNCHECKED}: {_text(cell.unchecked)}"
    return cell.word if cell.word == "passed" else f"**{cell.word}**" if cell.ran else f"_{cell.word}_"


def _row(cell: CellRecord) -> str:
    parity, latency = cell.parity, cell.latency
    values = (
        _code(cell.cell),
        _outcome(cell),
        numbers.ratio(parity.noise_ratio if parity else None),
        numbers.share(parity.flips if parity else None),
        numbers.duration(latency.latency_p50_ns if latency else None),
        numbers.size(latency.size_bytes if latency else None),
        numbers.size(latency.peak_rss_bytes if latency else None),
    )
    return f"| {' | '.join(values)} |"


def _changes(run: Run) -> list[str]:
    """What changed from the baseline; what did not is folded away."""
    found = comparisons.table(run)
    return changed(found) if found else []


def changed(found: comparisons.Table) -> list[str]:
    """A table of comparisons as Markdown."""
    split = [row for row in found.rows if row.changed], [row for row in found.rows if not row.changed]
    lines = [f"### {_text(found.title)}", "", _text(found.summary), ""]
    lines += [*_comparisons(split[0]), ""] if split[0] else ["Nothing changed.", ""]
    for word, cells in (("appeared", [(c, "") for c in found.appeared]), ("vanished", found.vanished)):
        lines += [f"- **{word}**: {_code(cell)}{f', {_text(why)}' if why else ''}" for cell, why in cells[:_ROWS]]
    lines += [""] if found.appeared or found.vanished else []
    if split[1]:
        head = f"<details><summary>{len(split[1]):,} that did not change, or were not judged</summary>"
        lines += [head, "", *_comparisons(split[1]), "", "</details>", ""]
    return lines


def _comparisons(rows: Sequence[comparisons.Row]) -> list[str]:
    lines = ["| cell | metric | before | after | change | verdict | how |", "|---|---|--:|--:|--:|---|---|"]
    for row in rows[:_ROWS]:
        word = f"**{row.word}**" if row.changed else row.word
        values = (_code(row.cell), row.metric, row.before, row.after, row.ratio, word, row.how)
        lines.append(f"| {' | '.join(v if v is values[0] or v is word else _text(v) for v in values)} |")
    left = len(rows) - _ROWS
    return [*lines, "", f"{left:,} further comparisons are in the HTML report."] if left > 0 else lines


def _stories(title: str, cells: Iterable[CellRecord]) -> list[str]:
    lines = []
    for cell in list(cells)[:_ROWS]:
        lines.append(f"- {_code(cell.cell)}")
        told = cell.sentences() or [(cell.word, "", cell.reason)]
        lines += [
            f"  - **{word}**{f' in {_text(names)}' if names else ''}: {_text(sentence) or 'no sentence was recorded'}"
            for word, names, sentence in told
        ]
        lines += _place(cell)
        if cell.bundle:
            lines.append(f"  - reproduce: {_code('python ' + shlex.quote(f'{cell.bundle}/repro.py'))}")
    return [f"### {title}", "", *lines, "", VERDICTS, ""] if lines else []


def _contradictions(run: Run) -> list[str]:
    lines = [f"- {_code(c.cell)}: {_text(c.parity.contradiction)}" for c in run.contradictions if c.parity]
    return ["### Stated by the runtime, ruled out by the error", "", *lines, ""] if lines else []


def _conversions(run: Run) -> list[str]:
    """What converters changed beside the format, for every cell whose artifact differs for it."""
    told = ((cell, changed_by_conversion(cell.conversion)) for cell in run.cells[:_ROWS])
    lines = [f"- {_code(cell.cell)}: {_text(what)}" for cell, what in told if what]
    return ["### Changed by the conversion", "", *lines, ""] if lines else []


def _execution(run: Run) -> list[str]:
    """What ran according to the runtimes, for every cell that states it."""
    rows = [
        f"| {_code(cell.cell)} | {_text(executed(cell.parity.execution))} |"
        for cell in run.cells[:_ROWS]
        if cell.parity and cell.parity.execution.get("precisions")
    ]
    if not rows:
        return []
    head = ["<details><summary>What the runtimes state of what ran</summary>", ""]
    return [*head, "| cell | stated |", "|---|---|", *rows, "", "</details>", ""]


def _figures(title: str, table: Table) -> list[str]:
    """A table of figures, folded: the first one of a report has what most readers look for."""
    if not table.rows:
        return []
    noted = any(row.doubt for row in table.rows)
    head = ["cell", *table.titles, *(["note"] if noted else [])]
    rows = [
        f"| {' | '.join([_code(row.cell), *(entry.text for entry in row.entries), *([row.doubt] if noted else [])])} |"
        for row in table.rows[:_FIGURES]
    ]
    left = len(table.rows) - len(rows)
    more = [f"{left:,} further cells are in the HTML report.", ""] if left > 0 else []
    rule = f"|---|{'--:|' * len(table.titles)}{'---|' if noted else ''}"
    return [
        f"<details><summary>{title}</summary>",
        "",
        f"| {' | '.join(head)} |",
        rule,
        *rows,
        "",
        *more,
        "</details>",
        "",
    ]


def _throughput(run: Run) -> list[str]:
    table = throughput_table(run.cells)
    reasons = list(dict.fromkeys(f"- {_code(row.cell)}: {_text(row.detail)}" for row in table.rows if row.detail))
    return _figures("Throughput, items per second", table) + ([*reasons[:_NAMED], ""] if reasons else [])


def _place(cell: CellRecord) -> list[str]:
    """Where it goes wrong: the path of nodes that leads there, and the errors before and behind the first wrong one."""
    place = cell.localisation
    if place is None:
        return []
    path = " → ".join([*map(_code, place.before), f"**{_code(place.node)}**"])
    module = f" in {_code(place.module)}" if place.module and place.module != place.node else ""
    errors = f"inputs {numbers.ratio(place.input_error)}, output {numbers.ratio(place.output_error)} × rounding noise"
    return [f"  - First wrong operator: {_text(place.operator)}{module}, {place.alone}; {errors}; path: {path}"]


def _not_run(run: Run) -> list[str]:
    lines = []
    for group in run.not_run:
        install = f" Next step: {_code(group.install)}" if group.install else ""
        names = ", ".join(_code(cell.cell) for cell in group.cells[:_NAMED])
        more = f" and {len(group.cells) - _NAMED:,} more" if len(group.cells) > _NAMED else ""
        cells = numbers.plural(len(group.cells), "cell")
        lines.append(f"- **{group.word}**, {cells}: {_text(group.reason)}{install}<br>{names}{more}")
    return ["### Not run, and why", "", *lines, ""] if lines else []


def _environment(run: Run) -> list[str]:
    header = run.header
    about = {"run": header.run, "started": numbers.moment(header.started), "pytest-modelformats": header.tool}
    if header.command:
        about["command"] = shlex.join(header.command)
    groups = (
        ("Run", about),
        ("Machine", header.machine),
        ("Versions", header.versions),
        ("Environments", environments(header)),
        ("Options", header.options),
        ("Joined from", header.merged),
    )
    lines = [line for title, facts in groups if facts for line in (f"**{title}**", "", *_facts(facts), "")]
    return ["<details><summary>Environment and versions</summary>", "", *lines, "</details>"]


def _facts(facts: Mapping[str, Any]) -> list[str]:
    pairs = (numbers.fact(name, value) for name, value in facts.items())
    return [f"- {_text(label)}: {_text(value)}" for label, value in pairs]
