"""Throughput is believed only where the outputs are those of one call; sessions wrong on purpose are noticed."""

from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from statistics import median
from types import SimpleNamespace

import numpy as np
import pytest
from miniatures import busy_sessions as mini

from pytest_modelformats.checks import throughput
from pytest_modelformats.checks.subject import Subject
from pytest_modelformats.compare.noise import Noise
from pytest_modelformats.errors import RunError, Unsupported
from pytest_modelformats.run.workers import latency
from pytest_modelformats.run.workers import throughput as busy
from pytest_modelformats.schema import PRECISIONS, Cell, Decision, FailureKind, Outcome, PlannedCell, TensorSpec
from pytest_modelformats.schema.plain import plain
from pytest_modelformats.source.samples import make_samples, rows

SPECS = (TensorSpec("x", "float32", ("N", 4)),)
FIXED = (TensorSpec("x", "float32", (2, 4)),)
SETTINGS = SimpleNamespace(batch=(), concurrency=(), time_budget_s=0.2, threads=1)
PATIENCE_S = 0.3
MS = 1_000_000
QUIET = {"foreign_share": None, "steal_share": None, "involuntary_switches": 0}


@dataclass
class Models:
    """A model of one input whose rounding noise is 1e-6."""

    inputs: tuple = SPECS

    def description(self, _):
        return SimpleNamespace(inputs=self.inputs, outputs=self.inputs)

    def samples(self, _):
        return make_samples(self.inputs, 8, 0)

    def rows(self, model, start, stop):
        return rows(self.samples(model), start, stop)

    def reference(self, model):
        truths = [[array.astype(np.float64) for array in mini.computed(self.rows(model, 0, 8))]]
        return SimpleNamespace(truths=truths, noise={"fp32": [Noise(1e-6, 4e-6, 1e-6)]})


@dataclass
class Cells:
    """What run.Cells does, with the worker's side called in this process; ``taken`` replaces its evidence."""

    opened: object
    taken: dict = field(default_factory=lambda: dict(QUIET))
    modes: list = field(default_factory=list)
    closed: list = field(default_factory=list)
    kept: dict = field(default_factory=dict)

    def session(self, planned, which, cores=0):
        assert cores >= 1

    def run(self, _, feed, which):
        return self.opened.run(feed)

    def once(self, stage, _, make):
        if stage not in self.kept:
            self.kept[stage] = make()
        return self.kept[stage]

    def keep_busy(self, _, feeds, mode, budget_s, which="busy"):
        self.modes.append(mode)
        more = {"budget_s": budget_s, "threads": 1}
        if mode == "sync":
            return self.undisturbed(busy.sequential(self.opened, feeds[0], **more)), []
        run, also = (busy.by_threads, {}) if mode == "threads" else (busy.asynchronous, {"patience_s": PATIENCE_S})
        taken, answers = run(self.opened, feeds, **more, **also)
        return self.undisturbed(taken), answers

    def undisturbed(self, taken):
        """What was taken, without what other work on this machine did to it, unless the test says what that was."""
        samples = [int(median(taken["samples_ns"]))] * len(taken["samples_ns"])
        halves = {"completed_first_half": taken["completed"] // 2} if "completed_first_half" in taken else {}
        return {**taken, "samples_ns": samples, **halves, **self.taken}

    def close(self, which):
        self.closed.append(which)


def subject(session, *, inputs=SPECS, taken=QUIET, backend="onnxruntime"):
    planned = PlannedCell(Cell("m", "onnx", "fp32", backend, "cpu"), (), "fp32", Decision())
    return Subject(planned, Models(inputs), Cells(session, dict(taken)), PRECISIONS["fp32"])


def measured(session, scenario, **more):
    return throughput.measure(subject(session, **more), scenario, SETTINGS)


def by_mode(result):
    return {figure.mode: figure for figure in result.figures}


# --- what is measured


def settings(batch=(), concurrency=()):
    return SimpleNamespace(batch=batch, concurrency=concurrency)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (settings(), ["batch1", "batch8", "concurrency2"]),
        (settings((1, 8, 32)), ["batch1", "batch8", "batch32"]),
        (settings((), (1, 2, 4)), ["concurrency1", "concurrency2", "concurrency4"]),
        (settings((4, 8), (1, 2)), ["batch4", "batch8", "concurrency2"]),
    ],
)
def test_scenarios_are_each_batch_alone_and_each_concurrency(asked, expected):
    """Several requests in flight are measured at the smallest batch."""
    found = throughput.scenarios(asked)
    assert [str(scenario) for scenario in found] == expected
    assert {s.batch for s in found if s.concurrency > 1} <= {min(asked.batch, default=0 if asked.concurrency else 1)}


