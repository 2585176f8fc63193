"""The batch law, on sessions that are functions: what goes by rows, what does not, and rows of unusual size."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner
from inner_run import ONE_CELL
from onnx import TensorProto, helper, numpy_helper, save

from pytest_modelformats.checks import batch as batches
from pytest_modelformats.checks.subject import Subject
from pytest_modelformats.cli.main import commands
from pytest_modelformats.compare import row_noise
from pytest_modelformats.compare.noise import Noise, measure_noise
from pytest_modelformats.errors import RunError, Unsupported
from pytest_modelformats.schema import PRECISIONS, Cell, Decision, FailureKind, PlannedCell, TensorSpec
from pytest_modelformats.source.samples import Samples, rows

X = TensorSpec("x", "float32", ("N", 16))
PLANNED = PlannedCell(Cell("m", "onnx", "fp32", "onnxruntime", "cpu"), (), "fp32", Decision())
W, V = (np.random.default_rng(i).standard_normal((16, 16)) / 4 for i in range(2))


@dataclass
class Models:
    """A model that is a function; ``takes`` says which batches it runs, and of which it can be asked."""

    law: object
    outputs: tuple
    x: np.ndarray
    takes: object = staticmethod(lambda batch: True)
    inputs: tuple = (X,)

    def description(self, _):
        return SimpleNamespace(inputs=self.inputs, outputs=self.outputs)

    def samples(self, _):
        return Samples(({"x": self.x},), len(self.x), "", None, "N", {"x": (0,)})

    def rows(self, model, start, stop):
        return rows(self.samples(model), start, stop)

    def reference(self, _):
        return self._evaluated([{"x": self.x}])

    def further(self, model, name, feeds, precisions):
        if not all(self.takes(len(feed["x"])) for feed in feeds):
            raise RunError("it takes no such batch")
        return self._evaluated(feeds)

    def _evaluated(self, feeds):
        truths = [self.law(feed["x"].astype(np.float64)) for feed in feeds]
        rounded = [self.law(feed["x"]) for feed in feeds]
        pairs = zip(zip(*truths, strict=True), zip(*rounded, strict=True), strict=True)
        return SimpleNamespace(truths=truths, noise={"fp32": [measure_noise(t, r, 23) for t, r in pairs]})


def hidden(x):
    return np.tanh(x @ W.astype(x.dtype)) @ V.astype(x.dtype)


def other_order(x):
    """The same, summed in another order: what a faithful runtime does."""
    turned = np.random.default_rng(7).permutation(16)
    h = np.tanh(x[:, turned] @ W[turned].astype(x.dtype))
    return h[:, turned] @ V[turned].astype(x.dtype)


def judged(law, source, shapes, x=None, **more):
    """The verdict over a cell that gives ``law`` of its input, of a model that is ``source``."""
    outputs = tuple(TensorSpec(f"y{i}", "float32", shape) for i, shape in enumerate(shapes))
    x = np.random.default_rng(3).standard_normal((8, 16)).astype(np.float32) if x is None else x
    cells = SimpleNamespace(run=lambda planned, feed, which="first": [np.asarray(o) for o in law(feed["x"])])
    return batches.law(Subject(PLANNED, Models(source, outputs, x, **more), cells, PRECISIONS["fp32"]))


BY_ROWS = ("N", 16)
# What the rows of a hidden state become in models whose outputs do not go by rows.
MIXED = {
    "a state, batch second": lambda h: np.stack([h, h + 1]),
    "rows of a flattened batch": lambda h: h.reshape(-1, 4),
    "a mean over the batch": lambda h: h.mean(dtype=h.dtype),
    "rows normalised together": lambda h: h - h.mean(0, dtype=h.dtype),
    "a running sum over rows": lambda h: np.cumsum(h, 0),
    "a branch by the sum of the batch": lambda h: h if h.sum() > 0 else -h,
}


def with_rows(what, h):
    return [h, MIXED[what](h)]


@pytest.mark.parametrize("what", MIXED)
def test_a_faithful_cell_passes_where_the_source_itself_does_not_go_by_rows(what):
    """The source's own eager cell is faithful by definition."""
    verdict = judged(
        lambda x: with_rows(what, other_order(x)), lambda x: with_rows(what, hidden(x)), [BY_ROWS, BY_ROWS]
    )
    assert verdict.passed, verdict.sentence
    assert verdict.sentence == (
        "Batches of 1, 2, 3, 7 agree with the source, and each row with itself alone. In the source itself 'y1' does "
        "not go row by row: it was compared at each batch size, its rows not with themselves alone."
    )


