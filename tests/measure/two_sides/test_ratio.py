"""The interval of a ratio holds the true ratio as often as it says, on rounds whose truth is known."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from pytest_modelformats.measure.two_sides import ratio, student
from pytest_modelformats.measure.two_sides.ratio import PAIR_SPREAD, Within, over_pairs, within

TRUE = math.log(1.03)
COMPARISONS = 300


def noise(kind, generator, size):
    if kind == "normal":
        return generator.normal(0, 0.02, size)
    if kind == "heavy tails":
        return generator.standard_t(3, size) * 0.015
    if kind == "bimodal":
        return generator.normal(0, 0.004, size) + generator.choice([-0.05, 0, 0, 0.05], size)
    found = generator.normal(0, 0.01, size)
    spoilt = generator.random(size) < 0.1
    return np.where(spoilt, found + generator.choice([-0.5, 0.5], size), found)


def test_student_agrees_with_scipy():
    stats = pytest.importorskip("scipy.stats")
    for freedom, t in itertools.product([0.7, 1, 2.3, 5, 40, 1e4], [-30, -2, -0.1, 0, 0.3, 2.5, 40]):
        assert student.upper_tail(t, freedom) == pytest.approx(stats.t.sf(t, freedom), abs=1e-10)
    for freedom, share in itertools.product([1, 2, 5, 30, 1e4], [0.6, 0.95, 0.975, 0.999]):
        assert student.quantile(share, freedom) == pytest.approx(stats.t.ppf(share, freedom), rel=1e-6)
    assert student.upper_tail(math.inf, 3) == 0
    assert student.upper_tail(-math.inf, 3) == 1
    assert math.isnan(student.upper_tail(math.nan, 3))


def test_quad_cancels_a_linear_drift():
    """A B B A with a machine that slows by the same factor from block to block gives the ratio without it."""
    a, b, drift = 100_000, 110_000, 1.05
    before, after = [[a], [a * drift**3]], [[b * drift], [b * drift**2]]
    one = ratio.quad(before, after)
    assert math.exp(one.log_ratio) == pytest.approx(1.1)
    assert one.samples == 4
    assert one.after_ns / one.before_ns == pytest.approx(1.1)


@pytest.mark.parametrize("kind", ["normal", "heavy tails", "bimodal", "spoilt"])
@pytest.mark.parametrize("rounds", [6, 13])
def test_interval_of_one_pair_covers(kind, rounds):
    """At least 92 % of the 95 % intervals hold the truth, also from six rounds of which one in ten is spoilt."""
    generator = np.random.default_rng(5)
    intervals = [within(TRUE + noise(kind, generator, rounds), k).interval() for k in range(COMPARISONS)]
    assert sum(i.low <= math.exp(TRUE) <= i.high for i in intervals) >= 0.92 * COMPARISONS


@pytest.mark.parametrize("pairs", [1, 2, 4])
@pytest.mark.parametrize("spread", [0.0, PAIR_SPREAD])
def test_interval_over_pairs_covers(pairs, spread):
    """It does so where processes of the same code differ as expected, however few pairs there are."""
    generator = np.random.default_rng(6)
    hits = 0
    for k in range(COMPARISONS):
        said = [
            within(TRUE + generator.normal(0, spread) + noise("normal", generator, 6), k * 10 + i) for i in range(pairs)
        ]
        over = over_pairs(said)
        hits += over.low <= math.exp(TRUE) <= over.high
    assert hits >= 0.93 * COMPARISONS


def test_a_plain_bootstrap_of_six_rounds_would_be_too_narrow():
    """Without Student's t and the scaling, the percentiles of the bootstrap miss the truth more than twice as often."""
    generator = np.random.default_rng(7)
    missed = {"ours": 0, "percentiles": 0}
    for k in range(COMPARISONS):
        rounds = noise("normal", generator, 6)
        own = within(rounds, k).interval()
        missed["ours"] += not own.low <= 1 <= own.high
        drawn = np.median(rounds[generator.integers(0, 6, (400, 6))], axis=1)
        low, high = np.quantile(drawn, [0.025, 0.975])
        missed["percentiles"] += not low <= 0 <= high
    assert missed["percentiles"] > 1.5 * missed["ours"]


def test_pairs_that_disagree_widen_the_interval():
    """What the pairs themselves show outweighs the expectation the more pairs there are."""
    near = over_pairs([Within(0.1, 1e-6, 9, 9), Within(0.101, 1e-6, 9, 9)])
    far = over_pairs([Within(0.05, 1e-6, 9, 9), Within(0.15, 1e-6, 9, 9)])
    assert far.high - far.low > 3 * (near.high - near.low)
    assert far.freedom < near.freedom + 1
    many = over_pairs([Within(0.1, 1e-6, 9, 9)] * 8)
    assert many.high - many.low < 0.7 * (near.high - near.low)


def test_a_noisy_pair_weighs_less():
    """The estimate stays with the pair that is known well."""
    over = over_pairs([Within(0.0, 1e-6, 20, 20), Within(0.1, 0.04, 6, 6)])
    assert abs(over.centre) < 0.035


def test_p_values_agree_with_the_interval():
    """The whole interval is beyond the margin exactly where the one-sided p-value is below 2.5 %."""
    for centre in np.linspace(-0.2, 0.2, 41):
        over = over_pairs([Within(float(centre), 1e-4, 9, 9)])
        assert (over.low > 1.05) == (over.p_above(1.05) < 0.025)
        assert (over.high < 0.95) == (over.p_below(0.95) < 0.025)


def test_one_round_is_refused():
    with pytest.raises(ValueError, match="at least two"):
        within([0.1], 0)


def test_sessions_that_stay_for_all_rounds_say_less():
    """How a session's layout differs from another's is in no round of it: allowed for, the more sessions the less."""
    widths = []
    for sessions in (1, 4, 9):
        over = over_pairs([Within(0.0, 1e-8, 9, sessions)])
        widths.append(over.high - over.low)
    assert widths == sorted(widths, reverse=True)
    assert widths[0] > 2 * widths[2]
