"""In a whole run: a precision that loses a model fails its cells, and what keeps the model passes."""

from __future__ import annotations

import subprocess
import sys

import pytest

LOST = '''
import torch


class Lost(torch.nn.Module):
    """Sums that fp16 and bf16 cannot hold: what is added is taken away again, and half of the signal is gone."""

    def __init__(self, large):
        super().__init__()
        torch.manual_seed(0)
        self.large, self.lin = large, torch.nn.Linear(8, 8)

    def forward(self, x):
        return torch.relu(self.lin(x) + self.large) - self.large


def lost():
    return Lost(4000.0).eval()


def kept():
    return Lost(4.0).eval()
'''
CPU = ("--mf-devices", "cpu", "--mf-slow", "--mf-suites", "parity")
MODEL = ("--mf-trust", "--mf-input", "x:float32[N,8]", "--mf-formats", "torchscript", *CPU)


@pytest.fixture
def nets(pytester):
    (pytester.path / "nets.py").write_text(LOST, "utf-8")


def test_a_faithful_conversion_to_a_precision_that_loses_the_model_is_red(run, pytester, nets):
    ran = run("--mf-model", "nets:lost", *MODEL, "--mf-precisions", "fp32,fp16,bf16")
    assert ran.outcomes["lost-torchscript-fp32-torchscript@cpu", "parity"] == "passed"
    for precision in ("fp16", "bf16"):
        line = ran.checks[f"lost-torchscript-{precision}-torchscript@cpu", "parity"]
        assert (line["outcome"], line["failure_kind"]) == ("failed", "precision"), line["sentence"]
        assert f"{precision} is too coarse for this model" in line["sentence"]
        assert "or ship fp32 (" in line["sentence"]
        assert "The first operator that loses the signal: Sub '" in line["sentence"]
        found = line["data"]["localisation"]
        assert (found["method"], found["operator"], found["reason"]) == ("onnx-signal", "Sub", "")
        output = line["data"]["outputs"][0]
        assert output["noise_ratio"] == pytest.approx(1.0, abs=0.2), "it is what rounding makes of the source"
        assert output["signal_rms"] < 6 * output["error_rms"]
        bundle = next(ran.folder.glob(f"bundles/lost-torchscript-{precision}-*/repro.py"))
        done = subprocess.run([sys.executable, bundle], cwd=pytester.path, capture_output=True, text=True, check=False)
        assert done.returncode == 1, done.stdout
        assert "WRONG" in done.stdout


def test_the_same_sums_of_ordinary_size_are_kept(run, nets):
    ran = run("--mf-model", "nets:kept", *MODEL, "--mf-precisions", "fp16")
    assert set(ran.outcomes.values()) == {"passed"}


def test_a_runtime_that_keeps_what_the_source_loses_passes(run, nets):
    """ONNX Runtime folds the two sums or computes them in fp32: the numbers are the source's."""
    formats = ("--mf-trust", "--mf-input", "x:float32[N,8]", "--mf-formats", "onnx", "--mf-precisions", "fp16")
    ran = run("--mf-model", "nets:lost", *formats, *CPU)
    line = ran.checks["lost-onnx-fp16-onnxruntime@cpu", "parity"]
    assert line["outcome"] == "passed", line["sentence"]
    assert "the runtime keeps what the source loses" in line["sentence"]
