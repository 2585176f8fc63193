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
from inner_run import ONE_CELL, PARITY, two_at_a_time, two_layers
from shared_run import shared_run

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


# What a candidate is called says what is done to it; all of them are judged in one run. Nothing else is touched.
BY_NAME = """
from pathlib import Path

from pytest_modelformats.checks.bundle import case, files
from pytest_modelformats.checks.bundle.nouns import Submodel
from pytest_modelformats.session import stage

part = Submodel(Path("part.onnx"), (("x", Path("x.npy")),), (("y", Path("y.npy")),), "The second Gemm is wrong.")
located, keep, copied = stage._located, case.keep, files.COPIED_BYTES


def give_part(item, campaign, planned, *rest):
    return part if "~has_part-" in planned.cell.id else located(item, campaign, planned, *rest)


def keep_or_break(campaign, planned, *rest, **options):
    if "~breaks-" in planned.cell.id:
        raise OSError(28, "No space left on device")
    files.COPIED_BYTES = 10 if "~large-" in planned.cell.id else copied
    return keep(campaign, planned, *rest, **options)


stage._located, case.keep = give_part, keep_or_break
"""
WRITE = """
import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

model = onnx.load("tiny.onnx")
graph = model.graph
for name, value in (("low", -6.0), ("high", 6.0)):
    graph.initializer.append(numpy_helper.from_array(np.float32(value), name))
graph.node.insert(0, helper.make_node("Clip", ["x", "low", "high"], ["clipped"]))
graph.node[1].input[0] = "clipped"
onnx.save(model, "clips.onnx")
x = np.ones((1, 4), np.float32)
np.save("x.npy", x)
np.save("y.npy", onnxruntime.InferenceSession("tiny.onnx").run(None, {"x": x})[0].astype("float64"))
"""
# Each of these has one wrong weight, and its own copy of the bundle to lose.
ONE_WEIGHT = ("wrong", "copied", "large", "breaks", "has_part")


@pytest.fixture(scope="module")
def judged(shelf, tmp_path_factory):
    """The run of all candidates in ONNX, and the folder with them."""
    folder = tmp_path_factory.mktemp("judged")
    shutil.copy(shelf / "tiny.onnx", folder)
    for name in ONE_WEIGHT:
        two_layers(folder / f"{name}.onnx", change=1.0)
    two_layers(folder / "part.onnx", change=0.5)
    two_layers(folder / "of_eight.onnx", batch=8)
    subprocess.run([sys.executable, "-c", WRITE], cwd=folder, check=True)
    (folder / "by_name.py").write_text(BY_NAME)
    candidates = [a for name in (*ONE_WEIGHT, "clips", "of_eight") for a in ("--mf-candidate", f"{name}.onnx")]
    options = ("--mf-suites", "contract,parity", *ONE_CELL, f"--mf-cache={shelf / 'cache'}")
    return shared_run(folder, "--mf-model", "tiny.onnx", *candidates, *options, plugins=["by_name"]), folder


@pytest.fixture
def bundle(judged, tmp_path):
    """A copy of a candidate's bundle, with the zip beside it."""

    def copied(name, check="parity"):
        source = bundle_of(judged[0], f"tiny~{name}-onnx-fp32-onnxruntime@cpu", check)
        shutil.copy(source.with_name(f"{source.name}.zip"), tmp_path)
        return shutil.copytree(source, tmp_path / source.name)

    return copied


@pytest.fixture
def right(shelf, tmp_path):
    """What the candidates ought to be."""
    return Path(shutil.copy(shelf / "tiny.onnx", tmp_path))


@pytest.fixture
def failed(bundle):
    """The bundle of a candidate with one wrong weight."""
    return bundle("wrong")


def test_the_script_needs_numpy_and_the_runtime_alone(failed, right, thin_onnxruntime):
    done = repro(thin_onnxruntime, failed)
    assert done.returncode == EXISTS, done.stdout + done.stderr
    assert "error 0.436 rms (limit 7.03e-07)" in done.stdout
    assert "The converted model computes something else." in done.stdout
    assert repro(thin_onnxruntime, failed, "--artifact", right).returncode == GONE
    shutil.copy(right, failed / "artifact" / "wrong.onnx")
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
        archive.extractall(tmp_path / "extracted")
    shutil.rmtree(failed)
    assert repro(thin_onnxruntime, tmp_path / "extracted" / failed.name).returncode == EXISTS


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


