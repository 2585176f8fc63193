"""The first wrong operator of a failing cell is found, named by node and module, and confirmed alone."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from types import SimpleNamespace

import jsonschema
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from places import RECORD_SCHEMA, ROOT, TESTS
from shared_run import shared_run

from pytest_modelformats.checks.localise import localise
from pytest_modelformats.errors import ModelFormatsError, RunError
from pytest_modelformats.schema import Cell, Decision, FailureKind, Outcome, PlannedCell, Verdict

pytestmark = pytest.mark.slow

NETWORKS = ROOT / "fixtures" / "random_networks.py"
SOURCES = ("residual_0", "attention_0", "groupnorm_0", "lstm_0", "mlp_0", "cnn_1")
EXPORT = """
import sys, warnings
warnings.simplefilter("ignore")
sys.path.insert(0, sys.argv[1])
import torch, random_networks
torch.set_num_threads(1)
for name in sys.argv[2:]:
    network = getattr(random_networks, name)
    dims = [int(d) for d in network.INPUTS[0].partition("[N,")[2].rstrip("]").split(",")]
    with torch.no_grad():
        torch.onnx.export(
            network(), (torch.randn(2, *dims),), name + ".onnx", dynamo=False, verbose=False,
            input_names=["input"], output_names=["output"],
            dynamic_axes={"input": {0: "N"}, "output": {0: "N"}},
        )
"""
PLUGIN = """
from miniatures.onnx_converters import WRONG_DEFAULT
from pytest_modelformats.systems.onnx import declared
declared.CONVERTERS = tuple(WRONG_DEFAULT if c.name == "onnx_from_pytorch" else c for c in declared.CONVERTERS)
"""
ENTRY_POINTS = """[modelformats.backends]
onnx-faithful = miniatures.onnx_runtimes:FAITHFUL
onnx-misreads-epsilon = miniatures.onnx_runtimes:MISREADS
onnx-fuses-wrongly = miniatures.onnx_runtimes:FUSES
onnx-wrong-for-odd-batches = miniatures.onnx_runtimes:ODD
onnx-hangs-alone = miniatures.onnx_runtimes:HANGS
[modelformats.converters]
onnx_careless_from_pytorch = miniatures.onnx_converters:CARELESS
onnx_careless_legacy_from_pytorch = miniatures.onnx_converters:CARELESS_LEGACY
openvino_careless_from_onnx = miniatures.onnx_converters:CARELESS_IR
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the sources as ONNX, the miniatures as an installed package, and a cache."""
    folder = tmp_path_factory.mktemp("localise")
    subprocess.run(
        [sys.executable, "-c", EXPORT, str(NETWORKS.parent), *SOURCES], cwd=folder, check=True, capture_output=True
    )
    info = folder / "miniature_onnx-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: miniature-onnx\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    (folder / "wrong_default.py").write_text(PLUGIN)
    return folder


def search(place, folder, *args, plugins=(), suites="parity"):
    """Run suites at fp32 in a folder; returns the run and, by cell, parity's line."""
    common = ["--mf-suites", suites, "--mf-devices", "cpu", "--mf-precisions", "fp32", f"--mf-cache={place}/cache"]
    ran = shared_run(folder, *args, *common, plugins=plugins, paths=(place, TESTS))
    return ran, {line["cell"]: line for line in ran.of("check") if line["check"] == "parity"}


# --- faults in a graph


def the(model, operator, number=0):
    return [node for node in model.graph.node if node.op_type == operator][number]


def change(model, name, function):
    tensor = next(t for t in model.graph.initializer if t.name == name)
    array = np.ascontiguousarray(function(numpy_helper.to_array(tensor).copy()), np.float32)
    tensor.CopyFrom(numpy_helper.from_array(array, name))


def state(node, name, value):
    for attribute in [a for a in node.attribute if a.name == name]:
        node.attribute.remove(attribute)
    node.attribute.append(helper.make_attribute(name, value))


