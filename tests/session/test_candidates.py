"""An artifact that the user already has is judged against the model as if it had been converted here."""

from __future__ import annotations

import subprocess
import sys

import pytest
from inner_run import PARITY, two_layers

MINE = "tiny-onnx-fp32-onnxruntime@cpu"


def test_a_faithful_copy_passes_and_one_changed_weight_fails(run, tiny, pytester):
    two_layers(pytester.path / "right.onnx")
    two_layers(pytester.path / "wrong.onnx", change=1.0)
    candidates = ("--mf-candidate", "right.onnx", "--mf-candidate", "wrong.onnx")
    ran = run("--mf-model", tiny, *candidates, *PARITY)
    assert ran.status == 1
    right, wrong = "tiny~right-onnx-fp32-onnxruntime@cpu", "tiny~wrong-onnx-fp32-onnxruntime@cpu"
    assert ran.footer["cells"] == {MINE: "passed", right: "passed", wrong: "failed"}
    line = ran.checks[wrong, "parity"]
    assert line["failure_kind"] == "numeric"
    assert line["data"]["noise_ratio"] > 100
    assert {c["cell"]: c["candidate"] for c in ran.of("cell")} == {MINE: "", right: "right", wrong: "wrong"}


IR = """
import openvino

openvino.save_model(openvino.convert_model("tiny.onnx"), "shipped.xml", compress_to_fp16=False)
"""


def test_an_openvino_ir_is_judged_too(run, tiny, pytester):
    subprocess.run([sys.executable, "-c", IR], cwd=pytester.path, check=True, capture_output=True)
    chosen = (
        "--mf-suites",
        "contract,parity",
        "--mf-formats",
        "onnx",
        "--mf-devices",
        "cpu",
        "-k",
        "shipped or nothing",
    )
    ran = run("--mf-model", tiny, "--mf-candidate", "shipped.xml", *chosen)
    assert ran.status == 0, ran.text
    cell = "tiny~shipped-openvino-fp32-openvino@cpu"
    assert ran.outcomes == {(cell, "contract"): "passed", (cell, "parity"): "passed"}


FP16 = """
import onnx
from onnxconverter_common import float16

onnx.save(float16.convert_float_to_float16(onnx.load("tiny.onnx"), keep_io_types=True), "half.onnx")
"""


def test_a_candidate_is_held_to_the_precision_it_is_declared_with(run, tiny, pytester):
    subprocess.run([sys.executable, "-c", FP16], cwd=pytester.path, check=True, capture_output=True)
    chosen = ("--mf-suites", "parity", "--mf-backends", "onnxruntime", "--mf-devices", "cpu", "-k", "half")
    declared = run("--mf-model", tiny, "--mf-candidate", "half.onnx,precision=fp16", *chosen)
    assert declared.footer["cells"] == {"tiny~half-onnx-fp16-onnxruntime@cpu": "passed"}, declared.text
    claimed = run("--mf-model", tiny, "--mf-candidate", "half.onnx", *chosen)
    assert claimed.status == 1
    line = claimed.checks["tiny~half-onnx-fp32-onnxruntime@cpu", "parity"]
    assert line["outcome"] == "fallback"
    assert "fp16" in line["sentence"]


TWO = """
import torch
from torch import nn

class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = tiny_nets.build()

    def forward(self, x):
        y = self.net(x)
        return y, y.tanh()
"""
NAMED = """
import onnx
import tiny_nets

axes = {name: {0: "N"} for name in ("x", "logits", "squashed")}
example = torch.zeros(2, 4)
names = {"input_names": ["x"], "output_names": ["logits", "squashed"]}
torch.onnx.export(Two().eval(), (example,), "right.onnx", dynamo=False, dynamic_axes=axes, **names)
model = onnx.load("right.onnx")
outputs = list(model.graph.output)
del model.graph.output[:]
model.graph.output.extend(outputs[::-1])
onnx.save(model, "swapped.onnx")
del model.graph.output[1]
onnx.save(model, "lost.onnx")
"""