def test_a_batch_is_delivered_items_over_the_time_of_its_calls():
    """Four items in every call count four times."""
    one, four = (measured(mini.Faithful(), throughput.Scenario(batch)).figures[0] for batch in (1, 4))
    assert (one.batch, four.batch, four.concurrency, four.mode) == (1, 4, 1, "sync")
    for figure in (one, four):
        assert figure.items_per_s == pytest.approx(figure.batch * len(figure.samples_ns) / figure.more["wall_s"])


def test_requests_in_flight_are_measured_in_both_modes():
    """Threads and the asynchronous mode each deliver more than one call after the other where calls overlap."""
    result = measured(mini.Faithful(), throughput.Scenario(2, 3))
    assert result.verdict.passed, result.verdict.sentence
    figures = by_mode(result)
    assert set(figures) == {"threads", "async"}
    for figure in figures.values():
        assert (figure.batch, figure.concurrency) == (2, 3)
        assert figure.items_per_s == pytest.approx(2 * len(figure.samples_ns) / figure.more["wall_s"])
    assert figures["async"].more["stated"] == {"streams": "a thread per start"}
    assert "times one at a time" in result.verdict.sentence


def test_the_call_alone_is_measured_once_for_all_scenarios():
    """What several scenarios are compared with is one and the same figure."""
    one = subject(mini.Faithful())
    for scenario in (throughput.Scenario(1), throughput.Scenario(1, 2)):
        throughput.measure(one, scenario, SETTINGS)
    assert one.cells.modes.count("sync") == 1
    assert one.cells.closed == ["2 in flight"]


def test_the_data_are_plain_json():
    """What goes into the record crosses JSON as it is."""
    result = measured(mini.Faithful(), throughput.Scenario(1, 2))
    data = [figure.data() for figure in result.figures]
    assert json.loads(json.dumps(plain(data), allow_nan=False)) == plain(data)
    assert {"batch", "concurrency", "mode", "items_per_s", "latency_p50_ns", "samples", "disturbed"} <= set(data[0])


# --- what is not believed


@pytest.mark.parametrize("request_of", [mini.Early, mini.Skips])
def test_answers_without_computing_are_noticed(request_of):
    """An asynchronous mode that says early that it is done gives no figure but a failure."""
    result = measured(mini.Faithful(request=request_of), throughput.Scenario(1, 2))
    assert result.verdict.outcome is Outcome.FAILED
    assert result.verdict.failure_kind in {FailureKind.NUMERIC, FailureKind.CONTRACT}
    assert "Its throughput is not believed." in result.verdict.sentence
    assert "async, 2 in flight" in result.verdict.sentence


@pytest.mark.parametrize(
    ("request_of", "words"),
    [
        (mini.Loses, r"lost \d of 2 requests"),
        (mini.Twice, "said twice that one request was complete"),
        (mini.Fails, "failed: device lost"),
    ],
)
def test_requests_that_do_not_come_back_once_are_noticed(request_of, words):
    """A completion that is missing, doubled or an error ends the measurement by name."""
    with pytest.raises(RunError, match=words):
        measured(mini.Faithful(request=request_of), throughput.Scenario(1, 2))


def test_a_session_that_mixes_its_threads_is_noticed():
    """Threads that get each other's results have no throughput."""
    result = measured(mini.MixesThreads(), throughput.Scenario(1, 3))
    assert result.verdict.outcome is Outcome.FAILED
    assert "threads, 3 in flight" in result.verdict.sentence


def test_what_a_call_in_a_thread_raises_is_raised():
    """A failure in one thread ends all of them."""

    class Raises(mini.Faithful):
        def bind(self, feed):
            raise ValueError("no such binding")

    with pytest.raises(ValueError, match="no such binding"):
        busy.by_threads(Raises(), [{"x": np.ones((1, 4))}] * 2, budget_s=0.1, threads=1)


def test_slower_by_concurrency_is_said():
    """A session that loses by several threads passes, and the sentence says that it does."""
    result = measured(mini.SlowerTogether(), throughput.Scenario(1, 3))
    assert result.verdict.passed
    threads = result.verdict.sentence.partition("asynchronous")[0]
    assert "so it gets slower by concurrency" in threads
    # What is said of other figures, without what this machine makes of them.
    alone = throughput.Figure(1, 1, "sync", items_per_s=100.0, latency_p50_ns=10 * MS)
    slow, fast = (replace(alone, concurrency=3, mode="threads", items_per_s=rate) for rate in (90.0, 96.0))
    assert "0.90 times one at a time, so it gets slower" in throughput._said(slow, alone)
    assert "slower" not in throughput._said(fast, alone)
    assert "slower" not in throughput._said(replace(slow, unusable="It may be off by 60%"), alone)
    assert "slower" not in throughput._said(slow, replace(alone, unusable="It may be off by 60%"))


