"""A file in training mode is told although the runtime at hand removes what drops values; a faithful one is not."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import onnx
import pytest
from inner_run import ONE_CELL
from onnx import TensorProto, helper, numpy_helper

from pytest_modelformats.checks.training_mode import sentence, without
from pytest_modelformats.systems.onnx.format import training_nodes

TRAINS = numpy_helper.from_array(np.ones((), bool), "trains")
IS_OVER = numpy_helper.from_array(np.zeros((), bool), "is_over")
HALF = numpy_helper.from_array(np.array(0.5, np.float32), "half")
NOTHING = numpy_helper.from_array(np.array(0.0, np.float32), "nothing")
CONSTANTS = [TRAINS, IS_OVER, HALF, NOTHING]
STATISTICS = [numpy_helper.from_array(np.ones(4, np.float32), n) for n in ("scale", "bias", "mean", "variance")]
PASSED = ["x", "scale", "bias", "mean", "variance"]


def write(path, nodes, opset=18, functions=(), inputs=()):
    """A model of these nodes, from x to y."""
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 4]) for n in "xy")
    graph = helper.make_graph(nodes, "graph", [x, *inputs], [y], [*CONSTANTS, *STATISTICS])
    domains = [helper.make_opsetid("mine", 1), helper.make_opsetid("", opset)]
    onnx.save(helper.make_model(graph, opset_imports=domains, functions=list(functions)), str(path))
    return path


def dropout(*inputs, name="drop", **attributes):
    return helper.make_node("Dropout", list(inputs), ["y"], name=name, **attributes)


def normalization(outputs, **attributes):
    return helper.make_node("BatchNormalization", PASSED, outputs, name="norm", **attributes)


def constant(value, output="flag"):
    return helper.make_node("Constant", [], [output], value=numpy_helper.from_array(np.array(value), "value"))


def branches(*nodes):
    """An If with the same nodes on both sides."""
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    sides = {f"{side}_branch": helper.make_graph(list(nodes), side, [], [y]) for side in ("then", "else")}
    return helper.make_node("If", ["trains"], ["y"], **sides)


FUNCTION = helper.make_function(
    "mine", "Block", ["x"], ["y"], [constant(value=True), dropout("x", "", "flag")], [helper.make_opsetid("", 18)]
)
COMPUTED = [helper.make_node("Not", ["is_over"], ["flag"]), dropout("x", "half", "flag")]
TRAINING = {
    "initialiser": ([dropout("x", "half", "trains")], 18),
    "default ratio": ([dropout("x", "", "trains")], 18),
    "constant node": ([constant(value=True), dropout("x", "half", "flag")], 12),
    "through Identity": ([helper.make_node("Identity", ["trains"], ["f"]), dropout("x", "half", "f")], 18),
    "in a branch": ([branches(dropout("x", "half", "trains"))], 18),
    "is_test left out": ([dropout("x")], 6),
    "batch": ([normalization(["y", "m", "v"], training_mode=1)], 15),
    "batch before opset 14": ([normalization(["y", "m", "v", "sm", "sv"])], 13),
}
EVALUATED = {
    "false": ([dropout("x", "half", "is_over")], 18),
    "false constant": ([constant(value=False), dropout("x", "half", "flag")], 18),
    "absent": ([dropout("x", "half")], 18),
    "ratio zero": ([dropout("x", "nothing", "trains")], 18),
    "one mode": ([dropout("x", ratio=0.5)], 10),
    "is_test": ([dropout("x", is_test=1)], 6),
    "batch": ([normalization(["y"])], 18),
    "batch zero": ([normalization(["y"], training_mode=0)], 18),
    "batch before opset 14": ([normalization(["y"])], 9),
    "computed": (COMPUTED, 18),
    "other domain": ([helper.make_node("Dropout", ["x", "half", "trains"], ["y"], domain="mine")], 18),
}


@pytest.mark.parametrize("case", TRAINING)
def test_a_node_in_training_mode_is_found(tmp_path, case):
    nodes, opset = TRAINING[case]
    found = training_nodes(write(tmp_path / "model.onnx", nodes, opset))
    expected = ("BatchNormalization", "norm") if case.startswith("batch") else ("Dropout", "drop")
    assert set(found) == {expected}


@pytest.mark.parametrize("case", EVALUATED)
def test_a_node_in_evaluation_mode_is_none_of_them(tmp_path, case):
    nodes, opset = EVALUATED[case]
    assert training_nodes(write(tmp_path / "model.onnx", nodes, opset)) == []


def test_a_local_function_is_looked_into(tmp_path):
    call = helper.make_node("Block", ["x"], ["y"], domain="mine")
    assert training_nodes(write(tmp_path / "model.onnx", [call], functions=[FUNCTION])) == [("Dropout", "drop")]


def test_a_file_that_is_cut_off_claims_nothing(tmp_path):
    path = write(tmp_path / "model.onnx", [dropout("x", "half", "trains")])
    path.write_bytes(path.read_bytes()[:-20])
    assert training_nodes(path) == []


def test_what_the_source_has_is_not_added():
    """As many of a kind as there; those of the same name first."""
    drops = [("Dropout", "a"), ("Dropout", "b")]
    assert without(drops, []) == drops
    assert without(drops, [("Dropout", "b")]) == [("Dropout", "a")]
    assert without(drops, [("Dropout", "renamed"), ("Dropout", "b")]) == []
    assert without(drops, [("BatchNormalization", "a")]) == drops


def test_many_nodes_are_counted():
    said = sentence([("Dropout", str(i)) for i in range(5)])
    assert "5 nodes in training mode (Dropout '0', Dropout '1', Dropout '2' and 2 more)" in said


def changed(path, out, *, flag=None, normalise=None):
    """The model with a Dropout, or a BatchNormalization that changes nothing, before its last layer."""
    model = onnx.load(path)
    graph, last = model.graph, model.graph.node[-1]
    given, last.input[0] = last.input[0], "put_in"
    new = helper.make_node("Dropout", [given, "half", "flag"] if flag is not None else [given], ["put_in"], name="drop")
    graph.initializer.extend([HALF, numpy_helper.from_array(np.array(bool(flag)), "flag")])
    if normalise is not None:
        ones, zeros = np.ones(8, np.float32), np.zeros(8, np.float32)
        values = {"scale": ones, "bias": zeros, "mean": zeros, "variance": ones}
        graph.initializer.extend(numpy_helper.from_array(v, n) for n, v in values.items())
        outputs = ["put_in", "m", "v"] if normalise else ["put_in"]
        more = {"epsilon": 0.0, "training_mode": int(normalise)}
        new = helper.make_node("BatchNormalization", [given, *values], outputs, name="norm", **more)
    graph.node.insert(len(graph.node) - 1, new)
    onnx.save(model, str(out))


CHECKS = ("--mf-suites", "contract,parity", *ONE_CELL)


def test_a_candidate_with_dropout_left_on_fails_where_the_runtime_removes_it(run, tiny, pytester):
    changed(tiny, pytester.path / "on.onnx", flag=True)
    changed(tiny, pytester.path / "off.onnx", flag=False)
    changed(tiny, pytester.path / "absent.onnx")
    names = ("on", "off", "absent")
    ran = run("--mf-model", tiny, *(f"--mf-candidate={name}.onnx" for name in names), *CHECKS)
    cells = {name: f"tiny~{name}-onnx-fp32-onnxruntime@cpu" for name in names}
    ended = {name: [ran.outcomes[cell, check] for check in ("contract", "parity")] for name, cell in cells.items()}
    assert ended == {"on": ["failed", "passed"], "off": ["passed"] * 2, "absent": ["passed"] * 2}, ran.text
    line = ran.checks[cells["on"], "contract"]
    assert line["failure_kind"] == "contract"
    assert "1 node in training mode (Dropout 'drop'), which the source has not" in line["sentence"]
    assert "Next: export in evaluation mode: model.eval()" in line["sentence"]
    assert line["data"]["statement"]["training_nodes"] == {"nodes": [["Dropout", "drop"]], "of_source": 0}
    script = ran.folder / line["data"]["bundle"] / "repro.py"
    for artifact, status in (("on.onnx", 1), ("off.onnx", 0)):
        command = [sys.executable, "-I", str(script), "--artifact", str(pytester.path / artifact)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == status, done.stdout + done.stderr


def test_a_candidate_that_normalises_by_the_batch_fails(run, tiny, pytester):
    changed(tiny, pytester.path / "on.onnx", normalise=True)
    changed(tiny, pytester.path / "off.onnx", normalise=False)
    ran = run("--mf-model", tiny, "--mf-candidate=on.onnx", "--mf-candidate=off.onnx", *CHECKS)
    assert ran.outcomes["tiny~off-onnx-fp32-onnxruntime@cpu", "contract"] == "passed"
    line = ran.checks["tiny~on-onnx-fp32-onnxruntime@cpu", "contract"]
    assert (line["outcome"], line["failure_kind"]) == ("failed", "contract"), line["sentence"]
    assert "BatchNormalization 'norm'" in line["sentence"]


def test_what_the_model_itself_holds_is_no_fault_of_a_candidate(run, tiny, pytester):
    changed(tiny, pytester.path / "model.onnx", flag=True)
    changed(tiny, pytester.path / "mine.onnx", flag=True)
    ran = run("--mf-model", "model.onnx", "--mf-candidate=mine.onnx", "--mf-suites", "contract", *ONE_CELL)
    assert set(ran.outcomes.values()) == {"passed"}, ran.text
    assert len(ran.outcomes) == 2
