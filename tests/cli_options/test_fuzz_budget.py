"""``--mf-fuzz-budget``: Seconds that generating, judging and shrinking inputs may take per cell."""

from __future__ import annotations

from inner_run import ONE_CELL

CELL = "tiny-onnx-fp32-onnxruntime@cpu"


def test_the_search_ends_when_its_time_is_spent(run, tiny):
    chosen = ("--mf-model", tiny, *ONE_CELL, "--mf-suites", "fuzz", "--mf-fuzz", "20000")
    ran = run(*chosen, "--mf-fuzz-budget", "0.3")
    assert ran.status == 0, ran.text
    line = ran.checks[CELL, "fuzz"]
    assert "The time for it was spent (--mf-fuzz-budget)" in line["sentence"]
    assert 0 < line["data"]["statement"]["judged"] < 20000


def test_a_word_is_refused(refusal, tiny):
    sentence = refusal("--mf-model", tiny, "--mf-fuzz-budget", "long")
    assert "--mf-fuzz-budget is 'long'" in sentence
