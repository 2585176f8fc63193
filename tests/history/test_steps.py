"""Steps: how many there are where there are none, and how many of the planted ones are found."""

from __future__ import annotations

import random

import numpy as np
import pytest

from pytest_modelformats.history import show as report
from pytest_modelformats.history import steps, trend
from pytest_modelformats.history.database.rows import Versions

SERIES = 1000


def normal(rng, n):
    return 1000 * (1 + 0.01 * rng.standard_normal(n))


def heavy(rng, n):
    """Student's t with two degrees of freedom: its variance is infinite."""
    return 1000 * np.exp(0.01 * rng.standard_t(2, n))


def bimodal(rng, n):
    return np.where(rng.random(n) < 0.5, 900.0, 1300.0) * (1 + 0.003 * rng.standard_normal(n))


def outliers(rng, n):
    return normal(rng, n) * np.where(rng.random(n) < 0.1, 2.0, 1.0)


def coarse(rng, n):
    return np.round(normal(rng, n) / 10) * 10


def found_in(make, n, count=SERIES, seed=0):
    rng = np.random.default_rng(seed)
    return [steps.find(make(rng, n).tolist()) for _ in range(count)]


@pytest.mark.parametrize("n", [12, 30, 100])
@pytest.mark.parametrize("noise", [normal, heavy, bimodal, outliers, coarse])
def test_a_series_without_a_step_has_none(noise, n):
    """At most 1 in 100 by construction; 2 in 100 of 1000 series is 3 standard deviations above."""
    assert sum(bool(found) for found in found_in(noise, n)) <= 0.02 * SERIES


@pytest.mark.parametrize(
    ("noise", "ratio", "n", "at"),
    [
        (normal, 1.05, 40, 20),
        (normal, 1.05, 60, 50),
        (normal, 0.9, 30, 10),
        (outliers, 1.1, 60, 30),
        (heavy, 1.1, 60, 30),
    ],
)
def test_a_planted_step_is_found_where_it_is(noise, ratio, n, at):
    def planted(rng, n):
        return noise(rng, n) * np.where(np.arange(n) < at, 1.0, ratio)

    found = found_in(planted, n, 300)
    hits = [s for s in found if len(s) == 1]
    assert len(hits) >= 0.95 * len(found)
    # Outliers right before a step are beyond the old level as the new values are: no method could tell.
    near = sum(abs(s[0].index - at) <= 2 for s in hits)
    assert near >= (0.9 if noise is outliers else 0.97) * len(found)
    assert np.median([s[0].ratio for s in hits]) == pytest.approx(ratio, rel=0.01)


def test_two_steps_are_found_as_two():
    def planted(rng, n):
        return normal(rng, n) * np.where((np.arange(n) >= 20) & (np.arange(n) < 40), 1.2, 1.0)

    assert sum(len(found) == 2 for found in found_in(planted, 60, 200)) >= 190


@pytest.mark.parametrize("old", [8, 30, 100, 360])
def test_a_step_is_found_from_its_fifth_value_on(old):
    before = (100 + 0.01 * np.random.default_rng(5).permutation(old)).tolist()
    new = [float(200 + i) for i in range(steps.FROM_VALUE)]
    assert [s.index for s in steps.find(before + new)] == [old]
    assert steps.find(before + new[:3]) == ()


def test_the_highest_value_before_a_step_is_not_taken_for_the_new_level():
    """By its rank alone it would be: 20 is nearer to the ranks 21 to 30 than to 1 to 19."""
    assert [s.index for s in steps.find([1000.0 + i % 5 for i in range(20)] + [1200.0 + i % 5 for i in range(10)])] == [
        20
    ]


def test_a_short_series_has_no_steps():
    values = [1.0 + 1e-6 * i for i in range(5)] + [9.0 + 1e-6 * i for i in range(6)]
    assert steps.find(values) == ()
    assert len(steps.find([*values, 9.5])) == 1


def test_constant_series_have_no_steps():
    assert steps.find([5.0] * 50) == ()
    assert steps.find([5.0] * 50, exact=True) == ()


