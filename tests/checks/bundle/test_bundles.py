"""A reproduction bundle stands alone: its script says that the bug exists, and that it is gone once it is."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import thin
from inner_run import PARITY, two_at_a_time, two_layers

from pytest_modelformats.checks.bundle import case as bundle_module
from pytest_modelformats.compare.noise import Noise
from pytest_modelformats.schema import (
    Cell,
    Decision,
    FailureKind,
    Outcome,
    OutputParity,
    PlannedCell,
    TensorSpec,
    Verdict,
)
from pytest_modelformats.source.samples import Samples

EXISTS, GONE, MISSING, UNKNOWN = 1, 0, 2, 3
CELL = "tiny~wrong-onnx-fp32-onnxruntime@cpu"
CPU = ("--mf-devices", "cpu")


def repro(python, bundle, *arguments):
    """Run the bundle's script in a folder of its own, in isolated mode: neither PYTHONPATH nor user packages."""
    command = [str(python), "-I", str(bundle / "repro.py"), *map(str, arguments)]
    return subprocess.run(command, cwd=bundle, capture_output=True, text=True, check=False, timeout=120)


def bundle_of(ran, cell, check):
    return ran.folder / ran.checks[cell, check]["data"]["bundle"]


@pytest.fixture(scope="module")
def thin_onnxruntime(tmp_path_factory):
    """An environment with numpy and onnxruntime alone."""
    python = thin.environment(tmp_path_factory.mktemp("thin"), "numpy", "onnxruntime")
    assert not thin.imports(python, "pytest_modelformats")
    assert not thin.imports(python, "onnx")
    return python


@pytest.fixture(scope="module")
def without_us(tmp_path_factory):
    """An environment with everything that is installed here but our package."""
    python = thin.environment(tmp_path_factory.mktemp("without"))
    assert thin.imports(python, "torch")
    assert not thin.imports(python, "pytest_modelformats")
    return python


@pytest.fixture
def failed(run, tiny, pytester):
    """The bundle of a candidate with one wrong weight."""
    two_layers(pytester.path / "wrong.onnx", change=1.0)
    ran = run("--mf-model", tiny, "--mf-candidate", "wrong.onnx", *PARITY)
    return bundle_of(ran, CELL, "parity")


def test_the_script_needs_numpy_and_the_runtime_alone(failed, tiny, thin_onnxruntime):
    done = repro(thin_onnxruntime, failed)
    assert done.returncode == EXISTS, done.stdout + done.stderr
    assert "error 0.436 rms (limit 7.03e-07)" in done.stdout
    assert "The converted model computes something else." in done.stdout
    assert repro(thin_onnxruntime, failed, "--artifact", tiny).returncode == GONE
    shutil.copy(tiny, failed / "artifact" / "wrong.onnx")
    done = repro(thin_onnxruntime, failed)
    assert done.returncode == GONE, done.stdout + done.stderr
    assert "does not exist any longer" in done.stdout


TWO = [2.0**0.5, 2.0]
SAME = {"what": "again", "left": [[1, None]], "right": [[0, None]], "wide": TWO}
LAWS = {
    "unmodified": {"runs": [[0, 0]], "before": [0, 0]},
    "threads": {"runs": [[0, 0], [0, 1]], "threads": [1, 2], "groups": [SAME]},
    "history": {"runs": [[0, 0], [0, 0]], "layouts": [{"x": "strided"}], "groups": [SAME]},
    "concurrency": {
        "runs": [[0, 0], [0, 0]],
        "together": {"feeds": [0, 0], "rounds": 2, "attempts": 3, "seconds": 5.0, "wide": TWO},
    },
}


@pytest.mark.parametrize("law", LAWS)
def test_the_laws_need_numpy_and_the_runtime_alone_too(failed, thin_onnxruntime, law):
    """ONNX Runtime keeps them, whatever the numbers; one that another artifact broke would be the groups' to tell."""
    case = json.loads((failed / "case.json").read_text())
    (failed / "case.json").write_text(json.dumps({**case, "groups": [], "law": law, **LAWS[law]}))
    done = repro(thin_onnxruntime, failed)
    assert done.returncode == GONE, done.stdout + done.stderr
    told = {
        "unmodified": "the inputs hold the same bits after the call",
        "concurrency": "0 calls beside others gave other bits than alone",
    }
    assert told.get(law, "again: 'y': error") in done.stdout


