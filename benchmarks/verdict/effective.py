"""Does an edit change the function? Decided in float64, without anything of the product's verdict.

The correct and the edited graph are raised to float64 and run by ``onnx.reference`` on inputs of
the benchmark's own: other seeds than the product's, in four families. An output is changed where
the largest difference of an element exceeds one fp32 rounding unit (2^-24) of the output's largest
magnitude, or where shape, dtype, an integer, NaN or Inf differ. Evaluating in float64 makes errors
about 10^8 times smaller than that, so no rounding can pass for a change.

How large a change is, is said in units of rounding noise: rms of the change over rms of what fp32
rounding costs the correct model (ONNX Runtime in fp32, unoptimised, minus float64), on the family
where that is largest. Below 1, the change is smaller than the rounding that it hides in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    import onnx

    from pytest_modelformats.schema import TensorSpec

    Feed = Mapping[str, np.ndarray]
    Outputs = list[np.ndarray]

UNIT = 2.0**-24
ROWS = 7  # no other dimension of an architecture, so that none can pass for the batch
SEED = 777_000
# Standard normal with magnitudes as the product draws them, twice; a wider one; one without negatives.
FAMILIES = ("normal", "normal again", "wide", "positive")


@dataclass(frozen=True, slots=True)
class Effect:
    """Whether the function changed, and by how much.

    ``relative``: largest change of an element over the output's largest magnitude. ``size``: rms of
    the change over the rms of fp32 rounding; ``None`` where there is no such number (shapes, integers).
    """

    effective: bool
    relative: float | None
    size: float | None
    what: str = ""


def feeds(specs: Sequence[TensorSpec], seed: int = SEED) -> list[dict[str, np.ndarray]]:
    """The benchmark's own inputs: one feed per family."""
    import numpy as np

    found = []
    for number, family in enumerate(FAMILIES):
        random = np.random.default_rng([seed, number])
        feed = {}
        for spec in specs:
            shape = [d if isinstance(d, int) else ROWS for d in spec.shape or ()]
            if not spec.is_float:
                feed[spec.name] = random.integers(int(spec.low or 0), int(spec.high or 1) + 1, shape).astype(spec.dtype)
                continue
            values = random.standard_normal(shape)
            scale = np.exp2(random.uniform(-1, 1, [shape[0], *[1] * (len(shape) - 1)]))
            values = {"wide": values * 3, "positive": random.uniform(0, 1, shape)}.get(family, values * scale)
            feed[spec.name] = values.astype(spec.dtype)
        found.append(feed)
    return found


def compare(correct: Sequence[Outputs], other: Sequence[Outputs], noise: Sequence[Sequence[float]]) -> Effect:
    """The effect over all families and outputs: [family][output] each."""
    import numpy as np

    relative, size, unlike = 0.0, 0.0, ""
    for truths, outputs, floors in zip(correct, other, noise, strict=True):
        if len(truths) != len(outputs):
            return Effect(effective=True, relative=None, size=None, what="another number of outputs")
        for t, y, floor in zip(truths, outputs, floors, strict=True):
            if t.shape != y.shape or t.dtype != y.dtype:
                what = f"{y.dtype} {list(y.shape)} instead of {t.dtype} {list(t.shape)}"
                return Effect(effective=True, relative=None, size=None, what=what)
            if t.dtype.kind != "f":
                unlike = unlike or ("an integer output differs" if not np.array_equal(t, y) else "")
                continue
            if not np.array_equal(np.isfinite(t), np.isfinite(y)):
                return Effect(effective=True, relative=None, size=None, what="NaN or Inf elsewhere")
            change = np.where(np.isfinite(t), y - t, 0.0)
            scale = float(np.abs(t[np.isfinite(t)]).max(initial=0.0))
            if scale:
                relative = max(relative, float(np.abs(change).max()) / scale)
            if floor:
                size = max(size, math.sqrt(float(np.mean(np.square(change)))) / floor)
    return Effect(relative > UNIT or bool(unlike), relative, size, unlike if relative <= UNIT else "")


def noise_of(truths: Sequence[Outputs], rounded: Sequence[Outputs]) -> list[list[float]]:
    """The rms of what fp32 costs, [family][output]; not below what writing the output down costs."""
    import numpy as np

    def floor(t: np.ndarray, y: np.ndarray) -> float:
        if t.dtype.kind != "f" or not t.size:
            return 0.0
        rms = math.sqrt(float(np.mean(np.square(y.astype(np.float64) - t))))
        return max(rms, math.sqrt(float(np.mean(np.square(t)))) * UNIT / math.sqrt(3))

    return [[floor(t, y) for t, y in zip(ts, ys, strict=True)] for ts, ys in zip(truths, rounded, strict=True)]


def run_float64(model: onnx.ModelProto, inputs: Sequence[Feed]) -> list[Outputs]:
    """The model raised to float64, run by ``onnx.reference``."""
    import numpy as np
    from onnx import ModelProto, TensorProto

    from pytest_modelformats.systems.onnx.graph import retype

    raised = ModelProto()
    raised.CopyFrom(model)
    casts = {n.name: a.i for n in raised.graph.node if n.op_type == "Cast" for a in n.attribute if a.name == "to"}
    retype(raised, TensorProto.DOUBLE)
    # A cast to a narrow type is a fault that was put in, and is to be made in float64 too.
    for node in raised.graph.node:
        for attribute in node.attribute:
            if attribute.name == "to" and casts.get(node.name) in (TensorProto.FLOAT16, TensorProto.BFLOAT16):
                attribute.i = casts[node.name]
    evaluator = _evaluator()(raised)
    with np.errstate(all="ignore"):
        return [[np.asarray(y) for y in evaluator.run(None, _doubled(feed))] for feed in inputs]


def _doubled(feed: Feed) -> dict[str, np.ndarray]:
    import numpy as np

    return {name: a.astype(np.float64) if a.dtype.kind == "f" else a for name, a in feed.items()}


@cache
def _evaluator() -> Any:
    """The evaluator of onnx with an Erf of double precision: its own rounds to float32."""
    import torch
    from onnx.reference import ReferenceEvaluator
    from onnx.reference.op_run import OpRun

    class Erf(OpRun):  # type: ignore[misc]
        op_domain = ""

        def _run(self, x: np.ndarray) -> tuple[np.ndarray]:
            return (torch.special.erf(torch.from_numpy(x)).numpy(),)

    class Evaluator(ReferenceEvaluator):  # type: ignore[misc]
        def __init__(self, proto: Any, **keywords: Any) -> None:
            keywords["new_ops"] = keywords.get("new_ops") or [Erf]
            super().__init__(proto, **keywords)

    return Evaluator


def run_fp32(model: onnx.ModelProto, inputs: Sequence[Feed]) -> list[Outputs]:
    """The model as it is, by ONNX Runtime without optimisation, one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [session.run(None, dict(feed)) for feed in inputs]


def run_module(module: Any, names: Sequence[str], inputs: Sequence[Feed], *, double: bool) -> list[Outputs]:
    """A torch module in float64 (a copy) or as it is; outputs in its order."""
    import copy

    import torch

    wide = copy.deepcopy(module).double() if double else module
    results = []
    with torch.no_grad():
        for feed in inputs:
            tensors = [torch.from_numpy(feed[n]) for n in names]
            given = [t.double() if double and t.is_floating_point() else t for t in tensors]
            output = wide(*given)
            flat = output if isinstance(output, (tuple, list)) else (output,)
            results.append([t.numpy() for t in flat])
    return results
