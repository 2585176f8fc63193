"""Half precision of ONNX models that the libraries break: what is made opens, computes the same, and says what it took.

Every model here is the miniature of a real one that onnxconverter-common leaves broken.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from pytest_modelformats.errors import ConvertError
from pytest_modelformats.schema import Source
from pytest_modelformats.schema.contract import ConversionJob
from pytest_modelformats.systems.onnx import fp16_from_onnx
from pytest_modelformats.systems.onnx.half import opening, producers, structure
from pytest_modelformats.systems.onnx.half.rounding import rounded

FLOAT, HALF, INT64 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT64
COMMON, OF_RUNTIME = producers.PRODUCERS
RNG = np.random.default_rng(0)
X = RNG.uniform(1, 2, (3, 4)).astype(np.float32)
N = np.array([[1, 2, 3, 4]] * 3)


def node(operator, inputs, outputs, name=None, **attributes):
    return helper.make_node(operator, inputs.split(), outputs.split(), name or f"{operator}_{outputs}", **attributes)


def value(name, kind=FLOAT, shape=(3, 4)):
    return helper.make_tensor_value_info(name, kind, shape)


def tensor(name, values, dtype=np.float32):
    return numpy_helper.from_array(np.array(values, dtype), name)


def graph(nodes, inputs, outputs, weights=()):
    return helper.make_graph(nodes, "graph", inputs, outputs, list(weights))


def model(nodes, inputs, outputs, weights=(), *, opset=17, ir_version=8, domains=()):
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph(nodes, inputs, outputs, weights), opset_imports=imports, ir_version=ir_version)


@pytest.fixture
def convert(tmp_path):
    """Turn a model to fp16; return the facts and the file."""

    def made(source):
        onnx.save(source, tmp_path / "net.onnx")
        job = ConversionJob(
            *(Source("net", "net.onnx", "onnx", "onnx"), tmp_path / "net.onnx", tmp_path / "half.onnx"),
            *("fp32", "fp16", (), (), {}, {}),
        )
        return fp16_from_onnx.convert(job), job.output

    return made


def computed(path, feed):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(path, options).run(None, feed)


@pytest.fixture
def holds(convert):
    """Whatever a converted model took: it is of fp16, opens, has the source's types, and computes the same."""

    def held(source, **feed):
        facts, path = convert(source)
        half = onnx.load(path)
        onnx.checker.check_model(half, full_check=True)
        assert half.graph.output[0].type.tensor_type == source.graph.output[0].type.tensor_type
        assert [v for v in half.graph.input if v.name in feed] == [v for v in source.graph.input if v.name in feed]
        assert any(n.op_type == "Cast" and n.attribute[0].i == HALF for n in nodes_of(half))
        for wanted, got in zip(computed(source.SerializeToString(), feed), computed(path, feed), strict=True):
            assert got.dtype == wanted.dtype
            np.testing.assert_allclose(got, wanted, rtol=4e-3)
        return facts, half

    return held


def nodes_of(made):
    def walk(inside):
        for one in inside.node:
            yield one
            for body in structure.bodies(one):
                yield from walk(body)

    return list(walk(made.graph))


# --- what a library leaves broken ----------------------------------------------------------------------------


def test_a_cast_to_fp32_beside_fp16_becomes_one_to_fp16(holds):
    """A one-hot of integers beside weights (magika), a mask of integers beside activations (silero-vad)."""
    nodes = [node("Cast", "n", "f", to=FLOAT), node("Mul", "f x", "m"), node("Add", "m w", "y")]
    source = model(nodes, [value("x"), value("n", INT64)], [value("y")], [tensor("w", [0.5])])
    facts, half = holds(source, x=X, n=N)
    assert facts["exporter"].startswith("onnxconverter-common")
    assert "casts to fp32 made casts to fp16" in facts["repaired"]
    assert not [n for n in half.graph.node if n.op_type == "Cast" and n.input[0] == "n" and n.attribute[0].i != HALF]


