"""The verdict rule on arrays made for it: every kind of failure, and both sides of every threshold."""

from __future__ import annotations

import itertools
import math
import warnings

import numpy as np
import pytest

from pytest_modelformats.compare import between_runs
from pytest_modelformats.compare import verdict as compare
from pytest_modelformats.compare.floating import FAITHFUL_LOW, PLAUSIBLE, POINT_LIMIT, Tolerance
from pytest_modelformats.compare.noise import Noise, measure_noise
from pytest_modelformats.compare.verdict import judge
from pytest_modelformats.errors import Undecidable
from pytest_modelformats.schema import PRECISIONS, FailureKind, Outcome, Verdict

FP32, FP16, BF16 = PRECISIONS["fp32"], PRECISIONS["fp16"], PRECISIONS["bf16"]
WEIGHTS, DEFAULT = PRECISIONS["fp16-weights"], PRECISIONS["default"]
# What rounding costs the imaginary model: rms, and the worst element 4 times as much.
RMS = {"fp32": 1e-6, "fp16": 1e-3, "bf16": 8e-3}
NOISE = {p: [Noise(rms, 4 * rms, rms)] for p, rms in RMS.items()}
EPS = 1e-3
random = np.random.default_rng(0)
TRUTH = random.normal(size=(50, 20))


def off_by(rms, truth=TRUTH):
    """The truth, off by ±rms in every element: an error of exactly that rms and that maximum."""
    return truth + rms * np.where(np.arange(truth.size).reshape(truth.shape) % 2, 1, -1)


def verdict(got, precision=FP32, *, truth=TRUTH, noise=NOISE, dtype=None, **more):
    """The verdict over a model of one output 'y' and one feed; outputs stay float64 so that errors are exact."""
    return judge(["y"], [[truth]], [[got]], noise, precision, dtypes=[dtype or got.dtype.name], **more)


def result(got, precision=FP32, **more):
    """(outcome, kind) of :func:`verdict`."""
    found = verdict(got, precision, **more)
    return found.outcome, found.failure_kind


PASSED = (Outcome.PASSED, None)
FALLBACK = (Outcome.FALLBACK, None)
NUMERIC = (Outcome.FAILED, FailureKind.NUMERIC)
CONTRACT = (Outcome.FAILED, FailureKind.CONTRACT)
NAN = (Outcome.FAILED, FailureKind.NAN)
DEGENERATE = (Outcome.FAILED, FailureKind.DEGENERATE)


# --- the contract: nothing broadcasts, nothing is zipped to the shorter length


@pytest.mark.parametrize(
    "got",
    [TRUTH[:, :1], TRUTH[:1], TRUTH[0], TRUTH[..., None], TRUTH[None], TRUTH.T, TRUTH.ravel(), TRUTH[:0]],
    ids=["column", "row", "vector", "rank+1", "batch+1", "transposed", "flat", "empty"],
)
def test_another_shape_is_a_broken_contract(got):
    """A shape that numpy would broadcast is refused as any other is."""
    found = verdict(got)
    assert (found.outcome, found.failure_kind) == CONTRACT
    assert str(list(got.shape)) in found.sentence
    assert "[50, 20]" in found.sentence


@pytest.mark.parametrize("count", [0, 1, 3])
def test_number_of_outputs_is_the_sources(count):
    """Fewer and more outputs are refused, with both numbers and the names."""
    outputs = [[TRUTH] * count]
    found = judge(["a", "b"], [[TRUTH, TRUTH]], outputs, {"fp32": NOISE["fp32"] * 2}, FP32, dtypes=["float64"] * 2)
    assert (found.outcome, found.failure_kind) == CONTRACT
    assert found.sentence == f"{count} outputs came back where the source has 2 (a, b)."


def test_an_output_missing_in_a_later_feed_is_seen():
    """Every feed has to bring every output."""
    found = judge(["y"], [[TRUTH], [TRUTH]], [[TRUTH], []], NOISE, FP32, dtypes=["float64"])
    assert (found.outcome, found.failure_kind) == CONTRACT