def test_the_zip_holds_all_that_the_script_needs(failed, tmp_path, thin_onnxruntime):
    with zipfile.ZipFile(failed.with_name(f"{failed.name}.zip")) as archive:
        archive.extractall(tmp_path)
    shutil.rmtree(failed)
    assert repro(thin_onnxruntime, tmp_path / failed.name).returncode == EXISTS


def test_without_the_runtime_the_script_says_what_to_install(failed, tmp_path):
    for packages in (("numpy",), ("pluggy",)):
        done = repro(thin.environment(tmp_path / packages[0], *packages), failed)
        assert done.returncode == MISSING, done.stdout + done.stderr
        assert "pip install numpy==" in done.stdout
        assert "onnxruntime==" in done.stdout


def test_another_artifact_than_a_model_is_a_bug_too(failed, thin_onnxruntime):
    (failed / "artifact" / "wrong.onnx").write_bytes(b"no model")
    done = repro(thin_onnxruntime, failed)
    assert done.returncode == EXISTS
    assert "it raised" in done.stdout


def test_the_artifact_in_the_bundle_is_a_copy(failed, pytester):
    """Whoever writes another model into the bundle changes neither the cache nor the user's file."""
    before = (pytester.path / "wrong.onnx").read_bytes()
    (failed / "artifact" / "wrong.onnx").write_bytes(b"")
    assert (pytester.path / "wrong.onnx").read_bytes() == before


CHANGED = """
import sys

import torch

import tiny_nets


def save(kind, name, change):
    net = tiny_nets.build().eval()
    with torch.no_grad():
        net.out.weight[0, 0] += change
    x = torch.ones(2, 4)
    if kind == "weights":
        torch.save(net.state_dict(), name)
    elif kind == "torchscript":
        torch.jit.save(torch.jit.trace(net, (x,)), name)
    elif kind == "pt2":
        batch = torch.export.Dim("N", min=1, max=64)
        torch.export.save(torch.export.export(net, (x,), dynamic_shapes=({0: batch},)), name)
    else:
        import openvino

        openvino.save_model(openvino.convert_model(net, example_input=x), name, compress_to_fp16=False)


kind, wrong, right = sys.argv[1:]
save(kind, wrong, 1.0)
save(kind, right, 0.0)
"""
LANES = {
    "torch": ("weights", "wrong.pth", "pytorch"),
    "torchscript": ("torchscript", "wrong.pt", "torchscript"),
    "torch-export": ("pt2", "wrong.pt2", "pt2"),
    "openvino": ("openvino", "wrong.xml", "openvino"),
    "torch-compile": ("weights", "wrong.pth", "pytorch"),
}


@pytest.mark.slow
@pytest.mark.parametrize("backend", LANES)
def test_every_backend_opens_its_artifacts_without_us(run, nets, pytester, without_us, backend):
    kind, name, form = LANES[backend]
    right = pytester.path / name.replace("wrong", "right")
    subprocess.run([sys.executable, "-c", CHANGED, kind, name, right.name], cwd=pytester.path, check=True)
    # The order of the inputs of an IR that was made here is known, its names are not the source's.
    chosen = ("--mf-suites", "parity", "--mf-backends", backend, "-k", "wrong", *CPU)
    ran = run("--mf-model", nets, "--mf-arch", nets, "--mf-candidate", name, *chosen)
    cell = f"build~wrong-{form}-fp32-{backend}@cpu"
    assert ran.outcomes == {(cell, "parity"): "failed"}, ran.text
    bundle = bundle_of(ran, cell, "parity")
    assert "import pytest_modelformats" not in (bundle / "repro.py").read_text().partition("# --- the rest")[0]
    still, gone = two_at_a_time(
        lambda: repro(without_us, bundle), lambda: repro(without_us, bundle, "--artifact", right)
    )
    assert still.returncode == EXISTS, still.stdout + still.stderr
    assert gone.returncode == GONE, gone.stdout + gone.stderr


BREAKS = """
from pytest_modelformats.checks.bundle import case


def keep(*arguments, **options):
    raise OSError(28, "No space left on device")


case.keep = keep
"""


def test_an_error_in_writing_a_bundle_leaves_the_outcome_as_it_is(run, tiny, pytester, monkeypatch):
    two_layers(pytester.path / "wrong.onnx", change=1.0)
    (pytester.path / "breaks.py").write_text(BREAKS)
    monkeypatch.setenv("PYTHONPATH", str(pytester.path))
    ran = run("--mf-model", tiny, "--mf-candidate", "wrong.onnx", *PARITY, plugins=["breaks"])
    line = ran.checks[CELL, "parity"]
    assert (line["outcome"], line["failure_kind"]) == ("failed", "numeric")
    assert "bundle" not in line["data"]
    assert "No space left on device" in line["data"]["bundle_error"]


