"""Two environments of one run: the older runtime comes before, both sides open one artifact, nothing is done twice."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import pytest

from pytest_modelformats.errors import NotMeasured
from pytest_modelformats.history.baseline import counterpart as counterparts
from pytest_modelformats.history.baseline.family import Comparisons
from pytest_modelformats.history.baseline.named import Baseline
from pytest_modelformats.measure.two_sides import interleaved
from pytest_modelformats.run import sides
from pytest_modelformats.run.environments import made
from pytest_modelformats.schema import Cell, Decision, Environment, PlannedCell

HERE = PlannedCell(Cell("net", "onnx", "fp32", "onnxruntime", "cpu"), (), "fp32", Decision())
OLD = replace(HERE, cell=replace(HERE.cell, environment="old"))
VERSIONS = {"": "1.10.0", "old": "1.9.1"}


class Stages:
    """As much of the stages as comparing asks for; parity and timing are not to be had."""

    def __init__(self):
        self.pool = SimpleNamespace(settle=lambda timeout_s: None)
        self.cells = SimpleNamespace(opening=lambda planned, path: {"artifact": str(path)})

    def artifact(self, planned):
        return SimpleNamespace(path="model.onnx")

    def parity(self, planned):
        raise NotMeasured("not here")

    timing = parity


@pytest.fixture
def opened(monkeypatch):
    """What was opened as (before, after), by environment; the later side takes twice the time."""
    pairs = []
    monkeypatch.setattr(
        made,
        "ready",
        lambda settings, name: SimpleNamespace(
            environment=Environment(name, "/python"), versions={"onnxruntime": VERSIONS[name]}
        ),
    )
    monkeypatch.setattr("pytest_modelformats.settings.machine.versions", lambda names: {"onnxruntime": VERSIONS[""]})
    monkeypatch.setattr(counterparts, "feed_of", lambda stages, planned: {"x": "0.npy"})

    @contextmanager
    def nothing():
        yield ()

    def pair_of(pool, before, after, kept):
        assert before.job == after.job
        assert before.feed == after.feed == {"x": "0.npy"}
        pairs.append((before.environment.name, after.environment.name))
        return nothing

    def compare_latency(open_pair, **_):
        return interleaved.compare_samples([1000, 1001, 1002] * 30, [2000, 2001, 2002] * 30)

    monkeypatch.setattr(sides, "pair_of", pair_of)
    monkeypatch.setattr(interleaved, "compare_latency", compare_latency)
    return pairs


def comparisons(baseline=None):
    settings = SimpleNamespace(
        fail_on=None, baseline=baseline and baseline.ref, time_budget_s=0.1, seed=0, threads=1, timeout_s=1.0
    )
    cells = {p.cell.id: p for p in (HERE, OLD)}
    return Comparisons(settings, cells, baseline, None, Stages(), lambda what: None)


def test_the_older_version_comes_before(opened):
    found = comparisons()
    compared = found.measure(OLD)
    assert opened == [("old", "")]
    latency = compared.found[0].comparison
    assert latency.cell == OLD.cell.id
    assert latency.before_what == "old, onnxruntime 1.9.1"
    assert latency.after_what == "this environment, onnxruntime 1.10.0"
    assert latency.change.value == "regression"
    assert found.asked == ()  # an upgrade is looked at, and fails nothing by itself


def test_the_newer_environment_comes_after(opened, monkeypatch):
    monkeypatch.setitem(VERSIONS, "old", "1.11.0")
    comparisons().measure(OLD)
    assert opened == [("", "old")]


def test_of_the_same_version_the_environment_comes_before(opened, monkeypatch):
    monkeypatch.setitem(VERSIONS, "old", "1.10.0")
    comparisons().measure(OLD)
    assert opened == [("old", "")]


def test_without_a_baseline_other_cells_have_nothing_beside_them(opened):
    with pytest.raises(NotMeasured, match="--mf-baseline"):
        comparisons().measure(HERE)


def test_an_environment_as_the_baseline_comes_before_whatever_its_version(opened, monkeypatch):
    monkeypatch.setitem(VERSIONS, "old", "1.11.0")
    found = comparisons(Baseline("+old", "environment old", None, "old"))
    assert found.measure(HERE).found[0].comparison.cell == HERE.cell.id
    assert opened == [("old", "")]
    with pytest.raises(NotMeasured, match="compared there"):
        found.measure(OLD)
    assert len(found.asked) == 4
