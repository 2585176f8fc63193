"""The record: every line by the schema, every cell with one outcome, and nothing lost when a run is cut off."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path
from xml.etree import ElementTree as ET

import jsonschema
import numpy as np
import pytest
from inner_run import ONE_CELL, PARITY, two_layers
from places import RECORD_SCHEMA

from pytest_modelformats.record.packed_samples import unpack
from pytest_modelformats.schema import Outcome, OutputParity
from pytest_modelformats.schema.plain import plain

CELL = "tiny-onnx-fp32-onnxruntime@cpu"
SCHEMA = json.loads(RECORD_SCHEMA.read_text())
MODELFORMATS = [sys.executable, "-c", "from pytest_modelformats.cli.main import main; main()"]


def no_constant(name):
    raise AssertionError(f"{name} is not JSON")


def refused_by_schema(lines):
    validator = jsonschema.Draft202012Validator(SCHEMA)
    return [(number, error.message) for number, line in enumerate(lines, 1) for error in validator.iter_errors(line)]


@pytest.fixture
def whole(run, tiny, pytester):
    """A run with a pass, a failure, an expected failure and cells without a device."""
    two_layers(pytester.path / "wrong.onnx", change=1.0)
    two_layers(pytester.path / "known.onnx", change=2.0)
    (pytester.path / "known.txt").write_text("tiny~known-*  parity  # a weight is off (nets#7)\n")
    candidates = ("--mf-candidate", "wrong.onnx", "--mf-candidate", "known.onnx", "--mf-expectations", "known.txt")
    chosen = ("--mf-suites", "parity,latency", "--mf-formats", "onnx", "--mf-precisions", "fp32")
    return run("--mf-model", tiny, *candidates, *chosen, "--mf-time-budget", "0.05", "--junitxml", "junit.xml")


def test_a_whole_run(whole, pytester):
    """One run, looked at from every side: its lines, its totals, JUnit's XML and the link to the newest report."""
    raw = (whole.folder / "results.jsonl").read_text().splitlines()
    lines = [json.loads(line, parse_constant=no_constant) for line in raw]
    assert refused_by_schema(lines) == []
    kinds = [line["kind"] for line in lines]
    assert (kinds[0], kinds[-1]) == ("header", "footer")
    assert kinds.count("header") == kinds.count("footer") == kinds.count("model") == 1

    footer = lines[-1]
    planned = [line["cell"] for line in lines if line["kind"] == "cell"]
    assert len(planned) == len(set(planned))
    assert set(footer["cells"]) == set(planned)
    assert set(footer["cells"].values()) <= {o.value for o in Outcome}
    assert sum(footer["totals"].values()) == len(planned)
    assert footer["complete"]
    assert footer["exitstatus"] == whole.status == 1
    assert {cell: word for cell, word in footer["cells"].items() if "@cpu" in cell} == {
        CELL: "passed",
        "tiny~wrong-onnx-fp32-onnxruntime@cpu": "failed",
        "tiny~known-onnx-fp32-onnxruntime@cpu": "expected-failure",
    }
    assert {line["cell"] for line in lines if line["kind"] == "check"} == set(planned)

    (latest,) = (p for p in whole.reports.iterdir() if p.name.startswith("latest"))
    assert latest.resolve() == whole.folder.resolve()
    assert all((whole.folder / name).stat().st_size > 500 for name in ("index.html", "report.md"))

    found = {}
    for case in ET.parse(pytester.path / "junit.xml").iter("testcase"):
        found[case.get("name")] = {p.get("name"): p.get("value") for p in case.iter("property")}
    parity = found[f"test_outputs_match_source[{CELL}]"]
    assert (parity["mf_cell"], parity["mf_outcome"]) == (CELL, "passed")
    assert 0 < float(parity["mf_noise_ratio"]) < 4
    latency = found[f"test_cost_within_budget[{CELL}]"]
    assert float(latency["latency_p50_ns"]) > 0
    assert int(latency["size_bytes"]) == (pytester.path / "tiny.onnx").stat().st_size
    wrong = found["test_outputs_match_source[tiny~wrong-onnx-fp32-onnxruntime@cpu]"]
    assert wrong["mf_outcome"] == "failed"


