"""Whole runs of models with free dimensions: the sizes are said, and no latency stands for one that nobody stated."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from free_sizes import grouped, pooled
from inner_run import ONE_CELL

CELL = "net-onnx-fp32-onnxruntime@cpu"
SUITES = ("--mf-suites", "parity,latency,throughput", "--mf-batch", "1", "--mf-time-budget", "0.2")
PIN = "--mf-input 'x:float32[N,1,64,64]'"


def said_by(ran):
    """The text of the terminal on one line, and the two reports."""
    flat = " ".join(ran.text.split())
    return flat, (ran.folder / "report.md").read_text(), (ran.folder / "index.html").read_text()


def test_sizes_that_nobody_states_are_tried_said_and_never_timed(run, pytester):
    pooled(pytester.path / "net.onnx")
    ran = run("--mf-model", "net.onnx", *SUITES, *ONE_CELL)
    line = ran.checks[CELL, "parity"]
    assert line["outcome"] == "passed", ran.text
    assert "The same holds at height 64, width 96 and at height 224, width 224." in line["sentence"]
    for check in ("latency", "throughput"):
        line = ran.checks[CELL, check]
        assert line["outcome"] == "not-measured"
        assert "nothing states the size of 'height' and 'width'" in line["sentence"]
        assert f"add {PIN} with the sizes that count" in line["sentence"]
    (model,) = ran.of("model")
    assert [(d["symbol"], d["size"], d["by"]) for d in model["sizes"]] == [
        ("height", 64, "tried"),
        ("width", 64, "tried"),
    ]
    assert model["further_sizes"] == [{"height": 64, "width": 96}, {"height": 224, "width": 224}]
    assert model["pin"] == ["x:float32[N,1,64,64]"]
    terminal, markdown, page = said_by(ran)
    assert "modelformats: net: nothing states the size of 'height' and 'width'; height 64, width 64 is" in terminal
    assert terminal.index("modelformats: net: nothing") < terminal.index("1 cell:")
    for text in (terminal, markdown, page):
        assert "height 64, width 64 (stated nowhere, the smallest tried that the source takes)" in text
        assert "no latency was measured" in text


@pytest.mark.slow
def test_what_is_right_at_one_size_alone_is_red_with_the_other_size_in_its_sentence(run, pytester):
    pooled(pytester.path / "net.onnx")
    pooled(pytester.path / "baked.onnx", divisor=64 * 64)
    ran = run("--mf-model", "net.onnx", "--mf-candidate", "baked.onnx", "--mf-suites", "parity", *ONE_CELL)
    line = ran.checks["net~baked-onnx-fp32-onnxruntime@cpu", "parity"]
    assert (line["outcome"], line["failure_kind"]) == ("failed", "numeric"), ran.text
    said = "At height 64, width 96 it is not the model that it is at height 64, width 64: Output 'y'"
    assert said in line["sentence"]
    assert line["data"]["localisation"]["operator"] == "Div"
    again = pytester.run(sys.executable, str(ran.folder / line["data"]["bundle"] / "repro.py"))
    assert again.ret == 1, again.stdout.str()
    assert "height 64, width 96" in again.stdout.str()


def test_sizes_that_the_file_states_are_taken_and_stand_beside_the_figures(run, pytester):
    pooled(pytester.path / "net.onnx", metadata={"imgsz": "[32, 48]"})
    ran = run("--mf-model", "net.onnx", *SUITES, *ONE_CELL)
    (model,) = ran.of("model")
    assert [(d["size"], d["by"], d["detail"]) for d in model["sizes"]] == [
        (32, "metadata", "imgsz [32, 48]"),
        (48, "metadata", "imgsz [32, 48]"),
    ]
    assert "further_sizes" not in model
    at = {"height": 32, "width": 48}
    assert ran.checks[CELL, "latency"]["data"]["sizes"] == at, ran.text
    assert [figure["sizes"] for figure in ran.checks[CELL, "throughput"]["data"]["throughput"]] == [at]
    terminal, markdown, page = said_by(ran)
    assert "nothing states" not in terminal
    for text in (terminal, markdown, page):
        assert "height 32, width 48 (by the file" in text
    for text in (markdown, page):  # a column of both tables
        assert text.count("height 32, width 48") >= 3


@pytest.mark.parametrize("how", ["pinned", "data"])
def test_sizes_that_the_user_states_come_first(run, pytester, how):
    pooled(pytester.path / "net.onnx", metadata={"imgsz": "[32, 48]"})
    np.savez(pytester.path / "own.npz", x=np.random.default_rng(0).normal(size=(8, 1, 24, 40)).astype(np.float32))
    option = {"pinned": ("--mf-input", "x:float32[N,1,24,40]"), "data": ("--mf-data", "own.npz")}[how]
    ran = run("--mf-model", "net.onnx", *option, "--mf-suites", "parity,latency", "--mf-time-budget", "0.2", *ONE_CELL)
    by, detail = {"pinned": ("--mf-input", ""), "data": ("--mf-data", "own.npz")}[how]
    (model,) = ran.of("model")
    assert [(d["size"], d["by"], d["detail"]) for d in model["sizes"]] == [(24, by, detail), (40, by, detail)]
    assert ran.checks[CELL, "latency"]["data"]["sizes"] == {"height": 24, "width": 40}


def test_a_length_that_the_source_refuses_is_never_used(run, pytester):
    grouped(pytester.path / "net.onnx")
    ran = run("--mf-model", "net.onnx", "--mf-suites", "parity,latency", *ONE_CELL)
    assert ran.outcomes == {(CELL, "parity"): "passed", (CELL, "latency"): "not-measured"}, ran.text
    (model,) = ran.of("model")
    assert [(d["symbol"], d["size"]) for d in model["sizes"]] == [("length", 32)]
    assert model["further_sizes"] == [{"length": 64}, {"length": 128}]


STRIDED = """
import torch