def test_the_artifact_in_the_bundle_is_a_copy(judged):
    """Whoever writes another model into the bundle changes neither the cache nor the user's file."""
    ran, folder = judged
    before = (folder / "copied.onnx").read_bytes()
    own = bundle_of(ran, "tiny~copied-onnx-fp32-onnxruntime@cpu", "parity") / "artifact" / "copied.onnx"
    assert own.read_bytes() == before
    own.write_bytes(b"")
    assert (folder / "copied.onnx").read_bytes() == before


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


for kind, wrong, right in zip(*[iter(sys.argv[1:])] * 3, strict=True):
    save(kind, wrong, 1.0)
    save(kind, right, 0.0)
"""
LANES = {
    "torch": ("weights", "wrong_weights.pth", "pytorch"),
    "torchscript": ("torchscript", "wrong_script.pt", "torchscript"),
    "torch-export": ("pt2", "wrong_program.pt2", "pt2"),
    "openvino": ("openvino", "wrong_ir.xml", "openvino"),
    "torch-compile": ("weights", "wrong_weights.pth", "pytorch"),
}
CELLS = {lane: f"build~{name.partition('.')[0]}-{form}-fp32-{lane}@cpu" for lane, (_, name, form) in LANES.items()}
# The compiler need not find out in each process anew which vector instructions there are, nor start further ones.
INDUCTOR = {"TORCHINDUCTOR_VEC_ISA_OK": "1", "TORCHINDUCTOR_COMPILE_THREADS": "1"}


@pytest.fixture(scope="module")
def lanes(shelf, tmp_path_factory):
    """The run of a wrong candidate in each backend's format, in the folder that holds the right ones too."""
    folder = tmp_path_factory.mktemp("lanes")
    shutil.copy(shelf / "tiny_nets.py", folder)
    made = {name: (kind, name, name.replace("wrong", "right")) for kind, name, _ in LANES.values()}
    told = [word for words in made.values() for word in words]
    subprocess.run([sys.executable, "-c", CHANGED, *told], cwd=folder, check=True)
    candidates = [a for name in made for a in ("--mf-candidate", name)]
    # The order of the inputs of an IR that was made here is known, its names are not the source's.
    chosen = ("--mf-suites", "parity", "--mf-backends", ",".join(LANES), "-k", "wrong", *CPU)
    nets = ("--mf-model", "tiny_nets:build", "--mf-arch", "tiny_nets:build")
    return shared_run(folder, *nets, *candidates, *chosen, f"--mf-cache={shelf / 'cache'}", **INDUCTOR), folder


@pytest.mark.slow
@pytest.mark.parametrize("backend", LANES)
def test_every_backend_opens_its_artifacts_without_us(lanes, without_us, monkeypatch, backend):
    ran, folder = lanes
    assert ran.outcomes == {(cell, "parity"): "failed" for cell in CELLS.values()}, ran.text
    right = folder / LANES[backend][1].replace("wrong", "right")
    for variable, value in INDUCTOR.items():
        monkeypatch.setenv(variable, value)
    bundle = bundle_of(ran, CELLS[backend], "parity")
    assert "import pytest_modelformats" not in (bundle / "repro.py").read_text().partition("# --- the rest")[0]
    still, gone = two_at_a_time(
        lambda: repro(without_us, bundle), lambda: repro(without_us, bundle, "--artifact", right)
    )
    assert still.returncode == EXISTS, still.stdout + still.stderr
    assert gone.returncode == GONE, gone.stdout + gone.stderr


def test_an_error_in_writing_a_bundle_leaves_the_outcome_as_it_is(judged):
    line = judged[0].checks["tiny~breaks-onnx-fp32-onnxruntime@cpu", "parity"]
    assert (line["outcome"], line["failure_kind"]) == ("failed", "numeric")
    assert "bundle" not in line["data"]
    assert "No space left on device" in line["data"]["bundle_error"]


def test_the_smallest_failing_part_is_a_bundle_of_its_own(bundle, right, thin_onnxruntime):
    part = bundle("has_part") / "submodel"
    assert (part / "artifact" / "part.onnx").is_file()
    done = repro(thin_onnxruntime, part)
    assert done.returncode == EXISTS, done.stdout
    assert "The second Gemm is wrong." in done.stdout
    assert repro(thin_onnxruntime, part, "--artifact", right).returncode == GONE


