"""Two recorded runs beside one another, cell by cell, in bounded memory: stored samples only, the weaker kind.

What is found is written to a temporary file as it is found; only p-values, counts and the rows that are shown stay.
"""

from __future__ import annotations

import heapq
import json
import tempfile
from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pytest_modelformats.history.baseline import changes, stored
from pytest_modelformats.record.decode import decode
from pytest_modelformats.report import comparisons
from pytest_modelformats.schema import Change, Comparison
from pytest_modelformats.schema.plain import plain

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_modelformats.record.index import Facts, Recorded
    from pytest_modelformats.schema.metrics import Margin

WHY = "both runs are over"
SHOWN = 1000


@dataclass(slots=True)
class Tally:
    """What the comparisons of two runs add up to; of the cells on one side only, the first ``SHOWN`` by name."""

    counts: Counter[str] = field(default_factory=Counter)
    cells: int = 0
    family: int = 0
    failing: int = 0
    appeared: list[str] = field(default_factory=list)
    vanished: list[tuple[str, str]] = field(default_factory=list)
    only: Counter[str] = field(default_factory=Counter)


class TwoRuns:
    """The comparison of two records: made by :meth:`compare`, then read by :meth:`found` as often as one likes."""

    def __init__(
        self, before: Recorded, after: Recorded, titles: tuple[str, str], asked: Sequence[Margin], *, everything: bool
    ) -> None:
        """Compare nothing yet; with ``everything`` also what did not change is kept."""
        self.tally = Tally()
        self.titles = titles
        self.asked = asked
        self._before, self._after = before, after
        self._everything = everything
        self._slower, self._faster = array("d"), array("d")
        self._lines = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 - closed by close()

    def close(self) -> None:
        """Let go of the temporary file."""
        self._lines.close()

    def compare(self) -> Tally:
        """Go through the cells once; what it adds up to is known afterwards."""
        for cell in self._after.cells():
            self._compare(self._before.facts(cell), self._after.facts(cell))
        for cell in self._before.cells():
            gone = self._after.planned(cell)
            if not gone.ran and self._before.planned(cell).ran:
                self._only("vanished", cell, gone.reason if gone.decision else "it is not in the plan")
        self._judge()
        return self.tally

    def incomplete(self) -> list[str]:
        """Which of the two runs, ``before`` and ``after``, did not come to its end."""
        return [word for word, run in (("before", self._before), ("after", self._after)) if not run.complete]

    def found(self) -> Iterator[Comparison]:
        """The kept comparisons, as the family as a whole judges them, in the order of the cells."""
        self._lines.seek(0)
        for line in self._lines:
            data = json.loads(line)
            yield decode(Comparison, data)

    def table(self, limit: int = SHOWN) -> comparisons.Table:
        """The rows that matter most, and what all of it adds up to."""
        chosen = heapq.nsmallest(limit, self.found(), key=comparisons.rank)
        left = self.tally.counts.total() - len(chosen)
        known = {"fail_on": [str(m) for m in self.asked], "level": changes.LEVEL}
        summary = comparisons.counted(self.tally.counts, self.tally.family, self.tally.cells, known)
        more = [f"{self.tally.only[word]:,} {word}" for word in ("appeared", "vanished") if self.tally.only[word]]
        said = f" Cells of one run only: {', '.join(more)}." if more else ""
        hidden = f" Not shown: {left:,} that did not change, were not judged, or matter least." if left else ""
        cut_off = "".join(f" {self.titles[word == 'after']} is incomplete." for word in self.incomplete())
        weaker = (
            " Samples of earlier runs are compared, which is weaker than measuring both now: "
            "pytest --mf-baseline does that where it can."
        )
        title = f"{self.titles[1]} compared with {self.titles[0]}"
        rows = tuple(map(comparisons.row, chosen))
        return comparisons.Table(
            title,
            rows,
            f"{summary}{cut_off}{said}{hidden}{weaker}",
            tuple(self.tally.appeared),
            tuple(self.tally.vanished),
        )

    def _compare(self, before: Facts, after: Facts) -> None:
        if not after.ran:
            return
        if not before.ran:
            self._only("appeared", after.cell, before.reason)
            return
        machines = self._before.header.machine, self._after.header.machine
        margin = next((m.fraction for m in self.asked if m.metric == "latency"), 0.05)
        found = [
            *stored.latencies(machines, (before, after), self.titles, margin, WHY),
            *(changes.Found(c) for c in changes.of_facts(before, after, self.asked, self.titles)),
        ]
        self.tally.cells += any(changes.has_both(one.comparison) for one in found)
        for one in found:
            self._take(one)

    def _take(self, found: changes.Found) -> None:
        """Count what did not change; write down the rest, with its place in the family."""
        comparison, place = found.comparison, -1
        if found.p_slower is not None and found.p_faster is not None:
            place = len(self._slower)
            self._slower.append(found.p_slower)
            self._faster.append(found.p_faster)
        quiet = comparison.change is Change.SAME or comparison.how == comparisons.NOT_JUDGED
        if quiet and not self._everything:
            self._count(comparison)
        else:
            self._lines.write(json.dumps({"place": place, **plain(comparison)}, allow_nan=False) + "\n")

    def _judge(self) -> None:
        """Rewrite the kept comparisons as the family judges them."""
        from pytest_modelformats.measure.two_sides.interleaved import control

        self.tally.family = len(self._slower)
        stands = [bytes(control(p, changes.LEVEL)) for p in (self._slower, self._faster)] if self._slower else []
        judged = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 - closed by close()
        metrics = {m.metric for m in self.asked}
        self._lines.seek(0)
        for line in self._lines:
            data: dict[str, Any] = json.loads(line)
            place = data.pop("place")
            comparison = decode(Comparison, data)
            if place >= 0:
                pair = bool(stands[0][place]), bool(stands[1][place])
                comparison = changes.in_family(comparison, pair, self.tally.family)
            self._count(comparison)
            worse = comparison.change is Change.REGRESSION
            self.tally.failing += worse and changes.base_metric(comparison.metric) in metrics
            judged.write(json.dumps(plain(comparison), allow_nan=False) + "\n")
        self._lines.close()
        self._lines = judged

    def _count(self, comparison: Comparison) -> None:
        unjudged = comparison.how == comparisons.NOT_JUDGED
        self.tally.counts[comparisons.NOT_JUDGED if unjudged else comparison.change.value] += 1

    def _only(self, word: str, cell: str, reason: str) -> None:
        self.tally.only[word] += 1
        if self.tally.only[word] > SHOWN:
            return
        if word == "appeared":
            self.tally.appeared.append(cell)
        else:
            self.tally.vanished.append((cell, reason))


def summary_json(runs: TwoRuns) -> dict[str, Any]:
    """What stands beside the comparisons in the JSON form."""
    tally = runs.tally
    return {
        "before": runs.titles[0],
        "after": runs.titles[1],
        "fail_on": [str(m) for m in runs.asked],
        "level": changes.LEVEL,
        "how": "stored",
        "incomplete": runs.incomplete(),
        "family": tally.family,
        "cells": tally.cells,
        "counts": dict(tally.counts),
        "failing": tally.failing,
        "appeared": tally.appeared,
        "vanished": [{"cell": cell, "reason": reason} for cell, reason in tally.vanished],
        "only": dict(tally.only),
    }
