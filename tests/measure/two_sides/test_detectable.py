"""What is said to be detectable follows from how rounds and processes varied, and from the time there is."""

from __future__ import annotations

import random

import pytest

from pytest_modelformats.measure.two_sides import detectable
from pytest_modelformats.measure.two_sides.detectable import Variation, found_share, smallest_slowdown, variation
from pytest_modelformats.measure.two_sides.ratio import Quad, Round


def varied(round_spread, pair_spread=0.003, *, disturbed=0.0, round_s=0.2):
    draw = random.Random(1)
    residuals = tuple(draw.gauss(0, round_spread) for _ in range(60))
    delays = tuple((0.5, 0.0) if draw.random() < disturbed else (0.0, 0.0) for _ in residuals)
    return Variation(residuals, delays, pair_spread, 0.5, round_s)


def test_quiet_machine_detects_little_more_than_the_margin():
    assert smallest_slowdown(varied(0.003), margin=0.05, budget_s=10, trials=20) <= 0.065


def test_restless_machine_detects_less_and_more_time_helps():
    restless = varied(0.06)
    short = smallest_slowdown(restless, margin=0.05, budget_s=6, trials=15)
    long = smallest_slowdown(restless, margin=0.05, budget_s=25, trials=15)
    assert short > long > 0.065


def test_what_cannot_be_detected_is_none():
    """Blocks that vary by a factor of e hide twice the time."""
    assert smallest_slowdown(varied(2.0), margin=0.05, budget_s=6, trials=10) is None


def test_disturbed_machine_detects_nothing():
    assert smallest_slowdown(varied(0.003, disturbed=0.999), margin=0.05, budget_s=6, trials=10) is None


def test_identical_code_is_rarely_accused():
    assert found_share(varied(0.03, 0.006), 0.0, margin=0.02, budget_s=8, trials=50) == 0


def test_share_stops_where_enough_is_out_of_reach(monkeypatch):
    """A slow-down that is never found is not tried to the end."""
    tried = []
    plain = detectable.compare_latency
    monkeypatch.setattr(detectable, "compare_latency", lambda *a, **k: tried.append(1) or plain(*a, **k))
    assert found_share(varied(0.003), 0.01, margin=0.05, budget_s=6, trials=100, enough=0.95) < 0.95
    assert len(tried) <= 7


def test_variation_is_recovered():
    """The spread of rounds and that of pairs, from pairs that were made with them."""
    draw = random.Random(2)
    pairs = []
    for _ in range(40):
        bias = draw.gauss(0, 0.02)
        pairs.append([Round.of([Quad(bias + draw.gauss(0, 0.01), 1e6, 1e6)]) for _ in range(9)])
    seen = variation(pairs, 1.0, 0.2)
    assert seen.pair_spread == pytest.approx(0.02, rel=0.3)
    assert sum(r**2 for r in seen.residuals) / len(seen.residuals) == pytest.approx(1e-4, rel=0.2)
    assert variation(pairs[:1], 1.0, 0.2).pair_spread == 0


def test_nothing_measured_is_refused():
    with pytest.raises(ValueError, match="no pair"):
        variation([], 1.0, 0.2)