@pytest.mark.parametrize(
    ("dtype", "precision", "expected"),
    [
        ("float32", FP32, PASSED),
        ("float16", FP32, CONTRACT),
        ("float64", FP32, CONTRACT),
        ("int64", FP32, CONTRACT),
        ("float16", BF16, CONTRACT),
        ("float16", WEIGHTS, CONTRACT),
        ("float16", DEFAULT, CONTRACT),
        ("float64", FP16, CONTRACT),
        ("float32", FP16, PASSED),
        ("float16", FP16, PASSED),
    ],
)
def test_dtype_is_the_sources_or_the_precisions_own(dtype, precision, expected):
    """Float outputs are what the source's are; an fp16 cell may hand out float16."""
    truth = np.array([[1.0, 2.0], [4.0, 8.0]])
    noise = {p: [Noise(rms, 4 * rms, 0.0)] for p, rms in RMS.items()}
    got = truth.astype(dtype)
    assert result(got, precision, truth=truth, noise=noise, dtype="float32") == expected


def test_bfloat16_comes_as_float32():
    """numpy has no bfloat16, so its values come in float32."""
    truth = np.array([[1.0, 2.0], [4.0, 8.0]])
    noise = {"bf16": [Noise(1e-3, 1e-3, 0.0)], "fp32": [Noise(1e-7, 1e-7, 0.0)]}
    assert result(truth.astype(np.float32), BF16, truth=truth, noise=noise, dtype="bfloat16") == PASSED
    assert result(truth, BF16, truth=truth, noise=noise, dtype="bfloat16") == CONTRACT


@pytest.mark.parametrize(("dtype", "expected"), [("int64", PASSED), ("int32", CONTRACT), ("float32", CONTRACT)])
def test_integers_keep_their_width(dtype, expected):
    """int64 that comes out as int32 is a broken contract, though every value is equal."""
    truth = np.arange(6).reshape(2, 3)
    assert result(truth.astype(dtype), truth=truth, noise={"fp32": [Noise(0, 0, 0)]}, dtype="int64") == expected


# --- NaN and Inf


def test_nan_in_the_same_places_passes():
    """A NaN where the source has one is right, and the other elements are judged."""
    truth = TRUTH.copy()
    truth[3, 4] = np.nan
    assert result(off_by(1e-6, truth), truth=truth) == PASSED
    assert result(off_by(9e-6, truth), truth=truth) == NUMERIC


@pytest.mark.parametrize(("in_truth", "in_got"), [((), (7,)), ((7,), ()), ((7,), (8,)), ((7,), (7, 8))])
def test_nan_in_other_places_fails(in_truth, in_got):
    """One NaN too many, too few or elsewhere is a failure of its own kind, with the number of elements."""
    truth, got = TRUTH.copy(), off_by(1e-6)
    truth.flat[list(in_truth)] = np.nan
    got.flat[list(in_got)] = np.nan
    found = verdict(got, truth=truth)
    assert (found.outcome, found.failure_kind) == NAN
    assert f"in {len(set(in_truth) ^ set(in_got))} of 1000 elements" in found.sentence


@pytest.mark.parametrize(
    ("in_truth", "in_got", "expected"),
    [
        (np.inf, np.inf, PASSED),
        (-np.inf, -np.inf, PASSED),
        (np.inf, -np.inf, NAN),
        (np.inf, 1.0, NAN),
        (1.0, np.inf, NAN),
        (np.inf, np.nan, NAN),
        (np.nan, np.inf, NAN),
    ],
)
def test_infinities_have_places_and_signs(in_truth, in_got, expected):
    """Inf stands where the source has it, with its sign."""
    truth, got = TRUTH.copy(), off_by(1e-6)
    truth[0, 0], got[0, 0] = in_truth, in_got
    assert result(got, truth=truth) == expected


def test_fp16_overflow_of_a_value_that_fp16_cannot_hold_is_its_own():
    """1e5 is Inf in float16 whoever computes it; a value that fits must not become Inf."""
    noise = {p: [Noise(rms, 4 * rms, rms)] for p, rms in RMS.items()}
    truth = TRUTH.copy()
    truth[0, 0] = 1e5
    with np.errstate(over="ignore"):
        got = truth.astype(np.float16)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # as a user's suite may
        assert result(got, FP16, truth=truth, noise=noise, dtype="float32") == PASSED
    truth[0, 0] = 6e4
    got = truth.astype(np.float16)
    got[0, 0] = np.inf
    assert result(got, FP16, truth=truth, noise=noise, dtype="float32") == NAN


