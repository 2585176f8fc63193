"""What the plugin's hooks do once a run has cells: choose tests, record, finish, summarise."""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from pytest_modelformats.checks.throughput import Throughput
from pytest_modelformats.compare.next_step import advised
from pytest_modelformats.errors import ConfigurationError, ModelFormatsError, NotMeasured, RunError
from pytest_modelformats.measure.budget import within
from pytest_modelformats.plan import unmet
from pytest_modelformats.plugin import CAMPAIGN, KEEPER, REFUSAL, campaign_of
from pytest_modelformats.record import write as record
from pytest_modelformats.schema import Outcome, Timing, Verdict
from pytest_modelformats.schema.names import suggest
from pytest_modelformats.schema.redact import redacted
from pytest_modelformats.session import comparing as comparison_items
from pytest_modelformats.session.bundles import adopt, keep_bundle
from pytest_modelformats.session.completeness import partial_because
from pytest_modelformats.session.conclude import end_stage, fail_required, note_of
from pytest_modelformats.session.expectations.read import complaints
from pytest_modelformats.session.expectations.watch import Watch, refuse_update, update_files
from pytest_modelformats.session.suites import comparing_suites, default_suites, suites
from pytest_modelformats.settings import machine
from pytest_modelformats.settings.options import given
from pytest_modelformats.source.shipped import shipped

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from types import ModuleType

    import numpy as np

    from pytest_modelformats.checks.bundle.case import Submodel
    from pytest_modelformats.record.read import Run
    from pytest_modelformats.schema import PlannedCell
    from pytest_modelformats.session.campaign import Campaign
    from pytest_modelformats.session.conclude import Note
    from pytest_modelformats.session.reuse import Kept

PREFIX = "modelformats"
_WITH_REFERENCE = frozenset({"reference", "parity"})
NO_MODEL = "no model is named: add --mf-model FILE, or models in modelformats.toml"


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
            | comparison_items.header(config, campaign)
        )
        self.partial = ""
        self.complaints: list[str] = []
        self.remarks: list[str] = []
        self.watch = Watch()
        self._cells: set[str] = set()

    def plan(self, cells: Sequence[str], *, partial: str) -> None:
        """Write the planned cells that were selected; ``partial`` says why they are not all."""
        self.partial = self.partial or partial
        for cell in cells:
            if cell not in self._cells:
                self._cells.add(cell)
                self.recorder.write(record.cell_line(self.campaign.cells[cell]))

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


def choose_tests(config: pytest.Config) -> None:
    """Collect the shipped suites unless test paths were given; ``modelformats::suite::…`` names one of them.

    Raises: UsageError, before anything is collected, for every setting that nothing can be done with.
    """
    from pytest_modelformats.settings.options import validate_names

    known = suites()
    campaign = campaign_of(config)
    chosen = campaign.settings.suites
    try:
        validate_names("suite", chosen, known)
    except ModelFormatsError as error:
        raise pytest.UsageError(str(error)) from None
    if not campaign.plan:
        raise pytest.UsageError(NO_MODEL)
    comparison_items.check(campaign)
    if config.args_source is not config.ArgsSource.ARGS:
        wanted = default_suites(campaign.settings)
        if chosen:  # a baseline that is named is compared with, whatever the other suites are
            wanted = {*chosen, "availability", *comparing_suites(campaign.settings)}
        config.args = [str(path) for name, path in known.items() if name in wanted]
        return
    for index, arg in enumerate(config.args):
        if str(arg).startswith(f"{PREFIX}::"):
            name, _, rest = str(arg).removeprefix(f"{PREFIX}::").partition("::")
            if name not in known:
                raise pytest.UsageError(f"there is no suite '{name}'{suggest(name, known)}")
            config.args[index] = f"{known[name]}::{rest}" if rest else str(known[name])


class Suite(pytest.Module):
    """A shipped suite, imported under a name of its own: a user's ``test_parity.py`` may stand beside ours."""

    def _getobj(self) -> ModuleType:
        name = f"modelformats_suite_{self.path.stem}"
        spec = importlib.util.spec_from_file_location(name, self.path)
        if spec is None or spec.loader is None:
            msg = f"{self.path} cannot be imported"
            raise self.CollectError(msg)
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        return module


