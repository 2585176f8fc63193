"""A package of somebody else's adds a backend: one file, one entry point, installed for real."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from inner_run import two_layers
from places import ROOT

from pytest_modelformats.session.suites import COMPARING, OPT_IN, ORDER

EXAMPLE = ROOT / "examples" / "outside_backend"
CELLS = {"tiny-onnx-fp32-onnx-reference@cpu", "tiny-onnx-fp32-onnxruntime@cpu"}

pytestmark = pytest.mark.slow


def install(package, target):
    """Build the package and install its wheel into a folder of its own."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    done = subprocess.run(
        [*command, "--target", str(target), str(package)], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr


def start(folder, installed, *arguments):
    """Run pytest in ``folder``, where the packages in ``installed`` can be imported."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, installed))}
    environment.pop("PYTEST_ADDOPTS", None)
    command = [sys.executable, "-m", "pytest", "--mf-model", "tiny.onnx", "-p", "no:cacheprovider", *arguments]
    command += ["--mf-cache", "cache", "--mf-report-dir", "reports", "--mf-time-budget", "0.1"]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=300
    )


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder that the example package is installed into."""
    target = tmp_path_factory.mktemp("installed")
    install(EXAMPLE, target)
    return target


@pytest.fixture
def folder(tmp_path):
    """A folder with a tiny ONNX model."""
    two_layers(tmp_path / "tiny.onnx")
    return tmp_path


def test_every_check_of_the_outside_backends_cells_runs_and_passes(installed, folder):
    done = start(folder, [installed], "--mf-backends", "onnx-reference,onnxruntime", "--mf-devices", "cpu",
                 "--mf-precisions", "fp32")  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    record = folder / "reports" / "latest" / "results.jsonl"
    lines = [json.loads(line) for line in record.read_text().splitlines()]
    checks = {(line["cell"], line["check"]): line for line in lines if line["kind"] == "check"}
    suites = {*ORDER} - {"availability", *OPT_IN, *COMPARING}
    assert set(checks) == {(cell, suite) for cell in CELLS for suite in suites}
    assert {line["outcome"] for (_, suite), line in checks.items() if suite != "latency"} == {"passed"}
    assert {line["outcome"] for line in checks.values()} <= {"passed", "inconclusive"}  # a neighbour may disturb
    mine = checks["tiny-onnx-fp32-onnx-reference@cpu", "parity"]["data"]
    assert mine["statement"]["evaluator"] == "onnx.reference"
    assert 0 < mine["noise_ratio"] < 4


def test_without_the_package_its_backend_is_unknown(folder):
    done = start(folder, [], "--mf-backends", "onnx-reference")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "unknown backend 'onnx-reference'" in done.stderr


def test_an_operator_that_the_outside_backend_lacks_is_unsupported(installed, folder):
    import onnx

    model = onnx.load(folder / "tiny.onnx")
    model.graph.node[1].op_type, model.graph.node[1].domain = "FusedGelu", "com.example"
    model.opset_import.append(onnx.helper.make_opsetid("com.example", 1))
    code = (
        "import sys, pathlib; sys.path.insert(0, sys.argv[2]); import modelformats_numpy_onnx as m\n"
        "from types import SimpleNamespace as N\n"
        "from pytest_modelformats.errors import Unsupported\n"
        "try: m.open_session(N(artifact=pathlib.Path(sys.argv[1])))\n"
        "except Unsupported as error: print(error)"
    )
    onnx.save(model, str(folder / "odd.onnx"))
    command = [sys.executable, "-c", code, str(folder / "odd.onnx"), str(installed)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "FusedGelu" in said


@pytest.mark.parametrize("name", ["onnx-reference", "onnxruntime"])
def test_a_name_that_two_packages_register_is_refused_in_one_sentence(installed, folder, tmp_path, name):
    package = Path(shutil.copytree(EXAMPLE, tmp_path / "twin"))
    project = package / "pyproject.toml"
    text = project.read_text().replace('"modelformats-numpy-onnx"', '"modelformats-twin"')
    project.write_text(text.replace("onnx-reference = ", f"{name} = "))
    install(package, tmp_path / "twin-installed")
    done = start(folder, [installed, tmp_path / "twin-installed"])
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    errors = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(errors) == 1, done.stderr
    assert f"two packages register the backend '{name}'" in errors[0]
    assert "modelformats_numpy_onnx:BACKEND" in errors[0]
    assert errors[0].endswith("uninstall one")
    assert not (folder / "reports").exists()
