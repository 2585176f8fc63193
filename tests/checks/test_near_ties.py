"""An integer that rounding decides is excused by its place and its value; a wrong one is not."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from inner_run import PARITY
from onnx import TensorProto, helper, numpy_helper

from pytest_modelformats.checks import near_ties
from pytest_modelformats.compare.near_ties import Copies, excused
from pytest_modelformats.compare.reference import reference_of
from pytest_modelformats.compare.verdict import judge
from pytest_modelformats.errors import Unsupported
from pytest_modelformats.schema import PRECISIONS, FailureKind, TensorSpec

FP32 = PRECISIONS["fp32"]
WEIGHT = np.random.default_rng(0).normal(size=(16, 5)).astype(np.float32)
X = np.random.default_rng(1).normal(size=(64, 16)).astype(np.float32)
# Of row 3 the second column is larger than the first by less than rounding, of row 5 by a hundred times as much.
CLOSE, APART = 3, 5


def logits(x, dtype, gap=2e-8):
    """Scores of five classes: of CLOSE and APART the first two are the largest, and nearly equal."""
    found = x.astype(dtype) @ WEIGHT.astype(dtype)
    for row, by in ((CLOSE, gap), (APART, 1e-5)):
        found[row, 0] = np.abs(found[row]).max() + dtype(1)
        # A sum in another order: every copy of the inputs rounds it anew.
        found[row, 1] = dtype(found[row, 0] + x[row].astype(dtype).sum() - x[row, ::-1].astype(dtype).cumsum()[-1])
        found[row, 1] *= dtype(1 + by)
    return found


def decided(x, dtype):
    """The largest class and the order of all of them, as ArgMax and TopK have it."""
    found = logits(x, dtype)
    return [found.argmax(1).astype(np.int64), np.argsort(-found, 1, kind="stable").astype(np.int64)]


@dataclass
class Models:
    """A source of one input; ``asked`` is false for one that holds results alone."""

    asked: bool = True

    def description(self, _):
        return SimpleNamespace(inputs=(TensorSpec("x", "float32", ("N", 16)),))

    def samples(self, _):
        return SimpleNamespace(feeds=[{"x": X}])

    def seed(self, _):
        return 0

    def evaluate(self, _, feeds, precision):
        if not self.asked:
            raise Unsupported("only stored results")
        dtype = np.float64 if precision == "float64" else np.float32
        return [decided(feed["x"], dtype) for feed in feeds]

    def reference(self, model):
        held = Models()
        return reference_of(lambda p: (held.evaluate(model, [{"x": X}], p), p), ("fp32",))


def verdict_of(got, models=None):
    models = models or Models()
    reference = models.reference("m")
    noise = {"fp32": [SimpleNamespace(rms=0.0, max=0.0, raw_rms=0.0, flips=0.0, lost=())] * 2}
    first = judge(["best", "order"], reference.truths, [got], noise, FP32, dtypes=["int64", "int64"])
    models.reference = lambda _: SimpleNamespace(truths=reference.truths, noise=noise)
    return first, near_ties.examined(models, "m", first, [{"x": X}], [got], FP32)


def truth():
    return [a.copy() for a in decided(X, np.float64)]


def flipped(row):
    """The two largest classes of a row have changed places."""
    best, order = truth()
    best[row] = 1 - best[row]
    order[row, :2] = order[row, 1::-1]
    return [best, order]


def test_a_near_tie_is_excused_and_it_is_said():
    first, verdict = verdict_of(flipped(CLOSE))
    assert first.failure_kind is FailureKind.NUMERIC, "it is the copies that tell"
    assert verdict.passed, verdict.sentence
    said = verdict.outputs[0]
    assert "differs in 1 of 64 elements, each of them a near-tie" in said.sentence
    assert said.flips == 1 / 64
    assert verdict.outputs[1].failure_kind is None


def wrong_class(row):
    best, order = truth()
    best[row] = 4 - (best[row] == 4)
    return [best, order]


def off_by_one():
    best, order = truth()
    return [(best + 1) % 5, order]


def another_axis():
    best, order = truth()
    found = logits(X, np.float64).argmax(0)
    return [np.resize(found, best.shape).astype(np.int64), order]


def ascending():
    best, order = truth()
    return [best, order[:, ::-1].copy()]


def one_more():
    """Beside the near-tie, a class that nothing explains."""
    best, order = flipped(CLOSE)
    best[0] = (best[0] + 1) % 5
    return [best, order]


@pytest.mark.parametrize(
    "got",
    [
        pytest.param(lambda: flipped(APART), id="close, but not by rounding"),
        pytest.param(lambda: wrong_class(CLOSE), id="another class at a near-tie"),
        pytest.param(lambda: wrong_class(0), id="one class"),
        off_by_one,
        another_axis,
        ascending,
        one_more,
    ],
)
def test_what_no_rounding_explains_fails(got):
    first, verdict = verdict_of(got())
    assert verdict.failure_kind is FailureKind.NUMERIC
    assert verdict.sentence == first.sentence


def test_a_source_that_cannot_be_asked_explains_nothing():
    assert verdict_of(flipped(CLOSE), Models(asked=False))[1].failure_kind is FailureKind.NUMERIC


def test_on_other_rows_a_near_tie_is_the_sources_value_and_the_rest_stays():
    got = one_more()
    noise = [SimpleNamespace(flips=0.0)] * 2
    left = near_ties.broken(Models(), "m", [{"x": X}], ([truth()], [got]), noise, FP32)
    assert (left[0][0] != truth()[0]).any(), "not all is explained: nothing is excused"
    assert (left[0][1] == truth()[1]).all()


@pytest.mark.parametrize(("rounded", "passes"), [([1, 0, 0, 0], True), ([0, 0, 0, 0], False)])
def test_of_numbers_that_are_close_as_many_are_excused_as_rounding_changes(rounded, passes):
    """Moved a little, the source gives the value itself: that is a near-tie where its rounding flips some as well."""
    ours, right = np.array([1, 0, 0, 0]), np.zeros(4, int)
    exact = [[np.array([1, 0, 0, 0])], [right]]
    copies = Copies([[right]], [[np.array([1, 0, 0, 0])], [np.array(rounded)]], exact)
    found = excused([right], [ours], [copies], 0, SimpleNamespace(flips=0.0), FP32)
    assert (found is not None) == passes
    assert found is None or found[0].tolist() == [True, False, False, False]


def largest(path, change=None, **attributes):
    """An ONNX model of the largest of three sums, of which the first two are equal for x of equal numbers."""
    weight = np.array([[1, 2, -1], [2, 1, 0], [1, 2, 1], [2, 1, -2]], np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "weight"], ["sums"]),
        helper.make_node("ArgMax", ["sums"], ["best" if change is None else "first"], axis=1, keepdims=0, **attributes),
    ]
    values = {"weight": weight}
    if change is not None:
        nodes.append(helper.make_node("Add", ["first", "change"], ["best"]))
        values["change"] = np.array(change)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])
    best = helper.make_tensor_value_info("best", TensorProto.INT64, ["N"])
    kept = [numpy_helper.from_array(value, name) for name, value in values.items()]
    graph = helper.make_graph(nodes, "largest", [x], [best], kept)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), str(path))


def test_a_runtime_that_takes_the_other_of_two_equal_numbers_is_right(run, pytester):
    """In the first run of the source nothing flips; a class off by one is no tie."""
    largest(pytester.path / "best.onnx")
    largest(pytester.path / "last.onnx", select_last_index=1)
    largest(pytester.path / "wrong.onnx", np.array([0, 0, 0, 0, 1, 0, 0, 0]))
    samples = X[:8, :4].copy()
    samples[3] = 1
    np.savez(pytester.path / "samples.npz", x=samples)
    given = ("--mf-model", "best.onnx", "--mf-data", "samples.npz")
    ran = run(*given, "--mf-candidate", "last.onnx", "--mf-candidate", "wrong.onnx", *PARITY)
    line = ran.checks["best~last-onnx-fp32-onnxruntime@cpu", "parity"]
    assert line["outcome"] == "passed", line["sentence"]
    assert "differs in 1 of 8 elements, each of them a near-tie" in line["sentence"]
    line = ran.checks["best~wrong-onnx-fp32-onnxruntime@cpu", "parity"]
    assert (line["outcome"], line["failure_kind"]) == ("failed", "numeric"), line["sentence"]
    assert "must be exact and differs in 1 of 8 elements" in line["sentence"]


def mixed(path, where, other):
    """The largest of three sums; at odd places or for large inputs the last of equal ones, or the class beside it."""
    text = f"""<ir_version: 10, opset_import: ["": 18]>
    mixed (float[N, 4] x) => (int64[N] best)
    <float[4, 3] weight = {{1, 2, -1, 2, 1, 0, 1, 2, 1, 2, 1, -2}},
     int64 zero = {{0}}, int64 one = {{1}}, int64 two = {{2}}, int64[1] columns = {{1}}, float limit = {{100}}> {{
        sums = MatMul(x, weight)
        first = ArgMax<axis = 1, keepdims = 0>(sums)
        last = ArgMax<axis = 1, keepdims = 0, select_last_index = 1>(sums)
        beside = Sub(two, first)
        shape = Shape<start = 0, end = 1>(x)
        rows = Squeeze(shape)
        places = Range(zero, rows, one)
        odd = Mod(places, two)
        is_odd = Cast<to = 9>(odd)
        sizes = Abs(x)
        highest = ReduceMax<keepdims = 0>(sizes, columns)
        is_large = Greater(highest, limit)
        best = Where({where}, {other}, first)
    }}"""
    onnx.save(onnx.parser.parse_model(text), str(path))


def test_the_laws_of_rows_excuse_near_ties_and_nothing_else(run, pytester):
    """A batch and its rows alone, and rows in another order: two equal numbers may fall to either side."""
    largest(pytester.path / "best.onnx")
    mixed(pytester.path / "ties.onnx", "is_odd", "last")
    mixed(pytester.path / "wrong.onnx", "is_odd", "beside")
    samples = X[:8, :4].copy()
    samples[3] = 1
    np.savez(pytester.path / "samples.npz", x=samples)
    given = ("--mf-model", "best.onnx", "--mf-data", "samples.npz", "--mf-localise-budget", "0")
    asked = ("modelformats::batch", "modelformats::permutation")
    ran = run(*given, "--mf-candidate", "ties.onnx", "--mf-candidate", "wrong.onnx", *asked)
    for law in ("batch", "permutation"):
        line = ran.checks["best~ties-onnx-fp32-onnxruntime@cpu", law]
        assert line["outcome"] == "passed", line["sentence"]
        line = ran.checks["best~wrong-onnx-fp32-onnxruntime@cpu", law]
        assert (line["outcome"], line["failure_kind"]) == ("failed", "numeric"), line["sentence"]


def test_generated_inputs_that_tie_are_right_on_either_side(run, pytester):
    """Zeros and inputs of equal numbers tie in this model; a class that is beside the largest is found."""
    largest(pytester.path / "best.onnx")
    largest(pytester.path / "last.onnx", select_last_index=1)
    mixed(pytester.path / "wrong.onnx", "is_large", "beside")
    np.savez(pytester.path / "samples.npz", x=X[:8, :4])
    given = ("--mf-model", "best.onnx", "--mf-data", "samples.npz", "--mf-localise-budget", "0", "--mf-fuzz", "40")
    ran = run(*given, "--mf-candidate", "last.onnx", "--mf-candidate", "wrong.onnx", "modelformats::fuzz")
    line = ran.checks["best~last-onnx-fp32-onnxruntime@cpu", "fuzz"]
    assert line["outcome"] == "passed", line["sentence"]
    line = ran.checks["best~wrong-onnx-fp32-onnxruntime@cpu", "fuzz"]
    assert (line["outcome"], line["failure_kind"]) == ("failed", "numeric"), line["sentence"]
