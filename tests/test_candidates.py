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
