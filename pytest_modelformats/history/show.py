"""Trends and the list of known cells as text, Markdown or JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING, Any

from pytest_modelformats.history.database.rows import OUTCOME
from pytest_modelformats.report.markdown import _code, _text
from pytest_modelformats.schema import numbers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from pytest_modelformats.history.trend import Known, Marked, Point, Trend

_BARS = "▁▂▃▄▅▆▇█"
_DISTURBED, _NOTHING = "·", " "
_WIDEST = 60
_HEAD = ("date (UTC)", "run", "value", "interval", "change", "outcome", "versions")
_KNOWN = ("cell", "machine", "runs", "last run (UTC)", "outcome", "value")


def write(unit: str, metric: str) -> Callable[[float | None], str]:
    """How a metric's values are written."""
    by_unit = {"ns": numbers.duration, "bytes": numbers.size, "/s": numbers.rate}
    return numbers.share if metric in {"flips", "variation"} else by_unit.get(unit, numbers.ratio)


def sparkline(points: Sequence[Point]) -> str:
    """The values as bars between the lowest and the highest; a dot where a run was disturbed."""
    size = -(-len(points) // _WIDEST)
    groups = [points[i : i + size] for i in range(0, len(points), size)] if points else []
    steady = [[p.value for p in group if p.value is not None and not p.disturbed] for group in groups]
    middles = [median(values) if values else None for values in steady]
    known = [value for value in middles if value is not None]
    if not known:
        return ""
    low, span = min(known), max(known) - min(known)
    top = len(_BARS) - 1
    return "".join(
        (_DISTURBED if any(p.disturbed for p in group) else _NOTHING)
        if middle is None
        else _BARS[round((middle - low) / span * top) if span else 0]
        for group, middle in zip(groups, middles, strict=True)
    )


def rows(trend: Trend) -> Iterator[tuple[str, ...]]:
    """A line per point, as texts."""
    shown = write(trend.unit, trend.metric)
    for point in trend.points:
        interval = f"{shown(point.low)} to {shown(point.high)}" if None not in (point.low, point.high) else ""
        change = "disturbed" if point.disturbed else "" if point.relative is None else percent(point.relative)
        versions = ", ".join(f"{name} {version}" for name, version in point.versions.runtime.items())
        changed = f"  changed: {', '.join(point.changed)}" if point.changed else ""
        value = "" if point.value is None else shown(point.value)
        yield point.date, point.run, value, interval, change, point.outcome, versions + changed


def percent(relative: float) -> str:
    """``+3.1 %``."""
    return f"{relative * 100:+.1f} %"


def step_sentence(trend: Trend, marked: Marked) -> str:
    """What changed when, by how much, and which version with it."""
    shown, step = write(trend.unit, trend.metric), marked.step
    ratio = f" (× {step.ratio:.3g})" if step.ratio else ""
    changed = ", ".join(marked.changed)
    why = f"changed there: {changed}" if changed else "no version that is on record changed there"
    return (
        f"Step at {marked.point.date} ({marked.point.run}): {shown(step.before)} → {shown(step.after)}{ratio}; {why}."
    )


def _title(trend: Trend) -> str:
    name = f"{trend.check}.{trend.metric}" if trend.check else trend.metric
    return f"{name}, {numbers.plural(len(trend.points), 'run')} on {trend.machine} ({trend.machine_facts})"


def _conclusion(trend: Trend) -> list[str]:
    changed = outcome_changes(trend.points) if trend.metric == OUTCOME else ()
    return [
        *changed,
        *(step_sentence(trend, m) for m in trend.steps),
        *([trend.about_steps] if trend.about_steps else []),
    ]


def outcome_changes(points: Sequence[Point]) -> Iterator[str]:
    """A sentence per run that ended otherwise than the one before it."""
    for before, after in pairwise(points):
        if before.outcome != after.outcome:
            with_it = f"; changed there: {', '.join(after.changed)}" if after.changed else ""
            yield f"{before.outcome} → {after.outcome} at {after.date} ({after.run}){with_it}."


def as_text(trends: Sequence[Trend]) -> str:
    """Every trend as a table for a terminal."""
    parts = []
    for trend in trends:
        line = sparkline(trend.points)
        head = [f"{trend.cell}", f"  {_title(trend)}", *([f"  {line}"] if line else []), ""]
        parts.append("\n".join([*head, *_aligned([_HEAD, *rows(trend)]), "", *_conclusion(trend)]).rstrip())
    return "\n\n".join(parts) + "\n"


def _aligned(lines: Sequence[Sequence[str]]) -> Iterator[str]:
    keep = [i for i in range(len(lines[0])) if any(line[i] for line in lines[1:])]
    widths = {i: max(len(line[i]) for line in lines) for i in keep}
    for line in lines:
        yield "  ".join(f"{line[i]:<{widths[i]}}" for i in keep).rstrip()


def as_markdown(trends: Sequence[Trend]) -> str:
    """Every trend as a Markdown table."""
    parts = []
    for trend in trends:
        table = _table(_HEAD, rows(trend))
        line = sparkline(trend.points)
        said = [f"- {_text(sentence)}" for sentence in _conclusion(trend)]
        parts += [f"### {_code(trend.cell)}", "", _text(_title(trend)), "", *([f"`{line}`", ""] if line else [])]
        parts += [*table, "", *said, ""]
    return "\n".join(parts).rstrip() + "\n"


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> list[str]:
    return [
        f"| {' | '.join(head)} |",
        f"|{'---|' * len(head)}",
        *(f"| {' | '.join(_text(part) for part in line)} |" for line in lines),
    ]


def as_json(trends: Sequence[Trend]) -> str:
    """Every trend as JSON."""
    found = []
    for trend in trends:
        data = asdict(trend)
        for point, plain in zip(trend.points, data["points"], strict=True):
            plain["date"] = point.date
            plain["versions"] = point.versions.all
        data["steps"] = [
            {
                "run": m.point.run,
                "started": m.point.started,
                "before": m.step.before,
                "after": m.step.after,
                "ratio": m.step.ratio,
                "changed": list(m.changed),
            }
            for m in trend.steps
        ]
        found.append(data)
    return json.dumps(found, indent=1) + "\n"


def listed(known: Sequence[Known], form: str, metric: str, unit: str) -> str:
    """The cells that the history has."""
    if form == "json":
        return json.dumps([asdict(k) for k in known], indent=1) + "\n"
    shown = write(unit, metric)
    lines = [_known(k, shown) for k in known]
    head = (*_KNOWN[:-1], metric)
    text = _table(head, lines) if form == "md" else [*_aligned([head, *lines])]
    return "\n".join(text) + "\n"


def _known(known: Known, shown: Callable[[Any], str]) -> tuple[str, ...]:
    from datetime import datetime, timezone

    value = shown(known.value) + (" (disturbed)" if known.disturbed else "") if known.value is not None else ""
    date = f"{datetime.fromtimestamp(known.started, timezone.utc):%Y-%m-%d %H:%M}"
    return known.cell, known.machine, f"{known.runs:,}", date, known.outcome, value