# --- degenerate


@pytest.mark.parametrize(
    "got",
    [np.zeros_like(TRUTH), np.full_like(TRUTH, TRUTH.mean()), np.repeat(TRUTH[:1], 50, 0)],
    ids=["zeros", "mean", "one row"],
)
def test_output_that_ignores_its_input_is_degenerate(got):
    """Constant, or the same for every row, where the source is not."""
    assert result(got) == DEGENERATE


@pytest.mark.parametrize("truth", [np.full((50, 20), 3.0), np.repeat(TRUTH[:1], 50, 0)], ids=["constant", "one row"])
def test_what_the_source_does_too_is_not_degenerate(truth):
    """A source that is constant makes a constant output right."""
    assert result(truth.copy(), truth=truth) != DEGENERATE


def test_a_single_constant_row_is_degenerate():
    """With one row there is nothing to compare rows with, but its elements."""
    assert result(np.full_like(TRUTH[:1], 0.5), truth=TRUTH[:1]) == DEGENERATE


def test_one_row_or_element_is_not_degenerate():
    """One element is always constant, one row always the same as itself."""
    assert result(off_by(1e-6, TRUTH[:1]), truth=TRUTH[:1]) == PASSED
    assert result(np.array([[0.5 + 1e-6]]), truth=np.array([[0.5]])) == PASSED


def test_constant_in_one_of_two_feeds_is_not_degenerate():
    """All feeds are looked at together."""
    truths = [[TRUTH], [np.full((2, 20), 1.0)]]
    got = [[off_by(1e-6)], [np.full((2, 20), 1.0)]]
    assert judge(["y"], truths, got, NOISE, FP32, dtypes=["float64"]).passed


def test_empty_outputs_are_equal():
    """A detection model that finds nothing, as its source does, is right."""
    empty = np.zeros((0, 4))
    noise = {p: [Noise(0.0, 0.0, 0.0)] for p in RMS}
    assert result(empty, truth=empty, noise=noise) == PASSED
    assert result(np.zeros((1, 4)), truth=empty, noise=noise) == CONTRACT


# --- r and k(p)


@pytest.mark.parametrize("precision", [FP32, FP16, BF16, DEFAULT], ids=lambda p: p.name)
def test_the_limit_is_k_of_p(precision):
    """Just below k × noise passes, just above fails or is named after another precision; it never passes."""
    # Alone, so that no other precision can explain the error.
    noise = {precision.yardstick: NOISE[precision.yardstick]}
    unit = RMS[precision.yardstick]
    assert result(off_by(unit * precision.limit * (1 - EPS)), precision, noise=noise) == PASSED
    assert result(off_by(unit * precision.limit * (1 + EPS)), precision, noise=noise) == NUMERIC


@pytest.mark.parametrize("fault", [7, 30, 60])
def test_smallest_real_faults_are_beyond_the_limit(fault):
    """A weight tensor rounded to fp16 was measured at 7 to 561 times the noise: too little for another precision."""
    assert result(off_by(fault * RMS["fp32"])) == NUMERIC


def test_the_ratio_is_reported():
    """Error, noise and their ratio stand in the verdict and in its sentence."""
    found = verdict(off_by(3e-6))
    (output,) = found.outputs
    assert output.error_rms == pytest.approx(3e-6)
    assert output.noise_rms == 1e-6
    assert output.noise_ratio == found.noise_ratio == pytest.approx(3)
    assert output.point_ratio == pytest.approx(0.75)
    assert output.elements == TRUTH.size
    assert "3 × what rounding at fp32 explains (1e-06); the limit is 4" in found.sentence


