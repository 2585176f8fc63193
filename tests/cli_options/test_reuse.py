"""``--mf-reuse``: Show passes and measurements of earlier runs again where nothing that they depend on has changed."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from inner_run import ONE_CELL, ended, two_layers

from pytest_modelformats.checks import latency
from pytest_modelformats.measure.sampling import statistics
from pytest_modelformats.schema import Timing

CANDIDATES = ("--mf-candidate", "wrong.onnx", "--mf-candidate", "copy.onnx")
# Of what was measured now, the line says on what artifact and code as well.
NOW = {"artifact", "runtime"}
CELL = "tiny-onnx-fp32-onnxruntime@cpu"


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A folder for what first runs leave, and how each ended: they do not differ from test to test."""
    return tmp_path_factory.mktemp("kept"), {}


@pytest.fixture
def twice(run, tiny, pytester, kept, monkeypatch):
    """Runs once, or takes what another test's first run left, does something, runs again with --mf-reuse.

    The first run has a process of its own, the second one only where that is asked for.
    """
    folder, first_runs = kept
    # Whoever imports setuptools has what it carries installed from then on: other tests of this process may have.
    monkeypatch.setattr(sys, "path", [place for place in sys.path if Path(place).name != "_vendor"])

    def runs(between=lambda: None, after=("--mf-reuse",), *, inprocess=True, candidates=()):
        name = "candidates" if candidates else "model"
        options = ("--mf-model", tiny, *candidates, "--mf-suites", "contract,parity", *ONE_CELL)
        options = (*options, "--mf-cache=passes-here")
        if name not in first_runs:
            two_layers(pytester.path / "wrong.onnx", change=1.0)
            two_layers(pytester.path / "copy.onnx")
            first_runs[name] = run(*options, cache=False).result
            shutil.copytree(pytester.path, folder / name, symlinks=True)
        else:
            shutil.copytree(folder / name, pytester.path, symlinks=True, dirs_exist_ok=True)
        first = ended(first_runs[name], pytester.path / "reports")
        between()
        return first, run(*options, *after, cache=False, inprocess=inprocess)

    return runs


def reused(ran):
    return {check for (_, check), line in ran.checks.items() if line["data"].get("reused")}


def found(data):
    return {key: value for key, value in data.items() if key not in NOW}


def test_what_passed_is_shown_again(twice):
    first, second = twice(inprocess=False)
    assert first.status == second.status == 0, second.text
    assert reused(first) == set()
    assert reused(second) == {"contract", "parity"}
    for check in ("contract", "parity"):
        before, after = (dict(ran.checks[CELL, check]) for ran in (first, second))
        assert after["sentence"] == before["sentence"]
        assert {k: v for k, v in after["data"].items() if k != "reused"} == found(before["data"])
    assert second.of("model") == first.of("model")
    assert "2 of 2 checks are shown again from earlier runs" in second.text.replace("\n", " ")
    for report in ("index.html", "report.md"):
        assert "shown again from earlier runs" in (second.folder / report).read_text()


def test_without_the_option_everything_runs(twice):
    _, second = twice(after=())
    assert reused(second) == set()
    assert "shown again" not in second.text


def test_another_model_of_the_same_name_runs(twice, tiny):
    _, second = twice(lambda: two_layers(tiny, seed=1))
    assert reused(second) == set()


@pytest.mark.parametrize("change", [("--mf-seed", "3"), ("--mf-ort-optimization", "disable"), ("--mf-threads", "2")])
def test_another_setting_runs(twice, change):
    _, second = twice(after=("--mf-reuse", *change))
    assert reused(second) == set()


def test_another_variable_that_runtimes_read_runs(twice, monkeypatch):
    _, second = twice(lambda: monkeypatch.setenv("ORT_SOMETHING", "1"))
    assert reused(second) == set()


def test_other_versions_run(twice, monkeypatch):
    from pytest_modelformats.session import reuse

    versions = [*reuse._distributions(), "onnxruntime==99"]
    _, second = twice(lambda: monkeypatch.setattr(reuse, "_distributions", lambda: versions))
    assert reused(second) == set()