def weight_scaled(model, operator="Conv", number=1):
    node = the(model, operator, number)
    change(model, node.input[1], lambda w: w * 1.01)
    return node


def weight_zeroed(model):
    node = the(model, "Conv", 2)

    def lose(weight):
        weight[np.unravel_index(np.abs(weight).argmax(), weight.shape)] = 0
        return weight

    change(model, node.input[1], lose)
    return node


def bias_dropped(model):
    node = the(model, "Conv", 1)
    del node.input[2]
    return node


def pads_changed(model):
    node = next(n for n in model.graph.node if n.op_type == "Conv" and max(helper.get_node_attr_value(n, "pads")))
    pads = list(helper.get_node_attr_value(node, "pads"))
    state(node, "pads", [0, 0, pads[0] + pads[2], pads[1] + pads[3]])
    return node


def activation_swapped(model):
    node = the(model, "Sigmoid")
    node.op_type = "HardSigmoid"
    return node


def epsilon_changed(model):
    node = the(model, "LayerNormalization", 1)
    state(node, "epsilon", 1e-2)
    return node


def axis_changed(model):
    node = the(model, "Softmax")
    state(node, "axis", 1)
    return node


def gelu_approximated(model):
    node = the(model, "Gelu")
    state(node, "approximate", "tanh")
    return node


def weight_transposed(model):
    shapes = {t.name: tuple(t.dims) for t in model.graph.initializer}
    square = [n for n in model.graph.node if n.op_type == "MatMul" and len({*shapes.get(n.input[1], (0, 1))}) == 1]
    change(model, square[0].input[1], lambda w: w.T)
    return square[0]


