"""Whatever is wrong with what it is given, the tool says so in a sentence, in bounded time, and loses nothing else."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys

import numpy as np
import onnx
import pytest
from inner_run import PARITY, one_sentence
from onnx import TensorProto, helper, numpy_helper

HEALTHY = "tiny-onnx-fp32-onnxruntime@cpu"
EAGER = (
    "--mf-suites",
    "parity",
    "--mf-precisions",
    "fp32",
    "--mf-backends",
    "torch,onnxruntime",
    "--mf-devices",
    "cpu",
)


def beside_a_healthy_model(ran, *parts):
    """One cell ended in an error of one sentence that holds every part; the healthy model has its verdict."""
    assert ran.status == pytest.ExitCode.TESTS_FAILED, ran.text
    assert ran.footer["complete"]
    assert ran.outcomes[HEALTHY, "parity"] == "passed"
    (broken,) = (line for line in ran.of("check") if line["cell"] != HEALTHY)
    assert "Traceback" not in ran.text
    assert "\n" not in broken["sentence"]
    assert len(broken["sentence"]) < 500, broken["sentence"]
    for part in parts:
        assert part in broken["sentence"], f"{part!r} is not in: {broken['sentence']}"
    assert sum(ran.footer["totals"].values()) == len(ran.cells) == 2
    return broken


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("empty.onnx", b"", ("empty.onnx is empty (0 bytes)", "export or copy the model again")),
        ("notes.onnx", b"Dear all,\nthe model is attached.\n", ("notes.onnx", "text 'Dear all,'", "again")),
        ("page.pth", b"<!DOCTYPE html><html></html>", ("page.pth looks like an HTML page", "accepted are")),
        ("pointer.onnx", b"version https://git-lfs.github.com/spec/v1\n", ("Git LFS pointer", "git lfs pull")),
        ("zeros.onnx", bytes(5000), ("zeros.onnx", "00 00", "again")),
    ],
)
def test_a_file_that_is_no_model_is_refused(refusal, pytester, name, content, parts):
    (pytester.path / name).write_bytes(content)
    sentence = refusal("--mf-model", name)
    assert all(part in sentence for part in parts), sentence


def test_a_missing_file_is_refused(refusal):
    sentence = refusal("--mf-model", "nowhere.onnx")
    assert "there is no file" in sentence
    assert "nowhere.onnx; give a file, a folder of models or module:callable" in sentence


def test_a_truncated_onnx_file_is_refused(refusal, tiny):
    tiny.write_bytes(tiny.read_bytes()[:-20])
    sentence = refusal("--mf-model", tiny)
    assert "tiny.onnx" in sentence
    assert "truncated" in sentence or "damaged" in sentence or "cut off" in sentence, sentence


def test_a_truncated_checkpoint_is_refused(refusal, state_dict, pytester):
    whole = state_dict.read_bytes()
    (pytester.path / "half.pth").write_bytes(whole[: len(whole) // 2])
    sentence = refusal("--mf-model", "half.pth")
    assert "half.pth" in sentence
    assert "truncated" in sentence or "damaged" in sentence or "cut off" in sentence, sentence


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_a_payload_is_executed_only_where_the_file_is_trusted(run, tiny, pytester):
    proof = pytester.path / "executed"
    (pytester.path / "payload.pth").write_bytes(pickle.dumps(Payload(proof)))
    chosen = ("--mf-model", "payload.pth", "--mf-model", tiny, "--mf-formats", "pytorch,onnx", *EAGER)
    ran = run(*chosen)
    assert not proof.exists()
    if ran.status == pytest.ExitCode.USAGE_ERROR:
        one_sentence(ran, "payload.pth")
    else:
        assert ran.outcomes[HEALTHY, "parity"] == "passed"
        assert all(part in ran.text for part in ("payload", "--mf-trust"))
        assert "Traceback" not in ran.text


SAVE_PAYLOAD = """
import torch

BUILD = "(open('executed', 'w'), __import__('torch').manual_seed(0), __import__('torch').nn.Linear(4, 3))[2]"