def make_suite(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """A shipped suite as a module with a short node id."""
    if module_path.parent != shipped("suites"):
        return None
    name = module_path.stem.removeprefix("test_")
    suite: Suite = Suite.from_parent(parent, path=module_path, nodeid=f"{PREFIX}::{name}")
    return suite


def parametrize(metafunc: pytest.Metafunc) -> None:
    """One item per cell that runs; with ``@pytest.mark.modelformats(cells="not-run")`` per cell that does not."""
    config = metafunc.config
    cells: Sequence[PlannedCell] = ()
    ids: Sequence[str] = ()
    try:
        cells, ids = _parameters(metafunc)
    except pytest.UsageError as error:
        if hasattr(config, "workerinput"):
            raise pytest.Collector.CollectError(str(error)) from None
        # pytest would show it as an error of every file that is collected, each with a traceback.
        config.stash.setdefault(REFUSAL, error)
    metafunc.parametrize("mf_cell", cells, ids=ids, indirect=True)
    if "mf_scenario" in metafunc.fixturenames:
        from pytest_modelformats.checks.throughput import scenarios

        chosen = scenarios(campaign_of(config).settings) if cells else ()
        metafunc.parametrize("mf_scenario", chosen, ids=map(str, chosen), indirect=True)


def _parameters(metafunc: pytest.Metafunc) -> tuple[list[PlannedCell], list[str]]:
    campaign = campaign_of(metafunc.config)
    if not campaign.plan:
        raise pytest.UsageError(f"{metafunc.definition.nodeid} takes a cell, and {NO_MODEL}")
    marker = metafunc.definition.get_closest_marker("modelformats")
    chosen = campaign.parameters[marker is None or marker.kwargs.get("cells", "run") == "run"]
    return comparison_items.concerned(campaign, chosen, metafunc.fixturenames)


def order(campaign: Campaign, items: list[pytest.Item]) -> None:
    """Sort the items that have a cell by cell, in the places that they hold; drop empty parameter sets.

    Those that judge regressions come last: they look at all cells together.
    """
    from pytest_modelformats.schema import PlannedCell

    places: list[int] = []
    ours: list[tuple[tuple[bool, int], pytest.Item]] = []
    kept: list[pytest.Item] = []
    for item in items:
        params = getattr(getattr(item, "callspec", None), "params", {})
        planned = params.get("mf_cell")
        if "mf_cell" in params and not isinstance(planned, PlannedCell):
            continue
        if planned is not None:
            places.append(len(kept))
            ours.append((("mf_regression" in getattr(item, "fixturenames", ()), campaign.order[planned.cell.id]), item))
        kept.append(item)
    ours.sort(key=lambda pair: pair[0])
    for place, (_, item) in zip(places, ours, strict=True):
        kept[place] = item
    items[:] = kept


def before_loop(session: pytest.Session, campaign: Campaign) -> None:
    """Open the record (not in an xdist worker) and start the processes that the run will need."""
    found = (getattr(getattr(item, "callspec", None), "params", {}).get("mf_cell") for item in session.items)
    ids = [planned.cell.id for planned in found if planned is not None]
    if not ids or session.testsfailed:
        return
    if not hasattr(session.config, "workerinput"):
        try:
            campaign.start_ahead(ids)
            campaign.open_only_source(ids)
            campaign.check_tolerances(ids)
        except ModelFormatsError as error:
            raise pytest.UsageError(str(error)) from None
        selected(session.config, campaign, [f"[{i}]" for i in ids])
        comparison_items.before_loop(session, campaign)


def selected(config: pytest.Config, campaign: Campaign, ids: Sequence[str]) -> None:
    """Record which cells were selected; what was deselected is no part of this run."""
    of_items = [c for c in (cell_of(i, campaign) for i in ids) if c is not None]
    cells = list(dict.fromkeys(of_items))
    if not cells:
        return
    if KEEPER not in config.stash:
        refuse_update(config, campaign, cells)
        try:
            config.stash[KEEPER] = Keeper(config, campaign, cells)
        except OSError as error:
            folder = campaign.settings.report_dir
            raise pytest.UsageError(
                f"the report folder {folder} cannot be written ({error.strerror}); choose another with --mf-report-dir"
            ) from None
        config.pluginmanager.register(config.stash[KEEPER], "modelformats-keeper")
    config.stash[KEEPER].plan(cells, partial=partial_because(config, campaign, cells))
    config.stash[KEEPER].watch.items = max(len(of_items), config.stash[KEEPER].watch.items)


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
    comparison_items.noted(campaign, planned, name, result, note, fresh=kept is None)
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
        note.data = {"throughput": [figure.data() for figure in result.figures]}
    return result


def _model_line(campaign: Campaign, model: str) -> dict[str, Any]:
    stages = campaign.stages.models
    samples = stages.samples(model)
    return record.model_line(
        stages.source(model), stages.description(model), samples.rows, samples.origin, stages.reference(model)
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
    hand_over(request, timing.samples_ns, group, extra)


def hand_throughput_to_benchmark(request: pytest.FixtureRequest, planned: PlannedCell, throughput: Throughput) -> None:
    """Show the latencies of a scenario in pytest-benchmark's own table; one that is unclear ends as inconclusive."""
    from pytest_modelformats.session.pytest_benchmark import hand_over

    for figure in throughput.measured[:1]:
        several = f" concurrency {figure.concurrency}" if figure.concurrency > 1 else ""
        group = f"{planned.cell.model} batch {figure.batch}{several}"
        extra = {"cell": planned.cell.id, "mode": figure.mode, "items_per_s": figure.items_per_s}
        hand_over(request, figure.samples_ns, group, extra)
    if throughput.verdict.outcome is Outcome.INCONCLUSIVE:
        pytest.skip(f"inconclusive: {throughput.verdict.sentence}")


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
        keeper.remarks, refused = update_files(campaign, keeper.watch, interrupted=interrupted)
        keeper.complaints += refused
    if not recorder.measured and not interrupted:
        keeper.complaints.append("nothing was measured: every selected cell was skipped; the reasons are above")
    if not interrupted:
        keeper.complaints += comparison_items.complaints(campaign)
        keeper.complaints += unmet.require_complaints(campaign.settings, campaign.plan, given(config.option))
    if keeper.complaints and exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    complete = recorder.close(
        interrupted=interrupted, exitstatus=int(session.exitstatus), duration_s=time.monotonic() - keeper.started
    )
    if campaign.settings.save_baseline:
        remark, refused = comparison_items.save(campaign, recorder.path, complete=complete)
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
