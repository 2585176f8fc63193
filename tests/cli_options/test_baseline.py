"""``--mf-baseline``: Compare every cell with an earlier run; every way of naming one."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from inner_run import ONE_CELL

from pytest_modelformats.history.baseline import named

CELL = "tiny-onnx-fp32-onnxruntime@cpu"
PARITY = ("--mf-suites", "parity", *ONE_CELL)


@pytest.fixture
def first(run, tiny):
    return run("--mf-model", tiny, *PARITY, "--mf-save-baseline", "release-1.2", inprocess=True)


def test_every_way_of_naming_a_run(run, tiny, first, shelf):
    settings = SimpleNamespace(cache=shelf / "cache", report_dir=first.reports, rootdir=first.reports.parent)
    for ref in (first.folder.name, first.folder, first.folder / "results.jsonl", "latest"):
        assert named.find(str(ref), settings).path == first.folder / "results.jsonl"
    for ref in ("release-1.2", "latest"):
        ran = run("--mf-model", tiny, *PARITY, "--mf-baseline", ref, inprocess=True)
        assert ran.status == 0, ran.text
        stated = ran.lines[0]["baseline"]
        assert stated["ref"] == str(ref)
        if ref != "latest":  # which is another run by now
            assert stated["run"] == first.lines[0]["run"]
        assert ran.outcomes[CELL, "regression"] == "passed"
        assert ran.checks[CELL, "regression"]["data"]["comparisons"][0]["metric"] == "parity"


def test_what_is_not_there_is_refused_with_what_is(refusal, tiny, first):
    said = refused(refusal, tiny, "relaese-1.2")
    assert "did you mean 'release-1.2'?" in said
    assert "no folder or file" in said


def refused(refusal, tiny, ref):
    import shutil
    from pathlib import Path

    # one_sentence holds that a refused run leaves no record, so that of the first one goes
    shutil.rmtree(Path(tiny).parent / "reports", ignore_errors=True)
    return refusal("--mf-model", tiny, *PARITY, "--mf-baseline", ref)


def test_an_environment_that_nobody_declared_is_refused(refusal, tiny):
    assert "there is no environment 'ort-1.26'" in refusal("--mf-model", tiny, *PARITY, "--mf-baseline", "+ort-1.26")


def test_a_file_that_is_no_record_is_refused(refusal, tiny, pytester):
    (pytester.path / "notes.jsonl").write_text('{"kind": "note"}\n')
    said = refusal("--mf-model", tiny, *PARITY, "--mf-baseline", "notes.jsonl")
    assert "notes.jsonl, line 1" in said


@pytest.mark.slow
def test_under_xdist_nothing_is_compared(run, tiny, first):
    ran = run("--mf-model", tiny, *PARITY, "--mf-baseline", "release-1.2", "-n", "1", plugins=("xdist",))
    assert ran.outcomes[CELL, "comparison"] == ran.outcomes[CELL, "regression"] == "not-measured"
    assert "without -n" in ran.checks[CELL, "regression"]["sentence"]
