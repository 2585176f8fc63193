"""Outputs that are not one matrix of ordinary numbers: each judged for what it is, none passed unseen."""

from __future__ import annotations

import numpy as np
import pytest
import special_outputs
from inner_run import ONE_CELL, PARITY
from onnx import TensorProto, helper

from pytest_modelformats.compare.noise import Noise, measure_noise
from pytest_modelformats.compare.verdict import judge
from pytest_modelformats.schema import PRECISIONS, FailureKind, Outcome

FP32 = PRECISIONS["fp32"]
RANDOM = np.random.default_rng(1)
CONTRACT, NUMERIC, NAN = FailureKind.CONTRACT, FailureKind.NUMERIC, FailureKind.NAN


def rounded(truth):
    return truth.astype(np.float32).astype(np.float64) if truth.dtype.kind == "f" else truth


def verdict(truths, got, precision=FP32, dtypes=None, **more):
    """Judge outputs of one feed; the noise is that of writing the truth down at each precision."""
    noise = {p: [measure_noise([t], [rounded(t)], PRECISIONS[p].result_bits) for t in truths] for p in ("fp32", "bf16")}
    names = [f"y{i}" for i in range(len(truths))]
    dtypes = dtypes or ["float32" if t.dtype.kind == "f" else t.dtype.name for t in truths]
    return judge(names, [truths], [got], noise, precision, dtypes=dtypes, **more)


def single(truth):
    return truth.astype(np.float32)


BIG, TINY = RANDOM.normal(size=(8, 5)) * 1e6, RANDOM.normal(size=(8, 5)) * 1e-6


# --- very different scales


def test_a_huge_output_does_not_hide_a_tiny_one():
    """1e6 beside 1e-6: an error of 0.01 % of the tiny one is far below the huge one's rounding, and is seen."""
    assert verdict([BIG, TINY], [single(BIG), single(TINY)]).passed
    found = verdict([BIG, TINY], [single(BIG), single(TINY * 1.0001)])
    assert found.failure_kind is NUMERIC
    assert found.sentence.startswith("Output 'y1'")
    assert [o.outcome for o in found.outputs] == [Outcome.PASSED, Outcome.FAILED]
    found = verdict([BIG, TINY], [single(BIG * 1.0001), single(TINY)])
    assert found.sentence.startswith("Output 'y0'")


@pytest.mark.parametrize("scale", [1e200, 1e-200, 1.0])
def test_doubles_whose_squares_overflow_are_judged_all_the_same(scale):
    """The rms of 1e200 is 1e200, not infinity: a ratio of infinities would pass any comparison."""
    truth = RANDOM.normal(size=(8, 5)) * scale
    noise = {"fp32": [measure_noise([truth], [truth * (1 + 1e-7)], 23)]}
    assert noise["fp32"][0].rms == pytest.approx(np.sqrt(np.mean((truth / scale) ** 2)) * 1e-7 * scale)

    def judged(got):
        return judge(["y"], [[truth]], [[got]], noise, FP32, dtypes=["float64"])

    assert judged(truth * (1 + 2e-7)).noise_ratio == pytest.approx(2)
    assert judged(truth * (1 + 2e-7)).passed
    assert judged(truth * (1 + 1e-4)).failure_kind is NUMERIC


# --- integers and booleans


@pytest.mark.parametrize("truth", [np.arange(40).reshape(8, 5), RANDOM.normal(size=(8, 5)) > 0], ids=["int64", "bool"])
def test_integers_and_booleans_are_exact(truth):
    """One element of forty that differs is a failure with the number of elements; equal ones pass."""
    assert verdict([truth], [truth.copy()]).passed
    other = truth.copy()
    other[3, 2] = not other[3, 2] if truth.dtype == bool else other[3, 2] + 1
    found = verdict([truth], [other])
    assert found.failure_kind is NUMERIC
    assert f"({truth.dtype.name}) must be exact and differs in 1 of 40 elements" in found.sentence
    assert found.outputs[0].flips == 1 / 40


def test_a_boolean_is_no_integer():
    """True is not 1: the dtype is part of the contract."""
    truth = RANDOM.normal(size=(8, 5)) > 0
    assert verdict([truth], [truth.astype(np.int64)]).failure_kind is CONTRACT


# --- empty