class Payload(torch.nn.Linear):
    def __reduce_ex__(self, protocol):
        return (eval, (BUILD,))

torch.save(Payload(4, 3), "payload.pt")
"""


@pytest.fixture
def payload(pytester):
    """A module saved by torch whose pickle creates the returned file when it is loaded."""
    subprocess.run([sys.executable, "-c", SAVE_PAYLOAD], cwd=pytester.path, check=True)
    proof = pytester.path / "executed"
    assert not proof.exists()
    return proof


def test_what_may_not_or_cannot_be_loaded_ends_its_own_cells(run, payload, state_dict, tiny):
    """A module that carries code, weights that nobody has an architecture for, and a healthy model beside them."""
    models = ("--mf-model", "payload.pt", "--mf-model", state_dict, "--mf-model", tiny)
    ran = run(*models, "--mf-formats", "pytorch,onnx", *EAGER)
    assert ran.status == pytest.ExitCode.TESTS_FAILED
    assert not payload.exists()
    assert "Traceback" not in ran.text
    for model, advice in (("payload", "--mf-trust"), ("weights", "--mf-arch")):
        line = ran.checks[f"{model}-pytorch-fp32-torch@cpu", "parity"]
        assert line["outcome"] == "convert-error"
        assert advice in line["sentence"]
        assert "\n" not in line["sentence"]
    assert ran.outcomes[HEALTHY, "parity"] == "passed"
    assert ran.footer["complete"]
    assert sum(ran.footer["totals"].values()) == len(ran.cells)


@pytest.mark.slow
def test_what_a_trusted_file_carries_is_executed(run, payload):
    chosen = ("--mf-formats", "pytorch", *EAGER, "--mf-input", "input:float32[N,4]", "--mf-trust")
    ran = run("--mf-model", "payload.pt", *chosen)
    assert ran.outcomes == {("payload-pytorch-fp32-torch@cpu", "parity"): "passed"}, ran.text
    assert payload.exists()


def test_an_input_of_another_rank_ends_its_cell(run, shelf, tiny, pytester):
    (pytester.path / "modelformats.toml").write_text(
        f'[models.wrong]\npath = "{shelf / "tiny.onnx"}"\ninputs = ["x:float32[N,5,5]"]\n'
        '[models.tiny]\npath = "tiny.onnx"\n'
    )
    beside_a_healthy_model(run(*PARITY), "tiny.onnx", "x:float32[N,4]", "x:float32[N,5,5]")


def test_unknown_names_are_refused_with_a_suggestion(refusal, tiny):
    for option, wrong, meant in (
        ("formats", "openvno", "openvino"),
        ("precisions", "fp-16", "fp16"),
        ("backends", "onnx-runtime", "onnxruntime"),
    ):
        sentence = refusal("--mf-model", tiny, f"--mf-{option}", wrong)
        assert f"'{wrong}'; did you mean '{meant}'?" in sentence


@pytest.mark.parametrize("place", ["tiny.onnx/cache", "/proc/modelformats"])
def test_a_cache_folder_that_cannot_be_made_is_refused(run, tiny, place):
    ran = run("--mf-model", tiny, *PARITY, "--mf-cache", place, cache=False)
    assert ran.status == pytest.ExitCode.USAGE_ERROR, ran.text
    (error,) = (line for line in ran.result.errlines if line.strip())
    assert all(part in error for part in ("the cache folder", place, "cannot be written", "--mf-cache DIR")), error
    assert "Traceback" not in ran.text


# Stands in for a full disk where nothing may be mounted: what is opened for writing below a folder is /dev/full.
NO_SPACE = """
import builtins, io, os

def opening(original):
    def opened(file, mode="r", *args, **kwargs):
        full = isinstance(file, (str, os.PathLike)) and "{below}" in os.fspath(file) and set(mode) & set("wax+")
        return original("/dev/full" if full else file, mode, *args, **kwargs)
    return opened

