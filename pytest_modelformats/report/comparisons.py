"""What a run changed from its baseline, as rows of words: the same in the terminal, in Markdown and on the page."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_modelformats.schema import Change, Comparison, numbers
from pytest_modelformats.schema.metrics import METRICS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from pytest_modelformats.record.read import Run

UPGRADE = "What changes if we upgrade"
NOT_JUDGED = "not judged"
_HOW = {
    "interleaved": "measured now, in turns",
    "stored": "stored samples: weaker",
    "reading": "one reading each",
    NOT_JUDGED: "one reading each",
    "identical": "identical, not measured",
    "exact": "exact",
    "missing": "not measured now",
}
_FIRST = (Change.REGRESSION, Change.IMPROVEMENT, Change.INCONCLUSIVE, Change.SAME, Change.APPEARED, Change.VANISHED)
_WRITE = {"ns": numbers.duration, "bytes": numbers.size, "/s": numbers.rate, "": numbers.ratio}
_ORDER = list(METRICS)
_TEN_FOLD = 1000
_PAIRS = 4


@dataclass(frozen=True, slots=True)
class Row:
    """One comparison in words; ``cell`` and ``metric`` name it, ``sentence`` says all of it."""

    cell: str
    metric: str
    before: str
    after: str
    ratio: str
    word: str
    how: str
    sentence: str

    @property
    def changed(self) -> bool:
        """Whether it is worth a line where there is little room."""
        return self.word not in {Change.SAME.value, NOT_JUDGED}


@dataclass(frozen=True, slots=True)
class Table:
    """The rows, what is worse first; what they add up to; and the cells that only one side has."""

    title: str
    rows: tuple[Row, ...]
    summary: str
    appeared: tuple[str, ...] = ()
    vanished: tuple[tuple[str, str], ...] = ()


def table(run: Run) -> Table | None:
    """What the run was compared with; ``None`` where it was not."""
    found = [c for cell in run.cells for c in cell.comparisons]
    known = run.header.baseline
    if not found and not known.get("vanished"):
        return None
    appeared = tuple(c.cell for c in found if c.change is Change.APPEARED)
    gone = [(str(v.get("cell")), str(v.get("reason"))) for v in known.get("vanished") or () if isinstance(v, dict)]
    shown = [c for c in found if c.change not in {Change.APPEARED, Change.VANISHED}]
    alone = sum(1 for cell in run.cells if cell.comparisons and all(c.check != "regression" for c in cell.checks))
    summary = summed(shown, known, plain=alone)
    return Table(titled(known), tuple(map(row, in_order(shown))), summary, appeared, tuple(sorted(gone)))


def titled(known: Mapping[str, Any]) -> str:
    """What the table is called."""
    if known.get("title") and not known.get("environment"):
        return f"Compared with {known['title']}"
    return UPGRADE


def in_order(found: Iterable[Comparison]) -> list[Comparison]:
    """Regressions first, then improvements, what could not be told, and the rest; the largest change first."""
    return sorted(found, key=rank)


def rank(c: Comparison) -> tuple[bool, int, int, float, str]:
    """Where a comparison stands among others."""
    metric = c.metric.partition(",")[0]
    place = _ORDER.index(metric) if metric in _ORDER else len(_ORDER)
    size = max(c.ratio, 1 / c.ratio) if c.ratio and c.ratio > 0 else 0.0
    return c.how == NOT_JUDGED, _FIRST.index(c.change), place, -size, c.cell


def row(c: Comparison) -> Row:
    """A comparison in words."""
    write = _WRITE.get(c.unit, numbers.ratio)
    if c.metric == "flips":
        write = numbers.share
    ratio = numbers.ABSENT
    if c.ratio is not None:
        ratio = percent(c.ratio)
        if c.ratio_low is not None and c.ratio_high is not None:
            ratio = f"{ratio} [{percent(c.ratio_low)}, {percent(c.ratio_high)}]"
    word = NOT_JUDGED if c.how == NOT_JUDGED else c.change.value
    name = c.metric.replace("_", " ")
    return Row(c.cell, name, write(c.before), write(c.after), ratio, word, _HOW.get(c.how, c.how), c.sentence)


def percent(ratio: float) -> str:
    """A ratio as a signed change in percent; ten-fold and more as a factor."""
    change = (ratio - 1) * 100
    return f"{change:+.1f} %" if abs(change) < _TEN_FOLD else f"× {ratio:.3g}"


def summed(found: Sequence[Comparison], known: Mapping[str, Any], *, plain: int = 0) -> str:
    """How many comparisons there are of each kind, how they were judged, and what fails the run."""
    counts = Counter(NOT_JUDGED if c.how == NOT_JUDGED else c.change.value for c in found)
    family = sum(1 for c in found if c.p_value is not None)
    said = counted(counts, family, len({c.cell for c in found}), known, plain=plain)
    pairs = list(dict.fromkeys((c.before_what, c.after_what) for c in found))
    told = "; ".join(f"{before} → {after}" for before, after in pairs[:_PAIRS])
    more = f"; and {len(pairs) - _PAIRS:,} more" if len(pairs) > _PAIRS else ""
    return f"{told}{more}. {said}" if told else said


def counted(counts: Mapping[str, int], family: int, cells: int, known: Mapping[str, Any], *, plain: int = 0) -> str:
    """:func:`summed` of counts."""
    words = [*(c.value for c in _FIRST), NOT_JUDGED]
    parts = ", ".join(f"{counts[word]:,} {word}" for word in words if counts.get(word))
    said = (
        f"{numbers.plural(sum(counts.values()), 'comparison')} of {numbers.plural(cells, 'cell')}: {parts or 'none'}."
    )
    if family:
        level = known.get("level")
        share = numbers.share(level) if isinstance(level, (int, float)) else "5 %"
        said += (
            f" {numbers.plural(family, 'comparison')} of latency, judged together (Benjamini–Hochberg): of what is "
            f"called a regression, or an improvement, at most {share} is expected to be none."
        )
    asked = known.get("fail_on")
    if isinstance(asked, (list, tuple)):
        said += f" What fails the run: {', '.join(map(str, asked)) or 'nothing'}."
    if plain:
        said += (
            f" {numbers.plural(plain, 'cell')} stand as measured, for the run ended before all were judged together."
        )
    return said
