"""``--mf-fuzz``: How many generated inputs a cell is judged on beside the samples; 0 generates none."""

from __future__ import annotations

from inner_run import ONE_CELL

from pytest_modelformats import fuzz

CELL = "tiny-onnx-fp32-onnxruntime@cpu"
# Keeps the import system from finding Hypothesis, as if it were not installed.
HIDDEN = """
import importlib.util

_find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name == "hypothesis" else _find(name, *more)
"""


def suites(found):
    return [item.split("::")[1] for item in found]


def test_so_many_inputs_are_generated(run, tiny):
    ran = run("--mf-model", tiny, *ONE_CELL, "--mf-suites", "fuzz", "--mf-fuzz", "40")
    assert ran.status == 0, ran.text
    facts = ran.checks[CELL, "fuzz"]["data"]["statement"]
    assert facts["generated"] == 40
    # Of two recipes that come to the same tensor one is judged.
    assert 20 <= facts["judged"] <= 40
    assert ran.checks[CELL, "fuzz"]["sentence"].startswith(f"On {facts['judged']} generated inputs")


def test_a_few_are_generated_where_nothing_is_said(run, tiny):
    ran = run("--mf-model", tiny, *ONE_CELL, "--mf-suites", "fuzz")
    assert ran.checks[CELL, "fuzz"]["data"]["statement"]["generated"] == fuzz.DEFAULT


def test_none_leaves_the_suite_out(collected, tiny):
    assert "fuzz" in suites(collected("--mf-model", tiny, *ONE_CELL))
    assert "fuzz" not in suites(collected("--mf-model", tiny, *ONE_CELL, "--mf-fuzz", "0"))


def test_the_suite_that_is_asked_for_without_a_budget_says_so(run, tiny):
    ran = run("--mf-model", tiny, *ONE_CELL, "--mf-suites", "fuzz", "--mf-fuzz", "0")
    assert ran.outcomes == {(CELL, "fuzz"): "not-measured"}
    assert "--mf-fuzz N" in ran.checks[CELL, "fuzz"]["sentence"]


def test_without_hypothesis_the_suite_is_left_out_unless_asked_for(run, tiny, pytester):
    (pytester.path / "hidden.py").write_text(HIDDEN)
    chosen = ("--mf-model", tiny, *ONE_CELL, "-k", "fuzz or contract")
    silent = run(*chosen, plugins=("hidden",))
    assert silent.outcomes == {(CELL, "contract"): "passed"}, silent.text
    asked = run(*chosen, "--mf-fuzz", "5", plugins=("hidden",))
    assert asked.outcomes == {(CELL, "contract"): "passed", (CELL, "fuzz"): "missing-dependency"}, asked.text
    assert fuzz.INSTALL in asked.checks[CELL, "fuzz"]["sentence"]


def test_a_word_is_refused(refusal, tiny):
    sentence = refusal("--mf-model", tiny, "--mf-fuzz", "many")
    assert "--mf-fuzz is 'many'; expected a whole number of at least 0" in sentence