@pytest.mark.parametrize(("shape", "dtype"), [((0, 4), "float32"), ((3, 0), "float32"), ((0,), "int64")])
def test_an_empty_output_passes_for_what_it_is(shape, dtype):
    """Zero elements: shape and dtype were compared, and the sentence says that there was no more."""
    truth = np.zeros(shape, np.float64 if dtype == "float32" else dtype)
    found = verdict([truth], [np.zeros(shape, dtype)], classifier=True)
    assert found.passed
    assert f"is empty (shape {list(shape)})" in found.sentence
    assert found.outputs[0].elements == 0
    assert found.outputs[0].noise_ratio is None


@pytest.mark.parametrize(
    ("got", "said"),
    [
        (np.zeros((1, 4), np.float32), "shape [1, 4] where the source gives [0, 4]"),
        (np.zeros((0, 5), np.float32), "shape [0, 5] where the source gives [0, 4]"),
        (np.zeros((0,), np.float32), "shape [0] where the source gives [0, 4]"),
        (np.zeros((0, 4), np.int64), "dtype int64 where the source gives float32"),
        (np.zeros((0, 4), np.float64), "dtype float64 where the source gives float32"),
    ],
)
def test_an_empty_output_has_a_shape_and_a_dtype(got, said):
    """Emptiness excuses neither."""
    found = verdict([np.zeros((0, 4))], [got])
    assert found.failure_kind is CONTRACT
    assert said in found.sentence


def test_an_output_that_became_empty_is_a_broken_contract():
    """The source has elements there."""
    assert verdict([BIG], [np.zeros((0, 5), np.float32)]).failure_kind is CONTRACT


def test_an_output_that_is_empty_for_some_inputs_is_judged_on_the_others():
    """A detector finds nothing in one image of two."""
    truths, noise = [[np.zeros((0, 5))], [BIG]], {"fp32": [measure_noise([BIG], [rounded(BIG)], 23)]}
    empty = np.zeros((0, 5), np.float32)
    assert judge(["y"], truths, [[empty], [single(BIG)]], noise, FP32, dtypes=["float32"]).passed
    wrong = judge(["y"], truths, [[empty], [single(BIG * 1.0001)]], noise, FP32, dtypes=["float32"])
    assert wrong.failure_kind is NUMERIC


# --- NaN and Inf that belong there


def test_what_is_finite_is_judged_beside_nan_and_infinity():
    """The places agree, so the finite rest decides."""
    truth = BIG.copy()
    truth[0, 0], truth[1, 1], truth[2, 2] = np.nan, np.inf, -np.inf
    assert verdict([truth], [single(truth)]).passed
    wrong = single(truth)
    wrong[3:] *= np.float32(1.0001)
    assert verdict([truth], [wrong]).failure_kind is NUMERIC
    wrong = single(truth)
    wrong[1, 1] = -np.inf
    assert verdict([truth], [wrong]).failure_kind is NAN


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_output_without_a_finite_element_is_inconclusive(value):
    """Nothing was compared, so nothing has passed; another place or sign still fails."""
    truth = np.full((8, 5), value)
    found = verdict([truth], [single(truth)])
    assert found.outcome is Outcome.INCONCLUSIVE
    assert "no number to compare" in found.sentence
    assert "--mf-data" in found.sentence
    number = single(truth)
    number[0, 0] = 1
    assert verdict([truth], [number]).failure_kind is NAN


def test_a_failure_beside_an_inconclusive_output_is_the_verdict():
    """What could not be judged hides nothing."""
    nowhere = np.full((8, 5), np.nan)
    found = verdict([nowhere, BIG], [single(nowhere), single(BIG * 1.0001)])
    assert found.failure_kind is NUMERIC
    assert verdict([nowhere, BIG], [single(nowhere), single(BIG)]).outcome is Outcome.INCONCLUSIVE


# --- NaN and Inf that the source itself gives at the precision, where float64 has numbers

LOGS = np.log(np.array([[1e-60, 0.5, 2.0], [3.0, 1e-50, 0.25], [0.125, 5.0, 1e-70]]))


def itself(truth, lost):
    """The source's own noise, with -Inf where the mask says."""
    own = rounded(truth)
    own[lost] = -np.inf
    return {p: [measure_noise([truth], [own], 23)] for p in ("fp32", "bf16")}


def judged_beside(got, lost=LOGS < -50, truth=LOGS):
    return judge(["y"], [[truth]], [[got]], itself(truth, lost), FP32, dtypes=["float32"])


