"""How a run's checks ended, watched for the known failures; and the updating of their files at its end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from pytest_modelformats.errors import ConfigurationError
from pytest_modelformats.schema import SKIPPED_OUTCOMES, Outcome
from pytest_modelformats.session.completeness import narrowed_by, partial_because
from pytest_modelformats.session.expectations import read as expectations
from pytest_modelformats.session.expectations.update import Judged, matches_no_cell, revise, write

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pytest_modelformats.schema import PlannedCell
    from pytest_modelformats.session.expectations.read import Expectation
    from pytest_modelformats.settings.nouns import Settings


@dataclass(slots=True)
class Watch:
    """What was heard so far; ``items`` are the tests selected, ``lost`` that a process of pytest-xdist died.

    ``unseen`` are the cells and checks that could not be looked at, the check "" for a whole cell.
    """

    items: int = 0
    lost: bool = False
    heard: set[str] = field(default_factory=set)
    unseen: set[tuple[str, str]] = field(default_factory=set)
    judged: list[Judged] = field(default_factory=list)

    def take(self, line: Mapping[str, Any]) -> None:
        """Keep what a check's line says of having been looked at."""
        if line["kind"] == "check":
            self.heard.add(line["test"])
            if Outcome(line["outcome"]) in SKIPPED_OUTCOMES:
                self.unseen.add((line["cell"], "" if line["check"] == "availability" else line["check"]))

    def judge(self, ended: Mapping[str, str] | None) -> None:
        """Keep how a check ended, where the files are to be updated from it."""
        if ended is not None:
            self.judged.append(Judged(**ended))


def refuse_update(
    config: pytest.Config,
    settings: Settings,
    known: Sequence[Expectation],
    planned: Mapping[str, PlannedCell],
    cells: Sequence[str],
) -> None:
    """Refuse, before anything runs, to update from a run that does not see everything.

    ``cells`` are the selected ones of the planned.

    Raises: UsageError.
    """
    if not settings.update_expectations:
        return
    partial = partial_because(config, settings, cells, len(planned))
    if partial:
        msg = f"--mf-update-expectations needs a whole run, and {partial}; what was not run must not be forgotten"
        raise pytest.UsageError(msg)
    foreign, options = matches_no_cell(known, planned), narrowed_by(config)
    if foreign and options:
        line = foreign[0]
        msg = (
            f"--mf-update-expectations: {line.place} is about '{line.glob}', of which this run has no cell, because of "
            f"{' and '.join(options)} perhaps; choose the cells in the configuration file, or delete the line yourself"
        )
        raise pytest.UsageError(msg)


def update_files(
    files: Sequence[Path],
    known: Sequence[Expectation],
    planned: Mapping[str, PlannedCell],
    watch: Watch,
    *,
    interrupted: bool,
) -> tuple[list[str], list[str]]:
    """Rewrite the expectation files; returns what was done, and why the run is not green for it."""
    why_not = _why_not(files, known, watch, interrupted=interrupted)
    if why_not:
        names = " and ".join(path.name for path in files)
        return [], [f"{names} was not updated: {why_not}"]
    try:
        update = revise(files, known, watch.judged, planned)
        write(update.texts)
    except (OSError, UnicodeDecodeError) as error:
        return [], [f"the expectations were not updated: {error}"]
    same = [f"{path.name} holds as it is" for path in files if path not in update.texts]
    return [*update.said, *(f"{path} was written" for path in update.texts), *same], list(update.complaints)


def _why_not(files: Sequence[Path], known: Sequence[Expectation], watch: Watch, *, interrupted: bool) -> str:
    """Why this run is no ground for an update, "" where it is."""
    broken = next((one for one in watch.judged if one.state == "broken"), None)
    if interrupted:
        return "the run was interrupted"
    if watch.lost:
        return "a process of pytest-xdist died, and with it tests of which nothing is known"
    if broken is not None:
        return f"the tool itself failed in {broken.check} of {broken.cell}: {broken.sentence[:200]}"
    if len(watch.heard) < watch.items:
        return f"only {len(watch.heard)} of {watch.items} selected tests were run"
    try:
        now = expectations.read(path for path in files if path.exists())
    except ConfigurationError as error:
        return str(error)
    return "" if now == known else "it was changed while the run went on; run again"
