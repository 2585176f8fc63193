"""Known failures cannot go stale; what has to run, budgets and tolerances are held; nothing measured is no pass."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from inner_run import ONE_CELL, PARITY, one_sentence, two_layers

from pytest_modelformats.session.expectations.read import complaints, read

CELL = "tiny-onnx-fp32-onnxruntime@cpu"
WRONG = "tiny~wrong-onnx-fp32-onnxruntime@cpu"


@pytest.fixture
def judged(run, tiny, pytester):
    """Judge the tiny model and a copy with one weight changed, under the given expectations."""
    two_layers(pytester.path / "wrong.onnx", change=1.0)

    def judge(expectations, *args, **kwargs):
        (pytester.path / "known.txt").write_text(expectations)
        chosen = ("--mf-model", tiny, "--mf-candidate", "wrong.onnx", "--mf-expectations", "known.txt")
        return run(*chosen, *(args or PARITY), **kwargs)

    return judge


def test_an_expected_failure_passes_and_keeps_its_reason(judged):
    ran = judged("# what is known\n\ntiny~wrong-*  parity  # a weight is off (nets#7)\n")
    assert ran.status == 0, ran.text
    ran.result.assert_outcomes(passed=1, xfailed=1)
    line = ran.checks[WRONG, "parity"]
    assert line["outcome"] == "expected-failure"
    assert line["expectation"] == "known.txt:3"
    assert "a weight is off (nets#7)" in line["sentence"]
    assert "×" in line["sentence"]
    assert ran.footer["totals"] == {"passed": 1, "expected-failure": 1}


def test_an_unexpected_pass_fails(judged):
    ran = judged("tiny*  parity  # long ago\n")
    assert ran.status == 1
    assert ran.outcomes == {(CELL, "parity"): "failed", (WRONG, "parity"): "expected-failure"}
    sentence = ran.checks[CELL, "parity"]["sentence"]
    assert sentence == "Unexpected pass: known.txt:1 expects this to fail (long ago); delete the line."
    assert sentence in ran.text


def test_a_line_that_matches_nothing_fails_a_whole_run(judged):
    every = ("--mf-formats", "onnx", "--mf-precisions", "fp32", "--mf-time-budget", "0.02")
    ran = judged("tiny~wrong-*@cpu  [pb]a*  # known\ntiny~rong-*  parity  # mistyped\n", *every)
    assert ran.status == 1
    assert "known.txt:2 expects 'tiny~rong-* parity' to fail and nothing did; delete the line" in ran.text
    assert "known.txt:1 expects" not in ran.text


def test_a_partial_run_does_not_judge_what_it_did_not_look_at(judged):
    expected = "tiny~wrong-*  parity  # known\n*-openvino-*  parity  # elsewhere\n"
    chosen = ("--mf-formats", "onnx", "--mf-precisions", "fp32", "--mf-suites", "parity")
    assert judged(expected, *chosen).status == 0
    deselecting = judged(expected, *chosen[:-2], "--mf-devices", "cpu", "-k", "wrong and parity")
    assert deselecting.status == 0, deselecting.text


@pytest.mark.parametrize(("count", "status"), [(20, 0), (21, 1)])
def test_a_glob_swallows_no_more_than_twenty(judged, pytester, count, status):
    pytester.makepyfile(
        test_own=f"""
        import pytest

        @pytest.mark.parametrize("number", range({count}))
        def test_it(mf_cell, number):
            assert False
        """
    )
    ran = judged("tiny-*  test_*  # everything\n", "test_own.py", *ONE_CELL, "-k", "not wrong")
    assert ran.status == status, ran.text
    assert ("known.txt:1 swallowed 21 failures, more than 20; write narrower globs" in ran.text) == bool(status)


@pytest.mark.parametrize(
    "line", ["tiny-*  parity", "tiny-*  # no check", "a b c  # three words", "tiny-*  parity  #  "]
)
def test_a_malformed_line_is_refused_with_its_place(judged, line):
    ran = judged(f"# fine\n{line}\n", inprocess=True)
    one_sentence(ran, "known.txt:2 is not an expectation", "'cell-glob  check  # reason (issue link)'")


def test_what_could_not_run_is_not_an_unexpected_pass(run, tiny, pytester):
    (pytester.path / "known.txt").write_text("*  availability  # no such machine here\n")
    chosen = ("--mf-model", tiny, "--mf-formats", "onnx", "--mf-precisions", "fp32", "--mf-suites", "parity")
    ran = run(*chosen, "--mf-expectations", "known.txt")
    assert ran.status == 0, ran.text
    assert ran.outcomes["tiny-onnx-fp32-onnxruntime@cuda", "availability"] in {"no-device", "passed"}


EVERY = ("--mf-formats", "onnx", "--mf-precisions", "fp32", "--mf-devices", "cpu", "--mf-time-budget", "0.02")


def test_a_line_about_what_cannot_run_here_is_not_stale(judged, imaginary):
    imaginary(requires="a_runtime_that_is_not_installed")
    known = "tiny~wrong-*-onnxruntime@cpu  [pb]a*  # known\n*-imaginary@cpu  parity  # seen on another machine\n"
    ran = judged(known + "*-imaginery@cpu  parity  # mistyped\n", *EVERY)
    assert ran.status == 1
    assert "known.txt:3 expects '*-imaginery@cpu parity' to fail and nothing did" in ran.text
    assert "known.txt:2 expects" not in ran.text


def test_what_xdist_does_not_measure_is_not_stale_and_the_rest_is_as_strict(judged):
    known = "tiny~wrong-*  [pb]a*  # known\ntiny-*  latency  # over budget\ntiny-*  parity  # long ago\n"
    ran = judged(known, *EVERY, "-p", "xdist", "-n", "2")
    assert ran.status == 1
    assert "known.txt:2 expects" not in ran.text
    assert "Unexpected pass: known.txt:3 expects this to fail (long ago)" in ran.text
    assert ran.outcomes[WRONG, "parity"] == "expected-failure"


def test_a_run_in_which_k_leaves_checks_out_is_partial_though_it_has_every_cell(judged):
    ran = judged("tiny~wrong-*  parity  # known\ntiny~wrong-*  batch  # known\n", *EVERY, "-k", "parity")
    assert ran.status == 0, ran.text


def test_files_of_one_name_are_told_apart(tmp_path):
    paths = [tmp_path / folder / "known.txt" for folder in "ab"]
    for path in paths:
        path.parent.mkdir()
        path.write_text("*  parity  # known\n")
    first, second = read(paths)
    assert first.place != second.place
    assert complaints([first, second], {first.place: 1}, partial=False)[0].startswith(str(paths[1]))


BUDGETS = """
[budgets."tiny-*"]
{key} = {value}
"""


@pytest.mark.parametrize(
    ("key", "value", "outcome"),
    [("latency_p50_ms", 1000, "passed"), ("latency_p50_ms", 1e-6, "failed"), ("size_mb", 1e-5, "failed")],
)
def test_a_budget_is_held(run, tiny, pytester, key, value, outcome):
    (pytester.path / "modelformats.toml").write_text(BUDGETS.format(key=key, value=value))
    ran = run("--mf-model", tiny, *ONE_CELL, "--mf-suites", "latency", "--mf-time-budget", "0.05")
    line = ran.checks[CELL, "latency"]
    assert line["outcome"] == outcome
    assert line["failure_kind"] == (None if outcome == "passed" else "budget")
    if outcome == "failed":
        assert "Over budget:" in line["sentence"]
        assert f"budget {value:g} {key[-2:].replace('mb', 'MB')}" in line["sentence"]
    assert ran.status == (outcome == "failed")


@pytest.mark.parametrize(("atol", "outcome"), [("5.0", "passed"), ("1e-9", "failed")])
def test_a_chosen_tolerance_takes_the_place_of_the_measured_noise(judged, pytester, atol, outcome):
    (pytester.path / "modelformats.toml").write_text(f'[tolerances."tiny~wrong-*"]\natol = {atol}\noutputs = ["y"]\n')
    ran = judged("")
    assert ran.outcomes == {(CELL, "parity"): "passed", (WRONG, "parity"): outcome}


LAWS = "parity,batch,determinism,fuzz,history,permutation,threads"


@pytest.mark.slow
@pytest.mark.parametrize(("atol", "rtol", "held"), [("5.0", "1e-3", True), ("1e-9", "0", False)])
def test_a_chosen_tolerance_holds_in_every_check(run, tiny, pytester, atol, rtol, held):
    """Other batches, other orders and generated inputs: what the samples may be off by, the rest may be, too."""
    two_layers(pytester.path / "wrong.onnx", change=1e-3)
    (pytester.path / "modelformats.toml").write_text(f'[tolerances."tiny~wrong-*"]\natol = {atol}\nrtol = {rtol}\n')
    chosen = ("--mf-model", tiny, "--mf-candidate", "wrong.onnx", *ONE_CELL[:4], "--mf-fuzz", "20")
    ran = run(*chosen, "--mf-suites", LAWS, "--mf-localise-budget", "0")
    red = {check for (cell, check), outcome in ran.outcomes.items() if cell == WRONG and outcome == "failed"}
    assert {check for cell, check in ran.outcomes if cell == WRONG} >= {"parity", "batch", "fuzz", "permutation"}
    assert red == set() if held else "parity" in red, ran.text


@pytest.mark.parametrize("more", [(), ("-p", "xdist", "-n", "2")])
@pytest.mark.parametrize("name", ["yy", "z*"])
def test_a_tolerance_for_an_output_that_no_model_has_is_refused(run, tiny, pytester, name, more):
    """Before anything is judged; pytest-xdist collects in its processes, and there every check of the cell says so."""
    (pytester.path / "modelformats.toml").write_text(f'[tolerances."tiny-*"]\natol = 5.0\noutputs = ["y", "{name}"]\n')
    ran = run("--mf-model", tiny, *PARITY, *more)
    hint = "did you mean 'y'?" if name == "yy" else "known are y"
    words = f"modelformats.toml: [tolerances.\"tiny-*\"]: '{name}' is no output of the model of {CELL}; {hint}"
    if more:
        assert ran.outcomes[CELL, "parity"] not in {"passed", "failed"}
        assert words in ran.checks[CELL, "parity"]["sentence"]
    else:
        one_sentence(ran, words)


def test_a_tolerance_for_an_output_may_be_about_one_of_several_models(run, tiny, pytester):
    two_layers(pytester.path / "other.onnx", output="z")
    (pytester.path / "modelformats.toml").write_text('[tolerances."*-onnx-*"]\natol = 5.0\noutputs = ["z"]\n')
    ran = run("--mf-model", tiny, "--mf-model", "other.onnx", *PARITY)
    assert ran.status == 0, ran.text
    assert "fixed tolerance" in ran.checks["other-onnx-fp32-onnxruntime@cpu", "parity"]["sentence"]
    assert "fixed tolerance" not in ran.checks[CELL, "parity"]["sentence"]


@pytest.mark.parametrize(
    ("glob", "refused"),
    [
        ("tiny-onnx-fp32-onxruntime@*", True),
        ("tiny-onnx-fp16-*", False),
        ("tiny~*", False),
        ("resnet50-*", False),
        ("*-onxruntime@*", False),
    ],
)
def test_a_tolerance_for_cells_that_a_model_has_not_is_refused(run, tiny, pytester, glob, refused):
    """What the command line leaves out is no mistake, and neither is another model, given another time."""
    (pytester.path / "modelformats.toml").write_text(f'[tolerances."{glob}"]\natol = 5.0\n')
    ran = run("--mf-model", tiny, *PARITY)
    if refused:
        one_sentence(ran, f'[tolerances."{glob}"] matches no cell that can be planned; did you mean ')
    else:
        assert ran.status == 0, ran.text


@pytest.mark.parametrize("glob", ["tinny-*", "*-onxruntime@*", "tiny~right-*"])
def test_in_a_whole_run_a_tolerance_matches_a_cell(run, tiny, pytester, glob):
    models = 'candidate = ["wrong.onnx"]\n[models.tiny]\npath = "tiny.onnx"\n'
    two_layers(pytester.path / "wrong.onnx", change=1.0)
    (pytester.path / "modelformats.toml").write_text(f'{models}[tolerances."{glob}"]\natol = 5.0\n')
    one_sentence(run(*PARITY), f'[tolerances."{glob}"] matches no cell that can be planned')


CLIPS = """
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