def test_where_the_source_has_no_number_at_the_precision_nothing_is_judged():
    """Log of an underflow: -Inf and a number are as good there, and the sentence says in how many elements."""
    overflown = np.where(LOGS < -50, -np.inf, LOGS).astype(np.float32)
    for got in (overflown, single(LOGS), single(np.where(LOGS < -50, 7.0, LOGS))):
        found = judged_beside(got)
        assert found.passed, found.sentence
        assert "In 3 of 9 elements the source itself gives NaN or Inf at fp32" in found.sentence
        assert found.outputs[0].elements == 6


def test_the_rest_of_such_an_output_is_judged_as_ever():
    """A number that is wrong, and NaN where the source has a number at the precision too."""
    wrong = single(LOGS)
    wrong[0, 1] *= np.float32(1.001)
    assert judged_beside(wrong).failure_kind is NUMERIC
    wrong[0, 1] = np.nan
    assert judged_beside(wrong).failure_kind is NAN


def test_an_output_that_the_source_loses_entirely_is_inconclusive():
    """Nothing could be compared."""
    found = judged_beside(single(LOGS), LOGS < 100)
    assert found.outcome is Outcome.INCONCLUSIVE
    assert "in the source itself at this precision" in found.sentence


def test_places_count_over_all_feeds_and_hold_for_the_first_rows():
    """A batch of the first rows is judged by the same places."""
    own = [rounded(LOGS), rounded(LOGS)]
    own[0][1, 1] = own[1][2, 2] = -np.inf
    noise = {"fp32": [measure_noise([LOGS, LOGS], own, 23)]}
    assert noise["fp32"][0].lost == (4, 1, 17, 1)
    got = [[single(LOGS)], [single(LOGS)]]
    got[0][0][1, 1] = got[1][0][2, 2] = np.nan
    assert judge(["y"], [[LOGS], [LOGS]], got, noise, FP32, dtypes=["float32"]).passed
    assert judge(["y"], [[LOGS[:2]]], [[got[0][0][:2]]], noise, FP32, dtypes=["float32"]).passed
    got[0][0][0, 0] = np.nan
    assert judge(["y"], [[LOGS[:2]]], [[got[0][0][:2]]], noise, FP32, dtypes=["float32"]).failure_kind is NAN


# --- outputs that are constant at the precision, or too small for it


def test_what_saturates_in_the_source_too_is_not_degenerate():
    """sigmoid(20 + ...) varies by 1e-9 in float64, and is 1 in fp32."""
    truth = 1 / (1 + np.exp(-20 - 0.1 * RANDOM.normal(size=(8, 4))))
    assert verdict([truth], [np.ones((8, 4), np.float32)]).passed
    assert verdict([truth[:2]], [np.ones((2, 4), np.float32)]).passed
    assert verdict([truth], [np.zeros((8, 4), np.float32)]).failure_kind is NUMERIC


def test_the_same_row_for_all_is_not_degenerate_where_rounding_makes_it_so():
    """Columns that differ, rows that do not in fp32."""
    truth = np.array([1.0, 2.0, 3.0]) + 1e-10 * RANDOM.normal(size=(8, 3))
    assert verdict([truth], [np.repeat([[1.0, 2.0, 3.0]], 8, 0).astype(np.float32)]).passed
    wide = truth + 1e-3 * RANDOM.normal(size=(8, 3))
    found = verdict([wide], [np.repeat([[1.0, 2.0, 3.0]], 8, 0).astype(np.float32)])
    assert found.failure_kind is FailureKind.DEGENERATE


def test_what_is_too_small_for_a_normal_number_may_be_flushed():
    """Denormals as zeros are a runtime's choice; the smallest normal numbers are not."""
    truth = RANDOM.uniform(1, 2, size=(8, 3)) * 1e-42
    assert verdict([truth], [np.zeros((8, 3), np.float32)]).passed
    assert verdict([truth], [single(truth)]).passed
    assert not verdict([truth * 1e6], [np.zeros((8, 3), np.float32)]).passed


# --- outputs that rounding does not change, and scalars


def test_an_output_that_is_its_input_has_the_noise_of_writing_it_down():
    """An identity has no rounding of its own: a unit in the last place passes, ten of them do not."""
    truth = single(BIG).astype(np.float64)
    assert verdict([truth], [single(truth)]).passed
    assert verdict([truth], [np.nextafter(single(truth), np.float32(np.inf))]).passed
    assert verdict([truth], [single(truth) + 10 * np.spacing(single(truth))]).failure_kind is NUMERIC