def test_noise_of_zero_asks_for_equality():
    """Where rounding changes nothing, equal passes, and anything else fails without dividing by zero."""
    noise = {p: [Noise(0.0, 0.0, 0.0)] for p in RMS}
    assert result(TRUTH.copy(), noise=noise) == PASSED
    found = verdict(off_by(1e-12), noise=noise)
    assert (found.outcome, found.failure_kind) == NUMERIC
    assert found.outputs[0].noise_ratio is None


def test_the_worst_output_is_the_verdict():
    """One wrong output of three decides, wherever it stands, and all three are reported."""
    noise = {p: values * 3 for p, values in NOISE.items()}
    for place in range(3):
        got = [off_by(3e-5 if i == place else 1e-6) for i in range(3)]
        found = judge(list("abc"), [[TRUTH] * 3], [got], noise, FP32, dtypes=["float64"] * 3)
        assert (found.outcome, found.failure_kind) == NUMERIC
        assert f"'{'abc'[place]}'" in found.sentence
        assert [o.outcome is Outcome.PASSED for o in found.outputs] == [i != place for i in range(3)]


def test_failure_outweighs_fallback():
    """An output that is wrong is not hidden behind one that ran at another precision."""
    noise = {p: values * 2 for p, values in NOISE.items()}
    for order in itertools.permutations([off_by(RMS["bf16"]), off_by(3e-5)]):
        found = judge(["a", "b"], [[TRUTH] * 2], [list(order)], noise, FP32, dtypes=["float64"] * 2)
        assert found.outcome is Outcome.FAILED


def test_error_in_one_of_many_feeds_counts():
    """The rms is taken over all feeds: one feed of four that is 9 times too far off is seen."""
    truths, got = [[TRUTH]] * 4, [[off_by(1e-6)]] * 3 + [[off_by(9e-6)]]
    found = judge(["y"], truths, got, NOISE, FP32, dtypes=["float64"])
    assert found.noise_ratio == pytest.approx(math.sqrt((3 + 81) / 4))
    assert found.failure_kind is FailureKind.NUMERIC


# --- the pointwise guard


@pytest.mark.parametrize("precision", [FP32, FP16, BF16], ids=lambda p: p.name)
def test_one_broken_element_in_a_million(precision):
    """The rms cannot see one element in a million, the guard does, on both sides of its limit."""
    truth = np.random.default_rng(1).normal(size=(1000, 1000))
    unit, limit = RMS[precision.name], POINT_LIMIT[precision.name]
    noise = {precision.name: NOISE[precision.name]}
    for factor, expected in ((1 - EPS, PASSED), (1 + EPS, NUMERIC)):
        got = off_by(unit, truth)
        got[500, 500] = truth[500, 500] + 4 * unit * limit * factor
        found = verdict(got, precision, truth=truth, noise=noise)
        assert found.noise_ratio < 1.01
        assert (found.outcome, found.failure_kind) == expected
    assert "worst element" in found.sentence


def test_every_precision_has_its_guard():
    """A precision added to the table gets a pointwise limit, at least as wide as its k."""
    for precision in PRECISIONS.values():
        assert POINT_LIMIT[precision.yardstick] >= precision.limit


# --- effective precision and fallback


@pytest.mark.parametrize("asked", [FP32, FP16, BF16, DEFAULT], ids=lambda p: p.name)
@pytest.mark.parametrize("ran", RMS)
def test_the_precision_that_ran_is_named(asked, ran):
    """Asked for one precision and measured another's noise is a fallback both ways; bf16 holds fp16 (r 0.125)."""
    found = verdict(off_by(RMS[ran]), asked)
    if ran == asked.yardstick or (asked is BF16 and ran == "fp16"):
        assert found.passed
        return
    assert (found.outcome, found.failure_kind) == FALLBACK
    assert found.outputs[0].effective_precision == ran
    assert f"{ran} is what ran" in found.sentence
    assert ("Next: set the precision explicitly." in found.sentence) == (asked is DEFAULT)


def test_too_precise_has_a_threshold():
    """Below FAITHFUL_LOW of the asked precision's noise, and nearer to a finer one's, it was not made at it."""
    edge = RMS["bf16"] * FAITHFUL_LOW
    assert result(off_by(edge * (1 + EPS)), BF16) == PASSED
    assert result(off_by(edge * (1 - EPS)), BF16) == FALLBACK


