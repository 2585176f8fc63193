"""One stage of a cell, asked for by a fixture: what it came to, what is kept of it, and how it ends the test."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from pytest_modelformats.checks.throughput import Throughput
from pytest_modelformats.compare.next_step import advised
from pytest_modelformats.errors import ModelFormatsError, NotMeasured, RunError
from pytest_modelformats.measure.budget import within
from pytest_modelformats.plan import unmet
from pytest_modelformats.record import write as record
from pytest_modelformats.schema import Outcome, Timing, Verdict
from pytest_modelformats.session import comparing
from pytest_modelformats.session.bundles import keep_bundle
from pytest_modelformats.session.conclude import end_stage, fail_required, note_of
from pytest_modelformats.session.stash import KEEPER

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np

    from pytest_modelformats.checks.bundle.nouns import Submodel
    from pytest_modelformats.schema import PlannedCell
    from pytest_modelformats.session.campaign import Campaign
    from pytest_modelformats.session.conclude import Note
    from pytest_modelformats.session.reuse import Kept

_WITH_REFERENCE = frozenset({"reference", "parity"})


def stage(item: pytest.Item, campaign: Campaign, name: str, planned: PlannedCell, *more: Any) -> Any:
    """A stage of a cell for a fixture; an error ends the test as its outcome asks. ``more`` goes to the stage."""
    note = note_of(item)
    if not planned.decision.runs:
        _not_run(item, campaign, planned)
    failure: ModelFormatsError | None = None
    before: dict[str, int] = {}
    result: Any = None
    kept: Kept | None = None
    try:
        stages = campaign.stages
        before = dict(stages.conversions)
        if name in {"timing", "throughput", "comparison"} and hasattr(item.config, "workerinput"):
            suite = "latency" if name == "timing" else name
            raise NotMeasured(
                f"under pytest-xdist the neighbours would be measured too; run the {suite} suite without -n"
            )
        kept = campaign.reuse.find(name, planned) if campaign.settings.reuse else None
        made = campaign.comparisons.measure if name == "comparison" else getattr(stages, name)
        result = kept.result if kept else made(planned, *more)
    except ModelFormatsError as error:
        failure = error
    if campaign.started_stages is not None:
        now = campaign.started_stages.conversions
        note.conversions = {k: note.conversions.get(k, 0) + now[k] - before.get(k, 0) for k in now}
    result, failure = _with_failing_input(item, campaign, planned, result, failure)
    if failure is not None:
        keep_bundle(item, campaign, planned, name, failure)
        end_stage(item, failure, _required(campaign, planned, Outcome(failure.outcome)))
    result = _take(note, name, result)
    comparing.noted(campaign, planned, name, result, note, fresh=kept is None)
    line = kept.line if kept else _model_line(campaign, planned.cell.model) if name in _WITH_REFERENCE else None
    if line is not None:
        note.lines.append(dict(line))
    if kept:
        note.data["reused"] = kept.at
    else:
        campaign.reuse.keep(name, planned, result, line)
    if isinstance(result, Verdict) and not result.passed:
        _look_into(item, campaign, planned, name, result)
    return result


def _look_into(item: pytest.Item, campaign: Campaign, planned: PlannedCell, name: str, verdict: Verdict) -> None:
    """A verdict that is no pass leaves what is needed to see it again; an unclear one ends the test."""
    part = _located(item, campaign, planned, name, verdict)
    keep_bundle(item, campaign, planned, name, verdict, **({"submodel": part} if part else {}))
    if verdict.outcome is Outcome.INCONCLUSIVE:
        pytest.skip(f"inconclusive: {verdict.sentence}")


def _located(
    item: pytest.Item, campaign: Campaign, planned: PlannedCell, name: str, verdict: Verdict
) -> Submodel | None:
    """Where a verdict on numbers goes wrong, noted; the faulty part where it is wrong alone too."""
    from pytest_modelformats.checks.localise import localise

    if not localise.due(campaign.settings, name, verdict):
        return None
    note, found = note_of(item), localise.localise(campaign.stages, campaign.settings, planned, verdict, name)
    note.data["localisation"] = found.data()
    if name not in localise.SEARCHED:
        return None
    what, step, rest = note.sentence.partition(" Next: ")
    note.sentence = f"{what} {found.sentence}{step}{rest}"
    return localise.submodel(found, planned)


def _with_failing_input(
    item: pytest.Item, campaign: Campaign, planned: PlannedCell, verdict: Any, failure: ModelFormatsError | None
) -> tuple[Any, ModelFormatsError | None]:
    """Save the generated input that failed beside the record; the verdict or error then says where."""
    stages = campaign.started_stages
    generated = stages.fuzzer.failing.pop(planned.cell.id, None) if stages is not None else None
    if generated is None:
        return verdict, failure
    from pytest_modelformats.checks.fuzz import search as fuzz

    keeper = item.config.stash.get(KEEPER, None)  # the controller of pytest-xdist has it, its processes do not
    folder = keeper.recorder.folder if keeper is not None else campaign.settings.report_dir
    path = fuzz.save(generated, folder, planned.cell.id)
    note_of(item).data["failing_input"] = f"{'' if keeper is not None else '../'}{path.relative_to(folder)}"
    said = f"It is saved in {path}; judge on it with --mf-data."
    if failure is not None:
        return verdict, type(failure)(f"{failure}; this happened on a generated input ({generated}). {said}")
    return replace(verdict, sentence=f"{verdict.sentence} {said}"), failure


def _take(note: Note, name: str, result: Any) -> Any:
    """Keep a verdict or a measurement for the check's line and JUnit's properties; a verdict that is red says more."""
    if isinstance(result, Verdict):
        result = advised(result, name)
        note.take(result)
        note.properties["mf_noise_ratio"] = result.noise_ratio
    elif isinstance(result, Timing):
        note.data.update(record.timing_data(result))
        note.properties["latency_p50_ns"] = result.latency_p50_ns
        note.properties["size_bytes"] = result.size_bytes
    elif isinstance(result, Throughput):
        result = replace(result, verdict=advised(result.verdict, name))
        note.take(result.verdict)
        at = {"sizes": dict(result.sizes)} if result.sizes else {}
        note.data = {"throughput": [figure.data() | at for figure in result.figures]}
    return result


def _model_line(campaign: Campaign, model: str) -> dict[str, Any]:
    stages = campaign.stages.models
    samples = stages.samples(model)
    return record.model_line(
        stages.source(model),
        stages.description(model),
        samples.rows,
        samples.origin,
        stages.reference(model),
        stages.sizes(model),
    )


def _not_run(item: pytest.Item, campaign: Campaign, planned: PlannedCell) -> None:
    decision = planned.decision
    note = note_of(item)
    note.outcome, note.sentence = decision.outcome, decision.reason
    reason = f"{decision.reason}; {decision.install}" if decision.install else decision.reason
    required = _required(campaign, planned, decision.outcome)
    if required:
        fail_required(item, required, reason)
    pytest.skip(f"{decision.outcome.value if decision.outcome else ''}: {reason}")


def _required(campaign: Campaign, planned: PlannedCell, outcome: Outcome | None) -> str:
    """The name of ``--mf-require`` that makes "not run" a failure for this cell, "" where there is none.

    A device that is not there fails a cell only where that device was asked for: ``--mf-require onnx``
    on a machine without a GPU is about the CPU.
    """
    cell, settings = planned.cell, campaign.settings
    if outcome is Outcome.NO_DEVICE and cell.device not in {*settings.require, *settings.devices}:
        return ""
    return min(unmet.names(cell) & set(settings.require), default="")


def runner(
    item: pytest.Item, campaign: Campaign, planned: PlannedCell
) -> Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]:
    """Runs arbitrary inputs through a cell."""

    def ask(feed: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        expected = [s.name for s in campaign.stages.models.description(planned.cell.model).inputs]
        if set(feed) != set(expected):
            raise RunError(f"the inputs are called {', '.join(expected)}, and {', '.join(feed)} were given")
        return campaign.stages.run(planned, {name: feed[name] for name in expected})

    def run(feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        failure: ModelFormatsError | None = None
        arrays: list[np.ndarray] = []
        try:
            arrays = ask(feed)
        except ModelFormatsError as error:
            failure = error
        if failure is not None:
            end_stage(item, failure, own=True)
        specs = campaign.stages.models.description(planned.cell.model)
        names = [s.name for s in specs.outputs]
        return {names[i] if i < len(names) else f"output_{i}": a for i, a in enumerate(arrays)}

    return run


def cost(item: pytest.Item, campaign: Campaign, planned: PlannedCell, timing: Timing) -> Verdict:
    """The measurement against the budgets; a verdict that is unclear ends the test as inconclusive."""
    verdict = advised(within(planned.cell.id, timing, campaign.settings.budgets), "latency")
    note = note_of(item)
    note.outcome, note.failure_kind, note.sentence = verdict.outcome, verdict.failure_kind, verdict.sentence
    if verdict.outcome is Outcome.INCONCLUSIVE:
        pytest.skip(f"inconclusive: {verdict.sentence}")
    return verdict


def hand_to_benchmark(request: pytest.FixtureRequest, planned: PlannedCell, timing: Timing) -> None:
    """Show the samples in pytest-benchmark's own table, where that plugin is active."""
    from pytest_modelformats.session.pytest_benchmark import hand_over

    group = f"{planned.cell.model} batch {timing.batch}"
    extra = {"cell": planned.cell.id, "threads": timing.threads, "size_bytes": timing.size_bytes}
    extra |= {"sizes": dict(timing.sizes)} if timing.sizes else {}
    hand_over(request, timing.samples_ns, group, extra)


def hand_throughput_to_benchmark(request: pytest.FixtureRequest, planned: PlannedCell, throughput: Throughput) -> None:
    """Show the latencies of a scenario in pytest-benchmark's own table; one that is unclear ends as inconclusive."""
    from pytest_modelformats.session.pytest_benchmark import hand_over

    for figure in throughput.measured[:1]:
        several = f" concurrency {figure.concurrency}" if figure.concurrency > 1 else ""
        group = f"{planned.cell.model} batch {figure.batch}{several}"
        extra = {"cell": planned.cell.id, "mode": figure.mode, "items_per_s": figure.items_per_s}
        extra |= {"sizes": dict(throughput.sizes)} if throughput.sizes else {}
        hand_over(request, figure.samples_ns, group, extra)
    if throughput.verdict.outcome is Outcome.INCONCLUSIVE:
        pytest.skip(f"inconclusive: {throughput.verdict.sentence}")