# Two outputs, y and z, of the tiny model; both are clipped in the candidate, which ordinary samples do not show.
for name, bound in (("model.onnx", 1e30), ("clips.onnx", 6.0)):
    model = onnx.load("tiny.onnx")
    for bounds in (("low", -bound), ("high", bound)):
        model.graph.initializer.append(numpy_helper.from_array(np.float32(bounds[1]), bounds[0]))
    model.graph.node.insert(0, helper.make_node("Clip", ["x", "low", "high"], ["clipped"]))
    model.graph.node[1].input[0] = "clipped"
    model.graph.node.append(helper.make_node("Neg", ["y"], ["z"]))
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", 3]))
    onnx.save(model, name)
"""


@pytest.mark.parametrize("chosen", [["y"], ["y", "z"]])
def test_a_tolerance_of_one_output_leaves_the_others_their_stress_rows(run, tiny, pytester, chosen):
    subprocess.run([sys.executable, "-c", CLIPS], cwd=pytester.path, check=True)
    (pytester.path / "modelformats.toml").write_text(f'[tolerances."*"]\natol = 1.0\noutputs = {json.dumps(chosen)}\n')
    ran = run("--mf-model", "model.onnx", "--mf-candidate", "clips.onnx", *PARITY, "--mf-localise-budget", "0")
    line = ran.checks["model~clips-onnx-fp32-onnxruntime@cpu", "parity"]
    if chosen == ["y"]:
        assert line["outcome"] == "failed", line["sentence"]
        assert "Output 'z' agrees on ordinary inputs but not on unusual ones" in line["sentence"]
    else:
        assert line["outcome"] == "passed", line["sentence"]


def test_a_run_in_which_everything_was_skipped_fails(run, tiny, imaginary):
    imaginary(requires="a_runtime_that_is_not_installed")
    ran = run("--mf-model", tiny, *ONE_CELL[:4], "--mf-backends", "imaginary")
    ran.result.assert_outcomes(skipped=1)
    assert ran.status == 1
    assert "nothing was measured: every selected cell was skipped" in ran.text
    assert ran.footer["totals"] == {"missing-dependency": 1}
    assert ran.footer["exitstatus"] == 1
    assert "pip install imaginary" in ran.text