@pytest.mark.parametrize("batch", [1, 2, 3, 7])
@pytest.mark.parametrize("what", MIXED)
def test_a_cell_that_is_wrong_at_one_batch_fails_there(what, batch):
    def law(x):
        h = other_order(x)
        return [h, MIXED[what](h) + np.float32(1e-3 * (len(x) == batch))]

    verdict = judged(law, lambda x: with_rows(what, hidden(x)), [BY_ROWS, BY_ROWS])
    assert verdict.failure_kind is FailureKind.NUMERIC, verdict.sentence
    assert verdict.sentence.startswith(f"batch {batch} against the source: Output 'y1'")


@pytest.mark.parametrize("batch", [1, 2, 3, 7])
def test_rows_that_are_wrong_at_one_batch_fail_there(batch):
    verdict = judged(
        lambda x: [other_order(x) * np.float32(1.0001 if len(x) == batch else 1)], lambda x: [hidden(x)], [BY_ROWS]
    )
    assert verdict.failure_kind is FailureKind.NUMERIC
    assert verdict.sentence.startswith(f"batch {batch} against the source: Output 'y0'")


def test_a_batch_size_that_is_baked_in_fails():
    """The state of the example's batch of two, whatever goes in."""
    what = "a state, batch second"
    verdict = judged(
        lambda x: [other_order(x), MIXED[what](other_order(np.resize(x, (2, 16))))],
        lambda x: with_rows(what, hidden(x)),
        [BY_ROWS, (2, "N", 16)],
    )
    assert verdict.failure_kind is FailureKind.CONTRACT
    assert "has shape [2, 2, 16] where the source gives [2, 1, 16]" in verdict.sentence


def test_statistics_of_the_example_batch_fail():
    """The source normalises the rows of a batch together; the conversion has kept the statistics of one of them."""
    x = np.random.default_rng(3).standard_normal((8, 16)).astype(np.float32)
    kept = hidden(x).mean(0)
    verdict = judged(lambda x: [hidden(x) - kept], lambda x: [MIXED["rows normalised together"](hidden(x))], [BY_ROWS])
    assert verdict.failure_kind is FailureKind.NUMERIC
    assert verdict.sentence.startswith("batch 1 against the source")


def unusual(place, count=64, seed=0):
    x = np.random.default_rng(seed).standard_normal((count, 16)).astype(np.float32)
    x[place] *= 1000
    return x


def linear(x, columns=16):
    return [x @ W[:, :columns].astype(x.dtype)]


def linear_other_order(x, columns=16):
    total = np.zeros((len(x), columns), x.dtype)
    for i in range(16):
        total += x[:, i : i + 1] * W[i, :columns].astype(x.dtype)
    return [total]


def test_an_unusual_row_is_judged_by_its_own_noise():
    """Of 64 rows the first one, which every batch begins with, has 8 times the noise of all."""
    verdict = judged(linear_other_order, linear, [BY_ROWS], unusual(0))
    assert verdict.passed, verdict.sentence


def test_an_unusual_row_elsewhere_hides_nothing():
    """A fault of 30 times the noise of the batch's rows is far below that of all rows together."""
    x = unusual(50)
    own = measure_noise(linear(x[:7].astype(np.float64)), linear(x[:7]), 23).rms
    fault = np.float32(30 * own)
    verdict = judged(lambda x: [linear_other_order(x)[0] + fault * (len(x) == 7)], linear, [BY_ROWS], x)
    assert verdict.sentence.startswith("batch 7 against the source"), verdict.sentence
    pooled = measure_noise(linear(x.astype(np.float64)), linear(x), 23).rms
    assert fault < 4 * pooled


@pytest.mark.parametrize("columns", [1, 3])
@pytest.mark.parametrize("count", [8, 64])
def test_few_elements_of_an_unusual_row_raise_no_alarm(columns, count):
    """One number per row is one sample of its noise, which may be small by chance."""
    one, other = partial(linear, columns=columns), partial(linear_other_order, columns=columns)
    alarms = [
        verdict.sentence
        for seed in range(60)
        if not (verdict := judged(other, one, [("N", columns)], unusual(0, count, seed))).passed
    ]
    assert not alarms


@pytest.mark.parametrize("factor", [1.0001, 1.01])
def test_few_elements_that_are_wrong_fail(factor):
    verdict = judged(
        lambda x: [linear_other_order(x, 1)[0] * np.float32(factor if len(x) == 1 else 1)],
        partial(linear, columns=1),
        [("N", 1)],
        unusual(0),
    )
    assert verdict.sentence.startswith("batch 1 against the source"), verdict.sentence


def test_a_batch_that_the_source_does_not_take_is_asked_of_no_cell():
    """torch.export with a dimension from two on: the source itself refuses one row."""

    def law(x):
        assert len(x) > 1
        return [other_order(x)]

    verdict = judged(law, lambda x: [hidden(x)], [BY_ROWS], takes=lambda batch: batch > 1)
    assert verdict.passed
    assert verdict.sentence == (
        "Batches of 2, 3, 7 agree with the source. The source itself runs no batch of 1: it takes no such batch"
    )