def test_what_does_not_vary_by_chance_steps_with_every_change():
    assert [s.index for s in steps.find([100.0, 100.0, 100.0, 120.0], exact=True)] == [3]
    assert [s.index for s in steps.find([0.0] * 5 + [1.0] * 2 + [0.0] * 3, exact=True)] == [5, 7]
    assert steps.find([100.0, 100.0, 100.0, 120.0]) == ()
    assert steps.find([1.0, 2.0, 3.0, 4.0, 5.0], exact=True) == ()


def test_it_is_the_rank_cost_of_ruptures():
    """The fast form gives what PELT with the library's own rank cost gives."""
    import ruptures

    rng = np.random.default_rng(3)
    for n in (15, 40, 80):
        values = normal(rng, n) * np.where(np.arange(n) < n // 3, 1.0, 1.03)
        slow = ruptures.Pelt(model="rank", min_size=2, jump=1).fit(values.reshape(-1, 1)).predict(pen=steps.penalty(n))
        assert steps._pelt(values) == slow[:-1]


def point(i, value, disturbed="", version="1.26.0", **more):
    versions = Versions({"onnxruntime": version}, {"torch": "2.13.0"})
    facts = {"run": f"run{i}", "started": 86400 * i, "low": None, "high": None, "outcome": "passed", "samples": 9}
    return trend.Point(value=value, disturbed=disturbed, versions=versions, **{**facts, **more})


def slowed():
    random.seed(1)
    level = [1000.0] * 15 + [1250.0] * 10
    return [
        point(i, v * random.uniform(0.99, 1.01), version="1.26.0" if i < 15 else "1.32.0") for i, v in enumerate(level)
    ]


def trend_of(points, **more):
    marked, about = trend.marks(points, exact=False)
    head = {"cell": "net@cpu", "machine": "abc", "machine_facts": "CPU, 2 cores", "check": "latency"}
    return trend.Trend(
        **head, metric="latency_p50_ns", unit="ns", points=tuple(points), steps=marked, about_steps=about
    )


def test_a_step_names_its_date_medians_ratio_and_the_version_that_changed():
    (sentence,) = report._conclusion(trend_of(slowed()))
    assert sentence.startswith("Step at 1970-01-16 00:00 (run15): 999 ns → 1.25 µs (× 1.25);")
    assert sentence.endswith("changed there: onnxruntime 1.26.0 → 1.32.0.")


def test_disturbed_measurements_make_no_step_and_hide_none():
    points = slowed()
    noisy = [
        trend.Point(**{**{f: getattr(p, f) for f in p.__slots__}, "disturbed": "foreign load"}) for p in points[15:]
    ]
    assert trend.marks(points[:15] + noisy, exact=False)[0] == ()
    # Half of the runs on both sides were disturbed and tell nothing; the step is at the first one that was not.
    mixed = [p if i % 4 else trend_point(p, p.value * 3, "load") for i, p in enumerate(points)]
    (mark,) = trend.marks(mixed, exact=False)[0]
    assert mark.point.run == "run15"


def trend_point(p, value, disturbed):
    return point(p.started // 86400, value, disturbed, p.versions.runtime["onnxruntime"])


def test_without_ruptures_one_line_says_how_to_get_steps(monkeypatch):
    monkeypatch.setattr(steps, "available", lambda: False)
    found = trend_of(slowed())
    assert found.steps == ()
    assert found.about_steps.endswith("pip install 'pytest-modelformats[history]'")


def test_too_few_runs_are_said():
    assert trend_of(slowed()[:11]).about_steps == (
        "No steps: 11 undisturbed runs are too few to tell one from chance; 12 are enough."
    )
    assert trend_of(slowed()[:14]).about_steps == "No steps in 14 undisturbed runs."


def test_the_sparkline_shows_levels_and_marks_what_was_disturbed():
    line = report.sparkline([point(0, 1.0), point(1, 1.0), point(2, 9.0, "load"), point(3, 2.0)])
    assert line == "▁▁·█"
    assert len(report.sparkline([point(i, float(i)) for i in range(500)])) <= 60
    assert report.sparkline([]) == ""
    assert report.sparkline([point(0, None)]) == ""
