"""Known failures cannot go stale; what has to run, budgets and tolerances are held; nothing measured is no pass."""

from __future__ import annotations

import pytest
from inner_run import ONE_CELL, PARITY, one_sentence, two_layers

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


def test_a_run_in_which_everything_was_skipped_fails(run, tiny, imaginary):
    imaginary(requires="a_runtime_that_is_not_installed")
    ran = run("--mf-model", tiny, *ONE_CELL[:4], "--mf-backends", "imaginary")
    ran.result.assert_outcomes(skipped=1)
    assert ran.status == 1
    assert "nothing was measured: every selected cell was skipped" in ran.text
    assert ran.footer["totals"] == {"missing-dependency": 1}
    assert ran.footer["exitstatus"] == 1
    assert "pip install imaginary" in ran.text
