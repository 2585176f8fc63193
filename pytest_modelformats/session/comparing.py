"""What the plugin does for the items that compare: measure, write at once, judge all together, keep a baseline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pytest_modelformats.checks import provenance
from pytest_modelformats.errors import ModelFormatsError, NotMeasured
from pytest_modelformats.history.baseline import changes
from pytest_modelformats.history.baseline import named as baseline
from pytest_modelformats.schema import Outcome
from pytest_modelformats.schema.plain import plain
from pytest_modelformats.session.completeness import narrowed_by
from pytest_modelformats.session.conclude import end_stage, note_of
from pytest_modelformats.session.stash import KEEPER
from pytest_modelformats.session.suites import comparing_suites

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from pytest_modelformats.history.baseline.family import Compared
    from pytest_modelformats.schema import PlannedCell, Verdict
    from pytest_modelformats.session.campaign import Campaign
    from pytest_modelformats.session.conclude import Note

_COMPARING = ("mf_comparison", "mf_regression")
_XDIST = "under pytest-xdist the neighbours would be measured too; run the comparison without -n"
# Naming a model or a candidate says what is tested, not that the rest is gone.
_CHOOSES_CELLS = frozenset(
    {"--mf-formats", "--mf-precisions", "--mf-backends", "--mf-devices", "--mf-cells", "--mf-all-routes"}
)


def check(campaign: Campaign) -> None:
    """Refuse a name that no baseline can be kept under; raises UsageError."""
    try:
        if campaign.settings.save_baseline:
            baseline.check_name(campaign.settings.save_baseline)
    except ModelFormatsError as error:
        raise pytest.UsageError(str(error)) from None


def compares(campaign: Campaign) -> bool:
    """Whether there is anything to compare with."""
    return bool(comparing_suites(campaign.settings))


def concerned(
    campaign: Campaign, chosen: tuple[list[PlannedCell], list[str]], fixtures: Sequence[str]
) -> tuple[list[PlannedCell], list[str]]:
    """Of the cells that a test is to get, those that have a counterpart, where the test compares; else all."""
    if not compares(campaign) or not any(name in fixtures for name in _COMPARING):
        return chosen
    cells = [planned for planned in chosen[0] if _has_counterpart(campaign, planned)]
    return cells, [planned.cell.id for planned in cells]


def _has_counterpart(campaign: Campaign, planned: PlannedCell) -> bool:
    named = campaign.baseline
    if planned.cell.environment:
        return named is None or planned.cell.environment != named.environment
    if named is None:
        return False
    return not named.environment or f"{planned.cell.id}+{named.environment}" in campaign.cells


def before_loop(session: pytest.Session, campaign: Campaign) -> None:
    """Say which cells are judged together: those of the items that are there."""
    chosen: dict[str, None] = {}
    for item in session.items:
        if any(name in getattr(item, "fixturenames", ()) for name in _COMPARING):
            chosen[item.callspec.params["mf_cell"].cell.id] = None  # type: ignore[attr-defined]
    if chosen:
        campaign.comparisons.family = tuple(chosen)


def noted(campaign: Campaign, planned: PlannedCell, stage: str, result: Any, note: Note, *, fresh: bool) -> None:
    """A check's line says which artifact it is of; a run that compares remembers what it has found."""
    if stage not in {"parity", "timing", "throughput"}:
        return
    if stage != "throughput" and (fresh or campaign.settings.save_baseline):
        note.data.update(provenance.stated(campaign.stages, planned))
    if compares(campaign):
        campaign.comparisons.saw(planned, stage, result)


def comparison(
    item: pytest.Item, campaign: Campaign, planned: PlannedCell, measured: Callable[[], Compared]
) -> Compared:
    """The cell beside its counterpart; ``measured`` asks for the stage, the item's line holds what was found."""
    note = note_of(item)
    try:
        compared = measured()
    finally:
        if campaign.started_stages is not None:
            note.data["comparisons"] = campaign.comparisons.stated(planned.cell.id)
    note.sentence = compared.sentence
    return compared


