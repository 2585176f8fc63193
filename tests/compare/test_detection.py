"""What parity sees beyond one rms and one maximum: slices and elements, stress rows, a second look."""

from __future__ import annotations

import numpy as np
import pytest

from pytest_modelformats.compare import noise_profile, second_look, stress
from pytest_modelformats.compare.noise import Noise, measure_noise
from pytest_modelformats.compare.reference import kept_noise
from pytest_modelformats.compare.verdict import judge
from pytest_modelformats.schema import PRECISIONS, FailureKind, Outcome, TensorSpec, Verdict
from pytest_modelformats.source.samples import make_samples

FP32 = PRECISIONS["fp32"]
RNG = np.random.default_rng(0)
SCALES = 10.0 ** np.linspace(-3, 3, 16).reshape(16, 1, 1)
TRUTH = RNG.standard_normal((8, 16, 32, 32)) * SCALES


def rounded(truth, seed, size=1e-7):
    random = np.random.default_rng(seed)
    return (truth + size * random.standard_normal(truth.shape) * np.abs(truth).mean((0, 2, 3), keepdims=True)).astype(
        np.float32
    )


NOISE = measure_noise([TRUTH], [rounded(TRUTH, 1)], 23)


def verdict(got, truth=TRUTH, noise=NOISE):
    return judge(["y"], [[truth]], [[got]], {"fp32": [noise]}, FP32, dtypes=["float32"])


def test_a_faithful_large_output_passes():
    output = verdict(rounded(TRUTH, 2)).outputs[0]
    assert output.outcome is Outcome.PASSED
    assert output.slice_ratio < 2
    assert output.local_point_ratio < 2


def test_one_element_of_a_quiet_channel_fails():
    got = rounded(TRUTH, 2)
    got[3, 2, 5, 7] += 100e-7 * float(SCALES[2, 0, 0])
    found = verdict(got)
    assert (found.outcome, found.failure_kind) == (Outcome.FAILED, FailureKind.NUMERIC)
    assert "element [3, 2, 5, 7]" in found.sentence
    assert found.outputs[0].noise_ratio < 2


def test_the_quietest_channel_fails_by_its_own_noise():
    got = rounded(TRUTH, 2)
    got[:, 0] *= 1 + 2e-6
    found = verdict(got)
    assert "at index 0 of dimension 1" in found.sentence
    assert found.outputs[0].noise_ratio < 2


def test_other_samples_than_the_profile_is_of_are_judged_as_a_whole():
    output = verdict(rounded(TRUTH, 2)[:4], TRUTH[:4]).outputs[0]
    assert output.slice_ratio is None


def test_slices_with_few_telling_elements_count_as_the_whole(monkeypatch):
    """A peaked softmax: a runtime that gives 0 for what is below 1e-9 is faithful."""
    raised = np.exp(20 * np.random.default_rng(1).standard_normal((64, 512)))
    truth = raised / raised.sum(1, keepdims=True)
    own = truth * 1e-7 * RNG.standard_normal(truth.shape)
    whole = float(np.sqrt(np.mean(own**2)))
    got = np.where(truth < 1e-9, 0, truth + own)

    def slice_ratio():
        profile = noise_profile.measure([truth], [truth + own], whole, 2.0**-24)
        return noise_profile.compare(profile, whole, [truth], [got]).slice_ratio

    assert slice_ratio() < 2
    monkeypatch.setattr(noise_profile, "FEWEST_EFFECTIVE", 0)
    assert slice_ratio() > 8


COLUMNS = RNG.standard_normal((8, 3)) * [1e6, 1.0, 1e-3]


def judged_columns(got):
    own = (COLUMNS + 1e-7 * COLUMNS * RNG.standard_normal(COLUMNS.shape)).astype(np.float32)
    return verdict(got.astype(np.float32), COLUMNS, measure_noise([COLUMNS], [own], 23))


@pytest.mark.parametrize(("column", "factor"), [(2, -3.0), (1, 1.01)])
def test_a_column_of_few_elements_fails_by_its_own_noise(column, factor):
    got = COLUMNS.copy()
    got[:, column] *= factor
    found = judged_columns(got)
    assert (found.outcome, found.failure_kind) == (Outcome.FAILED, FailureKind.NUMERIC)
    assert f"at index {column} of dimension 1" in found.sentence
    assert found.outputs[0].noise_ratio < 4