def test_what_is_finer_than_asked_is_named_where_its_rounding_explains_the_error():
    """An error between the two is of what was rounded to the asked one, such as weights, not of another arithmetic."""
    finer = RMS["fp32"] * PLAUSIBLE[1]
    assert finer < RMS["fp16"] * FAITHFUL_LOW
    assert result(off_by(finer * (1 + EPS)), FP16) == PASSED
    assert result(off_by(finer * (1 - EPS)), FP16) == FALLBACK
    assert result(off_by(RMS["fp32"] * 1e-3), FP16) == FALLBACK


@pytest.mark.parametrize("edge", PLAUSIBLE)
def test_a_coarser_precision_has_to_be_plausible(edge):
    """Between PLAUSIBLE shares of bf16's noise it is bf16; outside of them the model is wrong."""
    noise = {p: NOISE[p] for p in ("fp32", "bf16")}
    inside, outside = (1 + EPS, 1 - EPS) if edge < 1 else (1 - EPS, 1 + EPS)
    assert result(off_by(RMS["bf16"] * edge * inside), noise=noise) == FALLBACK
    assert result(off_by(RMS["bf16"] * edge * outside), noise=noise) == NUMERIC


def test_exact_outputs_tell_no_precision():
    """Where fp16 changes nothing (values that it holds exactly), fp32 and fp16 cannot be told apart."""
    truth = np.round(TRUTH * 16) / 16
    unit = float(np.sqrt(np.mean(truth**2))) * 2.0**-11 / math.sqrt(3)
    noise = {"fp32": [Noise(unit / 2**13, unit / 2**12, 0.0)], "fp16": [Noise(unit, 2 * unit, 0.0)]}
    assert result(truth.copy(), FP16, truth=truth, noise=noise) == PASSED


@pytest.mark.parametrize(
    ("computed", "handed", "raw", "expected"),
    [
        (RMS["bf16"], 0.0, 0.0, Outcome.PASSED),
        (RMS["fp32"], 0.0, 0.0, Outcome.FALLBACK),  # what was computed shows that fp32 ran
        (0.0, 0.0, 0.0, Outcome.FALLBACK),  # nothing shows that bf16 did
        (RMS["bf16"], RMS["fp32"], 0.0, Outcome.FALLBACK),  # it is not exact
        (RMS["bf16"], 0.0, RMS["fp32"], Outcome.FALLBACK),  # nor is it in float32
        (100.0, 0.0, 0.0, Outcome.FAILED),
    ],
)
def test_an_output_handed_through_says_nothing_of_what_ran(computed, handed, raw, expected):
    """At bf16 the source rounds what it hands through, and a runtime that does not is no less bf16."""
    noise = {p: [Noise(rms, 4 * rms, rms), Noise(rms, 4 * rms, raw if p == "fp32" else rms)] for p, rms in RMS.items()}
    got = [off_by(computed), off_by(handed)]
    found = judge(["y", "x"], [[TRUTH, TRUTH]], [got], noise, BF16, dtypes=["float64"] * 2)
    assert found.outcome is expected
    if expected is Outcome.PASSED:
        assert "says nothing of whether bf16 is what ran" in found.outputs[1].sentence
        assert found.outputs[1].effective_precision == "bf16"


def test_constants_stand_where_the_measurements_leave_room():
    """Each constant lies between what faithful cells and what faults were measured at; ``floating`` says where."""
    lowest_faithful_ratio, highest_faithful = 0.11, {"fp32": 3.34, "fp16": 0.94, "bf16": 1.63}
    assert 0.02 <= FAITHFUL_LOW <= lowest_faithful_ratio / 2 + 1e-9
    one_tensor_of_54_at_fp16 = 0.07
    assert one_tensor_of_54_at_fp16 < PLAUSIBLE[0] <= 0.2
    assert max(highest_faithful.values()) / 2 < PLAUSIBLE[1] <= 2
    smallest_fault = 7
    for name, highest in highest_faithful.items():
        assert highest < PRECISIONS[name].limit < smallest_fault
        assert POINT_LIMIT[name] <= 3 * PRECISIONS[name].limit