class Strided(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.out = torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.Linear(4, 5)

    def forward(self, x):
        small = torch.nn.functional.max_pool2d(x, 32)
        large = torch.nn.functional.interpolate(small, scale_factor=32.0)  # of a side of 33 it is 32
        return self.out(torch.tanh(self.conv(x + large)).mean((2, 3)))
"""


def test_a_torch_model_of_whole_strides_is_described_and_judged_at_sizes_that_it_takes(run, pytester):
    (pytester.path / "strided.py").write_text(STRIDED)
    chosen = ("--mf-formats", "pytorch", "--mf-precisions", "fp32", "--mf-backends", "torch", "--mf-devices", "cpu")
    given = ("--mf-input", "x:float32[N,3,H,W]", "--mf-suites", "parity,latency")
    ran = run("--mf-model", "strided.py:Strided", *given, *chosen)
    (model,) = ran.of("model")
    assert model["outputs"] == ["output:float32[N,5]"], ran.text
    assert [d["size"] for d in model["sizes"]] == [64, 64]
    assert set(ran.outcomes.values()) == {"passed", "not-measured"}


def test_a_source_that_takes_no_size_that_is_tried_says_what_to_add(run, pytester):
    grouped(pytester.path / "net.onnx", group=7)
    ran = run("--mf-model", "net.onnx", "--mf-suites", "parity", *ONE_CELL)
    sentence = ran.checks[CELL, "parity"]["sentence"]
    assert "nothing states the size of 'length'" in sentence
    assert "takes none of those that were tried (length 16; length 24;" in sentence
    assert "Next: state the sizes, as in --mf-input 'x:float32[N,16]'" in sentence


def test_fixed_exports_are_of_the_sizes_that_the_source_takes(run, pytester):
    grouped(pytester.path / "net.onnx")
    ran = run("--mf-model", "net.onnx", "--mf-suites", "parity,latency", "--mf-static", *ONE_CELL)
    assert ran.of("model")[0]["inputs"] == ["x:float32[1,32]"], ran.text
    assert ran.outcomes == {(CELL, "parity"): "passed", (CELL, "latency"): "not-measured"}


def test_a_free_batch_alone_is_timed_as_ever(run, tiny):
    ran = run("--mf-model", tiny, "--mf-suites", "parity,latency", "--mf-time-budget", "0.2", *ONE_CELL)
    assert "sizes" not in ran.of("model")[0]
    assert "sizes" not in ran.checks["tiny-onnx-fp32-onnxruntime@cpu", "latency"]["data"]
    assert "sizes:" not in ran.text