def test_the_first_wrong_operator_is_a_bundle_of_its_own(failed, thin_onnxruntime):
    done = repro(thin_onnxruntime, failed / "submodel")
    assert done.returncode == EXISTS, done.stdout
    assert "First wrong operator: Gemm 'y'" in done.stdout


def test_under_xdist_the_bundle_lies_in_the_runs_folder(run, tiny, pytester):
    two_layers(pytester.path / "wrong.onnx", change=1.0)
    ran = run("--mf-model", tiny, "--mf-candidate", "wrong.onnx", *PARITY, "-n", "1", plugins=["xdist"])
    assert bundle_of(ran, CELL, "parity").joinpath("repro.py").is_file(), ran.text
    assert not list(pytester.path.glob("reports/.bundles*"))


def test_a_contract_that_changed_is_shown_by_its_differences(bundle, right, thin_onnxruntime):
    changed = bundle("of_eight", "contract")
    done = repro(thin_onnxruntime, changed)
    assert done.returncode == EXISTS, done.stdout
    assert "dimension 0 of input 'x' is 8 where the source has N" in done.stdout
    assert repro(thin_onnxruntime, changed, "--artifact", right).returncode == GONE


def test_a_check_that_the_script_does_not_know_is_undecided(failed, right, thin_onnxruntime):
    case = json.loads((failed / "case.json").read_text())
    (failed / "case.json").write_text(json.dumps({**case, "law": "other"}))
    shutil.rmtree(failed / "observed")
    assert repro(thin_onnxruntime, failed, "--artifact", right).returncode == UNKNOWN
    assert repro(thin_onnxruntime, failed).returncode == EXISTS


def test_an_artifact_that_is_elsewhere_is_asked_for(failed, tiny, thin_onnxruntime):
    shutil.rmtree(failed / "artifact")
    done = repro(thin_onnxruntime, failed)
    assert done.returncode == UNKNOWN
    assert "--artifact" in done.stdout


def test_a_large_artifact_stays_where_it_is_and_the_readme_says_where(judged):
    ran, folder = judged
    bundle = bundle_of(ran, "tiny~large-onnx-fp32-onnxruntime@cpu", "parity")
    assert not (bundle / "artifact").exists()
    assert str(folder / "large.onnx") in (bundle / "README.txt").read_text()
    assert repro(Path(sys.executable), bundle).returncode == EXISTS


def test_what_fails_on_stressed_inputs_alone_is_shown_on_them(judged, bundle, right, thin_onnxruntime):
    """Inputs are clipped at 6: they hold what is right, so the bug is gone with a right artifact, and is searched."""
    line = judged[0].checks["tiny~clips-onnx-fp32-onnxruntime@cpu", "parity"]
    assert line["outcome"] == "failed", judged[0].text
    assert "not on unusual ones" in line["sentence"]
    found = line["data"]["localisation"]
    assert (found["operator"], found["confirmed"]) == ("Clip", True), found
    clips = bundle("clips")
    done = repro(thin_onnxruntime, clips)
    assert done.returncode == EXISTS, done.stdout + done.stderr
    ordinary, unusual = done.stdout.splitlines()[1:3]
    assert ordinary.endswith("right"), done.stdout
    assert unusual.strip().startswith("unusual inputs, in units of each row's noise"), done.stdout
    assert unusual.endswith("WRONG"), done.stdout
    done = repro(thin_onnxruntime, clips, "--artifact", right)
    assert done.returncode == GONE, done.stdout + done.stderr
    assert repro(thin_onnxruntime, clips / "submodel").returncode == EXISTS


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
    stages = SimpleNamespace(models=models, outputs=lambda _: outputs, _tolerances=lambda _: {}, at_size={})
    campaign = SimpleNamespace(stages=stages)
    planned = PlannedCell(Cell("m", "onnx", "fp32", "onnxruntime", "cpu"), (), "fp32", Decision())
    right = OutputParity("y", Outcome.PASSED, None, "", error_rms=1e-7, error_max=1e-7)
    verdict = Verdict(Outcome.FAILED, FailureKind.ACCURACY, "Accuracy fell.", (right,))
    case = bundle_module.case_of(campaign, planned, "parity", "parity", verdict)
    assert (case.law, len(case.observed)) == ("other", 1)
    assert bundle_module.case_of(campaign, planned, "parity", "parity", Verdict(Outcome.INCONCLUSIVE, None, "")) is None
