"""``--mf-localise-budget``: Seconds spent on finding the first wrong operator of a cell whose numbers are wrong."""

from __future__ import annotations

from inner_run import PARITY, two_layers

WRONG = "tiny~wrong-onnx-fp32-onnxruntime@cpu"


def searched(run, tiny, pytester, *args):
    two_layers(pytester.path / "wrong.onnx", change=1.0)
    ran = run("--mf-model", tiny, "--mf-candidate", "wrong.onnx", *PARITY, *args)
    return ran.checks[WRONG, "parity"]


def test_a_failing_cell_is_searched_and_a_faithful_one_is_not(run, tiny, pytester):
    two_layers(pytester.path / "wrong.onnx", change=1.0)
    ran = run("--mf-model", tiny, "--mf-candidate", "wrong.onnx", *PARITY)
    found = ran.checks[WRONG, "parity"]["data"]["localisation"]
    assert (found["operator"], found["output"], found["confirmed"]) == ("Gemm", "y", True)
    assert "'w2' differs from the reference's in 1 of 24 elements" in ran.text.replace("\n    ", " ")
    assert "localisation" not in ran.checks["tiny-onnx-fp32-onnxruntime@cpu", "parity"]["data"]


def test_nothing_is_searched_with_a_budget_of_none(run, tiny, pytester):
    line = searched(run, tiny, pytester, "--mf-localise-budget", "0")
    assert (line["outcome"], line["failure_kind"]) == ("failed", "numeric")
    assert "localisation" not in line["data"]
    assert "First wrong operator" not in line["sentence"]


def test_a_budget_that_ends_is_a_sentence_and_no_other_outcome(run, tiny, pytester):
    line = searched(run, tiny, pytester, "--mf-localise-budget", "0.001")
    assert (line["outcome"], line["failure_kind"]) == ("failed", "numeric")
    assert line["data"]["localisation"]["node"] == ""
    assert "could not be located because the time budget ended:" in line["sentence"]
    assert "allow more than 0.001 s with --mf-localise-budget" in line["sentence"]


def test_a_negative_budget_is_refused(refusal, tiny):
    sentence = refusal("--mf-model", tiny, "--mf-localise-budget=-1")
    assert "--mf-localise-budget is '-1'; expected a number of seconds, 0 for none" in sentence
