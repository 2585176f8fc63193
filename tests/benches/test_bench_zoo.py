"""The zoo of real models: what its second opinion calls destroyed, and what the two together are counted as."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from places import ROOT

sys.path.insert(0, str(ROOT))

from benchmarks import page
from benchmarks.zoo import agreement, opinion, run, subject, table
from benchmarks.zoo import places as known_places
from benchmarks.zoo.real import REAL, Entry

SPEC = "x:float32[N,6]{-1..1}"


def scaled(path, factor=1.0, twist=0.0, rows="N"):
    """x @ W + b with W multiplied and, with ``twist``, one of its columns changed."""
    weights = np.random.default_rng(1).standard_normal((6, 4)).astype(np.float32) * np.float32(factor)
    weights[:, 1] += np.float32(twist)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [rows, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [rows, 4])],
        [numpy_helper.from_array(weights, "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return str(path)


def cell(artifact, precision="fp32", backend="onnxruntime"):
    return {"cell": f"{artifact}-{precision}", "artifact": artifact, "precision": precision, "backend": backend}


def asked(tmp_path, source, cells):
    """The second opinion as its script gives it."""
    request, answer = tmp_path / "request.json", tmp_path / "answer.json"
    wanted = {"source": source, "inputs": [SPEC], "search_path": [], "cells": cells}
    request.write_text(json.dumps(wanted), "utf-8")
    opinion.main(str(request), str(answer))
    return json.loads(answer.read_text("utf-8"))


def test_the_second_opinion_tells_the_same_from_the_destroyed(tmp_path):
    source = scaled(tmp_path / "source.onnx")
    same, off, gone = (
        scaled(tmp_path / f"{n}.onnx", f, t) for n, f, t in (("a", 1, 0), ("b", 1.002, 0), ("c", 1, 0.5))
    )
    found = asked(tmp_path, source, [cell(same), cell(off), cell(gone), cell(off, "fp16"), cell(gone, "bf16")])["cells"]
    assert [said["word"] for said in found.values()] == ["same", "unclear", "destroyed", "same", "destroyed"]


def test_an_artifact_that_does_not_open_is_no_opinion_and_ends_nothing(tmp_path):
    source = scaled(tmp_path / "source.onnx")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"nothing")
    found = asked(tmp_path, source, [cell(str(broken)), cell(source)])["cells"]
    assert [said["word"] for said in found.values()] == ["none", "same"]


def test_a_source_that_does_not_open_is_said(tmp_path):
    assert "refused" in asked(tmp_path, str(tmp_path / "none.onnx"), [])


@pytest.mark.parametrize(
    ("wanted", "got", "word"),
    [
        ([[1.0, 2.0]], [[1.0, np.nan]], "destroyed"),
        ([[1.0, np.nan]], [[1.0, np.nan]], "same"),
        ([[1.0, 2.0]], [[1.0, 2.0, 3.0]], "destroyed"),
        ([[np.nan, np.inf]], [[0.0, 0.0]], "unclear"),
        ([[0.0, 0.0]], [[0.0, 1.0]], "destroyed"),
        ([[0.0, 0.0]], [[0.0, 0.0]], "unclear"),
    ],
)
def test_what_is_no_number_is_compared_by_its_place(wanted, got, word):
    pair = [np.array(one, np.float32) for one in wanted], [np.array(one, np.float32) for one in got]
    assert opinion.compared({"precision": "fp32"}, *pair)["word"] == word


def test_another_number_of_outputs_and_other_integers_are_seen():
    one = np.arange(4)
    assert opinion.compared({"precision": "fp32"}, [one], [one, one])["word"] == "destroyed"
    assert opinion.compared({"precision": "fp32"}, [one], [one])["word"] == "same"
    assert opinion.compared({"precision": "fp32"}, [one], [one + 1])["word"] == "unclear"


def test_a_source_that_is_not_itself_when_its_inputs_move_a_little_judges_nobody():
    """Twenty times as far from the source as the source is from itself is destroyed, as far is not known."""

    class Amplifying:
        names = ("x",)

        def run(self, feed):
            return [np.sin(feed["x"] * np.float32(2e5))]

    feed = {"x": np.random.default_rng(0).uniform(0, 1, 400).astype(np.float32)}
    wanted = Amplifying().run(feed)
    steady = opinion.steadiness(Amplifying(), feed, wanted)
    assert steady < 40
    for size, word in ((1, "unclear"), (20, "destroyed")):
        got = [wanted[0] + size * 10 ** (-steady / 20) * wanted[0]]
        assert opinion.compared({"precision": "fp32"}, wanted, got, steady)["word"] == word
    assert opinion.steadiness(Amplifying(), {"x": np.arange(4)}, wanted) == opinion.EXACT_DB


def test_rows_are_made_from_what_the_user_pins():
    feed = opinion.feed_of(["x:0:float32[N,6]{-1..1}", "sr:int64[]{16000..16000}", "a::b:bool[2]"])
    assert feed["x:0"].shape == (opinion.ROWS, 6)
    assert np.abs(feed["x:0"]).max() <= 1
    assert (feed["sr"].shape, feed["sr"]) == ((), 16000)
    assert feed["a::b"].dtype == bool


def model(outcome, word, *, parity="passed", precision="fp32", ran="", sentence="It is.", **more):
    """A model of one cell as the zoo writes it down."""
    checks = {"parity": {"outcome": parity, "kind": None, "sentence": sentence, "noise_ratio": 1.0}}
    said = {"format": "onnx", "precision": precision, "backend": "onnxruntime", "outcome": outcome, "checks": checks}
    opinions = {"c": {"word": word, "why": "by hand", "ran": ran}}
    plain = {"name": "m", "kind": "speech", "package": "p", "truth": "lifted", "ended": "", "cells": {"c": said}}
    return {**plain, "opinions": opinions, "seconds": {"product": 1.0, "opinion": 1.0}, **more}


@pytest.mark.parametrize(
    ("outcome", "word", "more", "counted"),
    [
        ("passed", "same", {}, "agree"),
        ("passed", "destroyed", {}, "false pass"),
        ("passed", "same", {"parity": "inconclusive"}, "unchecked"),
        ("failed", "same", {"parity": "failed"}, "false alarm"),
        ("failed", "destroyed", {"parity": "failed"}, "agree"),
        ("fallback", "same", {"parity": "fallback"}, "false alarm"),
        ("fallback", "same", {"parity": "fallback", "ran": "bf16"}, "agree"),
        ("inconclusive", "same", {"parity": "inconclusive"}, "unjudged"),
        ("convert-error", "none", {"parity": "convert-error"}, "open"),
        ("failed", "unclear", {"parity": "failed"}, "open"),
    ],
)
def test_the_two_together_are_counted(outcome, word, more, counted):
    assert [line.word for line in agreement.lines([model(outcome, word, **more)])] == [counted]


def test_every_kind_of_disagreement_misses_a_target():
    def missed(*models):
        return {target.what for target in agreement.targets(list(models)) if not target.met}

    always = missed(model("passed", "same"))
    assert always == {"real models: at least 20 of 12 packages"}
    assert len(missed(model("passed", "destroyed")) - always) == 1
    assert len(missed(model("passed", "same", parity="not-measured")) - always) == 1
    assert len(missed(model("failed", "same", parity="failed")) - always) == 2  # cells and architectures
    assert len(missed(model("timeout", "same", parity="timeout")) - always) == 1
    assert len(missed(model("passed", "same", sentence="AxisError: 3")) - always) == 1
    assert len(missed(model("passed", "same", truth="estimated")) - always) == 1


def test_what_was_not_judged_is_counted_by_cause_without_names_and_numbers():
    models = [
        model("inconclusive", "same", parity="inconclusive", sentence=f"Output 'y{i}' gave {i}.5e-7.", name=f"m{i}")
        for i in (1, 2)
    ]
    assert list(agreement.causes(models).values()) == [2]


def test_the_page_names_each_disagreement(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(page, "ROOT", tmp_path)
    found = [model("passed", "destroyed", name="wrong"), model("passed", "same", name="right")]
    assert table.show(found, "By hand.", write=False) == 1
    said = capsys.readouterr().out
    assert "| wrong: onnx-fp32-onnxruntime | passed | destroyed | false pass |" in said
    assert len(list((tmp_path / "reports").iterdir())) == 2


def test_an_earlier_run_is_compared_where_both_have_looked(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(page, "ROOT", tmp_path)
    before = [model("passed", "destroyed"), model("passed", "destroyed", name="gone")]
    table.show([model("failed", "destroyed"), model("passed", "same", name="new")], "", write=False, before=before)
    said = capsys.readouterr().out
    assert "1 models that both runs" in said
    assert "| cells passed that the second opinion calls destroyed: 0 | 1 | 0 |" in said
    assert "| cells: agree | 0 | 1 |" in said


def test_an_earlier_run_that_is_none_is_said_before_anything_runs(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        run.main(["--before", str(tmp_path / "none.json")])
    assert "--before takes the JSON that an earlier run wrote" in capsys.readouterr().err


def test_the_zoo_is_large_enough_and_pins_every_package():
    names = [entry.name for entry in subject.ZOO]
    assert len(names) == len(set(names))
    assert len(subject.CONFIGURED) >= 40
    assert len({entry.package for entry in REAL}) >= agreement.REAL_PACKAGES
    assert len(REAL) >= agreement.REAL_MODELS
    pinned = (subject.HERE / "packages.txt").read_text("utf-8")
    assert not [entry.package for entry in REAL if f"{entry.package}==" not in pinned]


@pytest.mark.slow
def test_a_model_is_judged_by_both(tmp_path, monkeypatch):
    monkeypatch.setattr(subject, "PACKAGES", tmp_path)
    monkeypatch.setattr(subject, "SUITES", ("contract", "parity"))
    scaled(tmp_path / "net.onnx")
    entry = Entry("net", "tables", "p", "net.onnx", (SPEC,))
    found = subject.judge(entry, tmp_path / "run", ["--mf-formats", "onnx", "--mf-precisions", "fp32"])
    assert found["truth"], found["ended"]
    assert [line.word for line in agreement.lines([found])] == ["agree"]
    assert json.dumps(found)


def test_an_artifact_that_takes_its_process_down_leaves_the_others(tmp_path, monkeypatch):
    """The second opinion is asked again without it."""
    (tmp_path / "zoo").mkdir()
    script = tmp_path / "zoo" / "opinion.py"
    script.write_text(
        "import json, os, sys\n"
        "asked = json.load(open(sys.argv[1]))\n"
        "found = {}\n"
        "for cell in asked['cells']:\n"
        "    os.abort() if cell['cell'] == 'b' else found.update({cell['cell']: {'word': 'same'}})\n"
        "    json.dump({'cells': found}, open(sys.argv[2], 'w'))\n",
        "utf-8",
    )
    monkeypatch.setattr(subject, "HERE", tmp_path / "zoo")
    entry = Entry("net", "tables", "p", "net.onnx", ())
    found = subject._opinions(entry, tmp_path, [{"cell": name} for name in "abc"])
    assert {cell: said["word"] for cell, said in found.items()} == {"a": "same", "b": "none", "c": "same"}


def test_a_model_that_is_not_in_the_zoo_is_one_sentence():
    command = [sys.executable, "-m", "benchmarks.zoo.run", "--models", "nosuch"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "there is no model nosuch" in done.stderr


# --- faults of known places


def test_every_name_is_another_one_and_the_faulty_node_is_still_known(tmp_path):
    """A copy as another exporter would write it: the same function, and the true place goes along."""
    path = scaled(tmp_path / "copy.onnx")
    before = known_places.RealGraph(onnx.load(path)).model
    onnx.save(before, path)
    case = {"path": path, "true": [before.graph.node[0].name]}
    known_places._rename(case)
    after = onnx.load(path)
    assert case["true"] == [after.graph.node[0].name]
    assert {n.name for n in after.graph.node}.isdisjoint({n.name for n in before.graph.node})
    assert [v.name for v in after.graph.output] == [v.name for v in before.graph.output]
    onnx.checker.check_model(after)


def test_a_place_is_right_beside_or_elsewhere_and_the_targets_count_it(tmp_path):
    node = helper.make_node
    nodes = [node("Relu", ["x"], ["a"], "r"), node("Tanh", ["a"], ["b"], "t"), node("Exp", ["b"], ["y"], "e")]
    ports = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N"])] for name in "xy"]
    model = helper.make_model(helper.make_graph(nodes, "g", *ports))
    words = [
        known_places._placed(model, {"node": name, "operator": "", "how": ""} if name else {"reason": "why"}, ["r"])[
            "word"
        ]
        for name in ("r", "t", "e", "")
    ]
    assert words == ["first", "beside it", "elsewhere", "not located"]
    found = [{"found": True, "word": "first"}] * 19
    assert all(target.met for target in known_places._targets([*found, {"found": True, "word": "not located"}]))
    assert not known_places._targets([*found, {"found": False, "word": "not located"}])[0].met
    assert not known_places._targets([*found, *[{"found": True, "word": "elsewhere"}] * 2])[1].met


def test_a_half_precision_is_counted_by_the_products_own_measure():
    """A cell that is the same and below the limit, and one that is destroyed and above it, are both seen."""

    def model(name, word, kept):
        checks = {"parity": {"outcome": "passed", "sentence": "", "signal_db": kept}}
        return {
            "name": name,
            "cells": {"c": {"precision": "fp16", "checks": checks}},
            "opinions": {"c": {"word": word}},
        }

    found = [
        model("m", "same", 40.0),
        model("m", "same", 9.0),
        model("m", "destroyed", 20.0),
        model("m", "unclear", 1.0),
    ]
    assert agreement.usable(found) == [(agreement.half("m"), "fp16", 2, 1, 1, 1)]