def test_where_the_source_cannot_be_asked_its_rows_are_cut():
    """A golden bundle of before has the results for all samples alone: a mean over them says nothing of fewer."""
    what, shapes = "a mean over the batch", [BY_ROWS, ()]
    verdict = judged(
        lambda x: with_rows(what, other_order(x)),
        lambda x: with_rows(what, hidden(x)),
        shapes,
        takes=lambda batch: False,
    )
    assert verdict.passed, verdict.sentence
    assert verdict.sentence == (
        "Batches of 1, 2, 3, 7 agree with the source's rows, and each row with itself alone. Not compared: 'y1', whose "
        "first dimension is not the batch; this needs the model itself."
    )


def test_a_missing_output_fails():
    verdict = judged(
        lambda x: [other_order(x)], lambda x: with_rows("rows normalised together", hidden(x)), [BY_ROWS] * 2
    )
    assert verdict.failure_kind is FailureKind.CONTRACT


def test_a_symbol_that_is_not_in_front_is_no_fixed_batch():
    """nn.LSTM without batch_first: [steps, batch, features]."""
    models = Models(None, (), np.zeros((5, 16, 6), np.float32), inputs=(TensorSpec("x", "float32", (5, "N", 6)),))
    models.samples = lambda _: Samples(({"x": models.x},), 5, "")
    with pytest.raises(Unsupported) as refused:
        batches.law(Subject(PLANNED, models, None, PRECISIONS["fp32"]))
    assert str(refused.value) == (
        "the first dimension of input 'x' of m is fixed at 5, and no other is taken for the batch ('N' that may vary "
        "is dimension 1 of 'x'), so there is only one batch size to run"
    )


def test_rows_of_usual_size_have_the_noise_of_all():
    noise = Noise(1e-6, 4e-6, 1e-6, rows=(0.9e-6, 1.2e-6, 0.8e-6, 1.05e-6))
    assert row_noise.of_rows(noise, (0, 1), np.ones((1, 4)), "fp32").rms == pytest.approx(1e-6)
    assert row_noise.of_rows(noise, (0, 2), np.ones((1, 4)), "fp32").rms == pytest.approx(1.06e-6, rel=0.01)


def test_results_of_unusual_size_have_more_noise():
    reference = SimpleNamespace(truths=[[np.ones((8, 4))]], noise={"fp32": [Noise(1e-6, 4e-6, 1e-6)]})
    found = row_noise.of_results(reference, [np.full((2, 4), 1000.0)], [0], "fp32")["fp32"][0]
    assert (found.rms, found.max) == (pytest.approx(1e-3), pytest.approx(4e-3))
    small = row_noise.of_results(reference, [np.full((2, 4), 1e-3)], [0], "fp32")["fp32"][0]
    assert small.rms == pytest.approx(1e-6)


def mixing(path, baked=None):
    """Logits by rows, the same with the batch second, and their mean; ``baked`` is a batch kept by a reshape."""
    w = numpy_helper.from_array(np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32), "w")
    shape = numpy_helper.from_array(np.array([3, -1 if baked is None else baked], np.int64), "shape")
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Tanh", ["h"], ["logits"]),
        helper.make_node("Transpose", ["logits"], ["turned"], perm=[1, 0]),
        helper.make_node("Reshape", ["turned", "shape"], ["state"]),
        helper.make_node("ReduceMean", ["logits"], ["mean"], keepdims=1),
    ]
    tensors = {"x": ["N", 4], "logits": ["N", 3], "state": [3, "N"], "mean": [1, 1]}
    x, *outputs = (helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in tensors.items())
    graph = helper.make_graph(nodes, "mixing", [x], outputs, [w, shape])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def test_a_model_that_mixes_rows_is_judged_at_each_batch_also_by_a_golden_bundle(run, pytester, monkeypatch):
    monkeypatch.chdir(pytester.path)
    mixing("mixing.onnx")
    mixing("right.onnx")
    mixing("wrong.onnx", baked=8)
    options = ["mixing.onnx", "-o", "mixing.golden", "--mf-cache", "cache"]
    done = CliRunner().invoke(commands, ["golden", "export", *options])
    assert done.exit_code == 0, done.output
    candidates = ("--mf-candidate", "right.onnx", "--mf-candidate", "wrong.onnx", "--mf-suites", "batch,permutation")
    for given in ("--mf-model", "mixing.onnx"), ("--mf-golden", "mixing.golden"):
        ran = run(*given, *candidates, *ONE_CELL)
        right, wrong = (ran.checks[f"mixing~{n}-onnx-fp32-onnxruntime@cpu", "batch"] for n in ("right", "wrong"))
        assert right["outcome"] == "passed", right["sentence"]
        assert "and each row with itself alone. In the source itself 'state', 'mean' do not go" in right["sentence"]
        assert wrong["outcome"] == "failed", wrong["sentence"]