def test_few_elements_are_no_reason_for_an_alarm():
    """The noise of eight elements is small by chance somewhere among a hundred thousand columns."""
    random, worst = np.random.default_rng(3), 0.0
    for _ in range(100):
        truth = random.standard_normal((8, 1000))
        own, got = (truth + 1e-6 * random.standard_normal(truth.shape) for _ in range(2))
        profile = noise_profile.measure([truth], [own], 1e-6, 2.0**-24)
        worst = max(worst, noise_profile.compare(profile, 1e-6, [truth], [got]).slice_ratio)
    assert 0.3 < worst < 4


def test_few_elements_that_rounding_happens_to_leave_alone_have_the_noise_of_writing_them_down():
    exact = COLUMNS.astype(np.float32).astype(np.float64)
    noise = measure_noise([exact], [exact * [1 + 1e-7, 1, 1]], 23)
    assert verdict((exact * (1 + 1e-7)).astype(np.float32), exact, noise).passed
    assert not verdict((exact * [1, 1, 1.001]).astype(np.float32), exact, noise).passed


def test_few_elements_survive_the_cache():
    from dataclasses import asdict
    from json import dumps, loads

    own = np.log(np.array([[1e-300, 2.0, 3.0]] * 8))
    lost = np.where(own < -100, -np.inf, own).astype(np.float32)
    noise = measure_noise([own], [lost], 23)
    assert noise.profile.few
    assert noise.lost
    assert kept_noise(loads(dumps(asdict(noise)))) == noise


def test_a_profile_survives_the_cache():
    from dataclasses import asdict
    from json import dumps, loads

    assert kept_noise(loads(dumps(asdict(NOISE)))) == NOISE


@pytest.mark.parametrize("shape", [(), (0, 3), (8,), (8, 0)])
def test_outputs_without_slices_have_no_profile(shape):
    array = np.ones(shape)
    assert measure_noise([array], [array.astype(np.float32)], 23).profile is None


# --- stress rows

FLOATS = TensorSpec("x", "float32", ("N", 3, 8, 8))


def test_stress_rows_are_one_of_each_kind_and_seeded():
    samples = stress.make_stress([FLOATS], 0)
    rows = samples.feeds[0]["x"]
    assert rows.shape == (len(stress.KINDS), 3, 8, 8)
    by = dict(zip(stress.KINDS, rows, strict=True))
    assert np.abs(by["large"]).max() > 8
    assert not by["zeros"].any()
    assert (by["sparse"] == 0).mean() > 0.7
    assert by["constant"].std() == 0
    assert by["negative"].max() <= 0 <= by["positive"].min()
    assert (stress.make_stress([FLOATS], 0).feeds[0]["x"] == rows).all()


def test_stress_rows_keep_to_a_range_and_to_a_fixed_batch():
    ranged = stress.make_stress([TensorSpec("x", "float32", ("N", 50), 0.0, 1.0)], 0).feeds[0]["x"]
    assert 0 <= ranged.min() <= ranged.max() <= 1
    fixed = stress.make_stress([TensorSpec("x", "float32", (1, 50))], 0).feeds
    assert [f["x"].shape for f in fixed] == [(1, 50)] * len(stress.KINDS)
    assert not fixed[list(stress.KINDS).index("zeros")]["x"].any()


def test_integers_have_no_stress_rows():
    assert stress.make_stress([TensorSpec("ids", "int64", ("N", 5), 0, 9)], 0) is None


def stressed(alter, size=1e-7):
    truth = make_samples([TensorSpec("x", "float32", ("N", 40))], 8, 0).feeds[0]["x"].astype(np.float64)
    noise = measure_noise([truth], [rounded(truth[:, :, None, None], 1, size)[..., 0, 0]], 23)
    got = alter(rounded(truth[:, :, None, None], 2, size)[..., 0, 0])
    passed = verdict(rounded(TRUTH, 2))
    return stress.judge_stress(passed, [[truth]], [[got]], [noise], [(noise.rms, 1.0)], FP32)


def test_faithful_stress_rows_pass():
    found = stressed(lambda y: y)
    assert found.passed
    assert found.outputs[0].stress_ratio < 2


def test_a_fault_in_one_stress_row_fails_and_is_named():
    def alter(y):
        y[0] *= 1.0001
        return y

    found = stressed(alter)
    assert (found.outcome, found.failure_kind) == (Outcome.FAILED, FailureKind.NUMERIC)
    assert "8 times as large as ordinary ones" in found.sentence