def test_names_that_a_torch_model_does_not_have_are_no_contract(run, state_dict, pytester):
    """They go by position: outputs in another order are other numbers. Conversions made here still have our names."""
    shelf = state_dict.parent
    code = f"import sys; sys.path.insert(0, {str(shelf)!r})\n{TWO}{NAMED}"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=pytester.path, check=True, capture_output=True)
    net = (shelf / "tiny_nets.py").read_text() + TWO.replace("tiny_nets.build()", "build()")
    pytester.path.joinpath("two_nets.py").write_text(net)
    candidates = [word for name in ("right", "swapped", "lost") for word in ("--mf-candidate", f"{name}.onnx")]
    chosen = ("--mf-suites", "contract,parity", "--mf-backends", "onnxruntime", "--mf-precisions", "fp32")
    ran = run("--mf-model", "two_nets.py:Two", *candidates, *chosen, "--mf-devices", "cpu", "--mf-cells", "*~*")
    cells = {name: f"Two~{name}-onnx-fp32-onnxruntime@cpu" for name in ("right", "swapped", "lost")}
    right = ran.checks[cells["right"], "contract"]
    assert right["outcome"] == "passed", ran.text
    assert "does not name the outputs that are called logits, squashed here" in right["sentence"]
    assert ran.outcomes[cells["right"], "parity"] == "passed"
    assert ran.outcomes[cells["swapped"], "contract"] == "passed"
    assert ran.outcomes[cells["swapped"], "parity"] == "failed"
    lost = ran.checks[cells["lost"], "contract"]
    assert (lost["outcome"], lost["failure_kind"]) == ("failed", "contract")
    assert "there are 1 outputs (squashed) where the source has 2" in lost["sentence"]


HALF_INPUTS = """
import onnx
from onnx import numpy_helper
from onnxconverter_common import float16

for name, change in (("half", 1), ("odd", -1)):
    model = float16.convert_float_to_float16(onnx.load("tiny.onnx"))
    assert model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT16
    weight = next(t for t in model.graph.initializer if t.name == "w2")
    values = numpy_helper.to_array(weight).copy()
    values[0, 0] *= change
    weight.CopyFrom(numpy_helper.from_array(values, "w2"))
    onnx.save(model, f"{name}.onnx")
"""


def test_a_candidate_that_takes_fp16_is_fed_fp16(run, tiny, pytester):
    """What onnxconverter-common makes by default; in its bundle too."""
    subprocess.run([sys.executable, "-c", HALF_INPUTS], cwd=pytester.path, check=True, capture_output=True)
    given = [word for name in ("half", "odd") for word in ("--mf-candidate", f"{name}.onnx,precision=fp16")]
    suites = "contract,parity,batch,determinism,concurrency,history,unmodified"
    chosen = ("--mf-suites", suites, "--mf-backends", "onnxruntime", "--mf-devices", "cpu", "--mf-cells", "*~*")
    ran = run("--mf-model", tiny, *given, *chosen)
    half, odd = (f"tiny~{name}-onnx-fp16-onnxruntime@cpu" for name in ("half", "odd"))
    checks = {check: outcome for (cell, check), outcome in ran.outcomes.items() if cell == half}
    assert set(checks) >= {"contract", "parity", "batch", "concurrency"}
    assert set(checks.values()) == {"passed"}, ran.text
    line = ran.checks[odd, "parity"]
    assert (line["outcome"], line["failure_kind"]) == ("failed", "numeric")
    done = subprocess.run(
        [sys.executable, str(ran.folder / line["data"]["bundle"] / "repro.py")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "the samples: 'y': error" in done.stdout


def test_a_device_narrows_the_cells(cells, tiny, pytester):
    two_layers(pytester.path / "shipped.onnx")
    found = cells("--mf-model", tiny, "--mf-candidate", "shipped.onnx,device=cpu", "--mf-formats", "onnx")
    assert [cell for cell in found if "~" in cell] == ["tiny~shipped-onnx-fp32-onnxruntime@cpu"]


def test_with_several_models_a_candidate_says_whose_it_is(cells, refusal, tiny, pytester):
    for name in ("other", "shipped"):
        two_layers(pytester.path / f"{name}.onnx")
    models = ("--mf-model", tiny, "--mf-model", "other.onnx")
    found = cells(*models, "--mf-candidate", "shipped.onnx,model=other", *PARITY[2:])
    assert found == [MINE, "other-onnx-fp32-onnxruntime@cpu", "other~shipped-onnx-fp32-onnxruntime@cpu"]
    unclear = refusal(*models, "--mf-candidate", "shipped.onnx")
    assert "could be any of tiny, other; say which: --mf-candidate shipped.onnx,model=tiny" in unclear
    unknown = refusal(*models, "--mf-candidate", "shipped.onnx,model=othr")
    assert "unknown model 'othr'; did you mean 'other'?" in unknown


@pytest.mark.parametrize("precision", ["fp61", ""])
def test_an_unknown_precision_is_refused(refusal, tiny, precision):
    sentence = refusal("--mf-model", tiny, "--mf-candidate", f"tiny.onnx,precision={precision}")
    assert "precision" in sentence


def test_a_candidate_without_a_model_is_refused(refusal, pytester):
    two_layers(pytester.path / "shipped.onnx")
    assert "has no model to be judged against; add --mf-model" in refusal("--mf-candidate", "shipped.onnx")
