"""``--mf-remeasure``: Measure also the cells of which nothing differs from the baseline's."""

from __future__ import annotations

from inner_run import ONE_CELL

CELL = "tiny-onnx-fp32-onnxruntime@cpu"
LATENCY = ("--mf-suites", "latency", *ONE_CELL, "--mf-time-budget", "0.05")


def latency(ran):
    (found,) = (c for c in ran.checks[CELL, "comparison"]["data"]["comparisons"] if c["metric"] == "latency")
    return found


def test_the_same_thing_is_measured_beside_itself(run, tiny):
    run("--mf-model", tiny, *LATENCY, inprocess=True)
    still = run("--mf-model", tiny, *LATENCY, "--mf-baseline", "latest", inprocess=True)
    assert latency(still)["how"] == "identical"
    again = run("--mf-model", tiny, *LATENCY, "--mf-baseline", "latest", "--mf-remeasure", inprocess=True)
    assert latency(again)["how"] == "interleaved"
    assert latency(again)["blocks"] > 0
