"""What is declared of shapes is a hint: two sizes are run, and what comes out decides."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from inner_run import two_layers
from onnx import TensorProto, helper, numpy_helper
from shared_run import shared_run

HERE = ("--mf-suites", "contract,parity", "--mf-precisions", "fp32", "--mf-devices", "cpu")
WEIGHT = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)


def one_product(path, inputs, outputs, tail=(), **constants):
    """An ONNX model of x times a weight, then ``tail``; ``inputs`` and ``outputs`` are the shapes that are declared."""
    last = "m" if tail else "y"
    nodes = [helper.make_node("MatMul", ["x", "weight"], [last])]
    nodes += [helper.make_node(*node[:3], **dict(node[3:])) for node in tail]
    values = {"weight": WEIGHT, **constants}
    stated = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)]
        for name, shape in (("x", inputs), ("y", outputs))
    ]
    kept = [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()]
    graph = helper.make_graph(nodes, "one_product", *stated, kept)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), str(path))


@pytest.fixture(scope="module")
def themselves(tmp_path_factory):
    """Models that declare of their outputs what is not so, each against itself in two runtimes."""
    folder = tmp_path_factory.mktemp("themselves")
    one_product(folder / "named.onnx", ["N", 4], ["N", "K"])
    one_product(folder / "ranked.onnx", ["N", 4], ["N", "K", 1])
    one_product(folder / "scalar.onnx", ["N", 4], [])
    one_product(folder / "other.onnx", ["N", 4], ["M", 3])
    models = [part for name in ("named", "ranked", "scalar", "other") for part in ("--mf-model", f"{name}.onnx")]
    return shared_run(folder, *models, "--mf-backends", "onnxruntime,openvino", *HERE)


@pytest.mark.parametrize("name", ["named", "ranked", "scalar", "other"])
@pytest.mark.parametrize("runtime", ["onnx-fp32-onnxruntime", "openvino-fp32-openvino"])
def test_a_source_is_itself_whatever_it_declares(themselves, name, runtime):
    for check in ("contract", "parity"):
        line = themselves.checks[f"{name}-{runtime}@cpu", check]
        assert line["outcome"] == "passed", line["sentence"]


def test_what_is_declared_otherwise_is_a_remark(themselves):
    said = themselves.checks["named-openvino-fp32-openvino@cpu", "contract"]["sentence"]
    assert "It behaves as the source does on the samples and with N = 2, though it declares otherwise" in said
    assert "dimension 1 of output 'y' was dynamic (K) and is now fixed at 3" in said
    assert "No second size could be run of dimension 1 of output 'y'" in said, "no size of the input changes it"
    ranked = themselves.checks["ranked-openvino-fp32-openvino@cpu", "contract"]["sentence"]
    assert "output 'y' has rank 2 where the source has 3" in ranked
    assert "though" not in themselves.checks["other-openvino-fp32-openvino@cpu", "contract"]["sentence"]


WORDS = ("N", "S", 4)


@pytest.fixture(scope="module")
def candidates(tmp_path_factory):
    """Artifacts that declare other shapes than their sources; some have them and some do not."""
    folder = tmp_path_factory.mktemp("candidates")
    two_layers(folder / "tiny.onnx")
    two_layers(folder / "fixed.onnx", batch=4)
    one_product(folder / "rows.onnx", ["N", 4], ["N", 3])
    one_product(folder / "baked.onnx", ["N", 4], [2, 3], [("Reshape", ["m", "to"], ["y"])], to=np.array([2, 3]))
    one_product(folder / "deeper.onnx", ["N", 4], ["N", 1, 3], [("Unsqueeze", ["m", "at"], ["y"])], at=np.array([1]))
    one_product(folder / "hinted.onnx", ["N", 4], [2, 3])
    one_product(folder / "wider.onnx", ["N", 4], ["N", 6], [("Concat", ["m", "m"], ["y"], ("axis", 1))])
    one_product(folder / "words.onnx", WORDS, ["N", "S", 3])
    one_product(folder / "short.onnx", ("N", 16, 4), ["N", 16, 3])
    cut = [("Slice", ["m", "from", "to", "along"], ["y"])]
    one_product(folder / "cut.onnx", WORDS, ["N", 16, 3], cut, **{"from": [0], "to": [16], "along": [1]})
    chosen = {"tiny": ["fixed"], "rows": ["baked", "deeper", "hinted", "wider"], "words": ["short", "cut"]}
    named = [part for model in chosen for part in ("--mf-model", f"{model}.onnx")]
    given = [
        part
        for model, names in chosen.items()
        for name in names
        for part in ("--mf-candidate", f"{name}.onnx,model={model}")
    ]
    return shared_run(folder, *named, *given, "--mf-formats", "onnx", "--mf-backends", "onnxruntime", *HERE)


LOST = {
    "tiny~fixed": ("dimension 0 of input 'x' was dynamic (N) and is now fixed at 4; on the samples it refuses",),
    "rows~baked": ("dimension 0 of output 'y' was dynamic (N) and is now fixed at 2; on the samples it refuses",),
    "rows~deeper": (
        "output 'y' has rank 3 where the source has 2; on the samples output 0 comes out as [8, 1, 3]",
        "where the source gives [8, 3]",
    ),
    "rows~wider": ("dimension 1 of output 'y' is 6 where the source has 3", "comes out as [8, 6]"),
    "words~short": ("dimension 1 of input 'x' was dynamic (S) and is now fixed at 16; with S = 32 it refuses",),
    "words~cut": (
        "dimension 1 of output 'y' was dynamic (S) and is now fixed at 16; with S = 32 output 0 comes out as",
        "[2, 16, 3] where the source gives [2, 32, 3]",
    ),
}


@pytest.mark.parametrize("name", LOST)
def test_what_is_lost_is_told_with_what_showed_it(candidates, name):
    line = candidates.checks[f"{name}-onnx-fp32-onnxruntime@cpu", "contract"]
    assert (line["outcome"], line["failure_kind"]) == ("failed", "contract"), line["sentence"]
    for words in LOST[name]:
        assert words in line["sentence"]


def test_a_batch_that_is_only_declared_to_be_fixed_is_none(candidates):
    line = candidates.checks["rows~hinted-onnx-fp32-onnxruntime@cpu", "contract"]
    assert line["outcome"] == "passed", line["sentence"]
    assert "it declares otherwise: dimension 0 of output 'y' was dynamic (N) and is now fixed at 2" in line["sentence"]


def test_the_second_size_is_tried_beside_the_sizes_that_the_source_takes(tmp_path):
    """The source takes 24 columns and no others: with the usual 16 no second number of rows could be run."""
    shapes = {"x": ["N", "S", "T"], "y": ["N", "S", 2, 12]}
    split = {"to": np.array([0, 0, 2, 12])}
    fold = [("Reshape", ["x", "to"], ["f"])]
    cut = [("Slice", ["f", "from", "until", "along"], ["g"])]
    twice = ("Add", ["f", "f"], ["y"]), ("Add", ["g", "g"], ["y"])

    def save(name, nodes, out, **constants):
        stated = [
            [helper.make_tensor_value_info(port, TensorProto.FLOAT, dims)]
            for port, dims in (("x", shapes["x"]), ("y", out))
        ]
        kept = [numpy_helper.from_array(np.asarray(v), k) for k, v in {**split, **constants}.items()]
        made = helper.make_graph([helper.make_node(*node) for node in nodes], "g", *stated, kept)
        onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), tmp_path / name)

    save("source.onnx", [*fold, twice[0]], shapes["y"])
    save("baked.onnx", [*fold, *cut, twice[1]], ["N", 16, 2, 12], **{"from": [0], "until": [16], "along": [1]})
    given = ("--mf-model", "source.onnx", "--mf-candidate", "baked.onnx", "--mf-formats", "onnx")
    ran = shared_run(tmp_path, *given, "--mf-backends", "onnxruntime", *HERE)
    line = ran.checks["source~baked-onnx-fp32-onnxruntime@cpu", "contract"]
    assert (line["outcome"], line["failure_kind"]) == ("failed", "contract"), line["sentence"]
    assert "comes out as [2, 16, 2, 12] where the source gives [2, 32, 2, 12]" in line["sentence"]