builtins.open = io.open = opening(builtins.open)
"""


@pytest.fixture
def small_disk(tmp_path, pytester, monkeypatch):
    """A folder on a disk of 256 kB; where this process may not mount one, writes below ``pretend`` of it fail."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    mounted = os.geteuid() == 0 and subprocess.run(mount, capture_output=True, check=False).returncode == 0

    def prepare(pretend, ballast=0):
        if mounted:
            (folder / "ballast").write_bytes(bytes(ballast))
        else:
            (pytester.path / "sitecustomize.py").write_text(NO_SPACE.format(below=f"/small/{pretend}"))
            monkeypatch.setenv("PYTHONPATH", str(pytester.path))
        return folder

    yield prepare
    if mounted:
        subprocess.run(["umount", "-l", str(folder)], check=False)


def test_a_cache_on_a_full_disk_is_refused(run, tiny, small_disk):
    folder = small_disk("cache", ballast=256 * 1024)
    ran = run("--mf-model", tiny, *PARITY, "--mf-cache", folder / "cache", cache=False)
    assert ran.status == pytest.ExitCode.USAGE_ERROR, ran.text
    (error,) = (line for line in ran.result.errlines if line.strip())
    assert all(part in error for part in ("the cache folder", "is on a full disk", "--mf-cache DIR")), error
    assert "Traceback" not in ran.text


def test_a_disk_that_fills_up_during_a_run_ends_the_cells_that_need_it(run, tiny, small_disk, pytester):
    """The artifact does not fit; the cell that needs none keeps its verdict."""
    model = onnx.load(str(tiny))
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(200_000, np.float32), "ballast"))
    onnx.save(model, str(pytester.path / "large.onnx"))
    folder = small_disk("tmp")
    chosen = ("--mf-formats", "onnx", "--mf-devices", "cpu", "--mf-suites", "contract")
    ran = run("--mf-model", "large.onnx", *chosen, "--mf-cache", folder, cache=False)
    assert ran.status == pytest.ExitCode.TESTS_FAILED
    assert ran.outcomes["large-onnx-fp32-onnxruntime@cpu", "contract"] == "passed"
    line = ran.checks["large-onnx-fp16-onnxruntime@cpu", "contract"]
    assert line["outcome"] == "convert-error"
    assert all(part in line["sentence"] for part in ("is on a full disk", "--mf-cache DIR")), line["sentence"]
    assert "Traceback" not in ran.text
    assert not list(folder.rglob("model.onnx"))


LOOKUP = """
import torch


def build():
    torch.manual_seed(0)

    class Lookup(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.rows = torch.nn.Embedding(10, 4)

        def forward(self, ids):
            return self.rows(ids).mean(1)

    return Lookup()
"""


def test_a_model_that_cannot_run_its_samples_is_not_blamed_on_a_converter(run, pytester):
    (pytester.path / "lookup.py").write_text(LOOKUP)
    spec = "ids:int64[N,6]{0..300}"
    ran = run("--mf-model", "lookup.py:build", "--mf-input", spec, *EAGER, "--mf-formats", "pytorch,onnx")
    assert len(ran.of("check")) == 2
    for line in ran.of("check"):
        assert (line["outcome"], line["failure_kind"]) == ("failed", "contract"), line
        assert "the model build itself cannot run its samples" in line["sentence"]
        assert "index out of range" in line["sentence"]
        assert line["sentence"].endswith(f"Next: correct the range of --mf-input '{spec}' to what the model takes.")


def test_an_operator_that_the_source_alone_knows_is_unsupported(run, pytester):
    """As it is where the same file is a candidate."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 4]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Foo", ["x"], ["y"], domain="com.me")], "own", [x], [y])
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.me", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), str(pytester.path / "own.onnx"))
    ran = run("--mf-model", "own.onnx", *PARITY)
    line = ran.checks["own-onnx-fp32-onnxruntime@cpu", "parity"]
    assert line["outcome"] == "unsupported", ran.text
    assert "the reference of 'own.onnx' is made by onnxruntime" in line["sentence"]
    assert "does not know the operator com.me:Foo" in line["sentence"]
