"""Cells are chosen with pytest's own means, and shared among the processes of pytest-xdist."""

from __future__ import annotations

import pytest
from inner_run import ONE_CELL, one_sentence

CELL = "tiny-onnx-fp32-onnxruntime@cpu"
ON_CPU = ("--mf-formats", "onnx,openvino", "--mf-devices", "cpu")


def test_a_keyword_chooses_cells(collected, tiny):
    found = collected("--mf-model", tiny, *ON_CPU, "-k", "fp32 and openvino and (contract or parity or batch)")
    assert [item.split("::")[1] for item in found] == ["contract", "parity", "batch"]
    assert all("[tiny-openvino-fp32-openvino@cpu]" in item for item in found)


def test_a_marker_of_the_users_chooses_cells(collected, tiny, pytester):
    (pytester.path / "pytest.ini").write_text("[pytest]\nmarkers = nightly\n")
    pytester.makepyfile(
        test_own="""
        import pytest

        @pytest.mark.nightly
        def test_long(mf_parity): pass

        def test_short(mf_parity): pass
        """
    )
    found = collected("test_own.py", "--mf-model", tiny, *ONE_CELL, "-m", "nightly")
    assert found == [f"test_own.py::test_long[{CELL}]"]


@pytest.mark.parametrize(
    "chosen",
    [f"modelformats::parity::test_outputs_match_source[{CELL}]", "modelformats::parity::test_outputs_match_source"],
    ids=["one cell", "one law"],
)
def test_a_node_id_chooses_what_it_names(collected, tiny, chosen):
    found = collected(chosen, "--mf-model", tiny, *ONE_CELL)
    assert found == [f"modelformats::parity::test_outputs_match_source[{CELL}]"]


def test_an_unknown_suite_in_a_node_id_is_refused(run, tiny):
    ran = run("modelformats::parrity", "--mf-model", tiny, inprocess=True)
    one_sentence(ran, "there is no suite 'parrity'; did you mean 'parity'?")


def test_a_folder_of_the_users_called_suites_is_theirs(collected, pytester):
    (pytester.mkdir("suites") / "test_parity.py").write_text("def test_it(): pass")
    assert collected("suites") == ["suites/test_parity.py::test_it"]


def test_items_are_ordered_by_cell(collected, tiny):
    found = [item.partition("[")[2] for item in collected("--mf-model", tiny, *ON_CPU)]
    assert found == sorted(found, key=list(dict.fromkeys(found)).index)


FAILS_ONCE = """
def test_it(mf_cell):
    assert mf_cell.cell.precision == "fp32"
"""


def test_last_failed_runs_what_failed(pytester, tiny, shelf, monkeypatch):
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makepyfile(test_own=FAILS_ONCE)
    chosen = ("-p", "modelformats", "test_own.py", f"--mf-model={tiny}", "--mf-formats=onnx", "--mf-devices=cpu")
    chosen = (*chosen, f"--mf-cache={shelf / 'cache'}")
    pytester.runpytest_subprocess(*chosen).assert_outcomes(passed=1, failed=1)
    again = pytester.runpytest_subprocess(*chosen, "--lf", "-v")
    again.assert_outcomes(failed=1, deselected=1)
    again.stdout.fnmatch_lines("test_own.py::test_it[[]tiny-onnx-fp16-onnxruntime@cpu[]] FAILED*")


def outcomes(ran):
    return {key: word for key, word in ran.outcomes.items() if key[1] != "latency"}


def distinct_artifacts(ran):
    """The steps of all planned chains, each counted once for every way of reaching it."""
    chains = [tuple(line["chain"]) for line in ran.of("cell") if line["decision"] == "run"]
    return len({chain[: i + 1] for chain in chains for i in range(len(chain))})


@pytest.mark.slow
def test_four_processes_convert_once_and_find_what_one_finds(run, tiny, pytester):
    chosen = ("--mf-model", tiny, *ON_CPU, "--mf-precisions", "fp32,fp16", "--mf-suites", "parity,batch,latency")
    chosen = (*chosen, "--mf-time-budget", "0.05")
    alone = run(*chosen, "--mf-cache", "alone", cache=False)
    four = run(*chosen, "--mf-cache", "four", "-n", "4", plugins=["xdist"], cache=False)
    assert outcomes(four) == outcomes(alone)
    assert four.cells == alone.cells
    for ran in (alone, four):
        made = sum(line["conversions"].get("made", 0) for line in ran.of("check"))
        assert made == ran.footer["conversions"]["made"] == distinct_artifacts(ran)
        assert ran.footer["complete"]
        assert sum(ran.footer["totals"].values()) == len(ran.cells)
    assert alone.outcomes[CELL, "latency"] == "passed"
    assert four.outcomes[CELL, "latency"] == "not-measured"
    assert "-n" in four.checks[CELL, "latency"]["sentence"]
    assert four.status == alone.status
    assert len([p for p in four.reports.iterdir() if p.is_dir() and not p.is_symlink()]) == 2


def test_a_configured_model_is_found_by_every_process(run, tiny, pytester):
    (pytester.path / "modelformats.toml").write_text('model = "tiny.onnx"\nformats = ["onnx"]\nprecisions = ["fp32"]\n')
    ran = run("--mf-suites", "parity", "--mf-devices", "cpu", "-n", "2", plugins=["xdist"])
    assert ran.outcomes == {(CELL, "parity"): "passed"}, ran.text


def test_a_wrong_setting_is_one_sentence_with_several_processes_too(run, tiny):
    one_sentence(run("--mf-model", tiny, "--mf-formats", "onxx", "-n", "2", plugins=["xdist"]), "did you mean 'onnx'?")


DIES = """
import os

import pytest


@pytest.mark.parametrize("number", range(3))
def test_it(mf_cell, number):
    if mf_cell.cell.precision == "fp16" and number == 1:
        os._exit(11)
"""


def test_a_process_that_dies_leaves_a_crash_on_record(run, tiny, pytester):
    pytester.makepyfile(test_own=DIES)
    ran = run(
        "test_own.py", "--mf-model", tiny, "--mf-formats", "onnx", "--mf-devices", "cpu", "-n", "2", plugins=["xdist"]
    )
    assert ran.status == pytest.ExitCode.TESTS_FAILED
    assert ran.footer["cells"] == {CELL: "passed", "tiny-onnx-fp16-onnxruntime@cpu": "crashed"}
    (crash,) = (line for line in ran.of("check") if line["outcome"] == "crashed")
    assert (
        "[tiny-onnx-fp16-onnxruntime@cpu-1]" in crash["test"] or "[1-tiny-onnx-fp16-onnxruntime@cpu]" in crash["test"]
    )
    assert len([line for line in ran.of("check") if line["outcome"] == "passed"]) == 5


def test_a_users_file_may_be_called_like_a_suite(run, tiny, pytester):
    pytester.path.joinpath("test_parity.py").write_text("def test_mine():\n    pass\n")
    ran = run("--mf-model", tiny, *ONE_CELL, "test_parity.py", "modelformats::parity")
    assert ran.status == 0, ran.text
    assert "2 passed" in ran.text
