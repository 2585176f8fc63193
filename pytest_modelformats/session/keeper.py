"""The listener that keeps the record of a run."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from pytest_modelformats.record import write as record
from pytest_modelformats.schema import Outcome
from pytest_modelformats.schema.redact import redacted
from pytest_modelformats.session import comparing
from pytest_modelformats.session.bundles import adopt
from pytest_modelformats.session.expectations.watch import Watch
from pytest_modelformats.settings import machine

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import pytest

    from pytest_modelformats.session.campaign import Campaign


class Keeper:
    """Listens to the reports of a run that has cells, and keeps its record."""

    def __init__(self, config: pytest.Config, campaign: Campaign, cells: Sequence[str]) -> None:
        """Open the record and write its header; the environments of the cells are there then."""
        environments = campaign.environments(cells)
        self.campaign = campaign
        self.started = time.monotonic()
        self.recorder = record.Recorder(campaign.settings.report_dir, record.now())
        command = ["pytest", *(redacted(str(arg)) for arg in config.invocation_params.args)]
        self.recorder.write(
            record.header_line(self.recorder.run, command, machine.machine(), campaign.versions(), campaign.settings)
            | {"environments": environments}
            | comparing.header(config, campaign)
        )
        self.partial = ""
        self.complaints: list[str] = []
        self.remarks: list[str] = []
        self.watch = Watch()
        self._cells: set[str] = set()

    def plan(self, cells: Sequence[str], parity: Collection[str], *, partial: str) -> None:
        """Write the planned cells that were selected, ``parity`` those whose parity check was.

        ``partial`` says why they are not all.
        """
        self.partial = self.partial or partial
        for cell in cells:
            if cell not in self._cells:
                self._cells.add(cell)
                self.recorder.write(record.cell_line(self.campaign.cells[cell], parity_asked=cell in parity))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Write the lines that a report carries."""
        for text in getattr(report, "mf_lines", ()):
            line = json.loads(text)
            adopt(line, self.recorder.folder)
            self.recorder.write(line)
            self.watch.take(line)
        self.watch.judge(getattr(report, "mf_judged", None))
        if report.failed and not hasattr(report, "mf_lines"):
            self._lost(report)

    def _lost(self, report: pytest.TestReport) -> None:
        """A report without our lines is xdist's own, made when the process that ran the item died."""
        cell = cell_of(report.nodeid, self.campaign)
        if cell is not None and report.when not in {"setup", "call", "teardown"}:
            self.watch.lost = True
            sentence = f"The pytest-xdist process that ran this died: {report.longrepr}"[:600]
            check = report.nodeid.split("::")[1]
            self.recorder.write(
                {
                    "kind": "check",
                    "cell": cell,
                    "check": check,
                    "test": report.nodeid,
                    "outcome": Outcome.CRASHED,
                    "failure_kind": None,
                    "sentence": sentence,
                    "duration_s": 0.0,
                    "data": {},
                }
            )


def cell_of(nodeid: str, campaign: Campaign) -> str | None:
    """The id of the cell that a node id ends with; other parameters may stand beside it."""
    if not nodeid.endswith("]"):
        return None
    inside = nodeid[nodeid.index("[") + 1 : -1]
    if inside in campaign.cells:
        return inside
    # The parameters of an id are joined by hyphens, and a cell's id is made of the same: the longest run of them.
    parts = inside.split("-")
    runs = ((i, i + size) for size in range(len(parts) - 1, 0, -1) for i in range(len(parts) - size + 1))
    return next((c for c in ("-".join(parts[i:j]) for i, j in runs) if c in campaign.cells), None)
