"""The end of a run: footer, reports, the judgement of the whole, and what the terminal shows."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from pytest_modelformats.errors import ConfigurationError
from pytest_modelformats.plan import unmet
from pytest_modelformats.record import write as record
from pytest_modelformats.session import comparing
from pytest_modelformats.session.expectations.read import complaints
from pytest_modelformats.session.expectations.watch import update_files
from pytest_modelformats.session.stash import CAMPAIGN, KEEPER
from pytest_modelformats.settings.options import given

if TYPE_CHECKING:
    from pytest_modelformats.record.read import Run
    from pytest_modelformats.session.keeper import Keeper


def finish(session: pytest.Session, exitstatus: int) -> None:
    """End the workers; in the main process also write the footer and the reports, and judge the run as a whole."""
    config = session.config
    campaign = config.stash[CAMPAIGN]
    campaign.close()
    keeper = config.stash.get(KEEPER, None)
    if keeper is None:
        return
    recorder = keeper.recorder
    interrupted = exitstatus in {pytest.ExitCode.INTERRUPTED, pytest.ExitCode.INTERNAL_ERROR}
    updating = campaign.settings.update_expectations
    keeper.complaints = complaints(
        campaign.expectations,
        recorder.expectations_met,
        partial=bool(keeper.partial) or updating,
        unseen=keeper.watch.unseen,
    )
    if updating:
        keeper.remarks, refused = update_files(
            campaign.settings.expectations, campaign.expectations, campaign.cells, keeper.watch, interrupted=interrupted
        )
        keeper.complaints += refused
    if not recorder.measured and not interrupted:
        keeper.complaints.append("nothing was measured: every selected cell was skipped; the reasons are above")
    if not interrupted:
        keeper.complaints += comparing.complaints(campaign)
        keeper.complaints += unmet.require_complaints(campaign.settings, campaign.plan, given(config.option))
    if keeper.complaints and exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    complete = recorder.close(
        interrupted=interrupted, exitstatus=int(session.exitstatus), duration_s=time.monotonic() - keeper.started
    )
    if campaign.settings.save_baseline:
        remark, refused = comparing.save(campaign, recorder.path, complete=complete)
        keeper.remarks += remark
        keeper.complaints += refused
        complete = complete and not refused
    if not complete and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    run = _render(keeper)
    from pytest_modelformats.history.database import store as history

    keeper.remarks += history.keep(campaign.settings, run)


def _render(keeper: Keeper) -> Run:
    from pytest_modelformats.record import read as lines
    from pytest_modelformats.report import html, markdown

    folder = keeper.recorder.folder
    run = lines.read(keeper.recorder.path)
    (folder / "index.html").write_text(html.render(run), encoding="utf-8")
    (folder / "report.md").write_text(markdown.render(run), encoding="utf-8")
    record.point_latest(folder)
    return run


def summarise(terminalreporter: Any, keeper: Keeper) -> None:
    """The matrix, what is wrong with the run as a whole, and where the report is."""
    from pytest_modelformats.record import read as lines
    from pytest_modelformats.report import terminal

    terminalreporter.section("modelformats", sep="=")
    try:
        run = lines.read(keeper.recorder.path)
    except ConfigurationError as error:
        terminalreporter.write_line(str(error), red=True)
        return
    width = terminalreporter._tw.fullwidth  # noqa: SLF001 - pytest offers the width nowhere else
    color = terminalreporter.hasmarkup
    terminalreporter.write(terminal.render(run, width, color))
    for remark in keeper.remarks:
        terminalreporter.write_line(f"modelformats: {remark}", yellow=True)
    for complaint in keeper.complaints:
        terminalreporter.write_line(f"modelformats: {complaint}", red=True)
    terminalreporter.write_line(f"report: {keeper.recorder.folder / 'index.html'}")