# --- integers


@pytest.mark.parametrize(("changed", "expected"), [(0, PASSED), (1, NUMERIC)])
def test_integers_are_exact(changed, expected):
    """One integer of a thousand is one too many where the source's own do not change."""
    truth = np.arange(1000)
    got = truth.copy()
    got[:changed] += 1
    found = verdict(got, truth=truth, noise={"fp32": [Noise(0.0, 0.0, 0.0, 0.0)]})
    assert (found.outcome, found.failure_kind) == expected
    assert found.outputs[0].flips == changed / 1000


@pytest.mark.parametrize(("changed", "expected"), [(680, PASSED), (720, NUMERIC), (1000, NUMERIC)])
def test_where_the_source_changes_a_quarter_not_every_integer_may_change(changed, expected):
    """A quarter left by each unit of rounding: four of them change 1 - 0.75⁴, and never all."""
    truth = np.arange(1000)
    got = truth.copy()
    got[:changed] += 1
    assert result(got, truth=truth, noise={"fp32": [Noise(0.0, 0.0, 0.0, 0.25)]}) == expected


@pytest.mark.parametrize("changed", [0, 400, 1000])
def test_where_the_source_changes_half_of_the_integers_nothing_is_judged(changed):
    truth = np.arange(1000)
    got = truth.copy()
    got[:changed] += 1
    found = verdict(got, truth=truth, noise={"fp32": [Noise(0.0, 0.0, 0.0, 0.5)]})
    assert found.outcome is Outcome.INCONCLUSIVE
    assert "the source itself gives other values in 50.00%" in found.sentence


def test_complex_outputs_are_not_judged_and_say_so():
    """They are no floats: judged as integers, their own rounding would excuse every element."""
    truth = TRUTH + 1j * TRUTH
    with pytest.raises(Undecidable, match="output 'y' is complex64"):
        verdict(3 * truth, truth=truth, dtype="complex64")


@pytest.mark.parametrize(("changed", "expected"), [(20, PASSED), (21, NUMERIC)])
def test_integers_may_change_as_the_sources_do(changed, expected):
    """Where 1 % of the source's integers change at fp16, k times as many may; one more fails."""
    truth = np.arange(1000)
    got = truth.copy()
    got[:changed] += 1
    noise = {"fp32": [Noise(0, 0, 0, 0.0)], "fp16": [Noise(0, 0, 0, 0.01)]}
    assert result(got, FP16, truth=truth, noise=noise) == expected
    assert result(got, FP32, truth=truth, noise=noise) == NUMERIC


def test_booleans_are_exact():
    """A mask is judged as integers are."""
    truth = np.array([[True, False], [False, True]])
    noise = {"fp32": [Noise(0, 0, 0)]}
    assert result(truth.copy(), truth=truth, noise=noise) == PASSED
    assert result(~truth, truth=truth, noise=noise) == NUMERIC


# --- decisions, accuracy, fixed tolerances


def test_decision_flips_are_reported_for_classifiers():
    """The share of rows whose largest class changed; nothing where it is no classifier."""
    truth = np.eye(4).repeat(5, 0)
    got = truth.copy()
    got[0] = got[5]
    noise = {"fp32": [Noise(1.0, 1.0, 1.0)]}
    assert verdict(got, truth=truth, noise=noise, classifier=True).outputs[0].flips == 1 / 20
    assert verdict(got, truth=truth, noise=noise).outputs[0].flips is None


@pytest.mark.parametrize(
    ("lost", "rows", "fails"), [(0, 100, False), (2, 100, True), (2, 99, False), (9, 1000, False), (11, 1000, True)]
)
def test_accuracy_loss_has_a_limit(lost, rows, fails):
    """More than one per cent of the labelled rows may not be lost; below a hundred rows that says nothing."""
    labels = np.arange(rows) % 2
    truth = np.eye(2)[labels]
    got = truth.copy()
    got[:lost] = got[:lost, ::-1]
    passed = Verdict(Outcome.PASSED, None, "fine")
    found = compare.with_accuracy(passed, labels, [truth], [got])
    assert (found.failure_kind is FailureKind.ACCURACY) == fails
    assert found.statement["accuracy_source"] == 1
    assert found.statement["accuracy"] == pytest.approx(1 - lost / rows)