def test_nan_where_the_source_has_none_fails():
    def alter(y):
        y[2] = np.nan
        return y

    assert stressed(alter).failure_kind is FailureKind.NAN


@pytest.mark.filterwarnings("error")
def test_infinity_that_belongs_on_a_stress_row_warns_of_nothing():
    truth = np.ones((8, 4))
    truth[3, 2] = np.inf
    noise = measure_noise([truth], [truth.astype(np.float32)], 23)
    limits = stress.row_limits([truth], noise, (1e-7, 1.0), FP32)
    assert limits.judged.tolist() == [True] * 3 + [False] + [True] * 4


def exactly(got, truth, own=None, precision=FP32):
    noise = measure_noise([truth], [truth if own is None else own], 23)
    passed = verdict(rounded(TRUTH, 2))
    return stress.judge_stress(passed, [[truth]], [[got]], [noise], [(0.0, 0.0)], precision)


def test_integers_and_booleans_are_exact_on_stress_rows():
    truth = np.arange(8) % 3
    assert exactly(truth.copy(), truth).passed
    wrong = truth.copy()
    wrong[0] += 1
    found = exactly(wrong, truth)
    assert (found.outcome, found.failure_kind) == (Outcome.FAILED, FailureKind.NUMERIC)
    assert "differs in 1 of 8 elements, most of them on inputs that are 8 times as large" in found.sentence
    assert stress.failed(found)
    flipped = np.zeros((8, 5), bool)
    flipped[4, 1] = True
    assert "one constant" in exactly(flipped, np.zeros((8, 5), bool)).sentence


def test_what_flips_in_the_source_too_may_flip_on_stress_rows():
    truth, own = np.arange(8) % 3, np.arange(8) % 3
    own[1] += 1
    wrong = truth.copy()
    wrong[0] += 1
    assert exactly(wrong, truth, own).passed


@pytest.mark.parametrize("truth", [np.arange(8), np.ones((8, 3))], ids=["int64", "float64"])
def test_another_shape_on_stress_rows_fails(truth):
    found = exactly(truth[:5], truth)
    assert (found.outcome, found.failure_kind) == (Outcome.FAILED, FailureKind.CONTRACT)
    assert "there it has shape [5" in found.sentence
    assert stress.failed(found)


# --- the second look

SMALL = RNG.standard_normal((8, 10))
SMALL_NOISE = measure_noise([SMALL], [(SMALL + 1e-6 * RNG.standard_normal(SMALL.shape)).astype(np.float32)], 23)


def looked(error, shared):
    """A verdict on an error of so many times the noise, and what the second look makes of it where that is shared."""
    random = np.random.default_rng(5)
    pattern = random.standard_normal(SMALL.shape)
    got = (SMALL + error * 1e-6 * pattern).astype(np.float32)
    first = judge(["y"], [[SMALL]], [[got]], {"fp32": [SMALL_NOISE]}, FP32, dtypes=["float32"])
    own = [pattern if shared else random.standard_normal(SMALL.shape) for _ in range(second_look.TIMES)]
    found = second_look.look([SMALL] * len(own), [SMALL + error * 1e-6 * e for e in own], SMALL_NOISE, FP32)
    return first, second_look.settle(first, [found], FP32)


@pytest.mark.parametrize(("error", "before"), [(3.8, Outcome.PASSED), (5, Outcome.FAILED)])
def test_what_stays_is_a_fault_and_what_does_not_is_rounding(error, before):
    first, fault = looked(error, shared=True)
    assert first.outcome is before
    assert second_look.wanted(first, FP32, [FLOATS])
    assert (fault.outcome, fault.failure_kind) == (Outcome.FAILED, FailureKind.NUMERIC)
    assert "stays the same when the inputs move a little" in fault.sentence
    _, rounding = looked(error, shared=False)
    assert rounding.passed
    assert rounding.outputs[0].systematic_ratio < second_look.SYSTEMATIC_LIMIT


QUIET = np.where(np.arange(32) < 16, 1.0, 1e-3)
LOCAL = RNG.standard_normal((8, 64, 32)) * QUIET
LOCAL_ROUNDING = 1e-6 * QUIET * RNG.standard_normal(LOCAL.shape)
LOCAL_NOISE = measure_noise([LOCAL], [(LOCAL + LOCAL_ROUNDING).astype(np.float64)], 23)