def test_the_newest_run_is_the_latest(run, tiny):
    chosen = ("--mf-model", tiny, *PARITY)
    first, second = run(*chosen), run(*chosen)
    assert first.folder != second.folder
    assert (second.reports / "latest").resolve() == second.folder.resolve()


def test_benchmark_json_holds_the_samples_of_the_cells(run, tiny, pytester):
    chosen = ("--mf-model", tiny, *ONE_CELL, "--mf-suites", "latency", "--mf-time-budget", "0.05")
    ran = run(*chosen, "--benchmark-json", "benchmark.json", plugins=["benchmark"])
    assert ran.status == 0, ran.text
    (entry,) = json.loads((pytester.path / "benchmark.json").read_text())["benchmarks"]
    timing = ran.checks[CELL, "latency"]["data"]
    assert entry["extra_info"]["cell"] == CELL
    assert entry["stats"]["data"] == pytest.approx([ns / 1e9 for ns in unpack(timing["samples_ns"])], rel=1e-12)
    assert entry["stats"]["median"] == pytest.approx(timing["latency_p50_ns"] / 1e9, rel=1e-9)


WAITS = """
import time
from pathlib import Path

import pytest


@pytest.mark.parametrize("number", range(3))
def test_it(mf_parity, number):
    if number == 1 and "fp16" in mf_parity.sentence:
        Path("waiting").touch()
        time.sleep(60)
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=lambda s: s.name)
def test_a_run_that_is_cut_off_is_incomplete_and_can_be_shown(pytester, tiny, shelf, how):
    pytester.makepyfile(test_own=WAITS)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "test_own.py", f"--mf-model={tiny}"]
    chosen = ["--mf-formats=onnx", "--mf-devices=cpu", f"--mf-cache={shelf / 'cache'}"]
    # What is started in the background of a shell ignores SIGINT, and so do its children.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen([*command, *chosen], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    signal.signal(signal.SIGINT, before)
    deadline = time.monotonic() + 60
    while not (pytester.path / "waiting").exists():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(how)
    said, _ = process.communicate(timeout=30)
    (record,) = (p for p in (pytester.path / "reports").glob("*/results.jsonl") if not p.parent.is_symlink())
    lines = [json.loads(line) for line in record.read_text().splitlines()]
    assert refused_by_schema(lines) == []
    assert sum(line["kind"] == "check" for line in lines) == 4
    if how is signal.SIGINT:
        assert process.returncode == pytest.ExitCode.INTERRUPTED, said
        assert lines[-1]["kind"] == "footer"
        assert not lines[-1]["complete"]
        assert "INCOMPLETE" in said
    else:
        assert process.returncode == -signal.SIGKILL
        assert lines[-1]["kind"] == "check"
    shown = subprocess.run([*MODELFORMATS, "report", "reports"], capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    assert "INCOMPLETE" in shown.stdout
    assert "tiny" in shown.stdout


def test_an_empty_record_cannot_be_shown(pytester):
    empty = pytester.mkdir("run") / "results.jsonl"
    empty.touch()
    shown = subprocess.run([*MODELFORMATS, "report", str(empty)], capture_output=True, text=True, check=False)
    assert shown.returncode == 2
    assert shown.stderr.strip().endswith("there is nothing to report")
    assert "Traceback" not in shown.stderr


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float32(0.5), 0.5),
        (np.int64(7), 7),
        (np.bool_(1), True),
        (np.array([[1, 2], [3, 4]], np.uint8), [[1, 2], [3, 4]]),
        (np.array([1.0, np.nan, np.inf]), [1.0, None, None]),
        (np.float64("nan"), None),
        (math.inf, None),
        (Path("a") / "b", "a/b"),
        (Outcome.PASSED, "passed"),
        ({Path("k"): (1, {2})}, {"k": [1, [2]]}),
        (Decimal("1.5"), "1.5"),
        (None, None),
        (OutputParity("y", Outcome.PASSED, None, "", error_rms=np.float32(1)).error_rms, 1.0),
    ],
)
def test_what_crosses_a_border_is_plain(value, expected):
    found = plain(value)
    assert found == expected
    assert type(found) is type(expected)
    json.dumps(found, allow_nan=False)
