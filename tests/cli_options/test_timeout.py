"""``--mf-timeout``: Seconds a worker may take to answer one request."""

from __future__ import annotations

from inner_run import PARITY


def test_a_worker_that_takes_longer_ends_its_cell(run, tiny):
    ran = run("--mf-model", tiny, *PARITY, "--mf-timeout", "0.001")
    assert ran.status == 1
    (line,) = ran.of("check")
    assert line["outcome"] == "timeout"
    assert "0.001 s" in line["sentence"]
    assert "--mf-timeout" in line["sentence"]
    assert ran.footer["complete"]


def test_a_negative_time_is_refused(refusal, tiny):
    sentence = refusal("--mf-model", tiny, "--mf-timeout=-5")
    assert "--mf-timeout is '-5'; expected a number of seconds above 0" in sentence
