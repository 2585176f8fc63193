"""On unusual rows: a graph that differs is red, and a row on which any rounding costs much is judged by that."""

from __future__ import annotations

import pytest

NETS = '''
import sys
import torch
from torch import nn


def style(eps=1e-5):
    """Two normalisations of each image: an image of equal numbers divides rounding by the root of epsilon, twice."""
    torch.manual_seed(0)

    def norm():
        return nn.InstanceNorm2d(16, eps=eps, affine=True)

    return nn.Sequential(
        nn.Conv2d(3, 16, 3), norm(), nn.ReLU(), nn.Conv2d(16, 16, 3), norm(), nn.ReLU(), nn.Conv2d(16, 3, 3)
    ).eval()


def another_epsilon(folder):
    """Two per cent off, which no ordinary image shows: its variance is 10,000 times as large as epsilon."""
    import openvino

    names = {"input_names": ["input"], "output_names": ["output"], "dynamic_axes": {"input": {0: "N"}}}
    net, example = style(1.02e-5), (torch.zeros(1, 3, 16, 16),)
    torch.onnx.export(net, example, folder + "/epsilon.onnx", dynamo=False, opset_version=17, **names)
    made = openvino.convert_model(folder + "/epsilon.onnx")
    openvino.save_model(made, folder + "/epsilon.xml", compress_to_fp16=False)


if __name__ == "__main__":
    another_epsilon(sys.argv[1])
'''


@pytest.fixture
def nets(pytester):
    (pytester.path / "nets.py").write_text(NETS, "utf-8")
    return pytester.path


def test_a_row_that_divides_rounding_by_the_root_of_epsilon_accuses_nobody(run, nets, pytester):
    """OpenVINO rounds the mean of equal numbers, PyTorch does not; a changed epsilon is found on the same rows."""
    made = pytester.runpython_c("import nets; nets.another_epsilon('.')")
    assert made.ret == 0
    given = ("--mf-model", "nets:style", "--mf-trust", "--mf-input", "input:float32[N,3,16,16]", "--mf-devices", "cpu")
    lanes = ("--mf-formats", "onnx,openvino", "--mf-precisions", "fp32", "--mf-suites", "parity")
    candidates = ("--mf-candidate", "epsilon.onnx", "--mf-candidate", "epsilon.xml", "--mf-localise-budget", "0")
    ran = run(*given, *lanes, *candidates)
    for lane, candidate in (("onnx-fp32-onnxruntime", "epsilon"), ("openvino-fp32-openvino", "epsilon_2")):
        line = ran.checks[f"style-{lane}@cpu", "parity"]
        assert line["outcome"] == "passed", line["sentence"]
        line = ran.checks[f"style~{candidate}-{lane}@cpu", "parity"]
        assert (line["outcome"], line["failure_kind"]) == ("failed", "numeric"), line["sentence"]
        assert "agrees on ordinary inputs but not on unusual ones" in line["sentence"]