def test_a_cast_that_an_fp32_operator_needs_stays(holds):
    """Range has no fp16: what it takes and gives stays fp32, and is stated so; the others get casts."""
    nodes = [
        node("Cast", "n", "f", to=FLOAT),
        node("Range", "zero f one", "r"),
        node("Mul", "x r", "y"),
    ]
    weights = [tensor("zero", 0), tensor("one", 1)]
    source = model(nodes, [value("x", shape=(4,)), value("n", INT64, ())], [value("y", shape=(4,))], weights)
    facts, half = holds(source, x=X[0], n=np.array(4))
    (kept,) = (n for n in half.graph.node if n.output[0] == "f")
    assert kept.attribute[0].i == FLOAT
    assert any(said.startswith("stated types inferred anew") for said in facts["repaired"])
    stated = {v.name: v.type.tensor_type.elem_type for v in half.graph.value_info}
    assert stated["f"] == FLOAT


def test_a_constant_of_both_precisions_is_one_of_each(holds):
    """The scale of a quantised weight is fp32 by its operator; where it is taken in fp16 as well, it is cast."""
    nodes = [
        node("DequantizeLinear", "q s", "w"),
        node("MatMul", "x w", "m"),
        node("Mul", "m s", "y"),
    ]
    scale = 0.012345679
    weights = [tensor("q", RNG.integers(1, 100, (4, 4)), np.int8), tensor("s", scale)]
    facts, half = holds(model(nodes, [value("x")], [value("y")], weights, opset=13), x=X)
    assert "constants kept in fp32" in facts["repaired"]
    (dequantised,) = (n for n in half.graph.node if n.op_type == "DequantizeLinear")
    kept = next(t for t in half.graph.initializer if t.name == dequantised.input[1])
    assert numpy_helper.to_array(kept) == np.float32(scale)


def test_the_output_of_an_fp32_operator_keeps_its_type(holds):
    """Of a model that ends in an operator without fp16, onnxconverter-common changes the type of the output."""
    nodes = [node("Add", "x x", "a"), node("Max", "a x", "y")]
    facts, half = holds(model(nodes, [value("x")], [value("y")]), x=X)
    assert half.graph.output[0].type.tensor_type.elem_type == FLOAT
    assert facts["repaired"]


def test_weights_that_are_listed_as_inputs_are_turned_to_fp16(holds):
    """Files before IR version 4 list every weight, and exporters did so for long after."""
    nodes = [node("MatMul", "x w", "m"), node("Relu", "m", "y")]
    weight = tensor("w", RNG.uniform(1, 2, (4, 4)))
    for version in (3, 7):
        source = model(nodes, [value("x"), value("w", shape=(4, 4))], [value("y")], [weight], opset=9)
        source.ir_version = version
        facts, half = holds(source, x=X)
        assert half.ir_version == version
        assert [(v.name, v.type.tensor_type.elem_type) for v in half.graph.input] == [("x", FLOAT), ("w", HALF)]
        assert facts["repaired"] == []


def test_nameless_nodes_do_not_share_a_cast(holds):
    """Two nodes without a name that take one input, or that stay fp32, get tensors of one name (swift-f0)."""
    nodes = [
        helper.make_node("Exp", ["x"], ["a"]),
        helper.make_node("Sqrt", ["x"], ["b"]),
        helper.make_node("Max", ["a", "b"], ["c"]),
        helper.make_node("Min", ["b", "x"], ["d"]),
        helper.make_node("Add", ["c", "d"], ["e"]),
        helper.make_node("Relu", ["e"], ["y"]),
    ]
    _, half = holds(model(nodes, [value("x")], [value("y")]), x=X)
    names = [n.name for n in half.graph.node]
    assert all(names)
    assert len(set(names)) == len(names)


def test_both_branches_of_an_if_are_mended(holds):
    """One branch has a Cast of integers, the other takes what is around it (silero-vad)."""
    one = graph([node("Cast", "n", "f", to=FLOAT), node("Mul", "f h", "t")], [], [value("t")])
    other = graph([node("Cast", "n", "g", to=FLOAT), node("Identity", "g", "e")], [], [value("e")])
    nodes = [
        node("Relu", "x", "h"),
        node("If", "c", "i", then_branch=one, else_branch=other),
        node("Add", "i h", "y"),
    ]
    source = model(nodes, [value("x"), value("n", INT64), value("c", TensorProto.BOOL, ())], [value("y")])
    for way in (True, False):
        facts, half = holds(source, x=X, n=N, c=np.array(way))
    assert facts["repaired"]
    assert {n.attribute[0].i for n in nodes_of(half) if n.op_type == "Cast" and n.output[0] in {"f", "g"}} == {HALF}


