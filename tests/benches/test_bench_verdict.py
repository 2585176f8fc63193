"""The fault-injection benchmark: what it calls effective, what it counts as caught, and what as missed."""

from __future__ import annotations

import argparse
import random
import sys

import numpy as np
import onnx
import pytest
from places import ROOT

sys.path.insert(0, str(ROOT))

from benchmarks.verdict import effective, faults_structure, localised, run, tally
from benchmarks.verdict.graph_edits import FAULTS, Graph
from benchmarks.verdict.rules import RULES, verdicts

ARCHITECTURES = ("mlp_1", "text")
CHOSEN = "one tensor rounded to fp16,order of the classes,attention mask,weights scaled"


def line(**more):
    """A case as the benchmark writes it down: a large fault that was caught, unless said otherwise."""
    plain = {"stem": "x", "fault": "a fault", "form": "onnx", "architecture": "a", "faithful": False, "node": "n"}
    plain |= {"effective": True, "relative": 0.1, "size": 1e3, "what": "", "caught": True, "judged": True}
    return {**plain, "rules": dict.fromkeys(RULES, False), "located": None, "localisation": None, **more}


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A real run of the benchmark on two architectures."""
    chosen = run._parsed(["--architectures", ",".join(ARCHITECTURES), "--faults", CHOSEN, "--parts", "faults"])
    return run.measure(chosen, tmp_path_factory.mktemp("verdict"))


@pytest.mark.slow
def test_an_edit_that_changes_nothing_is_not_effective_and_not_accused(measured):
    faithful = [case for case in measured["cases"] if case["faithful"]]
    assert {case["architecture"] for case in faithful} == set(ARCHITECTURES)
    assert len(faithful) >= 6
    assert not [case["stem"] for case in faithful if case["effective"] or case["caught"]]


@pytest.mark.slow
def test_effective_faults_are_caught_by_the_product(measured):
    faults = tally.effective(measured)
    assert {case["fault"] for case in faults} >= {"order of the classes", "attention mask dropped"}
    assert {case["form"] for case in faults} == {"onnx", "torchscript"}
    assert not tally.missed(measured)
    assert all(case["judged"] and case["rules"] for case in faults)


@pytest.mark.slow
def test_a_blind_rule_is_counted_as_missing_what_the_product_catches(measured):
    shares = tally.by_rule(measured)
    assert shares[tally.OURS][1].value == 1
    assert shares["SNR 20 dB"][1].value < 1  # a tensor rounded to fp16 leaves far more than 20 dB
    assert shares["SNR 20 dB"][1].part > 0  # classes that change places do not


def test_every_class_of_the_issue_has_a_fault():
    assert len(faults_structure.every_class()) >= 25
    assert len({f.inject for f in FAULTS.values()}) == len(FAULTS)


def graph():
    """Two Gemms with a ReLU between them."""
    random_state = np.random.default_rng(0)
    weights = {"w": (8, 8), "v": (8, 4)}
    tensors = [onnx.numpy_helper.from_array(random_state.normal(size=s).astype("f"), n) for n, s in weights.items()]
    nodes = [
        onnx.helper.make_node("Gemm", ["x", "w"], ["h"], name="first"),
        onnx.helper.make_node("Relu", ["h"], ["a"], name="relu"),
        onnx.helper.make_node("Gemm", ["a", "v"], ["y"], name="last"),
    ]
    x, y = (onnx.helper.make_tensor_value_info(n, 1, ["N", s]) for n, s in (("x", 8), ("y", 4)))
    body = onnx.helper.make_graph(nodes, "g", [x], [y], tensors)
    return onnx.helper.make_model(body, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)


def effect_of(change):
    """The effect of an edit of the graph."""
    model = graph()
    feeds = [{"x": np.random.default_rng(1).normal(size=(5, 8)).astype("f")}]
    correct = effective.run_float64(model, feeds)
    edited = Graph(model)
    change(edited)
    noise = effective.noise_of(correct, effective.run_fp32(model, feeds))
    return effective.compare(correct, effective.run_float64(edited.model, feeds), noise)


@pytest.mark.parametrize("factor", [1.0, 1 + 2e-9])
def test_a_change_below_one_rounding_unit_is_not_effective(factor):
    def change(edited):
        node = edited.nodes[2]
        # Float64 weights: the graph is raised before it is run, and fp32 could not hold this factor.
        edited.after(node, "Mul", [edited.add_constant(np.array(factor, np.float64), "factor")])

    assert not effect_of(change).effective


def test_a_change_of_a_few_rounding_units_is_effective_and_small():
    found = effect_of(lambda g: g.set_constant("v", (g.constant("v") * np.float32(1 + 2**-21)).astype("f")))
    assert found.effective
    assert found.relative == pytest.approx(2**-21, rel=0.3)
    assert found.size < 20


def test_fault_and_node_are_told(tmp_path):
    edited = Graph(graph())
    node = FAULTS["activation swapped"].inject(edited, random.Random(0))
    assert node == "relu"
    assert {n.op_type for n in edited.nodes} == {"Gemm", "LeakyRelu"}
    onnx.checker.check_model(edited.model)


@pytest.mark.parametrize(
    ("named", "true", "steps"), [("first", "first", 0), ("relu", "first", 1), ("last", "first", 2)]
)
def test_the_distance_is_counted_in_edges(named, true, steps):
    assert localised.distance(graph(), named, (true,)) == steps


def test_a_node_that_is_not_there_has_no_distance():
    assert localised.distance(graph(), "nowhere", ("first",)) is None


def test_a_missed_fault_misses_the_target_and_one_below_rounding_does_not():
    large, small = line(caught=False), line(caught=False, size=0.5)
    found = {"cases": [line()] * 50 + [large], "faithful": []}
    assert not tally.targets(found)[0].met
    assert tally.missed(found) == [large]
    found = {"cases": [line()] * 50 + [small], "faithful": []}
    assert tally.targets(found)[0].met
    assert tally.by_rule(found)[tally.OURS][1] == tally.Share(50, 51)


def test_a_false_alarm_misses_the_target_and_a_true_fallback_does_not():
    cell = {**line(caught=False), "cell": "c", "precision": "fp32", "true_fallback": False}
    alarm, fallback = {**cell, "caught": True}, {**cell, "caught": True, "true_fallback": True}
    for more, met in ((alarm, False), (fallback, True)):
        accused, enough = tally.targets({"cases": [], "faithful": [cell] * 999 + [more, more, cell]})
        assert accused.met is met
        assert enough.met
    assert not tally.targets({"cases": [], "faithful": [cell] * 400})[1].met


@pytest.mark.parametrize("size", [0.0, 1e-7, 1e-5, 3e-4, 1e-2])
def test_the_rule_of_dynamo_is_torchs_own(size):
    import torch
    from torch._dynamo.utils import same

    random_state = np.random.default_rng(3)
    truth = random_state.normal(size=(40, 50))
    fp32 = (truth + 1e-7 * random_state.normal(size=truth.shape)).astype("f")
    got = (truth + size * random_state.normal(size=truth.shape)).astype("f")
    own = verdicts([[truth]], [[fp32]], [[got]])["dynamo same(), as shipped"]
    tensors = [torch.from_numpy(a) for a in (fp32, got, truth)]
    assert own == same(*tensors, log_error=lambda *_: None)


def test_an_unknown_architecture_is_refused(capsys):
    with pytest.raises(SystemExit):
        run._parsed(["--architectures", "nowhere"])
    assert "unknown architecture nowhere" in capsys.readouterr().err
    assert isinstance(run._parsed(["--quick"]), argparse.Namespace)