def test_a_fixed_tolerance_replaces_the_measured_one():
    """An explicit choice, per output or for all, decides alone, in both directions."""
    loose, tight = {"y": Tolerance(1e-3, 0.0)}, {"*": Tolerance(1e-8, 0.0)}
    assert result(off_by(5e-4)) == FALLBACK
    assert result(off_by(5e-4), tolerances=loose) == PASSED
    assert result(off_by(2e-3), tolerances=loose) == NUMERIC
    assert result(off_by(1e-6)) == PASSED
    assert result(off_by(1e-6), tolerances=tight) == NUMERIC
    assert result(off_by(1e-6), tolerances={"other": Tolerance(0, 0)}) == PASSED
    assert "fixed tolerance" in verdict(off_by(1e-6), tolerances=tight).sentence


@pytest.mark.parametrize(("rms", "expected"), [(5e-7, PASSED), (0.5, PASSED), (2.0, NUMERIC)])
def test_a_tolerance_may_be_allowed_beside_the_noise(rms, expected):
    """Where the inputs are nobody's choice, either is enough; the contract and NaN are excused by none."""
    allowed = {"y": Tolerance(1.0, 0.0)}
    assert result(off_by(rms), allowed=allowed) == expected
    assert result(off_by(5e-7), allowed={"y": Tolerance(0.0, 0.0)}) == PASSED
    assert result(off_by(0.5), allowed={"z": Tolerance(1.0, 0.0)}) == NUMERIC
    assert result(TRUTH[:, :1], allowed=allowed) == CONTRACT
    assert result(np.full_like(TRUTH, np.nan), allowed=allowed) == NAN


@pytest.mark.parametrize(("rms", "passes"), [(1.5, True), (2.5, False)])
def test_two_runs_may_each_be_off_by_the_tolerance(rms, passes):
    found = between_runs.between_runs(["y"], [[TRUTH]], [[off_by(rms)]], NOISE, FP32, {"y": Tolerance(1.0, 0.0)})
    assert found.passed == passes


def test_a_fixed_tolerance_excuses_no_broken_contract():
    """Shape, NaN and degenerate come first."""
    wide = {"*": Tolerance(1e9, 1e9)}
    assert result(TRUTH[:, :1], tolerances=wide) == CONTRACT
    assert result(np.zeros_like(TRUTH), tolerances=wide) == DEGENERATE
    assert result(np.full_like(TRUTH, np.nan), tolerances=wide) == NAN


# --- the noise itself


def test_noise_is_the_rms_and_maximum_of_the_rounding():
    """rms and maximum of the difference, over all feeds."""
    noise = measure_noise([TRUTH, TRUTH[:10]], [off_by(1e-3), off_by(2e-3, TRUTH[:10])], 23)
    assert noise.rms == noise.raw_rms == pytest.approx(math.sqrt((1e-6 * 1000 + 4e-6 * 200) / 1200))
    assert noise.max == pytest.approx(2e-3)


def test_noise_is_never_below_writing_the_output_down():
    """An output that happened to be exact still costs half a unit in the last place to write down."""
    noise = measure_noise([TRUTH], [TRUTH], 10)
    assert noise.raw_rms == 0
    assert noise.rms == pytest.approx(math.sqrt(np.mean(TRUTH**2)) * 2**-11 / math.sqrt(3))
    assert noise.max == pytest.approx(np.abs(TRUTH).max() * 2**-11)
    written = TRUTH.astype(np.float16).astype(np.float64) - TRUTH
    assert math.sqrt(np.mean(written**2)) <= noise.rms


def test_noise_of_integers_is_the_share_that_changes():
    """Integers have no rms, but a share."""
    assert measure_noise([np.arange(10)], [np.arange(10) + (np.arange(10) < 3)], 23).flips == 0.3


