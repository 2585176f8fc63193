"""``--mf-time-budget``: Seconds spent on timing one cell."""

from __future__ import annotations

from inner_run import ONE_CELL

LATENCY = ("--mf-suites", "latency", *ONE_CELL)
FULL_SERIES = 64  # measure.MIN_SAMPLES; the tiny model takes microseconds


def test_a_measurement_ends_with_its_budget(run, tiny):
    counts = {}
    for budget in ("0.00001", "0.2"):
        ran = run("--mf-model", tiny, *LATENCY, "--mf-time-budget", budget, inprocess=True)
        assert ran.status == 0, ran.text
        (line,) = ran.of("check")
        counts[budget] = line["data"]["samples"]
    assert counts["0.00001"] < FULL_SERIES <= counts["0.2"]


def test_no_time_at_all_is_refused(refusal, tiny):
    sentence = refusal("--mf-model", tiny, "--mf-time-budget", "0")
    assert "--mf-time-budget is '0'; expected a number of seconds above 0" in sentence
