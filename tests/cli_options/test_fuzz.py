"""``--mf-fuzz``: How many generated inputs a cell is judged on beside the samples; 0 generates none."""

from __future__ import annotations

from inner_run import ONE_CELL

from pytest_modelformats.checks.fuzz import search as fuzz

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


def looked_up(path, scale=1.0):
    """Write ``table[ids] / ids``: 0/0 for the id 0. ``scale`` is that of the row of the id 98."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    table = np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)
    table[0] = 0
    table[98] *= np.float32(scale)
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["row"], axis=0),
        helper.make_node("Cast", ["ids"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["float", "axis"], ["column"]),
        helper.make_node("Div", ["row", "column"], ["y"]),
    ]
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["N"])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])
    weights = [numpy_helper.from_array(table, "table"), numpy_helper.from_array(np.array([1]), "axis")]
    graph = helper.make_graph(nodes, "looked_up", [ids], [y], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), str(path))
    return path


def test_a_result_of_nan_alone_ends_no_search(run, pytester):
    """The smallest input is 0/0 in the source too: there is nothing to compare, and a wrong row is still found."""
    looked_up(pytester.path / "model.onnx")
    looked_up(pytester.path / "wrong.onnx", 1.01)
    chosen = ("--mf-input", "ids:int64[N]{0..99}", "--mf-suites", "parity,fuzz", "--mf-fuzz", "150", *ONE_CELL)
    ran = run("--mf-model", "model.onnx", "--mf-candidate", "wrong.onnx", *chosen)
    right, wrong = (ran.checks[f"model{name}-onnx-fp32-onnxruntime@cpu", "fuzz"] for name in ("", "~wrong"))
    assert ran.outcomes["model~wrong-onnx-fp32-onnxruntime@cpu", "parity"] == "passed"
    assert (wrong["outcome"], wrong["failure_kind"]) == ("failed", "numeric"), wrong["sentence"]
    assert "98" in wrong["sentence"]
    assert right["outcome"] == "passed", right["sentence"]
    assert right["data"]["statement"]["without_numbers"] > 0
    assert "NaN or Inf in every element, in the source as here: there was nothing to compare" in right["sentence"]


def test_a_word_is_refused(refusal, tiny):
    sentence = refusal("--mf-model", tiny, "--mf-fuzz", "many")
    assert "--mf-fuzz is 'many'; expected a whole number of at least 0" in sentence