def test_noise_ignores_what_is_not_finite():
    """NaN and Inf in the source do not spoil the noise of the other elements."""
    truth, other = TRUTH.copy(), off_by(1e-3)
    truth[0, 0], other[1, 1] = np.nan, np.inf
    noise = measure_noise([truth], [other], 23)
    assert noise.rms == pytest.approx(1e-3)


# --- laws


def between(first, other, precision=FP32):
    return between_runs.between_runs(["y"], [[first]], [[other]], NOISE, precision)


def test_two_runs_may_differ_by_two_roundings():
    """The difference of two runs is held against √2 of the noise, and k."""
    edge = FP32.limit * math.sqrt(2) * RMS["fp32"]
    assert between(TRUTH, off_by(edge * (1 - EPS))).passed
    assert not between(TRUTH, off_by(edge * (1 + EPS))).passed
    assert between(TRUTH, TRUTH.copy()).passed


@pytest.mark.parametrize("ran", ["fp16", "bf16"])
def test_two_runs_at_two_precisions_do_not_agree(ran):
    """A difference as large as a coarser precision's noise is a difference, not that precision's affair."""
    found = between(TRUTH, off_by(RMS[ran]))
    assert (found.outcome, found.failure_kind) == NUMERIC
    assert "apart" in found.sentence


def test_equal_runs_of_a_coarse_precision_agree():
    """Bit-equal runs are no sign of a finer precision."""
    assert between(TRUTH, TRUTH.copy(), BF16).passed


@pytest.mark.parametrize("ran", ["fp16", "bf16"])
def test_a_fallback_in_some_batches_only_is_told(ran):
    """Against the source, a finer precision is parity's to report, a coarser one is new and stays a fallback."""
    coarse = between_runs.but_for_finer(verdict(off_by(RMS[ran])), FP32)
    assert (coarse.outcome, coarse.failure_kind) == FALLBACK
    finer = verdict(off_by(RMS["fp32"]), PRECISIONS[ran])
    assert finer.outcome is Outcome.FALLBACK
    assert between_runs.but_for_finer(finer, PRECISIONS[ran]).passed


def test_determinism_says_how_equal():
    """Bit-equal, equal within rounding, and unequal are three answers."""
    names = ["y"]
    near, far = off_by(1e-6), off_by(1e-2)
    same = between_runs.determinism(names, [TRUTH], [TRUTH], [TRUTH], NOISE, FP32)
    rounded = between_runs.determinism(names, [TRUTH], [near], [TRUTH], NOISE, FP32)
    fresh = between_runs.determinism(names, [TRUTH], [TRUTH], [far], NOISE, FP32)
    again = between_runs.determinism(names, [TRUTH], [far], [TRUTH], NOISE, FP32)
    assert same.passed
    assert "same bits" in same.sentence
    assert rounded.passed
    assert "Not bit-equal in the second run" in rounded.sentence
    assert fresh.outcome is Outcome.FAILED
    assert "in a fresh session" in fresh.sentence
    assert again.outcome is Outcome.FAILED
    assert "in the second run" in again.sentence


@pytest.mark.parametrize("other", [TRUTH.astype(np.float32), TRUTH[:1], -0.0 * TRUTH])
def test_bit_equality_is_of_bits_dtypes_and_shapes(other):
    """Equal values of another dtype, shape or sign of zero are not the same bits; NaN is."""
    assert not between_runs.bit_equal([TRUTH], [other])
    assert not between_runs.bit_equal([TRUTH], [])
    assert not between_runs.bit_equal([np.zeros(2)], [-np.zeros(2)])
    assert between_runs.bit_equal([np.array([np.nan])], [np.array([np.nan])])


def test_worst_names_the_place():
    """The first verdict that did not pass, headed by where it was."""
    good, bad = Verdict(Outcome.PASSED, None, "fine"), Verdict(Outcome.FAILED, FailureKind.NUMERIC, "Wrong.")
    found = between_runs.worst({"batch 1": good, "batch 2": bad, "batch 3": good}, "all agree")
    assert (found.outcome, found.sentence) == (Outcome.FAILED, "batch 2: Wrong.")
    assert between_runs.worst({"batch 1": good}, "all agree").sentence == "all agree"