def test_zeros_are_zeros():
    """Where the source gives zeros alone, nothing but zeros passes, and nothing is divided by them."""
    truth = np.zeros((8, 5))
    assert verdict([truth], [single(truth)]).passed
    assert verdict([truth], [np.full((8, 5), 1e-30, np.float32)]).failure_kind is NUMERIC


@pytest.mark.parametrize("classifier", [False, True])
def test_a_scalar_is_an_output_of_one_element(classifier):
    """0-d: no rows, no classes; its value and its rank count."""
    truth = np.array(0.3)
    assert verdict([truth], [single(truth)], classifier=classifier).passed
    assert verdict([truth], [single(truth * 1.0001)], classifier=classifier).failure_kind is NUMERIC
    assert verdict([truth], [single(truth).reshape(1)], classifier=classifier).failure_kind is CONTRACT


def test_tf32_writes_its_results_down_in_fp32():
    """Ten bits are kept of operands: an identity at tf32 is not allowed ten bits' rounding."""
    truth = single(BIG).astype(np.float64)
    bits = PRECISIONS["tf32"].result_bits
    assert measure_noise([truth], [truth], bits) == measure_noise([truth], [truth], 23)
    noise = {"tf32": [Noise(1.0, 4.0, 1.0)], "fp32": [Noise(1e-3, 4e-3, 1e-3)]}
    assert judge(["y"], [[BIG]], [[BIG + 1.0]], noise, PRECISIONS["tf32"], dtypes=["float64"]).passed


# --- whole runs: ONNX through ONNX Runtime


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """The special model and its wrong copies."""
    folder = tmp_path_factory.mktemp("special")
    special_outputs.write(folder / "special.onnx")
    for wrong in special_outputs.WRONG:
        special_outputs.write(folder / f"{wrong}.onnx", wrong)
    return folder


# Which output of the wrong copy fails, and how.
ENDS = {
    "big_scaled": ("big", "numeric"),
    "tiny_scaled": ("tiny", "numeric"),
    "best_is_worst": ("best", "numeric"),
    "flag_inverted": ("flag", "numeric"),
    "none_has_one": ("none", "contract"),
    "none_is_double": ("none", "contract"),
    "alone_is_a_vector": ("alone", "contract"),
    "alone_is_another": ("alone", "numeric"),
    "logs_of_absolutes": ("logs", "nan"),
    "masked_with_a_number": ("masked", "nan"),
    "same_is_not": ("same", "numeric"),
}


@pytest.fixture
def ran(run, models):
    """One run of the model and of all its wrong copies as candidates."""
    copies = [a for wrong in ENDS for a in ("--mf-candidate", f"{models / wrong}.onnx,precision=fp32")]
    return run("--mf-model", models / "special.onnx", *copies, *PARITY)


def test_every_special_output_of_a_faithful_model_passes_and_every_wrong_one_fails(ran):
    """Each wrong copy is named by the output that is wrong, and all its others pass."""
    faithful = ran.checks["special-onnx-fp32-onnxruntime@cpu", "parity"]
    outcomes = {o["name"]: o["outcome"] for o in faithful["data"]["outputs"]}
    assert outcomes == dict.fromkeys(special_outputs.OUTPUTS, "passed"), faithful["sentence"]
    assert faithful["outcome"] == "passed"
    empty = next(o for o in faithful["data"]["outputs"] if o["name"] == "none")
    assert "is empty" in empty["sentence"]
    found = {}
    for wrong in ENDS:
        line = ran.checks[f"special~{wrong}-onnx-fp32-onnxruntime@cpu", "parity"]
        failed = [(o["name"], o["failure_kind"]) for o in line["data"]["outputs"] if o["outcome"] != "passed"]
        found[wrong] = failed[0] if len(failed) == 1 else failed
        assert line["outcome"] == "failed"
    assert found == ENDS


def test_the_other_laws_hold_of_special_outputs(run, models):
    """Contract, batch and determinism pass for empty, scalar, boolean and non-finite outputs."""
    ran = run("--mf-model", models / "special.onnx", "--mf-suites", "contract,batch,determinism", *ONE_CELL)
    said = {check: (line["outcome"], line["sentence"]) for (_, check), line in ran.checks.items()}
    assert {outcome for outcome, _ in said.values()} == {"passed"}, said


