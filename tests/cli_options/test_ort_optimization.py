"""``--mf-ort-optimization``: Graph optimisation level of ONNX Runtime."""

from __future__ import annotations

from inner_run import ONE_CELL


def test_the_session_is_opened_at_the_asked_level(run, tiny):
    ran = run("--mf-model", tiny, *ONE_CELL, "--mf-suites", "contract", "--mf-ort-optimization", "basic")
    assert ran.status == 0, ran.text
    (line,) = ran.of("check")
    assert line["data"]["statement"]["optimization"] == "basic"


def test_another_word_is_refused(refusal, tiny):
    sentence = refusal("--mf-model", tiny, "--mf-ort-optimization", "most")
    assert "--mf-ort-optimization is 'most'; expected all or extended or basic or disable" in sentence