@pytest.mark.parametrize(
    ("times", "stays", "outcome"),
    [(6.0, False, Outcome.PASSED), (6.0, True, Outcome.FAILED), (60.0, False, Outcome.FAILED)],
)
def test_one_element_of_a_small_channel_that_moves_with_the_inputs_is_rounding(times, stays, outcome):
    """Five times what rounding does there, and far less than it does elsewhere; sixty times is no chance."""
    random = np.random.default_rng(9)

    def rounding():
        return 1e-6 * QUIET * random.standard_normal(LOCAL.shape)

    spot = (2, 30, 20)
    off = times * LOCAL_NOISE.profile.largest * 1e-9
    error = rounding()
    error[spot] = off
    first = judge(["y"], [[LOCAL]], [[LOCAL + error]], {"fp32": [LOCAL_NOISE]}, FP32, dtypes=["float64"])
    assert first.outcome is Outcome.FAILED
    assert "its element [2, 30, 20] is off by" in first.sentence
    copies = [rounding() for _ in range(second_look.TIMES)]
    for copy in copies:
        copy[spot] = off if stays else copy[spot]
    assert second_look.wanted(first, FP32, [FLOATS]) is (times < 10)
    if times < 10:
        found = second_look.look([LOCAL] * 8, [LOCAL + c for c in copies], LOCAL_NOISE, FP32, LOCAL_NOISE)
        assert second_look.settle(first, [found], FP32).outcome is outcome
        unknown = second_look.look([LOCAL] * 8, [LOCAL + c for c in copies], LOCAL_NOISE, FP32)
        assert second_look.settle(first, [unknown], FP32).outcome is Outcome.FAILED


@pytest.mark.parametrize(
    ("point", "more", "outcome"),
    [(3.3, 1.2, Outcome.PASSED), (3.3, 1.0, Outcome.FAILED), (20.0, 9.0, Outcome.FAILED)],
)
def test_one_element_at_fp16_is_judged_by_more_draws_of_rounding(point, more, outcome):
    """An element of 3.3 times the worst of one draw, at an rms below the noise: other draws do as much elsewhere."""
    truth = np.random.default_rng(2).standard_normal((8, 5000))
    noise = {"fp32": [Noise(1e-7, 4e-7, 1e-7)], "fp16": [Noise(1e-3, 2e-3, 1e-3)]}
    got = truth.copy()
    got[3, 7] += point * 2e-3
    first = judge(["y"], [[truth]], [[got]], noise, PRECISIONS["fp16"], dtypes=["float64"])
    assert "its worst element is off by" in first.sentence
    assert second_look.by_one_element(first.outputs[0], PRECISIONS["fp16"]) is (point < 6)
    assert not second_look.by_one_element(first.outputs[0], FP32)
    found = second_look.with_more_draws(first, [Noise(1e-3, more * 2e-3, 1e-3)], PRECISIONS["fp16"])
    assert found.outcome is outcome
    assert ("when the inputs move a little. It is the same model." in found.sentence) is (outcome is Outcome.PASSED)


def test_only_an_unusual_fp32_error_near_the_limit_is_looked_at():
    usual, _ = looked(1, shared=True)
    far, _ = looked(20, shared=True)
    near, _ = looked(3, shared=True)
    assert not second_look.wanted(usual, FP32, [FLOATS])
    assert not second_look.wanted(far, FP32, [FLOATS])
    assert not second_look.wanted(near, PRECISIONS["fp16"], [FLOATS])
    assert not second_look.wanted(near, FP32, [TensorSpec("ids", "int64", ("N", 5), 0, 9)])
    assert not second_look.wanted(Verdict(Outcome.FAILED, FailureKind.CONTRACT, ""), FP32, [FLOATS])


def test_inputs_move_by_little_and_integers_stay():
    feed = {"x": np.linspace(1, 2, 50, dtype=np.float32), "ids": np.arange(3)}
    copies = second_look.moved(feed)
    assert len(copies) == second_look.TIMES
    for copy in copies:
        assert np.allclose(np.abs(copy["x"] / feed["x"] - 1), second_look.MOVE, rtol=1e-2)
        assert copy["x"].dtype == np.float32
        assert (copy["ids"] == feed["ids"]).all()
    assert (copies[0]["x"] != copies[1]["x"]).any()