def gates_reordered(model):
    node = the(model, "LSTM")
    change(model, node.input[1], lambda w: np.roll(w, w.shape[1] // 4, axis=1))
    return node


def norm_epsilon(model):
    node = the(model, "InstanceNormalization")
    state(node, "epsilon", 1e-2)
    return node


def bias_negated(model):
    node = the(model, "Gemm")
    change(model, node.input[2], lambda b: -b)
    return node


def softmax_scaled(model):
    """A node is put in: no other one is changed."""
    softmax = the(model, "Softmax")
    more = helper.make_node("Mul", [softmax.input[0], "factor"], ["scaled"], name="put_in")
    model.graph.initializer.append(numpy_helper.from_array(np.array([1.01], np.float32), "factor"))
    softmax.input[0] = "scaled"
    model.graph.node.insert(list(model.graph.node).index(softmax), more)
    return more


FAULTS = [
    ("residual_0", weight_scaled),
    ("residual_0", weight_zeroed),
    ("residual_0", bias_dropped),
    ("residual_0", pads_changed),
    ("residual_0", activation_swapped),
    ("attention_0", epsilon_changed),
    ("attention_0", axis_changed),
    ("attention_0", gelu_approximated),
    ("attention_0", weight_transposed),
    ("lstm_0", gates_reordered),
    ("groupnorm_0", norm_epsilon),
    ("mlp_0", bias_negated),
    ("mlp_0", softmax_scaled),
    ("cnn_1", weight_scaled),
]


def clipped(model):
    """No sample and no stressed row is beyond 200: the graph is wrong on large numbers alone."""
    first = next(node for node in model.graph.node if "input" in node.input)
    for name, value in (("low", -200.0), ("high", 200.0)):
        model.graph.initializer.append(numpy_helper.from_array(np.float32(value), name))
    first.input[list(first.input).index("input")] = "clipped"
    model.graph.node.insert(0, helper.make_node("Clip", ["input", "low", "high"], ["clipped"], "clip"))


IR = """
import openvino
ir = openvino.convert_model("residual_0_activation_swapped.onnx")
openvino.save_model(ir, "wrong.xml", compress_to_fp16=False)
"""
# Which laws are asked of which cells; what is not named here is not run.
ASKED = (
    "parity and onnx-fp32-onnxruntime",
    "parity and attention_0-onnx and (faithful or misreads)",
    "parity and residual_0-onnx and fuses",
    "attention_0-onnx and odd and not fuzz",
    "fuzz and clips-onnx-fp32-onnxruntime",
    "parity and residual_0-openvino.careless",
    "parity and wrong-openvino",
)
RUNTIMES = ("faithful", "misreads-epsilon", "fuses-wrongly", "wrong-for-odd-batches")


@pytest.fixture(scope="module")
def graphs(place, tmp_path_factory):
    """The run of everything in ONNX and what comes from it: its lines by cell, and by candidate its faulty node."""
    folder, nodes = tmp_path_factory.mktemp("graphs"), {}
    models = [a for source in SOURCES for a in ("--mf-model", place / f"{source}.onnx")]
    candidates = {"wrong.xml": "residual_0", "clips.onnx": "mlp_0"}
    for source, fault in FAULTS:
        model, name = onnx.load(place / f"{source}.onnx"), f"{source}_{fault.__name__}"
        nodes[f"{source}~{name}-onnx-fp32-onnxruntime@cpu"] = fault(model)
        onnx.save(model, str(folder / f"{name}.onnx"))
        candidates[f"{name}.onnx"] = source
    for source in SOURCES:
        (folder / f"{source}_copy.onnx").write_bytes((place / f"{source}.onnx").read_bytes())
        candidates[f"{source}_copy.onnx"] = source
    model = onnx.load(place / "mlp_0.onnx")
    clipped(model)
    onnx.save(model, str(folder / "clips.onnx"))
    subprocess.run([sys.executable, "-c", IR], cwd=folder, check=True, capture_output=True)
    given = [a for name, source in candidates.items() for a in ("--mf-candidate", f"{name},model={source}")]
    backends = ",".join(("onnxruntime", "openvino", *(f"onnx-{name}" for name in RUNTIMES)))
    formats = ("--mf-formats", "onnx,openvino.careless", "--mf-backends", backends, "--mf-fuzz", "40")
    chosen = ("-k", " or ".join(f"({words})" for words in ASKED))
    return *search(place, folder, *models, *given, *formats, *chosen, suites="parity,batch,fuzz"), nodes


def test_the_faulty_node_of_a_graph_is_named_and_confirmed(graphs):
    """Fourteen faults of thirteen kinds in networks of six families; a faithful copy of each is not searched."""
    _, lines, nodes = graphs
    expected = {cell: node.name for cell, node in nodes.items()}
    copies = {f"{source}{copy}-onnx-fp32-onnxruntime@cpu" for source in SOURCES for copy in ("", f"~{source}_copy")}
    lines = {cell: line for cell, line in lines.items() if cell in expected or cell in copies}
    found = {cell: line["data"]["localisation"] for cell, line in lines.items() if "localisation" in line["data"]}
    assert {cell: line["node"] for cell, line in found.items()} == expected
    assert len(lines) == len(expected) + 2 * len(SOURCES)
    for cell, line in found.items():
        assert line["confirmed"] is True, cell
        assert line["method"] == "onnx-intermediates"
        assert line["input_error"] < 1 < (line["output_error"] or 1e9), cell
        assert line["sentence"] in lines[cell]["sentence"]
        assert line["reason"] == ""
    # The first search starts the worker and evaluates the reference; the others read what it has written.
    assert sorted(line["seconds"] for line in found.values())[len(found) // 2] < 2
    norm = found["attention_0~attention_0_epsilon_changed-onnx-fp32-onnxruntime@cpu"]
    assert norm["operator"] == "LayerNormalization"
    assert norm["how"] == "'epsilon' is 0.01, in the reference 1e-05"
    assert norm["module"] == "2.inner.0"
    assert norm["before"][-1] == "/1/Add"


# --- faults in a runtime


def test_an_operator_that_a_runtime_computes_wrongly_is_named(graphs):
    _, lines, _ = graphs
    wrong = lines["attention_0-onnx-fp32-onnx-misreads-epsilon@cpu"]
    found = wrong["data"]["localisation"]
    assert (found["operator"], found["node"]) == ("LayerNormalization", "/1/inner/inner.0/LayerNormalization")
    assert found["confirmed"] is True
    assert found["output_error"] > 100
    assert found["input_error"] < 4
    faithful = lines["attention_0-onnx-fp32-onnx-faithful@cpu"]
    assert faithful["outcome"] == "passed"
    assert "localisation" not in faithful["data"]


def test_a_fault_that_vanishes_when_looked_at_is_found_by_halving(graphs):
    """The pass does nothing where the result between the two operators is asked for."""
    line = graphs[1]["residual_0-onnx-fp32-onnx-fuses-wrongly@cpu"]
    found = line["data"]["localisation"]
    assert (found["operator"], found["node"]) == ("Relu", "/2/Relu")
    assert found["confirmed"] is False
    assert "only while intermediate results are not asked for" in line["sentence"]


def test_a_fault_of_one_size_of_batch_is_looked_for_in_that_size(graphs):
    """Eight rows, which parity is judged on, are right."""
    ran, _, _ = graphs
    cell = "attention_0-onnx-fp32-onnx-wrong-for-odd-batches@cpu"
    assert ran.outcomes[cell, "parity"] == "passed"
    found = ran.checks[cell, "batch"]["data"]["localisation"]
    assert (found["node"], found["confirmed"]) == ("/1/inner/inner.0/LayerNormalization", True)


def test_what_fails_on_a_generated_input_is_searched_on_it(graphs):
    ran, lines, _ = graphs
    cell = "mlp_0~clips-onnx-fp32-onnxruntime@cpu"
    parity, fuzz = lines[cell], ran.checks[cell, "fuzz"]
    assert parity["outcome"] == "passed", parity["sentence"]
    assert fuzz["outcome"] == "failed", fuzz["sentence"]
    found = fuzz["data"]["localisation"]
    assert (found["node"], found["confirmed"]) == ("clip", True), found
    assert found["sentence"] in fuzz["sentence"]


def test_each_law_was_asked_of_the_cells_that_are_about_it(graphs):
    ran, lines, nodes = graphs
    assert {cell for cell, check in ran.checks if check == "fuzz"} == {"mlp_0~clips-onnx-fp32-onnxruntime@cpu"}
    assert {c for c, check in ran.checks if check == "batch"} == {
        "attention_0-onnx-fp32-onnx-wrong-for-odd-batches@cpu"
    }
    # Beside the faulty graphs and two right ones of each source: four of other runtimes, the clipped one, two IRs.
    assert len(lines) == len(nodes) + 2 * len(SOURCES) + 4 + 1 + 2, sorted(lines)


@pytest.mark.parametrize("name", ["permutation", "determinism", "history", "concurrency", "threads"])
def test_what_compares_a_cell_with_itself_says_that_there_is_no_reference(name):
    planned = PlannedCell(Cell("m", "onnx", "fp32", "onnxruntime", "cpu"), (), "fp32", Decision())
    verdict = Verdict(Outcome.FAILED, FailureKind.NUMERIC, "It differs.")
    settings = SimpleNamespace(localise_budget_s=60.0)
    assert localise.due(settings, name, verdict)
    found = localise.localise(None, settings, planned, verdict, name)
    assert found.sentence.startswith(f"The first wrong operator could not be located because the {name} check compares")
    assert (found.operator, found.data()["reason"].count(".")) == ("", 0)


@pytest.mark.parametrize(
    "error",
    [
        RunError("the runtime raised ValueError: No cast function available"),
        ModelFormatsError("AxisError: axis 3 is out of bounds"),
        KeyError("x"),
    ],
)
def test_an_error_of_the_search_itself_is_no_part_of_a_verdict(error, monkeypatch):
    """A class name says nothing to whom the verdict is for; the record keeps it for who mends the search."""

    def once(_name, _planned, make):
        return make()

    def raises(*_):
        raise error

    monkeypatch.setattr("pytest_modelformats.checks.localise.order.failing_input", raises)
    stages = SimpleNamespace(cells=SimpleNamespace(once=once))
    planned = PlannedCell(Cell("m", "onnx", "fp32", "onnxruntime", "cpu"), (), "fp32", Decision())
    verdict = Verdict(Outcome.FAILED, FailureKind.NUMERIC, "It differs.")
    found = localise.localise(stages, SimpleNamespace(localise_budget_s=60.0), planned, verdict)
    assert "Error" not in found.sentence
    assert "an error of its own" in found.sentence
    assert str(error) in found.data()["unforeseen"]


def test_a_sentence_of_ours_stays_in_the_verdict(monkeypatch):
    def raises(*_):
        raise RunError("the graph has no operator 'Relu_3': Error codes are not compared")

    monkeypatch.setattr("pytest_modelformats.checks.localise.order.failing_input", raises)
    stages = SimpleNamespace(cells=SimpleNamespace(once=lambda _name, _planned, make: make()))
    planned = PlannedCell(Cell("m", "onnx", "fp32", "onnxruntime", "cpu"), (), "fp32", Decision())
    verdict = Verdict(Outcome.FAILED, FailureKind.NUMERIC, "It differs.")
    found = localise.localise(stages, SimpleNamespace(localise_budget_s=60.0), planned, verdict)
    assert "Relu_3" in found.sentence
    assert found.unforeseen == ""


def test_a_worker_that_hangs_ends_with_the_budget_and_the_outcome_stays(place, tmp_path):
    args = ["--mf-model", place / "attention_0.onnx", "--mf-formats", "onnx", "--mf-backends", "onnx-hangs-alone"]
    started = time.monotonic()
    ran, lines = search(place, tmp_path, *args, "--mf-localise-budget", "3", suites="parity,batch")
    assert time.monotonic() - started < 100
    (line,) = lines.values()
    assert (line["outcome"], line["failure_kind"]) == ("failed", "numeric")
    assert "could not be located because the time budget ended: 'open' in the miniature-onnx" in line["sentence"]
    assert "allow more than 3 s" in line["sentence"]
    assert 3 <= line["data"]["localisation"]["seconds"] < 20
    # The law that is asked for next gets a fresh worker, and the same answer about the place.
    batch = ran.checks[line["cell"], "batch"]
    assert (batch["outcome"], batch["failure_kind"]) == ("failed", "numeric")
    assert batch["data"]["localisation"] == line["data"]["localisation"]
    assert ran.footer["complete"]


# --- faults in a converter


SCRIPTS = """
import sys, warnings
warnings.simplefilter("ignore")
sys.path.insert(0, sys.argv[1])
import torch, random_networks
net = random_networks.residual_0()
x = torch.randn(2, *[int(d) for d in random_networks.residual_0.INPUTS[0].partition("[N,")[2].rstrip("]").split(",")])
with torch.no_grad():
    torch.jit.save(torch.jit.trace(net, x, check_trace=False), "right.pt")
    net[3].inner[3].weight[0, 0, 0, 0] += 0.5
    wrong = torch.jit.trace(net, x, check_trace=False)
    torch.jit.save(wrong, "wrong.pt")
    torch.jit.save(torch.jit.freeze(wrong.eval()), "frozen.pt")
    program = torch.export.export(net, (x,), dynamic_shapes=({0: torch.export.Dim("N", min=1)},))
    torch.export.save(program, "wrong_program.pt2")
import openvino
shape = openvino.PartialShape([-1, *x.shape[1:]])
ir = openvino.convert_model(net, example_input=x, input=[shape])
ir.inputs[0].get_tensor().set_names({"input"})
ir.outputs[0].get_tensor().set_names({"output"})
openvino.save_model(ir, "ir.xml", compress_to_fp16=False)
"""


@pytest.fixture(scope="module")
def programs(place, tmp_path_factory):
    """The run of everything that comes from a PyTorch network: by cell, parity's line."""
    folder = tmp_path_factory.mktemp("programs")
    command = [sys.executable, "-c", SCRIPTS, str(NETWORKS.parent)]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    names = ("right.pt", "wrong.pt", "frozen.pt", "wrong_program.pt2", "ir.xml")
    candidates = [a for name in names for a in ("--mf-candidate", name)]
    args = ["--mf-model", f"{NETWORKS}:residual_0", *candidates, "--mf-formats", "onnx.careless,onnx.careless-legacy"]
    backends = ("--mf-backends", "onnxruntime,torch-export,openvino,torchscript")
    _, lines = search(place, folder, *args, *backends, "-k", "careless or right or wrong or frozen or ir-")
    assert len(lines) == 2 + len(names), sorted(lines)
    return lines


def test_a_converters_fault_is_mapped_to_the_module(programs):
    """By dynamo's metadata and by the legacy exporter's node names; the reference is the default conversion."""
    lines = {cell: line for cell, line in programs.items() if "careless" in cell}
    assert len(lines) == 2
    for cell, line in lines.items():
        found = line["data"]["localisation"]
        assert found["operator"] == "Conv", cell
        # The exporter has folded the batch norm after it into the convolution; which of the two it names differs.
        assert found["module"] == ("3.inner.0" if "legacy" in cell else "3.inner.1"), cell
        assert found["confirmed"] is True


def test_a_wrong_default_conversion_is_found_by_the_sources_own_modules(place, tmp_path):
    args = ["--mf-model", f"{NETWORKS}:residual_0", "--mf-backends", "onnxruntime", "--mf-formats", "onnx"]
    _, lines = search(place, tmp_path, *args, plugins=["wrong_default"])
    (line,) = lines.values()
    assert line["outcome"] == "failed", line["sentence"]
    found = line["data"]["localisation"]
    assert (found["operator"], found["module"]) == ("Conv", "3.inner.1"), found
    assert found["confirmed"] is True


def test_the_module_of_a_program_and_of_an_ir_is_found_by_its_result(programs):
    program = programs["residual_0~wrong_program-pt2-fp32-torch-export@cpu"]["data"]["localisation"]
    assert (program["operator"], program["module"]) == ("Conv2d", "3.inner.3"), program
    assert "'3.inner.3.weight' differs from the source's in 1 of" in program["sentence"]
    ir = programs["residual_0~ir-openvino-fp32-openvino@cpu"]["data"]["localisation"]
    # OpenVINO has folded the batch norm into the convolution: the result that tells is the norm's.
    assert ir["module"] == "3.inner.4", ir
    assert ir["before"][-1].startswith("__module.3.inner.2/")


def test_a_fault_between_onnx_and_openvino_is_found_in_the_ir(graphs):
    found = graphs[1]["residual_0-openvino.careless-fp32-openvino@cpu"]["data"]["localisation"]
    assert found["output"] == "/3/inner/inner.2/Sigmoid_output_0", found
    assert found["input_error"] < 4
    assert found["output_error"] > 1000


def test_an_operator_of_an_ir_is_found_by_the_names_of_the_onnx_tensors(graphs):
    found = graphs[1]["residual_0~wrong-openvino-fp32-openvino@cpu"]["data"]["localisation"]
    assert found["output"] == "/3/inner/inner.2/Sigmoid_output_0", found
    assert found["operator"] == "HardSigmoid"


def test_a_submodule_of_a_script_is_found_on_good_inputs(programs):
    right, wrong, frozen = (
        programs[f"residual_0~{name}-torchscript-fp32-torchscript@cpu"] for name in ("right", "wrong", "frozen")
    )
    assert right["outcome"] == "passed"
    assert "localisation" not in right["data"]
    found = wrong["data"]["localisation"]
    assert (found["method"], found["operator"], found["node"]) == ("bisection", "Conv2d", "3.inner.3")
    assert found["confirmed"] is True
    assert found["before"][-1] == "3.inner.2"
    assert "'3.inner.3.weight' differs from the source's in 1 of" in found["sentence"]
    assert "could not be located because the script has no submodules" in frozen["sentence"]
    assert frozen["data"]["localisation"]["node"] == ""


# --- what it costs, and what is shown of it

PEAK = """
import sys
from pathlib import Path

def kilobytes(name):
    return int(re.search(name + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

import re
feed, truths = {"x": "x.npy"}, "truths"
if sys.argv[1] == "inference":
    import numpy, onnxruntime
    idle = kilobytes("VmRSS")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    onnxruntime.InferenceSession("right.onnx", options).run(None, {"x": numpy.load("x.npy")})
else:
    import onnx.reference
    from pytest_modelformats.systems.onnx.localise import requests as onnx_localise
    idle = kilobytes("VmRSS")
    found = onnx_localise.compare(
        reference="right.onnx", artifact="wrong.onnx", feed=feed, precision="fp32", truths=truths, folder="part",
        seconds=100, limit=4, expected=[],
    )["found"]
    assert found["node"] == "conv_5", found
print(kilobytes("VmHWM") - idle)
"""


def stack(path, factor):
    """Eight convolutions of 256 channels: 19 MB of weights; those of the sixth are multiplied by a factor."""
    random = np.random.default_rng(0)
    nodes, weights = [], []
    for index in range(8):
        weight = random.normal(size=(256, 256, 3, 3)).astype(np.float32) / 48
        weights.append(numpy_helper.from_array(weight * np.float32(factor if index == 5 else 1), f"w{index}"))
        before, after = (f"t{index}" if index else "x"), f"t{index + 1}"
        nodes.append(helper.make_node("Conv", [before, f"w{index}"], [f"c{index}"], f"conv_{index}", pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"c{index}"], [after], f"relu_{index}"))
    infos = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, ["N", 256, 28, 28]) for n in ("x", "t8")]
    graph = helper.make_graph(nodes, "stack", infos[:1], infos[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), str(path))