# --- what cannot be had


def test_a_fixed_batch_has_no_other_batches():
    """Its own batch is measured, any other is unsupported by name."""
    assert measured(mini.Faithful(), throughput.Scenario(2), inputs=FIXED).figures[0].batch == 2
    assert measured(mini.Faithful(), throughput.Scenario(0), inputs=FIXED).figures[0].batch == 2
    with pytest.raises(Unsupported, match="the first dimension of the inputs of m is 2, so it has no batch of 8"):
        measured(mini.Faithful(), throughput.Scenario(8), inputs=FIXED)


def test_one_call_at_a_time_leaves_the_asynchronous_mode(monkeypatch):
    """A backend that refuses threads says why, and its own asynchronous mode is measured all the same."""
    backends = throughput.registry.backends()
    changed = {**backends, "onnxruntime": replace(backends["onnxruntime"], one_call_at_a_time="it has one buffer")}
    monkeypatch.setattr(throughput.registry, "backends", lambda: changed)
    figures = by_mode(measured(mini.Faithful(), throughput.Scenario(1, 2)))
    assert figures["threads"].why_not == "one session takes one call at a time: it has one buffer"
    assert figures["threads"].data() == {
        "batch": 1,
        "concurrency": 2,
        "mode": "threads",
        "why_not": figures["threads"].why_not,
    }
    assert figures["async"].items_per_s > 0

    class Plain(mini.Faithful):
        asynchronous = None

    with pytest.raises(Unsupported, match=r"it has one buffer; its backend has no asynchronous mode here"):
        measured(Plain(), throughput.Scenario(1, 2))


# --- what disturbs it


def figures_of(**more):
    return {"completed": 400, "completed_first_half": 200, **QUIET, **more}


@pytest.mark.parametrize(
    ("taken", "noted", "unusable"),
    [
        (figures_of(), "", False),
        (figures_of(foreign_share=0.1), "other work took 10% of the pinned cores", False),
        (figures_of(foreign_share=0.2, steal_share=0.1), "other work took 30% of the pinned cores", True),
        (figures_of(completed_first_half=220), "throughput changed by -18% from the first half to the second", False),
        (figures_of(completed_first_half=300), "throughput changed by -67% from the first half to the second", True),
        (figures_of(completed=12, completed_first_half=9), "", False),
    ],
)
def test_others_on_the_cores_are_noted_and_too_many_make_it_unusable(taken, noted, unusable):
    found, why = throughput.disturbance(taken)
    assert found == noted
    assert bool(why) is unusable


def test_a_figure_that_is_too_disturbed_is_measured_again_and_then_inconclusive():
    """Twice in each mode, then no verdict; the figures stay in the record."""
    one = subject(mini.Faithful(), taken={"foreign_share": 0.6, "steal_share": 0.0})
    result = throughput.measure(one, throughput.Scenario(1, 2), SETTINGS)
    assert one.cells.modes.count("threads") == one.cells.modes.count("async") == 2
    assert result.verdict.outcome is Outcome.INCONCLUSIVE
    assert "other work took 60% of the pinned cores" in result.verdict.sentence
    assert all(figure.items_per_s for figure in result.figures)


def test_what_others_took_from_calls_one_after_the_other_counts_although_the_median_is_sound():
    """A quarter of the calls lengthened twentyfold: the median stands, items per second do not."""
    samples = [MS] * 60 + [20 * MS] * 20
    hit = {"samples_ns": samples, "involuntary_switches": 20, "foreign_share": None, "steal_share": None}
    one = subject(mini.Faithful(), taken=hit)
    result = throughput.measure(one, throughput.Scenario(1), SETTINGS)
    assert result.verdict.outcome is Outcome.INCONCLUSIVE
    assert "The throughput may be off by 83%: other work took 83% of the time" in result.verdict.sentence
    assert one.cells.modes == ["sync", "sync"]


# --- memory that is not given back


def growth(session):
    return latency.measure(session, {"x": np.ones((1, 4))}, budget_s=0.2, max_samples=100, threads=1, device="cpu")[
        "growth"
    ]


@pytest.mark.alone
def test_memory_that_every_call_keeps_is_noticed():
    """Kept memory is stated per call; memory that is taken once is not growth."""
    # In a fresh process, as a worker is one: what earlier tests have freed in this one would serve many a call.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as fresh:
        sessions = [mini.Leaks(), mini.FillsItsPool(), mini.Faithful(pause_s=0.0)]
        leaks, fills, faithful = fresh.map(growth, sessions)
    assert 100_000 < leaks["memory_growth_bytes"] < 400_000
    assert fills == {}
    assert faithful == {}
