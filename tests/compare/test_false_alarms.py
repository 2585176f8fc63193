"""No false alarm over more than 200 faithful cells of seeded random networks, on real runtimes.

With ``-s`` the distribution of the noise and point ratios is printed: the constants of
``floating.py`` and the k(p) of ``schema.PRECISIONS`` rest on it.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections import defaultdict

import numpy as np
import pytest
from inner_run import two_at_a_time
from places import ROOT

from pytest_modelformats.compare.floating import FAITHFUL_LOW, POINT_LIMIT
from pytest_modelformats.compare.second_look import FURTHEST
from pytest_modelformats.schema import PRECISIONS

NETWORKS = ROOT / "fixtures" / "random_networks.py"
FAMILIES = ("cnn", "depthwise", "residual", "groupnorm", "mlp", "mlpnorm", "attention", "lstm", "gru")
# In cnn_6 ONNX Runtime and TorchScript sum 256 nearly equal activations naively: r = 5, which a second look finds to be
# rounding.
MODELS = (*(f"{family}_{seed}" for family in FAMILIES for seed in range(5)), "cnn_6")
# The last three run PyTorch's own kernels, so their ratio is mostly 1: the first five alone are more than 200 cells.
LANES = (
    "onnx.legacy-fp32-onnxruntime@cpu",
    "onnx.legacy-fp16-onnxruntime@cpu",
    "openvino-fp32-openvino@cpu",
    "openvino-bf16-openvino@cpu",
    "openvino-fp16-weights-openvino@cpu",
    "torchscript-fp32-torchscript@cpu",
    "pt2-fp32-torch-export@cpu",
    "pytorch-bf16-torch@cpu",
)
LAWFUL = [*(f"{family}_0" for family in FAMILIES), "cnn_6"]
LAWS = ("contract", "batch", "permutation", "unmodified", "concurrency", "history", "determinism", "fuzz")
CELLS = frozenset(f"{model}-{lane}" for model in MODELS for lane in LANES)
FEWEST = 200

pytestmark = [pytest.mark.slow, pytest.mark.timeout(850)]


def run(folder, models, suites, *more):
    """The lines of an inner run over the lanes."""
    chosen = " or ".join(lane.removesuffix("@cpu") for lane in LANES)  # -k knows no @
    named = [a for model in models for a in ("--mf-model", f"{NETWORKS}:{model}")]
    command = [
        sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider", "-k", chosen, *named,
        "--mf-formats", "onnx.legacy,openvino,torchscript,pt2,pytorch", "--mf-devices", "cpu",
        "--mf-backends", "torch,torch-export,torchscript,onnxruntime,openvino",
        "--mf-suites", suites, "--mf-cache", str(folder.parent / "cache"), *more,
    ]  # fmt: skip
    folder.mkdir()
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=800, check=False)
    record = folder / "reports" / "latest" / "results.jsonl"
    assert record.exists(), ended.stdout[-4000:] + ended.stderr[-2000:]
    return ended, [json.loads(line) for line in record.read_text().splitlines()]


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The run of parity and that of the other laws, side by side; the cache is one."""
    folder = tmp_path_factory.mktemp("alarms")
    return two_at_a_time(
        lambda: run(folder / "parity", MODELS, "parity"),
        lambda: run(folder / "laws", LAWFUL, ",".join(LAWS), "--mf-fuzz", "20"),
    )


@pytest.fixture(scope="module")
def parity(both):
    return both[0]


def ratios(lines):
    """precision -> output ratios [(noise ratio, point ratio, cell)] of every parity check."""
    found = defaultdict(list)
    for line in lines:
        if line["kind"] == "check":
            precision = next(p for p in sorted(PRECISIONS, key=len, reverse=True) if f"-{p}-" in line["cell"])
            for output in line["data"]["outputs"]:
                found[precision].append((output["noise_ratio"], output["point_ratio"], line["cell"]))
    return found


def more(lines):
    """The largest of the ratios that not every cell has, by precision, as text."""
    found = defaultdict(list)
    for line in lines:
        if line["kind"] == "check":
            precision = next(p for p in sorted(PRECISIONS, key=len, reverse=True) if f"-{p}-" in line["cell"])
            for output in line["data"]["outputs"]:
                for what in ("stress_ratio", "systematic_ratio", "slice_ratio", "local_point_ratio"):
                    if output.get(what) is not None:
                        found[precision, what].append((output[what], line["cell"]))
    return "\n".join(
        f"{precision:14} {what:18} {len(values):5} {np.median([v for v, _ in values]):8.3f} {max(values)[0]:8.3f}"
        f"  {max(values)[1]}"
        for (precision, what), values in sorted(found.items())
    )


def table(found):
    """The distribution as text, one line per precision and ratio."""
    heads = "".join(f"{name:>8}" for name in ("min", "median", "p95", "max"))
    rows = [f"{'precision':14} {'ratio':6} {'cells':>5}{heads} {'limit':>6}  worst"]
    for precision, values in sorted(found.items()):
        limits = PRECISIONS[precision].limit, POINT_LIMIT[PRECISIONS[precision].yardstick]
        for index, what in enumerate(("noise", "point")):
            numbers = np.array([v[index] for v in values])
            worst = max(values, key=lambda v, i=index: v[i])[2]
            low, middle, high, top = np.quantile(numbers, [0, 0.5, 0.95, 1])
            rows.append(
                f"{precision:14} {what:6} {numbers.size:5} {low:7.3f} {middle:7.3f} {high:7.3f} {top:7.3f}"
                f" {limits[index]:6.1f}  {worst}"
            )
    return "\n".join(rows)


def test_no_faithful_cell_is_accused(parity):
    """Every one of more than 200 faithful cells passes parity."""
    ended, lines = parity
    checks = [line for line in lines if line["kind"] == "check"]
    sys.stdout.write(f"\n{table(ratios(lines))}\n{more(lines)}\n")
    accused = {line["cell"]: line["sentence"] for line in checks if line["outcome"] != "passed"}
    assert not accused
    assert {line["cell"] for line in checks} == CELLS
    assert len(checks) == len(CELLS) >= FEWEST
    assert ended.returncode == 0, ended.stdout[-4000:]


def test_totals_add_up(parity):
    """Every selected cell has one outcome, and the run is complete."""
    footer = parity[1][-1]
    assert footer["complete"]
    assert footer["totals"] == {"passed": len(CELLS)}
    assert set(footer["cells"]) == CELLS


def test_ratios_are_measured(parity):
    """Both ratios are finite numbers in every cell, below their limits, and above what would look too precise."""
    for precision, values in ratios(parity[1]).items():
        limit, point = PRECISIONS[precision].limit, POINT_LIMIT[PRECISIONS[precision].yardstick]
        for noise_ratio, point_ratio, cell in values:
            assert math.isfinite(noise_ratio), cell
            wide = FURTHEST if cell.startswith("cnn_6") else 1
            assert FAITHFUL_LOW <= noise_ratio <= wide * limit, cell
            assert point_ratio <= wide * point, cell


def test_other_laws_accuse_no_faithful_cell(both):
    """The laws hold for a network of every family in every lane, and so does parity on generated inputs."""
    ended, lines = both[1]
    checks = [line for line in lines if line["kind"] == "check"]
    accused = {(line["cell"], line["check"]): line["sentence"] for line in checks if line["outcome"] != "passed"}
    assert not accused
    assert len(checks) == len(LAWS) * len(LAWFUL) * len(LANES)
    assert ended.returncode == 0, ended.stdout[-4000:]
