"""What the tests of whole runs share: a run's end as an object, and the smallest model worth converting."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

# One cell that needs no conversion: the cheapest whole run.
ONE_CELL = ("--mf-formats", "onnx", "--mf-precisions", "fp32", "--mf-backends", "onnxruntime", "--mf-devices", "cpu")
PARITY = ("--mf-suites", "parity", *ONE_CELL)
# Two layers, so that an optimiser has something to do and a changed weight something to hide behind.
FEATURES, HIDDEN, CLASSES = 4, 8, 3


@dataclass(frozen=True)
class Ran:
    """An inner run: how pytest ended, and what the newest record in its report folder holds."""

    result: pytest.RunResult
    reports: Path
    folder: Path | None

    @property
    def status(self):
        return int(self.result.ret)

    @property
    def text(self):
        return "\n".join([*self.result.outlines, *self.result.errlines])

    @property
    def lines(self):
        return [json.loads(line) for line in (self.folder / "results.jsonl").read_text().splitlines()]

    def of(self, kind):
        return [line for line in self.lines if line["kind"] == kind]

    @property
    def cells(self):
        return [line["cell"] for line in self.of("cell")]

    @property
    def checks(self):
        """(cell, check) -> the check's line."""
        return {(line["cell"], line["check"]): line for line in self.of("check")}

    @property
    def outcomes(self):
        return {key: line["outcome"] for key, line in self.checks.items()}

    @property
    def footer(self):
        return self.lines[-1]


def two_at_a_time(*calls):
    """What each of the calls returns; they wait for processes that do not look at the clock."""
    with ThreadPoolExecutor(2) as pool:
        return [future.result() for future in [pool.submit(call) for call in calls]]


def ended(result, reports):
    """The run that has just ended."""
    records = [p for p in reports.glob("*/results.jsonl") if not p.parent.is_symlink()]
    newest = max(records, key=lambda p: p.stat().st_mtime_ns, default=None)
    return Ran(result, reports, newest and newest.parent)


def one_sentence(ran, *parts):
    """A usage error: exit 4, one ERROR line of a sentence or two that holds every part, no traceback, no record."""
    errors = [line for line in ran.result.errlines if line.strip()]
    assert ran.status == pytest.ExitCode.USAGE_ERROR, ran.text
    assert len(errors) == 1, ran.text
    assert "Traceback" not in ran.text
    assert "INTERNALERROR" not in ran.text
    for part in parts:
        assert part in errors[0], f"{part!r} is not in: {errors[0]}"
    assert len(errors[0]) < 700, errors[0]
    assert ran.folder is None
    return errors[0]


def two_layers(path, *, seed=0, change=0.0, batch="N", output="y"):
    """Write an ONNX model of two layers, x:float32[N,4] to y:float32[N,3]; ``change`` is added to one weight."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(seed)
    shapes = {"w1": (FEATURES, HIDDEN), "b1": (HIDDEN,), "w2": (HIDDEN, CLASSES), "b2": (CLASSES,)}
    weights = {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    weights["w2"][0, 0] += np.float32(change)
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"]),
        helper.make_node("Tanh", ["h"], ["a"]),
        helper.make_node("Gemm", ["a", "w2", "b2"], [output]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, FEATURES])
    y = helper.make_tensor_value_info(output, TensorProto.FLOAT, [batch, CLASSES])
    initialisers = [numpy_helper.from_array(w, n) for n, w in weights.items()]
    graph = helper.make_graph(nodes, "two_layers", [x], [y], initialisers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, str(path))
    return Path(path)
