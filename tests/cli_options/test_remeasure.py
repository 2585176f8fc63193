"""``--mf-remeasure``: Measure also the cells of which nothing differs from the baseline's."""

from __future__ import annotations

from inner_run import ONE_CELL

from pytest_modelformats.measure.two_sides import interleaved

CELL = "tiny-onnx-fp32-onnxruntime@cpu"
LATENCY = ("--mf-suites", "latency", *ONE_CELL, "--mf-time-budget", "0.05")


def latency(ran):
    (found,) = (c for c in ran.checks[CELL, "comparison"]["data"]["comparisons"] if c["metric"] == "latency")
    return found


def test_the_same_thing_is_measured_beside_itself(run, tiny, monkeypatch):
    """Both sides are opened and called, in a few blocks of each: ``quick_comparing.py``."""
    monkeypatch.setattr(interleaved, "compare_latency", interleaved.compare_latency)  # as it was, afterwards
    run("--mf-model", tiny, *LATENCY, inprocess=True)
    still = run("--mf-model", tiny, *LATENCY, "--mf-baseline", "latest", inprocess=True)
    assert latency(still)["how"] == "identical"
    options = (*LATENCY, "--mf-baseline", "latest", "--mf-remeasure")
    again = run("--mf-model", tiny, *options, plugins=["quick_comparing"], inprocess=True)
    assert latency(again)["how"] == "interleaved"
    assert latency(again)["blocks"] > 0
