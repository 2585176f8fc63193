"""The laws about order, threads and history, on sessions that are functions."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest

from pytest_modelformats.checks import concurrency as of_concurrency
from pytest_modelformats.checks import threads as of_threads
from pytest_modelformats.checks.after_others import history, others
from pytest_modelformats.checks.concurrency import concurrency
from pytest_modelformats.checks.permutation import permutation
from pytest_modelformats.checks.subject import Subject, shuffled
from pytest_modelformats.checks.threads import threads
from pytest_modelformats.compare.noise import Noise
from pytest_modelformats.errors import Unsupported
from pytest_modelformats.schema import PRECISIONS, Cell, Decision, FailureKind, PlannedCell, TensorSpec
from pytest_modelformats.source.samples import make_samples, rows

X = TensorSpec("x", "float32", ("N", 4))
Y = TensorSpec("y", "float32", ("N", 4))
PLANNED = PlannedCell(Cell("m", "onnx", "fp32", "onnxruntime", "cpu"), (), "fp32", Decision())


@dataclass
class Models:
    """A model of one input whose rounding noise is 1e-6."""

    inputs: tuple = (X,)
    outputs: tuple = (Y,)
    source: object = None

    def description(self, _):
        return SimpleNamespace(inputs=self.inputs, outputs=self.outputs)

    def samples(self, _):
        return make_samples(self.inputs, 8, 0)

    def rows(self, model, start, stop):
        return rows(self.samples(model), start, stop)

    def reference(self, _):
        noise = {"fp32": [Noise(1e-6, 4e-6, 1e-6)] * len(self.outputs)}
        return SimpleNamespace(noise=noise, truths=[self._truths(self.samples("m").feeds[0])])

    def further(self, model, name, feeds, precisions):
        """What the source gives for other feeds; by default it takes none."""
        if self.source is None:
            raise Unsupported("no source")
        return SimpleNamespace(truths=[self.source(feed) for feed in feeds])

    def _truths(self, feed):
        return [feed["x"].astype(float)] * len(self.outputs) if self.source is None else self.source(feed)


@dataclass
class Cells:
    """Sessions that all are one function of (feed, threads)."""

    law: object
    threads: dict = field(default_factory=lambda: {"first": 1})
    closed: list = field(default_factory=list)

    def session(self, _, which="first", threads=None):
        self.threads[which] = threads

    def run(self, _, feed, which="first"):
        return self.law(feed, self.threads[which])

    def run_together(self, _, feeds, rounds):
        return [[self.law(feed, 1) for _ in range(rounds)] for feed in feeds]

    def close(self, which):
        self.closed.append(which)


def subject(law, **more):
    return Subject(PLANNED, Models(**more), Cells(law), PRECISIONS["fp32"])


def faithful(feed, _=1):
    return [feed["x"] * 2]


def unsteady(by):
    random = np.random.default_rng(0)

    def law(feed, _=1):
        return [(feed["x"] * 2 + by * random.standard_normal(feed["x"].shape)).astype(np.float32)]

    return law


LAWS = {
    "permutation": permutation,
    "concurrency": concurrency,
    "history": history,
    "threads": lambda s: threads(s, 2),
}


@pytest.fixture(autouse=True)
def _two_cores(monkeypatch):
    monkeypatch.setattr(of_threads.os, "sched_getaffinity", lambda _: {0, 1}, raising=False)


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_the_same_bits_pass_and_it_is_said(law):
    verdict = law(subject(faithful))
    assert verdict.passed
    assert verdict.sentence.endswith("bit for bit.")


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_rounding_apart_passes_and_it_is_said(law):
    verdict = law(subject(unsteady(1e-6)))
    assert verdict.passed, verdict.sentence
    assert verdict.sentence.endswith("within what rounding explains.")


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_more_than_rounding_apart_fails(law):
    verdict = law(subject(unsteady(1e-4)))
    assert verdict.failure_kind is FailureKind.NUMERIC


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_a_result_of_another_shape_fails(law):
    calls = []

    def shrinking(feed, _=1):
        calls.append(1)
        return faithful(feed) if len(calls) < 2 else [faithful(feed)[0][:, :3]]

    assert law(subject(shrinking)).failure_kind is FailureKind.CONTRACT


def test_rows_that_trade_places_are_named():
    def sorts(feed, _=1):
        return [np.sort(feed["x"], 0)]

    verdict = permutation(subject(sorts))
    assert not verdict.passed
    assert verdict.sentence.startswith("rows reversed: ")


def test_a_batch_on_a_later_axis_is_permuted_there():
    """``h`` carries the batch on axis 1, as recurrent states do."""
    inputs = (X, TensorSpec("h", "float32", (2, "N", 3)))

    def law(feed, _=1):
        return [feed["x"] + feed["h"].sum((0, 2))[:, None]]

    assert permutation(subject(law, inputs=inputs)).passed


def test_only_outputs_with_the_batch_in_front_have_an_order():
    outputs = (Y, TensorSpec("total", "float32", (4,)))

    def law(feed, _=1):
        return [feed["x"], feed["x"][0]]

    assert permutation(subject(law, outputs=outputs)).passed
    with pytest.raises(Unsupported, match="no output of m has the batch"):
        permutation(subject(law, outputs=outputs[1:]))


def mixes_rows(feed, _=1):
    """The first output is the running sum over the rows; the second one goes by rows."""
    return [np.cumsum(feed["x"], 0), feed["x"] * 2]


def test_a_source_that_keeps_no_order_is_asked_for_none():
    """What a faithful cell does with rows of such a model is what the source does."""
    outputs = (Y, TensorSpec("z", "float32", ("N", 4)))
    verdict = permutation(subject(mixes_rows, outputs=outputs, source=mixes_rows))
    assert verdict.passed, verdict.sentence
    assert verdict.sentence.endswith(
        "bit for bit. Not compared: in the source itself a row of 'y' depends on its place or on the other rows."
    )
    with pytest.raises(Unsupported, match="a row of 'y' depends on its place"):
        permutation(subject(lambda f, _: mixes_rows(f)[:1], source=lambda feed: mixes_rows(feed)[:1]))


def test_a_cell_that_keeps_no_order_where_the_source_does_fails():
    verdict = permutation(subject(lambda f, _: mixes_rows(f)[:1], source=faithful))
    assert verdict.failure_kind is FailureKind.NUMERIC
    assert verdict.sentence.startswith("rows reversed: ")


def test_two_runs_of_an_unusual_row_differ_by_the_noise_of_that_row():
    """Rounding is relative to the values: of a row 1000 times as large it is 1000 times as much."""

    def law(feed, _=1):
        return [feed["x"] * np.float32(1000 + 1e-3 * next(runs))]

    runs = iter(range(100))
    assert permutation(subject(law)).passed
    runs = iter(range(0, 10**6, 1000))
    assert not permutation(subject(law)).passed


@pytest.mark.parametrize(("limit", "said"), [(0.1, "3 times each"), (-1.0, "once each")])
def test_concurrency_says_how_often_threads_have_called(monkeypatch, limit, said):
    monkeypatch.setattr(of_concurrency, "LONG_CALL_S", limit)
    assert f"4 threads that call one session at once, {said}, get" in concurrency(subject(faithful)).sentence


def test_a_fixed_first_dimension_is_said_beside_what_varies():
    """nn.LSTM without batch_first: [steps, batch, features]."""
    inputs = (TensorSpec("x", "float32", (5, "N", 6)),)
    said = (
        r"first dimension of input .x. of m is fixed at 5, and no other .*\(.N. that may vary is dimension 1 of .x.\)"
    )
    with pytest.raises(Unsupported, match=said):
        permutation(subject(faithful, inputs=inputs))


def test_a_fixed_batch_has_no_order():
    with pytest.raises(Unsupported, match="fixed"):
        permutation(subject(faithful, inputs=(TensorSpec("x", "float32", (2, 4)),)))


def test_a_spoilt_session_is_not_left_to_the_next_check():
    """A state that follows the largest input it has seen."""
    largest = [0.0]

    def law(feed, _=1):
        spoilt, largest[0] = largest[0] > 4, max(largest[0], float(abs(feed["x"]).max()))
        return [feed["x"] * (1.01 if spoilt else 1)]

    spoilt = subject(law)
    assert not history(spoilt).passed
    assert spoilt.cells.closed == ["first"]
    kept = subject(faithful)
    assert history(kept).passed
    assert kept.cells.closed == []


def test_sessions_with_several_threads_are_opened_and_closed():
    def law(feed, threads):
        return [feed["x"] * (1.001 if threads and threads > 1 else 1)]

    tested = subject(law)
    verdict = threads(tested, 1)
    assert verdict.failure_kind is FailureKind.NUMERIC
    assert "a session with 2 threads against one with one thread" in verdict.sentence
    assert tested.cells.closed == ["one thread", "one thread, again", "2 threads"]


def test_one_core_has_no_threads_to_compare(monkeypatch):
    monkeypatch.setattr(of_threads.os, "sched_getaffinity", lambda _: {0}, raising=False)
    with pytest.raises(Unsupported, match="one core"):
        threads(subject(faithful), 1)


def test_shuffled_inputs_hold_the_same_values_elsewhere():
    feed = {"x": np.arange(24.0).reshape(4, 6), "ids": np.arange(8).reshape(4, 2)}
    other = shuffled(feed, 1)
    for name, array in feed.items():
        assert other[name].shape == array.shape
        assert other[name].dtype == array.dtype
        assert sorted(other[name].ravel()) == sorted(array.ravel())
        assert not np.array_equal(other[name], array)
    assert shuffled(feed, 0)["x"] is feed["x"]


def test_other_inputs_leave_ranges_alone():
    specs = (X, TensorSpec("ids", "int64", ("N",), 0, 9), TensorSpec("share", "float32", ("N",), 0, 1))
    feed = {"x": np.ones((2, 4), np.float32), "ids": np.arange(2), "share": np.ones(2, np.float32)}
    other = others(feed, specs)
    assert (other["x"] == -4).all()
    assert other["x"].dtype == np.float32
    assert (other["share"] == 1).all()
    assert set(other["ids"]) == {0, 1}
