"""A cell whose parity was asked for and could not be checked is no pass, whatever else of it passed."""

from __future__ import annotations

import json

import jsonschema
import pytest
from inner_run import ONE_CELL
from places import RECORD_SCHEMA
from special_outputs import write_without_estimate

from pytest_modelformats.record import read, write
from pytest_modelformats.report import terminal
from pytest_modelformats.schema.plain import plain

CELL = "m-onnx-fp32-onnxruntime@cpu"
SUITES = ("--mf-suites", "contract,parity")
REASON = "parity could not be checked: the rounding noise of m at fp32 is not known: there is no float64 evaluation"


@pytest.fixture
def unchecked(run, pytester):
    """Run some checks of a model that runs well and has no rounding noise that could be estimated."""
    path = write_without_estimate(pytester.path / "m.onnx")
    return lambda *args, **more: run("--mf-model", path, *ONE_CELL, *args, **more)


def test_what_was_not_checked_is_not_shown_as_passed(unchecked):
    """In the record, its footer, the terminal, the Markdown and the page; pytest's exit status is that of a skip."""
    ran = unchecked(*SUITES)
    assert ran.status == 0, ran.text
    assert ran.outcomes == {(CELL, "contract"): "passed", (CELL, "parity"): "unsupported"}
    assert ran.footer["cells"] == {CELL: "unsupported"}
    assert ran.footer["complete"]
    (line,) = ran.of("cell")
    jsonschema.Draft202012Validator(json.loads(RECORD_SCHEMA.read_text())).validate(line)
    assert line["parity_asked"] is True
    run = read.read(ran.folder / "results.jsonl")
    (cell,) = run.cells
    assert cell.ran
    assert run.remarks == (cell,)
    assert run.not_run == ()
    (why,) = run.unchecked
    assert why.startswith(f"1 unsupported: {REASON}")
    shown = terminal.render(run, 400, color=False)
    assert "1 cell: 1 unsupported; complete" in shown
    assert why in shown
    assert "no parity · –" in shown
    markdown, page = ((ran.folder / name).read_text() for name in ("report.md", "index.html"))
    assert f"| **unsupported**: {REASON}" in markdown
    assert f'<small class="unchecked">{REASON}' in page
    assert "passed</span></a>" not in page


def test_what_was_asked_for_decides(unchecked):
    """Without parity among the selected tests the others say what they say."""
    ran = unchecked("--mf-suites", "contract")
    assert ran.footer["cells"] == {CELL: "passed"}
    assert ran.of("cell")[0]["parity_asked"] is False
    assert unchecked(*SUITES, "-k", "contract").footer["cells"] == {CELL: "passed"}


def test_the_processes_of_xdist_ask_for_it_too(unchecked):
    ran = unchecked(*SUITES, "-p", "xdist", "-n", "2")
    assert ran.of("cell")[0]["parity_asked"] is True
    assert ran.footer["cells"] == {CELL: "unsupported"}


def test_own_tests_alone_say_what_they_say(unchecked, pytester):
    pytester.makepyfile(test_own="def test_it(mf_contract):\n    assert mf_contract.passed\n")
    ran = unchecked("test_own.py")
    assert ran.footer["cells"] == {CELL: "passed"}
    assert ran.of("cell")[0]["parity_asked"] is False


def test_a_run_that_ended_before_its_parity_is_incomplete_and_claims_nothing(tmp_path):
    """As pytest's -x ends one: the contract passed, the rest never had its turn."""
    recorder = write.Recorder(tmp_path, write.now())
    plan = {"model": "m", "format": "onnx", "route": "", "precision": "fp32", "backend": "b", "device": "cpu"}
    cell = {"kind": "cell", "cell": CELL, **plan, "decision": "run", "parity_asked": True}
    recorder.write({"kind": "header", "schema": 1, "run": "r", "started": "now", "tool": "0"})
    recorder.write(cell)
    recorder.write({"kind": "check", "cell": CELL, "check": "contract", "outcome": "passed"})
    assert not recorder.close(interrupted=False, exitstatus=1, duration_s=1.0)
    run = read.read(recorder.path)
    assert plain(run.footer.cells) == {CELL: "not-measured"}
    assert run.doubts == ("The run ended before all planned cells had their turn (exit status 1).",)
    assert run.unchecked == ("1 not-measured: parity could not be checked: the run ended before its turn",)
    assert run.cells[0].sentences() == [
        ("not-measured", "parity", "parity could not be checked: the run ended before its turn")
    ]
