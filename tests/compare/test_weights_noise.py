"""Rounded weights: what a converter leaves of a tensor, and what they cost beside fp32's own rounding."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from pytest_modelformats.compare.noise import measure_noise
from pytest_modelformats.compare.reference import reference_of
from pytest_modelformats.compare.rounding import compressed, weight_rounding
from pytest_modelformats.compare.weights_noise import draws, weights_noise
from pytest_modelformats.errors import RunError, Unsupported
from pytest_modelformats.schema import PRECISIONS

TRUTH = np.random.default_rng(0).normal(size=(64, 5))
ERROR = np.random.default_rng(1).normal(size=TRUTH.shape)
WEIGHTS = "fp16-weights"


def off(share, seed=1):
    return TRUTH * (1 + share * np.random.default_rng(seed).normal(size=TRUTH.shape))


def noise_at(precision, **outputs):
    """The noise of a source that gives these outputs, by precision; at the others it is not evaluated."""

    def evaluate(asked):
        found = {"float64": TRUTH, **{name.replace("_", "-"): array for name, array in outputs.items()}}.get(asked)
        if found is None:
            raise Unsupported(f"not at {asked}")
        return [[found]], f"{asked}: stated"

    return reference_of(evaluate, (precision,)).noise[precision][0]


def test_results_of_rounded_weights_are_written_down_in_fp32():
    """The floor of writing an output down is fp32's: what the weights do to it may be far below fp16's step."""
    assert PRECISIONS[WEIGHTS].result_bits == 23
    small = off(1e-6)
    assert noise_at(WEIGHTS, fp16_weights=small).rms == pytest.approx(np.sqrt(np.mean((small - TRUTH) ** 2)))


def test_weights_that_fp16_holds_exactly_leave_the_noise_of_fp32():
    """A runtime that sums in another order is off by fp32's rounding, which fp32's limit is for, not fp16's."""
    single = off(3e-7)
    noise, at_fp32 = noise_at(WEIGHTS, fp16_weights=TRUTH, fp32=single), noise_at("fp32", fp32=single)
    assert noise.rms * PRECISIONS[WEIGHTS].limit == pytest.approx(at_fp32.rms * PRECISIONS["fp32"].limit)
    assert noise.raw_rms == 0
    far = noise_at(WEIGHTS, fp16_weights=off(1e-3), fp32=single)
    assert far.rms == pytest.approx(noise_at(WEIGHTS, fp16_weights=off(1e-3)).rms, rel=1e-5)


def test_several_roundings_are_one_noise_and_the_own_one_is_told_apart():
    """As large as the largest of them, wherever that lies; ``raw_rms`` is of the source's own weights."""
    others = [np.random.default_rng(n).normal(size=TRUTH.shape) for n in (2, 3)]
    roundings = [[TRUTH + 0.5 * ERROR], [TRUTH + others[0]], [TRUTH + 2 * others[1]]]
    rms = [float(np.sqrt(np.mean((r[0] - TRUTH) ** 2))) for r in roundings]
    noise = weights_noise([TRUTH], roundings, None, WEIGHTS)
    assert noise.rms == pytest.approx(rms[2])
    assert noise.max >= np.abs(2 * others[1]).max() * (1 - 1e-12)
    assert noise.raw_rms == pytest.approx(rms[0])
    assert min(noise.rows) > 0.2 * rms[2]


def test_a_rounding_that_cannot_be_had_is_left_out():
    """A format without further roundings has the noise of one; so has a model that does not run with them."""

    def evaluate(asked):
        if asked == draws(WEIGHTS)[0]:
            raise RunError("shapes do not fit")
        if asked not in ("float64", WEIGHTS):
            raise Unsupported("one rounding")
        return [[TRUTH if asked == "float64" else TRUTH + 1e-3 * ERROR]], "stated"

    noise = reference_of(evaluate, (WEIGHTS,)).noise[WEIGHTS][0]
    assert noise.rms == pytest.approx(measure_noise([TRUTH], [TRUTH + 1e-3 * ERROR], 23).rms)


def test_integers_flip_where_any_rounding_flips_them():
    truth = np.arange(40)
    other, none = truth.copy(), truth.copy()
    other[:4] += 1
    assert weights_noise([truth], [[none], [other]], [none], WEIGHTS).flips == pytest.approx(0.1)


def test_a_single_number_stays_and_so_does_what_fp16_cannot_hold():
    assert compressed(np.float32([0.1])) == np.float32(0.1)
    assert not np.array_equal(compressed(np.float32([0.1, 0.2])), np.float32([0.1, 0.2]))
    mask = np.full(8, -1e9, np.float32)
    assert np.array_equal(compressed(mask), mask)
    assert compressed(np.float32([1e9, 1, 1, 1]))[0] == 65504


def test_a_draw_is_another_rounding_of_the_same_size():
    weight = np.random.default_rng(2).normal(size=(32, 40)).astype(np.float32)
    errors = [weight_rounding(name)(weight) - weight for name in (WEIGHTS, *draws(WEIGHTS))]
    own = errors[0].std()
    assert all(0.7 * own < e.std() < 1.4 * own for e in errors)
    assert all(abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.2 for a, b in pairwise(errors))
    again = weight_rounding(draws(WEIGHTS)[0])(weight) - weight
    assert np.array_equal(again, errors[1])
    assert weight_rounding("fp16") is None