SUBMODEL = """
from pathlib import Path

from pytest_modelformats.session import stage
from pytest_modelformats.checks.bundle.case import Submodel

part = Submodel(Path("part.onnx"), (("x", Path("x.npy")),), (("y", Path("y.npy")),), "The second Gemm is wrong.")
stage._located = lambda *_: part
"""


def test_the_smallest_failing_part_is_a_bundle_of_its_own(run, tiny, pytester, monkeypatch, thin_onnxruntime):
    part = two_layers(pytester.path / "part.onnx", change=0.5)
    two_layers(pytester.path / "wrong.onnx", change=1.0)
    x = np.ones((1, 4), np.float32)
    np.save(pytester.path / "x.npy", x)
    code = "import numpy, onnxruntime; s = onnxruntime.InferenceSession('tiny.onnx'); "
    code += "numpy.save('y.npy', s.run(None, {'x': numpy.load('x.npy')})[0].astype('float64'))"
    subprocess.run([sys.executable, "-c", code], cwd=pytester.path, check=True)
    (pytester.path / "gives_part.py").write_text(SUBMODEL)
    monkeypatch.setenv("PYTHONPATH", str(pytester.path))
    ran = run(
        "--mf-model", tiny, "--mf-candidate", "wrong.onnx", *PARITY, "--mf-localise-budget", "0", plugins=["gives_part"]
    )
    bundle = bundle_of(ran, CELL, "parity") / "submodel"
    assert (bundle / "artifact" / part.name).is_file()
    done = repro(thin_onnxruntime, bundle)
    assert done.returncode == EXISTS, done.stdout
    assert "The second Gemm is wrong." in done.stdout
    assert repro(thin_onnxruntime, bundle, "--artifact", tiny).returncode == GONE


def test_the_first_wrong_operator_is_a_bundle_of_its_own(run, tiny, pytester, thin_onnxruntime):
    two_layers(pytester.path / "wrong.onnx", change=1.0)
    ran = run("--mf-model", tiny, "--mf-candidate", "wrong.onnx", *PARITY)
    done = repro(thin_onnxruntime, bundle_of(ran, CELL, "parity") / "submodel")
    assert done.returncode == EXISTS, done.stdout
    assert "First wrong operator: Gemm 'y'" in done.stdout


def test_under_xdist_the_bundle_lies_in_the_runs_folder(run, tiny, pytester):
    two_layers(pytester.path / "wrong.onnx", change=1.0)
    ran = run("--mf-model", tiny, "--mf-candidate", "wrong.onnx", *PARITY, "-n", "1", plugins=["xdist"])
    assert bundle_of(ran, CELL, "parity").joinpath("repro.py").is_file(), ran.text
    assert not list(pytester.path.glob("reports/.bundles*"))


def test_a_contract_that_changed_is_shown_by_its_differences(run, tiny, pytester, thin_onnxruntime):
    two_layers(pytester.path / "wrong.onnx", batch=8)
    ran = run("--mf-model", tiny, "--mf-candidate", "wrong.onnx", "--mf-suites", "contract", *PARITY[2:])
    bundle = bundle_of(ran, CELL, "contract")
    done = repro(thin_onnxruntime, bundle)
    assert done.returncode == EXISTS, done.stdout
    assert "dimension 0 of input 'x' is 8 where the source has N" in done.stdout
    assert repro(thin_onnxruntime, bundle, "--artifact", tiny).returncode == GONE


def test_a_check_that_the_script_does_not_know_is_undecided(failed, tiny, thin_onnxruntime):
    case = json.loads((failed / "case.json").read_text())
    (failed / "case.json").write_text(json.dumps({**case, "law": "other"}))
    shutil.rmtree(failed / "observed")
    assert repro(thin_onnxruntime, failed, "--artifact", tiny).returncode == UNKNOWN
    assert repro(thin_onnxruntime, failed).returncode == EXISTS


def test_an_artifact_that_is_elsewhere_is_asked_for(failed, tiny, thin_onnxruntime):
    shutil.rmtree(failed / "artifact")
    done = repro(thin_onnxruntime, failed)
    assert done.returncode == UNKNOWN
    assert "--artifact" in done.stdout