def regression(item: pytest.Item, campaign: Campaign, planned: PlannedCell) -> Verdict:
    """The verdict over a cell among its family; a verdict that is unclear ends the test as inconclusive."""
    note = note_of(item)
    if hasattr(item.config, "workerinput"):
        end_stage(item, NotMeasured(_XDIST))
    comparisons = campaign.comparisons
    for cell in comparisons.family:
        if not comparisons.is_done(cell):
            _measure_for(item, campaign, campaign.cells[cell])
    judged = comparisons.judged(planned.cell.id)
    if not judged:
        failure: ModelFormatsError | None = None
        try:
            comparisons.measure(planned)
        except ModelFormatsError as error:
            failure = error
        end_stage(item, NotMeasured(f"nothing was compared: {failure or 'there is nothing that both have'}"))
    verdict = changes.verdict(judged, comparisons.asked)
    note.outcome, note.failure_kind, note.sentence = verdict.outcome, verdict.failure_kind, verdict.sentence
    note.data["comparisons"] = [plain(c) for c in judged]
    if verdict.outcome is Outcome.INCONCLUSIVE:
        pytest.skip(f"inconclusive: {verdict.sentence}")
    return verdict


def _measure_for(item: pytest.Item, campaign: Campaign, planned: PlannedCell) -> None:
    """A cell of the family whose own comparison was not selected; its line is written at once, as if it had been."""
    outcome, sentence = Outcome.PASSED, ""
    try:
        sentence = campaign.comparisons.measure(planned).sentence
    except ModelFormatsError as error:
        outcome, sentence = Outcome(error.outcome), str(error)
    keeper = item.config.stash.get(KEEPER, None)
    if keeper is not None:
        line = {
            "kind": "check",
            "cell": planned.cell.id,
            "check": "comparison",
            "test": item.nodeid,
            "outcome": outcome,
            "failure_kind": None,
            "sentence": sentence,
            "duration_s": 0.0,
            "data": {"comparisons": campaign.comparisons.stated(planned.cell.id)},
        }
        keeper.recorder.write(line)


def header(config: pytest.Config, campaign: Campaign) -> dict[str, Any]:
    """What the record's header says of the baseline: which run it is, and which cells only one of the two has."""
    if not compares(campaign):
        return {}
    asked = campaign.comparisons.asked
    found: dict[str, Any] = {"ref": "", "title": "", "fail_on": [str(m) for m in asked], "level": changes.LEVEL}
    named = campaign.baseline
    if named is not None:
        found |= {"ref": named.ref, "title": named.title, "environment": named.environment}
    recorded = campaign.comparisons.recorded
    if recorded is not None:
        found |= {"run": recorded.header.run, "started": recorded.header.started, "complete": recorded.complete}
        found |= {"vanished": list(_vanished(config, campaign))}
    return {"baseline": found}


def _vanished(config: pytest.Config, campaign: Campaign) -> Iterator[dict[str, str]]:
    """Cells that ran in the baseline and do not here, of the models that are tested."""
    recorded = campaign.comparisons.recorded
    if recorded is None:
        return
    narrowed = _CHOOSES_CELLS & set(narrowed_by(config))
    models = {source.name for source in campaign.sources}
    for cell in recorded.cells():
        planned = campaign.cells.get(cell)
        if (planned is not None and planned.decision.runs) or (planned is None and narrowed):
            continue
        facts = recorded.planned(cell)
        if facts.ran and not facts.environment and any(cell.startswith((f"{m}-", f"{m}~")) for m in models):
            yield {"cell": cell, "reason": planned.decision.reason if planned else "it is not in the plan"}


def complaints(campaign: Campaign) -> list[str]:
    """What makes a comparison that was asked for none: a gate that looked at nothing is not green."""
    named = campaign.baseline
    if named is None or not campaign.comparisons.idle:
        return []
    cut_off = campaign.comparisons.recorded is not None and not campaign.comparisons.recorded.complete
    why = "it is incomplete" if cut_off else "no cell of this run has figures there"
    return [f"nothing was compared with the baseline {named.title}: {why}; name a run of the same models and suites"]


def save(campaign: Campaign, path: Path, *, complete: bool) -> tuple[list[str], list[str]]:
    """Keep the run under the asked name: (remarks, refusals)."""
    name = campaign.settings.save_baseline
    if not complete:
        return [], [f"--mf-save-baseline {name}: the run is incomplete, so it was not kept; run it to its end"]
    try:
        return [baseline.keep(name, path, campaign.settings)], []
    except OSError as error:
        folder = campaign.settings.cache
        why = error.strerror or str(error)
        return [], [f"--mf-save-baseline {name}: the cache folder {folder} cannot be written ({why})"]