@pytest.mark.parametrize("operator", ["Loop", "Scan"])
def test_what_a_body_hands_to_its_next_round_keeps_its_type(holds, operator):
    body = [node("Cast", "k", "f", to=FLOAT), node("Add", "s f", "t"), node("Identity", "t", "o")]
    inside = [value("s", shape=(4,)), value("k", INT64, (4,) if operator == "Scan" else ())]
    after = [value("t", shape=(4,)), value("o", shape=(4,))]
    nodes = [node("Cast", "v", "s0", to=FLOAT)]
    if operator == "Loop":
        body.append(node("Identity", "c", "c1"))
        condition = [value("c", TensorProto.BOOL, ())]
        made = graph(body, [inside[1], *condition, inside[0]], [value("c1", TensorProto.BOOL, ()), *after])
        nodes.append(node("Loop", "rounds true s0", "last each", body=made))
        weights = [tensor("rounds", 3, np.int64), tensor("true", True, bool)]  # noqa: FBT003 - a value of the graph
    else:
        nodes.append(node("Scan", "s0 n", "last each", body=graph(body, inside, after), num_scan_inputs=1))
        weights = []
    nodes += [node("Add", "each last", "a"), node("Mul", "a x", "y")]
    inputs = [value("x"), value("v", INT64, (4,)), value("n", INT64)]
    facts, _ = holds(model(nodes, inputs, [value("y")], weights), x=X, v=N[0], n=N)
    assert facts["repaired"]


def test_an_operator_of_another_domain_gets_inputs_of_one_type(holds):
    nodes = [
        node("Cast", "n", "f", to=FLOAT),
        node("FusedMatMul", "f w", "m", domain="com.microsoft"),
        node("Add", "m x", "y"),
    ]
    weights = [tensor("w", RNG.uniform(0, 1, (4, 4)))]
    source = model(nodes, [value("x"), value("n", INT64)], [value("y")], weights, domains=["com.microsoft"])
    facts, _ = holds(source, x=X, n=N)
    assert facts["repaired"]


def test_a_model_without_operators_of_onnx_imports_them_for_its_casts(holds):
    nodes = [node("Scaler", "x", "y", domain="ai.onnx.ml", offset=[0.5], scale=[2.0])]
    source = model(nodes, [value("x")], [value("y")], domains=["ai.onnx.ml"])
    del source.opset_import[0]
    facts, _ = holds(source, x=X)
    assert facts["opset"] == 13


def test_nodes_stand_behind_what_their_bodies_take():
    body = graph([node("Neg", "h", "t")], [], [value("t")])
    nodes = [
        node("If", "c", "i", then_branch=body, else_branch=graph([node("Abs", "h", "e")], [], [value("e")])),
        node("Add", "i x", "y"),
        node("Relu", "x", "h"),
    ]
    made = graph(nodes, [value("x"), value("c", TensorProto.BOOL, ())], [value("y")])
    assert structure.sort(made)
    assert [n.op_type for n in made.node] == ["Relu", "If", "Add"]
    assert not structure.sort(made)


# --- which library -------------------------------------------------------------------------------------------


def test_the_graph_of_onnx_runtimes_converter_is_put_in_order(holds, monkeypatch):
    monkeypatch.setattr(fp16_from_onnx, "PRODUCERS", (OF_RUNTIME,))
    nodes = [node("Cast", "n", "f", to=FLOAT), node("Mul", "f x", "y")]
    facts, _ = holds(model(nodes, [value("x"), value("n", INT64)], [value("y")]), x=X, n=N)
    assert facts["exporter"] == "onnxruntime.transformers.float16.convert_float_to_float16"
    assert facts["repaired"] == ["nodes put in order"]


def sequence():
    """What onnxconverter-common leaves broken beyond mending: it does not look at sequences."""
    nodes = [
        node("SequenceEmpty", "", "s"),
        node("SequenceInsert", "s x", "t"),
        node("SequenceAt", "t zero", "a"),
        node("Relu", "a", "y"),
    ]
    return model(nodes, [value("x")], [value("y")], [tensor("zero", 0, np.int64)])


