"""``--mf-threads``: Threads a backend may use while it is timed."""

from __future__ import annotations

from inner_run import ONE_CELL


def test_a_timed_backend_uses_the_asked_threads(run, tiny):
    chosen = ("--mf-suites", "contract,latency", "--mf-time-budget", "0.05", *ONE_CELL)
    ran = run("--mf-model", tiny, *chosen, "--mf-threads", "2")
    assert ran.status == 0, ran.text
    cell = "tiny-onnx-fp32-onnxruntime@cpu"
    assert ran.checks[cell, "latency"]["data"]["threads"] == 2
    assert ran.checks[cell, "contract"]["data"]["statement"]["threads"] == 2


def test_no_threads_at_all_are_refused(refusal, tiny):
    sentence = refusal("--mf-model", tiny, "--mf-threads", "0")
    assert "--mf-threads is '0'; expected a whole number of at least 1" in sentence
