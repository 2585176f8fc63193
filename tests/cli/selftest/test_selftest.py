"""``modelformats selftest``: what it measures, what it says of it, and what it refuses."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from pytest_modelformats.cli.main import commands
from pytest_modelformats.cli.selftest import measure, workloads
from pytest_modelformats.cli.selftest.command import lines
from pytest_modelformats.errors import ConfigurationError
from pytest_modelformats.measure.two_sides.ratio import Quad, Round
from pytest_modelformats.run.workers.pool import Pool

pytestmark = pytest.mark.alone

FEW = 8  # trials: here it is counted what is said, not how well


@pytest.fixture
def brief(monkeypatch):
    """Fewer rounds, trials and budgets: the path is the same."""
    plain_least, plain_share = measure.smallest_slowdown, measure.found_share
    monkeypatch.setattr(measure, "ROUNDS", 3)
    monkeypatch.setattr(measure, "BUDGETS", (1,))
    monkeypatch.setattr(measure, "smallest_slowdown", lambda *a, **k: plain_least(*a, **{**k, "trials": FEW}))
    monkeypatch.setattr(measure, "found_share", lambda *a, **k: plain_share(*a, **{**k, "trials": FEW}))


def rounds(spread=0.0, bias=0.0, count=9):
    return [Round.of([Quad(bias + spread * (-1) ** i, 1e6, 1e6)]) for i in range(count)]


def told(heard, budget_s=10.0):
    return measure._workload("numpy", heard, (0.5, 0.2), budget_s, lambda _: None)


def test_command_measures_and_says_one_sentence(brief):
    """Identical code in real processes: no alarm of its own, a table, and the sentence at the end."""
    ran = CliRunner().invoke(commands, ["selftest", "--pairs", "2", "--backend", "numpy", "--budget", "4"])
    assert ran.exit_code == 0, ran.output
    assert "0 of 1 comparisons of identical code gave an alarm" in ran.output
    assert "detected in 57 of 60" in ran.output
    last = ran.output.strip().splitlines()[-1]
    assert last.startswith(("At a margin of 5% and 4 s a comparison", "This machine is too restless"))


def test_json_holds_what_is_said(brief):
    pytest.importorskip("onnxruntime")
    ran = CliRunner().invoke(commands, ["selftest", "--pairs", "2", "--backend", "onnxruntime", "--json"])
    assert ran.exit_code == 0, ran.output
    found = json.loads(ran.output)
    (workload,) = found["workloads"]
    assert workload["name"] == "onnxruntime"
    assert workload["comparisons"] == 1
    assert {row["margin"] for row in workload["detectable"]} == set(measure.MARGINS)
    assert found["machine_state"]["before"]["measured_core"]
    assert found["sentence"]


def test_alarms_are_counted_and_said(brief):
    """Pairs that agree on a difference of identical code are what an alarm looks like; the sentence tells it."""
    quiet = told([rounds(0.002), rounds(0.002)])
    assert (quiet.comparisons, quiet.alarms) == (1, 0)
    wolf = told([rounds(0.002, 0.2), rounds(0.002, 0.2)])
    assert (wolf.comparisons, wolf.alarms) == (1, 1)
    assert "1 of 2 comparisons of identical code gave an alarm" in measure.sentence([quiet, wolf], 10.0)


def test_none_of_a_hundred_is_not_called_less_than_one_percent(brief):
    """What was drawn is counted, and its upper bound stated: none of 100 leaves 3 % possible.

    The rows are given, so nothing is drawn here.
    """
    rows = (measure.Detectable(0.05, 10.0, 0.08, alarms, 100) for alarms in (0, 2))
    quiet, worse = (replace(told([rounds(0.002), rounds(0.002)]), detectable=(row,)) for row in rows)
    said = measure.sentence([quiet], 10.0)
    assert "(0 of 100 drawn at this variation, so at most 3.0% are to be expected, with 95 % confidence)" in said
    assert "2 of 100 drawn at this variation, so at most 6.2%" in measure.sentence([quiet, worse], 10.0)
    assert "less than 1" not in said
    assert "0 of 100, at most 3.0%" in "\n".join(lines([quiet]))
    (stated,) = measure.plain([quiet], {}, 10.0)["workloads"][0]["detectable"]
    assert (stated["alarms"], stated["trials"], round(stated["alarms_at_most"], 4)) == (0, 100, 0.0295)


@pytest.mark.parametrize(("hits", "of"), [(0, 1), (0, 100), (1, 100), (7, 100), (99, 100), (100, 100)])
def test_the_bound_is_that_of_clopper_and_pearson(hits, of):
    stats = pytest.importorskip("scipy.stats")
    exact = stats.binomtest(hits, of).proportion_ci(0.90, "exact").high
    assert measure.share_at_most(hits, of) == pytest.approx(exact, abs=1e-6)


def test_sentence_of_a_restless_machine(brief):
    quiet = told([rounds(0.002), rounds(0.002)])
    blind = replace(quiet, detectable=tuple(replace(d, slowdown=None) for d in quiet.detectable))
    assert "finds a slow-down of" in measure.sentence([quiet], 10.0)
    assert "too restless" in measure.sentence([quiet, blind], 10.0)


@pytest.mark.parametrize(("backend", "said"), [("onyx", "no workload 'onyx'"), ("torchy", "did you mean 'torch'")])
def test_unknown_backend_is_one_sentence(backend, said):
    with pytest.raises(ConfigurationError, match=said):
        measure.chosen(backend)


def test_backend_that_is_not_installed_names_its_install_line(monkeypatch):
    monkeypatch.setattr(measure, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match="pip install"):
        measure.chosen("openvino")


def test_model_is_onnx_that_the_checker_accepts(tmp_path):
    """The hand-written bytes are a valid model, and compute what numpy computes."""
    onnx = pytest.importorskip("onnx")
    path = tmp_path / "model.onnx"
    workloads.write_model(path)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    from onnx.reference import ReferenceEvaluator

    x = np.ones((workloads.ROWS, workloads.WIDTH), np.float32)
    (y,) = ReferenceEvaluator(model).run(None, {"x": x})
    expected = x
    for weight in model.graph.initializer:
        expected = np.tanh(expected @ onnx.numpy_helper.to_array(weight))
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["openvino", "torch"])
def test_every_runtime_opens_the_workload(name):
    """Each of the other workloads is opened and timed in its worker."""
    pytest.importorskip(name)
    with (
        closing(Pool(memory_bytes=0, threads=1, isolate="process")) as pool,
        measure.pair_of(pool, *[measure._opening(pool, name)] * 2)() as (before, after),
    ):
        assert len(before.block(0.01)) >= 3
        assert len(after.block(0.01)) >= 3
