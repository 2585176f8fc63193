"""``--mf-memory``: Memory one worker may use."""

from __future__ import annotations

from inner_run import PARITY

GREEDY = """
def samples():
    import numpy as np

    return {"x": np.ones((400_000_000, 4), np.float32)}
"""


def test_a_worker_that_wants_more_ends_its_cell(run, tiny, pytester):
    pytester.makepyfile(greedy=GREEDY)
    ran = run("--mf-model", tiny, *PARITY, "--mf-data", "greedy:samples", "--mf-memory", "1GB")
    assert ran.status == 1
    (line,) = ran.of("check")
    assert line["outcome"] == "out-of-memory", line["sentence"]
    assert "--mf-memory" in line["sentence"]
    assert ran.of("header")[0]["options"]["memory_bytes"] == 10**9
    assert ran.footer["complete"]


def test_a_size_without_a_unit_is_refused(refusal, tiny):
    sentence = refusal("--mf-model", tiny, "--mf-memory", "8")
    assert "--mf-memory is '8'; expected a size with its unit, such as 8GB or 512MiB" in sentence
