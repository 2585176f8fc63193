"""Load time and memory of two sides in fresh processes, from readings whose truth is known."""

from __future__ import annotations

import random

import pytest

from pytest_modelformats.history.baseline import fresh_readings
from pytest_modelformats.run.sides import Readings
from pytest_modelformats.schema import Change
from pytest_modelformats.schema import metrics as margins

WHATS = ("before", "after")
ASKED = margins.read(["load:20%", "memory"], "here")
MEGABYTE = 10**6


def side(load_ms=10.0, memory_mb=100.0, *, count=7, seed=0):
    """The first opening of a process is slow; the others spread by a tenth, and one of them is far out."""
    draw = random.Random(seed)
    loads = [load_ms * draw.uniform(0.95, 1.05) for _ in range(count - 1)]
    if loads:
        loads[-1] *= 3
    held = None if memory_mb is None else round(memory_mb * MEGABYTE)
    return Readings(tuple(round(ms * 1e6) for ms in [5 * load_ms, *loads]), held)


def said(kept, asked=ASKED):
    return {c.metric: c for c in fresh_readings.of_pairs("cell", kept, asked, WHATS)}


def pairs(count, after, before=None):
    before = before or {}
    return [(side(**before, seed=i), side(**after, seed=50 + i)) for i in range(count)]


def test_identical_sides_are_the_same():
    found = said(pairs(2, {}))
    assert {name: c.change for name, c in found.items()} == {"load": Change.SAME, "memory": Change.SAME}
    assert found["load"].how == "interleaved"
    assert found["load"].recurred is None
    assert not fresh_readings.suspects(pairs(1, {}), ASKED)


@pytest.mark.parametrize(
    ("metric", "after"), [("load", {"load_ms": 15.0}), ("memory", {"memory_mb": 130.0})], ids=["load", "memory"]
)
def test_a_change_needs_two_pairs_of_fresh_processes(metric, after):
    once, twice = said(pairs(1, after)), said(pairs(2, after))
    assert once[metric].change is Change.INCONCLUSIVE
    assert fresh_readings.suspects(pairs(1, after), ASKED)
    assert twice[metric].change is Change.REGRESSION
    assert twice[metric].recurred
    assert "2 pairs of fresh processes" in twice[metric].sentence
    assert said(pairs(2, {}, before=after))[metric].change is Change.IMPROVEMENT
    other = next(name for name in twice if name != metric)
    assert twice[other].change is Change.SAME


def test_what_only_one_of_two_pairs_says_is_no_change():
    found = said([*pairs(1, {"load_ms": 15.0, "memory_mb": 130.0}), *pairs(1, {})])
    assert {c.change for c in found.values()} == {Change.INCONCLUSIVE}
    assert "not in every one of two pairs" in found["memory"].sentence
    assert found["memory"].recurred is False


def test_one_slow_opening_is_no_slower_load():
    """The far-out one of each side is three times as slow: means would differ by the half."""
    calm = Readings(tuple(round(ms * 1e6) for ms in (50, 10, 10, 10, 10, 10, 10)), None)
    assert said([(calm, side())] * 2)["load"].change is Change.SAME


def test_within_the_margin_nothing_changed():
    found = said(pairs(2, {"load_ms": 11.0, "memory_mb": 108.0}))
    assert {c.change for c in found.values()} == {Change.SAME}


def test_memory_of_less_than_a_megabyte_is_noise():
    assert said(pairs(2, {"memory_mb": 1.1}, before={"memory_mb": 0.2}))["memory"].change is Change.SAME


def test_what_was_not_read_on_both_sides_is_not_compared():
    assert "memory" not in said([(side(), side(memory_mb=None))] * 2)
    assert "load" not in said([(side(), side(count=3))] * 2)
    assert said([]) == {}


def test_a_suspicion_that_fails_nothing_opens_no_other_pair():
    slower = pairs(1, {"load_ms": 15.0})
    assert not fresh_readings.suspects(slower, margins.DEFAULT)
    assert fresh_readings.suspects(slower, ASKED)
    assert not fresh_readings.suspects(pairs(2, {"load_ms": 15.0}), ASKED)