def test_what_one_library_leaves_broken_the_next_one_makes(holds):
    facts, _ = holds(sequence(), x=X)
    assert facts["exporter"] == "onnxruntime.transformers.float16.convert_float_to_float16"


def test_where_no_library_succeeds_the_sentence_says_what_was_wrong_with_each(convert, monkeypatch):
    def broken(model, **_):
        raise TypeError("cannot add\nmore")

    module = SimpleNamespace(convert_float_to_float16=broken)
    refusing = producers.Producer("x", "ONNX Runtime's converter", lambda: module)
    monkeypatch.setattr(fp16_from_onnx, "PRODUCERS", (COMMON, refusing))
    with pytest.raises(ConvertError) as caught:
        convert(sequence())
    said = str(caught.value)
    assert said.startswith("no converter makes an fp16 model of 'net.onnx' that holds together (onnxconverter-common: ")
    assert "SequenceInsert" in said
    assert said.endswith("; ONNX Runtime's converter: cannot add)")


def test_where_onnx_runtime_is_not_installed_its_install_line_is_given(convert, monkeypatch):
    monkeypatch.setattr(fp16_from_onnx, "PRODUCERS", (COMMON, producers.Producer("x", "the other", lambda: None)))
    with pytest.raises(ConvertError, match=r"the other: not installed \(pip install onnxruntime\)"):
        convert(sequence())


# --- constants -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "made", "lost"),
    [
        ([33246.0, -33246.0, 65504.0, 65519.0], [33248.0, -33248.0, 65504.0, 65504.0], 0),
        ([65520.0, -1e9, np.inf, -np.inf], [65504.0, -65504.0, np.inf, -np.inf], 2),
        ([2.0**-24, 9e-8, -6e-8, 1e-7], [2.0**-24, 2.0**-23, -(2.0**-24), 2.0**-23], 0),
        ([1e-12, -1e-12, 0.0, 1.0], [0.0, 0.0, 0.0, 1.0], 0),
        ([1e-12], [2.0**-24], 1),
        (-1e-12, -(2.0**-24), 1),
        ([0.0], [0.0], 0),
        ([np.nan, 1.0], [np.nan, 1.0], 0),
    ],
)
def test_constants_are_rounded_and_neither_overflow_nor_leave_nothing_to_divide_by(given, made, lost):
    half, count = rounded(np.array(given, np.float32))
    assert half.dtype == np.float16
    np.testing.assert_array_equal(half, np.array(made, np.float16))
    assert count == lost


def test_constants_of_a_model_are_the_sources_rounded(holds):
    """33246 stays (onnxconverter-common's default makes it 1e4); a mask's -1e9 and an epsilon are counted."""
    nodes = [
        node("Constant", "", "e", value=tensor("e", 1e-12)),
        node("Add", "x e", "a"),
        node("Max", "a mask", "b"),
        node("Mul", "a w", "c"),
        node("Where", "n c minus", "d"),
        node("Add", "d b", "y"),
    ]
    large = [[33246.0, 1e-7, 20000.0, 3e-8]]
    weights = [tensor("w", large), tensor("mask", -1e9), tensor("minus", [[-1e9] * 4])]
    inputs = [value("x"), value("n", TensorProto.BOOL)]
    facts, half = holds(model(nodes, inputs, [value("y")], weights), x=X * 0 + 1, n=np.ones((3, 4), bool))
    kept = {t.name: numpy_helper.to_array(t) for t in half.graph.initializer}
    np.testing.assert_array_equal(kept["w"], np.array(large, np.float16))
    assert kept["mask"] == np.float32(-1e9)  # Max stays fp32, and its constant does
    assert facts["truncated_values"] == 5  # the epsilon and four of -1e9


# --- opening -------------------------------------------------------------------------------------------------


@pytest.fixture
def two_files(tmp_path):
    """A source that opens, and a graph that the checker takes and ONNX Runtime does not."""
    nodes = [node("FusedMatMul", "x w", "y", domain="com.microsoft")]
    for name, kind in (("source", np.float32), ("broken", np.float16)):
        weights = [tensor("w", np.ones((4, 4)), kind)]
        made = model(nodes, [value("x")], [value("y")], weights, domains=["com.microsoft"])
        onnx.checker.check_model(made, full_check=True)
        onnx.save(made, tmp_path / f"{name}.onnx")
    return tmp_path / "broken.onnx", tmp_path / "source.onnx"