def test_a_changed_tool_runs(twice, monkeypatch):
    from pytest_modelformats.session import reuse

    _, second = twice(lambda: monkeypatch.setattr(reuse, "_code", lambda: {"compare.py": "another"}))
    assert reused(second) == set()


def test_what_failed_runs_again(twice):
    _, ran = twice(candidates=CANDIDATES)
    wrong = "tiny~wrong-onnx-fp32-onnxruntime@cpu"
    assert ran.outcomes[wrong, "parity"] == "failed"
    assert "reused" not in ran.checks[wrong, "parity"]["data"]
    assert ran.checks[wrong, "contract"]["data"]["reused"]
    assert ran.checks[CELL, "parity"]["data"]["reused"]


def test_a_changed_candidate_runs(twice, pytester):
    first, ran = twice(lambda: two_layers(pytester.path / "copy.onnx", change=1.0), candidates=CANDIDATES)
    copy = "tiny~copy-onnx-fp32-onnxruntime@cpu"
    assert first.outcomes[copy, "parity"] == "passed"
    assert ran.outcomes[copy, "parity"] == "failed"


@pytest.mark.parametrize(
    "content", ["", "[]", '{"noun": "verdict"}', '{"noun":"verdict","result":{},"line":null,"at":""}']
)
def test_a_damaged_entry_runs_and_is_written_again(twice, pytester, content):
    def damage():
        entries = list(pytester.path.glob("passes-here/passes/*/*.json"))
        assert len(entries) == 2
        for entry in entries:
            entry.write_text(content)

    first, second = twice(damage)
    assert first.status == second.status == 0
    assert reused(second) == set()
    assert all(entry.read_text() != content for entry in pytester.path.glob("passes-here/passes/*/*.json"))


def test_a_forged_failure_is_no_pass(twice, pytester):
    """Only passes are kept: an entry that says something else is not believed."""

    def forge():
        for entry in pytester.path.glob("passes-here/passes/*/*.json"):
            data = json.loads(entry.read_text())
            data["result"]["outcome"] = "failed"
            entry.write_text(json.dumps(data))

    _, second = twice(forge)
    assert reused(second) == set()


def test_the_same_tool_and_versions_are_shown_again_in_the_same_process(twice):
    """The neighbour of the two tests that patch something: it is the patch that made the key another."""
    _, second = twice()
    assert reused(second) == {"contract", "parity"}


@pytest.mark.parametrize("foreign", [0.0, 0.1], ids=["quiet", "disturbed"])
def test_a_measurement_is_shown_again_unless_it_was_disturbed(run, tiny, monkeypatch, foreign):
    """It is made, and its figures are those of given samples beside a given share of other work."""
    evidence = {"foreign_share": foreign, "steal_share": 0.0, "involuntary_switches": 0}
    given = [10_000 + 10 * (n % 7) for n in range(80)]
    monkeypatch.setattr(latency, "statistics", lambda _, batch, taken: statistics(given, batch, {**taken, **evidence}))
    options = ("--mf-model", tiny, "--mf-suites", "latency", *ONE_CELL, "--mf-cache=passes-here", "--mf-reuse")
    first, second = (run(*options, "--mf-time-budget", "0.05", cache=False, inprocess=True) for _ in range(2))
    before, after = (ran.checks[CELL, "latency"]["data"] for ran in (first, second))
    assert "reused" not in before
    assert before["disturbed"] == ("other work took 10% of the pinned cores" if foreign else "")
    if foreign:
        assert "reused" not in after
    else:
        assert after.pop("reused")
        assert after == found(before)


def test_a_disturbed_measurement_is_not_kept(tmp_path):
    from pytest_modelformats.session.reuse import Reuse

    class Elsewhere(Reuse):
        def _path(self, stage, planned):
            return tmp_path / "entry.json"

    reuse = Elsewhere(SimpleNamespace(cache=tmp_path), None, None)
    timing = Timing((1, 2), 1, 1, 0, *(1.0,) * 6, None, None, None, 1.0, 1, 1, None, None, None, None, pinned=(0,))
    reuse.keep("timing", None, replace(timing, disturbed="a neighbour took the core"), None)
    assert reuse.find("timing", None) is None
    reuse.keep("timing", None, timing, None)
    assert reuse.find("timing", None).result == timing
