"""``--mf-isolate``: every runtime in its own worker process, or everything in the pytest process."""

from __future__ import annotations

from inner_run import ONE_CELL

OWN = """
import sys


def test_where_the_runtime_is(mf_outputs):
    print("onnxruntime here:", "onnxruntime" in sys.modules)
"""


def test_runtimes_stay_out_of_pytest_unless_isolation_is_off(run, tiny, pytester):
    pytester.makepyfile(test_own=OWN)
    chosen = ("test_own.py", "-s", "--mf-model", tiny, *ONE_CELL)
    for choice, here in (("process", "False"), ("none", "True")):
        ran = run(*chosen, "--mf-isolate", choice)
        assert ran.status == 0, ran.text
        assert f"onnxruntime here: {here}" in ran.text


def test_another_word_is_refused(refusal, tiny):
    sentence = refusal("--mf-model", tiny, "--mf-isolate", "thread")
    assert "--mf-isolate is 'thread'; expected process or none" in sentence