def test_a_model_that_answers_nowhere_is_inconclusive(run, pytester):
    """NaN in every element: the run says so and that nothing was judged."""
    nodes = [("Abs", ["x"], ["a"], {}), ("Neg", ["a"], ["n"], {}), ("Log", ["n"], ["y"], {})]
    path = special_outputs.save(pytester.path / "m.onnx", nodes, {"y": (TensorProto.FLOAT, ["N", 4])})
    ran = run("--mf-model", path, *PARITY)
    line = ran.checks["m-onnx-fp32-onnxruntime@cpu", "parity"]
    assert line["outcome"] == "inconclusive", line["sentence"]
    assert "no number to compare" in line["sentence"]


TENSOR = helper.make_tensor_type_proto(TensorProto.FLOAT, ["N", 4])
COLLECTIONS = {
    "sequence": (helper.make_sequence_type_proto(TENSOR), ("SequenceConstruct", ["x", "x"], ["y"], {})),
    "optional": (helper.make_optional_type_proto(TENSOR), ("Optional", ["x"], ["y"], {})),
}


@pytest.mark.parametrize("kind", COLLECTIONS)
def test_an_output_that_is_no_tensor_is_unsupported_by_name(run, pytester, kind):
    """A sequence or optional output of the source is never passed unseen: the cell says what it cannot judge."""
    declared, node = COLLECTIONS[kind]
    path = special_outputs.save(pytester.path / "m.onnx", [node], {"y": helper.make_value_info("y", declared)})
    ran = run("--mf-model", path, *PARITY)
    line = ran.checks["m-onnx-fp32-onnxruntime@cpu", "parity"]
    assert line["outcome"] == "unsupported", line["sentence"]
    assert (
        f"'y' is a{'n' if kind == 'optional' else ''} {kind}; only tensors can be fed and compared" in line["sentence"]
    )


def test_a_candidate_whose_output_became_a_sequence_is_not_stacked_into_a_tensor(run, pytester, models):
    """numpy would make one array of the sequence's tensors; the runtime's output is refused instead."""
    special_outputs.save(
        pytester.path / "m.onnx", [("Identity", ["x"], ["y"], {})], {"y": (TensorProto.FLOAT, ["N", 4])}
    )
    declared, node = COLLECTIONS["sequence"]
    special_outputs.save(pytester.path / "other.onnx", [node], {"y": helper.make_value_info("y", declared)})
    ran = run("--mf-model", "m.onnx", "--mf-candidate", "other.onnx,precision=fp32", *PARITY)
    assert ran.checks["m-onnx-fp32-onnxruntime@cpu", "parity"]["outcome"] == "passed"
    line = ran.checks["m~other-onnx-fp32-onnxruntime@cpu", "parity"]
    assert line["outcome"] == "unsupported", line["sentence"]
    assert "its output 'y' is a seq(tensor(float))" in line["sentence"]


# --- a whole run: PyTorch

TORCH = """
INPUTS = ("x:float32[N,4]",)


def build():
    import torch

    class Special(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(4, 3)

        def forward(self, x):
            h = self.linear(x)
            return {
                "big": h * 1e6, "tiny": h * 1e-6, "best": h.argmax(-1), "flag": h > 0, "none": h[:, :0],
                "alone": self.linear.weight.sum(), "logs": torch.log(h), "same": x, "absent": None,
                "masked": h.masked_fill(h < 0, float("-inf")), "list": [h, h + 1],
            }

    torch.manual_seed(0)
    return Special().eval()
"""


@pytest.mark.slow
def test_every_special_output_of_a_pytorch_model_passes(run, pytester):
    """Eager and as an exported program: mappings, lists, scalars, empties, booleans and NaN are all judged."""
    (pytester.path / "special_net.py").write_text(TORCH)
    lanes = ("--mf-formats", "pytorch,pt2", "--mf-backends", "torch,torch-export", "--mf-devices", "cpu")
    ran = run(
        "--mf-model", "special_net:build", *lanes, "--mf-precisions", "fp32", "--mf-suites", "parity,batch,determinism"
    )
    said = {key: (line["outcome"], line["sentence"]) for key, line in ran.checks.items()}
    assert {outcome for outcome, _ in said.values()} == {"passed"}, said
    names = {o["name"] for o in ran.checks["build-pytorch-fp32-torch@cpu", "parity"]["data"]["outputs"]}
    assert names == {"big", "tiny", "best", "flag", "none", "alone", "logs", "same", "masked", "list_0", "list_1"}
