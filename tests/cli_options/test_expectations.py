"""``--mf-expectations``: A file of known failures, one 'cell-glob  check  # reason (link)' per line."""

from __future__ import annotations

from inner_run import PARITY, two_layers


def test_a_known_failure_does_not_fail_the_run(run, tiny, pytester):
    two_layers(pytester.path / "wrong.onnx", change=1.0)
    (pytester.path / "known.txt").write_text("tiny~wrong-*  parity  # a weight is off (nets#7)\n")
    ran = run("--mf-model", tiny, "--mf-candidate", "wrong.onnx", *PARITY, "--mf-expectations", "known.txt")
    assert ran.status == 0, ran.text
    assert ran.outcomes["tiny~wrong-onnx-fp32-onnxruntime@cpu", "parity"] == "expected-failure"


def test_a_missing_file_is_refused(refusal, tiny):
    sentence = refusal("--mf-model", tiny, "--mf-expectations", "nowhere.txt")
    assert "--mf-expectations" in sentence
    assert "expected a file that exists" in sentence
    assert "nowhere.txt" in sentence
