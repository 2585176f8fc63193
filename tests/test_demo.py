"""What `make demo` shows: the digits model over five formats, three precisions and every CPU backend."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

from pytest_modelformats.record.packed_samples import unpack
from pytest_modelformats.schema.outcome import cell_outcome


@pytest.fixture(scope="module")
def demo(tmp_path_factory, digits):
    """The demo's own two commands, in a folder of their own with an empty home."""
    folder = tmp_path_factory.mktemp("demo")
    shutil.copy(digits, folder)
    command = [sys.executable, "-m", "pytest", "--mf-model", "digits_cnn.pth", "--mf-slow", "--tb=short"]
    command += ["--mf-cache", "cache", "--mf-time-budget", "0.1", "-p", "no:cacheprovider", "-p", "no:xdist"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=850)
    lines = (folder / "reports" / "latest" / "results.jsonl").read_text(encoding="utf-8").splitlines()
    return done, folder, [json.loads(line) for line in lines]


@pytest.mark.slow
def test_demo_executes_five_formats_at_three_precisions(demo):
    done, _, lines = demo
    assert done.returncode in {0, 1}, done.stdout[-3000:] + done.stderr[-1000:]
    cells = [line for line in lines if line["kind"] == "cell" and line["decision"] == "run"]
    outcomes = lines[-1]["cells"]
    # A latency that a neighbour has disturbed too much is inconclusive, and says nothing of the rest of its cell.
    checks = [line for line in lines if line["kind"] == "check"]
    disturbed = {c["cell"] for c in checks if c["check"] == "latency" and c["outcome"] == "inconclusive"}
    for cell in disturbed:
        others = [(c["check"], c["outcome"]) for c in checks if c["cell"] == cell and c["check"] != "latency"]
        outcomes[cell] = cell_outcome("run", others).value
    executed = [c for c in cells if outcomes[c["cell"]] in {"passed", "fallback"}]
    assert len(executed) >= 12
    assert {c["format"] for c in executed} == {"pytorch", "pt2", "torchscript", "onnx", "openvino"}
    assert {c["precision"] for c in executed} >= {"fp32", "fp16", "bf16"}
    # A runtime that serves another precision than it was asked for is a finding; anything else is not.
    allowed = {"passed", "fallback"} if shutil.which("g++") else {"passed", "fallback", "missing-dependency"}
    assert {outcomes[c["cell"]] for c in cells} <= allowed, done.stdout[-3000:]


@pytest.mark.slow
def test_every_planned_cell_has_one_outcome_and_the_totals_add_up(demo):
    _, _, lines = demo
    footer = lines[-1]
    planned = [line["cell"] for line in lines if line["kind"] == "cell"]
    assert footer["kind"] == "footer"
    assert footer["complete"] is True
    assert len(planned) == len(set(planned))
    assert set(footer["cells"]) == set(planned)
    assert sum(footer["totals"].values()) == len(planned)


@pytest.mark.slow
def test_every_executed_cell_has_real_numbers(demo):
    _, folder, lines = demo
    checks = {(line["cell"], line["check"]): line for line in lines if line["kind"] == "check"}
    executed = {cell for cell, outcome in lines[-1]["cells"].items() if outcome in {"passed", "fallback"}}
    for line in (x for x in lines if x["kind"] == "cell" and x["cell"] in executed):
        parity = checks[line["cell"], "parity"]["data"]
        latency = checks[line["cell"], "latency"]["data"]
        assert parity["noise_ratio"] > 0
        assert parity["outputs"][0]["elements"] == 256 * 10
        assert parity["statement"]["accuracy"] > 0.9
        assert latency["latency_p50_ns"] > 0
        assert latency["samples"] == len(unpack(latency["samples_ns"])) >= 6
        assert latency["size_bytes"] > 10_000
    page = (folder / "reports" / "latest" / "index.html").read_text(encoding="utf-8")
    assert all(line["cell"] in page for line in lines if line["kind"] == "cell")