def test_it_needs_at_most_half_as_much_memory_again_as_one_inference(tmp_path):
    """Weights are read one at a time; measured: 66 against 68 MB here, 84 against 277 MB for ResNet-50."""
    stack(tmp_path / "right.onnx", 1.0)
    stack(tmp_path / "wrong.onnx", 1.01)
    np.save(tmp_path / "x.npy", np.random.default_rng(1).normal(size=(1, 256, 28, 28)).astype(np.float32))
    peaks = {}
    for what in ("inference", "localisation"):
        command = [sys.executable, "-c", PEAK, what]
        ran = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
        peaks[what] = int(ran.stdout)
    sys.stdout.write(f"{peaks}\n")
    assert peaks["localisation"] <= 1.5 * peaks["inference"], peaks


def test_the_reports_show_the_operator_its_errors_and_the_path(graphs):
    ran, _, nodes = graphs
    cell = "residual_0~residual_0_bias_dropped-onnx-fp32-onnxruntime@cpu"
    node = nodes[cell]
    page, text = (ran.folder / "index.html").read_text(), (ran.folder / "report.md").read_text()
    page = page.partition(f'id="cell-{cell}"')[2].partition('<details class="cell">')[0]
    text = text.partition(f"- `{cell}`\n")[2].partition("\n- `")[0]
    assert "The first wrong operator" in page
    assert f"<code>{node.name}</code>" in page
    assert "it is wrong alone too" in page
    assert "First wrong operator: Conv in `3.inner.0`, it is wrong alone too" in text
    assert f"`/2/Relu` → **`{node.name}`**" in text
    told = re.sub(r"\s+", "", ran.text).partition(f"{cell}failed(numeric)inparity:")[2].partition("reproduce:")[0]
    assert "Firstwrongoperator:Conv" in told, ran.text
    # Looked at once, not for each line as jsonschema.validate does.
    schema = json.loads(RECORD_SCHEMA.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for line in ran.lines:
        validator.validate(line)