def test_what_onnx_runtime_refuses_is_said_where_it_takes_the_source(two_files):
    broken, source = two_files
    assert "FusedMatMul" in opening.refusal(broken, source)
    assert opening.refusal(source, source) == ""
    assert opening.refusal(broken, broken) == ""


def test_a_kernel_that_the_machine_lacks_is_no_fault_of_the_graph(two_files, tmp_path):
    _, source = two_files
    kind = TensorProto.BFLOAT16
    onnx.save(model([node("Erf", "x", "y")], [value("x", kind)], [value("y", kind)]), tmp_path / "m.onnx")
    kind, _ = opening._opened(tmp_path / "m.onnx")
    assert kind == "NotImplemented"
    assert opening.refusal(tmp_path / "m.onnx", source) == ""


def test_a_graph_that_ends_the_process_that_opens_it_is_left_to_its_cells(two_files, monkeypatch):
    monkeypatch.setattr(opening, "_OPEN", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    assert opening.refusal(*two_files) == ""


def bidirectional(path):
    """Transpose, Reshape, Transpose and MatMul behind a bidirectional LSTM: ONNX Runtime 1.32 dies of it in fp16."""
    nodes = [
        node("LSTM", "x w r", "l", direction="bidirectional", hidden_size=4),
        node("Transpose", "l", "t", perm=[0, 2, 1, 3]),
        node("Reshape", "t shape", "s"),
        node("Transpose", "s", "u", perm=[1, 0, 2]),
        node("MatMul", "u m", "y"),
    ]
    shapes = {"w": (2, 16, 4), "r": (2, 16, 4), "m": (8, 3)}
    weights = [tensor(name, RNG.standard_normal(shape)) for name, shape in shapes.items()]
    weights.append(tensor("shape", [0, 0, 8], np.int64))
    onnx.save(model(nodes, [value("x", shape=(5, "N", 4))], [value("y", shape=("N", 5, 3))], weights), path)


def scaled(path):
    """What attention does: divide by the root of a size, which is an integer."""
    nodes = [
        node("Shape", "x", "shape"),
        node("Gather", "shape last", "n"),
        node("Cast", "n", "f", to=FLOAT),
        node("Sqrt", "f", "r"),
        node("Add", "r e", "d"),
        node("MatMul", "x w", "m"),
        node("Div", "m d", "y"),
    ]
    weights = [tensor("last", 1, np.int64), tensor("e", 1e-12), tensor("w", RNG.standard_normal((4, 4)))]
    onnx.save(model(nodes, [value("x", shape=("N", 4))], [value("y", shape=("N", 4))], weights), path)


@pytest.mark.slow
def test_a_runtime_that_dies_of_an_fp16_model_costs_that_cell_alone(run, pytester):
    """Its conversion goes well; the cell beside it passes, and its record and report say what its conversion took."""
    bidirectional(pytester.path / "recurrent.onnx")
    scaled(pytester.path / "scaled.onnx")
    ran = run(
        *("--mf-model", "recurrent.onnx", "--mf-model", "scaled.onnx", "--mf-suites", "parity"),
        *("--mf-precisions", "fp16", "--mf-formats", "onnx", "--mf-backends", "onnxruntime", "--mf-devices", "cpu"),
    )
    died, other = (ran.checks[f"{name}-onnx-fp16-onnxruntime@cpu", "parity"] for name in ("recurrent", "scaled"))
    assert died["outcome"] == "crashed", died
    assert "'open' in the onnxruntime worker was ended by SIGSEGV" in died["sentence"]
    assert ran.footer["complete"]
    assert other["outcome"] == "passed", other
    assert other["data"]["artifact"]["conversion"] == {
        "exporter": "onnxconverter-common float16.convert_float_to_float16",
        "repaired": ["casts to fp32 made casts to fp16"],
        "truncated_values": 1,
    }
    changed = (
        "did not hold together and was mended: casts to fp32 made casts to fp16. "
        "1 constant beyond what the precision holds was set to the nearest that it holds."
    )
    assert all(changed in (ran.folder / name).read_text() for name in ("report.md", "index.html"))
