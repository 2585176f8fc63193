"""ResNet-50 with random but seeded weights and batch-norm statistics from data, through all formats."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from places import ROOT

from pytest_modelformats.settings.machine import cpu_flags

HAS_BF16_UNITS = bool({"avx512_bf16", "amx_bf16"} & set(cpu_flags()))


SIZE = 96  # of the images; with 224 the reference alone computes five times as long


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    """The outcome of every cell and all checks; torch.compile, which the demo covers, would take most of the time."""
    folder = tmp_path_factory.mktemp("resnet50")
    recipe = ROOT / "fixtures" / "models" / "resnet50.py"
    subprocess.run([sys.executable, str(recipe), str(folder / "resnet50.pth")], check=True, capture_output=True)
    command = [sys.executable, "-m", "pytest", "--mf-model", "resnet50.pth", "--mf-devices", "cpu", "--mf-samples", "2"]
    command += ["--mf-input", f"input:float32[N,3,{SIZE},{SIZE}]", "--mf-precisions", "fp32,default"]
    command += ["--mf-backends", "torch,torch-export,torchscript,onnxruntime,openvino"]
    command += ["--mf-suites", "contract,parity", "--mf-cache", "cache", "-p", "no:cacheprovider", "-p", "no:xdist"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=800)
    assert done.returncode in {0, 1}, done.stdout[-3000:]
    lines = (folder / "reports" / "latest" / "results.jsonl").read_text(encoding="utf-8").splitlines()
    lines = [json.loads(line) for line in lines]
    assert lines[-1]["complete"]
    return lines[-1]["cells"], [line for line in lines if line["kind"] == "check"]


@pytest.mark.slow
def test_every_format_is_the_model(record):
    outcomes = {c: o for c, o in record[0].items() if "-default-" not in c}
    assert set(outcomes) == {
        "resnet50-pytorch-fp32-torch@cpu",
        "resnet50-pt2-fp32-torch-export@cpu",
        "resnet50-torchscript-fp32-torchscript@cpu",
        "resnet50-onnx-fp32-onnxruntime@cpu",
        "resnet50-openvino-fp32-openvino@cpu",
    }
    assert set(outcomes.values()) == {"passed"}


@pytest.mark.slow
def test_default_precision_is_never_taken_for_fp32_where_bf16_ran(record):
    cell = "resnet50-openvino-default-openvino@cpu"
    parity = next(x for x in record[1] if x["cell"] == cell and x["check"] == "parity")
    stated = parity["data"]["statement"]["precision_hint"]
    ran = "bf16" if "bf16" in stated or "bfloat16" in stated else "fp32"
    assert (ran == "bf16") == HAS_BF16_UNITS
    assert parity["data"]["effective_precision"] == ran
    assert record[0][cell] == ("fallback" if ran == "bf16" else "passed")
    if ran == "bf16":
        assert "asked for the runtime's default, bf16 is what ran" in parity["sentence"]
