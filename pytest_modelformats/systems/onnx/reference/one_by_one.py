"""Does each operator of the float64 evaluation agree with ONNX Runtime's on the same inputs?

A model may amplify what fp32 rounds away until both runs of the whole are far apart; each operator alone is not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_modelformats.errors import ModelFormatsError
from pytest_modelformats.systems.onnx import graph as onnx_graph
from pytest_modelformats.systems.onnx.reference import run as onnx_run
from pytest_modelformats.systems.onnx.reference.lazy import LazyModel
from pytest_modelformats.systems.onnx.reference.steps import Steps

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np

# Of the rms of a result. fp32 rounding is below 1e-4 in an operator on its own, a wrong one is off by more than 1e-1.
PLAUSIBLE = 1e-2
# Of the elements of a result that is no float: a tie that falls the other way.
FLIPS = 1e-2
# Kernels of these are good to so much of 1, however small the result: ONNX Runtime 1.32's Sigmoid adds 0.5 to a
# fraction and is off by 1.3e-7 where it gives 1e-5.
BOUNDED, ABSOLUTE = frozenset({"Sigmoid", "Tanh", "Erf", "Softmax"}), 1e-6


def first_disagreement(path: Path, feed: Mapping[str, np.ndarray]) -> str:
    """The first operator that gives something else than ONNX Runtime's, "" where there is none.

    Raises: Unsupported, RunError, or whatever the evaluator raises.
    """
    import numpy as np

    model = LazyModel(path)
    made = _run_exposed(model, path, feed)
    given = {**feed, **made}
    wide = {k: v.astype(np.float64) if getattr(v, "dtype", None) == np.float32 else v for k, v in given.items()}
    steps = Steps(model, "float64")
    for index, node in enumerate(model.nodes):
        for name, value in steps.run(index, wide).items():
            if name in made and not _alike(value, made[name], ABSOLUTE if node.op_type in BOUNDED else 0.0):
                return f"{node.op_type} '{node.name or name}'"
    return ""


def agree(path: Path, feed: Mapping[str, np.ndarray]) -> bool:
    """Whether every operator was compared and none disagrees."""
    try:
        return not first_disagreement(path, feed)
    except (ModelFormatsError, ArithmeticError, LookupError, TypeError, ValueError, RuntimeError, MemoryError):
        return False  # what cannot be compared vouches for nothing


def _run_exposed(model: LazyModel, path: Path, feed: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """What every node of the graph makes in ONNX Runtime, by name."""
    import onnx

    whole = onnx_graph.load_model(path)
    known = {v.name for v in whole.graph.output}
    more = [name for node in model.nodes for name in node.output if name and name not in known]
    whole.graph.output.extend(onnx.ValueInfoProto(name=name) for name in more)
    names = [v.name for v in whole.graph.output]
    return dict(zip(names, onnx_run.run_ort(whole, path, [feed])[0], strict=True))


def _alike(one: Any, other: Any, absolute: float) -> bool:
    import numpy as np

    one, other = np.asarray(one), np.asarray(other)
    if one.shape != other.shape or (one.dtype.kind == "f") != (other.dtype.kind == "f"):
        return False
    if not other.size:
        return True
    if other.dtype.kind != "f":
        return bool(np.mean(one != other) <= FLIPS)
    finite = np.isfinite(one) & np.isfinite(other)
    if not finite.any():
        return bool(np.array_equal(np.isnan(one), np.isnan(other)))
    scale = float(np.sqrt(np.mean(np.square(other[finite], dtype=np.float64))))
    distance = float(np.sqrt(np.mean(np.square(one[finite] - other[finite]))))
    return distance <= max(PLAUSIBLE * scale, absolute, float(np.finfo(np.float32).tiny))