def test_a_large_artifact_stays_where_it_is_and_the_readme_says_where(run, tiny, pytester, monkeypatch):
    (pytester.path / "small.py").write_text(
        "from pytest_modelformats.checks.bundle import files\nfiles.COPIED_BYTES = 10\n"
    )
    two_layers(pytester.path / "wrong.onnx", change=1.0)
    monkeypatch.setenv("PYTHONPATH", str(pytester.path))
    ran = run("--mf-model", tiny, "--mf-candidate", "wrong.onnx", *PARITY, plugins=["small"])
    bundle = bundle_of(ran, CELL, "parity")
    assert not (bundle / "artifact").exists()
    assert str(pytester.path / "wrong.onnx") in (bundle / "README.txt").read_text()
    assert repro(Path(sys.executable), bundle).returncode == EXISTS


CLIPS = """
import onnx
from onnx import helper, numpy_helper
import numpy as np

model = onnx.load("tiny.onnx")
graph = model.graph
for name, value in (("low", -6.0), ("high", 6.0)):
    graph.initializer.append(numpy_helper.from_array(np.float32(value), name))
graph.node.insert(0, helper.make_node("Clip", ["x", "low", "high"], ["clipped"]))
graph.node[1].input[0] = "clipped"
onnx.save(model, "clips.onnx")
"""


def test_what_fails_on_stressed_inputs_alone_is_shown_on_them(run, tiny, pytester, thin_onnxruntime):
    """Inputs are clipped at 6: they hold what is right, so the bug is gone with a right artifact, and is searched."""
    subprocess.run([sys.executable, "-c", CLIPS], cwd=pytester.path, check=True)
    ran = run("--mf-model", tiny, "--mf-candidate", "clips.onnx", *PARITY)
    cell = "tiny~clips-onnx-fp32-onnxruntime@cpu"
    assert ran.outcomes[cell, "parity"] == "failed", ran.text
    assert "not on unusual ones" in ran.checks[cell, "parity"]["sentence"]
    found = ran.checks[cell, "parity"]["data"]["localisation"]
    assert (found["operator"], found["confirmed"]) == ("Clip", True), found
    bundle = bundle_of(ran, cell, "parity")
    done = repro(thin_onnxruntime, bundle)
    assert done.returncode == EXISTS, done.stdout + done.stderr
    ordinary, unusual = done.stdout.splitlines()[1:3]
    assert ordinary.endswith("right"), done.stdout
    assert unusual.strip().startswith("unusual inputs, in units of each row's noise"), done.stdout
    assert unusual.endswith("WRONG"), done.stdout
    done = repro(thin_onnxruntime, bundle, "--artifact", tiny)
    assert done.returncode == GONE, done.stdout + done.stderr
    assert repro(thin_onnxruntime, bundle / "submodel").returncode == EXISTS


def test_a_failure_that_is_in_no_outputs_numbers_is_told_by_its_bits():
    """Lost accuracy, say: the script does not claim that a bug is gone which it cannot see."""
    output = TensorSpec("y", "float32", ("N", 3))
    models = SimpleNamespace(
        samples=lambda _: Samples(({"x": np.ones((2, 4), np.float32)},), 2, "", None, "N", {"x": (0,)}),
        description=lambda _: SimpleNamespace(inputs=(), outputs=(output,)),
        reference=lambda _: SimpleNamespace(truths=((np.ones((2, 3)),),), noise={"fp32": (Noise(1e-7, 1e-6, 1e-7),)}),
        stress=lambda _: None,
    )
    outputs = [[np.ones((2, 3), np.float32)]]
    stages = SimpleNamespace(models=models, outputs=lambda _: outputs, _tolerances=lambda _: {})
    campaign = SimpleNamespace(stages=stages)
    planned = PlannedCell(Cell("m", "onnx", "fp32", "onnxruntime", "cpu"), (), "fp32", Decision())
    right = OutputParity("y", Outcome.PASSED, None, "", error_rms=1e-7, error_max=1e-7)
    verdict = Verdict(Outcome.FAILED, FailureKind.ACCURACY, "Accuracy fell.", (right,))
    case = bundle_module.case_of(campaign, planned, "parity", "parity", verdict)
    assert (case.law, len(case.observed)) == ("other", 1)
    assert bundle_module.case_of(campaign, planned, "parity", "parity", Verdict(Outcome.INCONCLUSIVE, None, "")) is None
