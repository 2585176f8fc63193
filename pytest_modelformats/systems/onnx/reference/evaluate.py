"""The reference of an ONNX model: its float64 truth, and what rounding costs it.

ONNX has an evaluator of its own, written in numpy: an upcast graph run by it is the truth.
Where it lacks an operator, computes one in float32 or strays from ONNX Runtime, the truth is
the fp32 run, fp32's noise is estimated by perturbing (design, section 5), and the others' is
that of ONNX Runtime with rounding nodes in the graph.

Noise by each method over that of PyTorch, on 36 random networks of nine families and a text
encoder: lowest, median, highest (``tests/compare/test_noise_methods.py`` prints and holds them).

=========  ================  ==================  ================
precision  onnx.reference    rounding in graph   perturbed
=========  ================  ==================  ================
fp32       0.67 1.05 1.44    (not used)          0.63 1.24 1.85
tf32       0.98 1.00 1.03    0.92 1.00 1.05      0.84 1.33 2.37
fp16       0.89 1.01 1.38    0.61 1.00 1.38      0.51 1.01 2.01
bf16       0.85 1.01 1.89    0.62 1.00 1.22      0.62 1.09 2.51
=========  ================  ==================  ================

On ResNet-50 they were 0.92 to 0.99, 0.98 to 0.99 and 0.96 to 1.26.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_modelformats.compare import rounding
from pytest_modelformats.errors import RunError, Unsupported
from pytest_modelformats.schema import PRECISIONS
from pytest_modelformats.schema.contract import AS_WRITTEN
from pytest_modelformats.systems.onnx import graph as onnx_graph
from pytest_modelformats.systems.onnx.reference import one_by_one
from pytest_modelformats.systems.onnx.reference import rounding as onnx_rounding
from pytest_modelformats.systems.onnx.reference import run as onnx_run

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    import numpy as np
    import onnx

    from pytest_modelformats.schema import Source
    from pytest_modelformats.schema.contract import Feed

    Outputs = list[list[np.ndarray]]

# Read in onnx 1.23's reference/ops: these compute in float32 whatever their inputs are, so an
# upcast graph holding one is no truth. Erf and DynamicQuantizeLinear do too and are replaced (operators.py).
FLOAT32_ONLY = frozenset({"AffineGrid", "CausalConvWithState", "GridSample", "LinearAttention", "TfIdfVectorizer"})
# Largest relative rms distance between the float64 evaluation and ONNX Runtime's fp32 run. fp32 rounding
# stays below 1e-4 on every net tried; an operator the evaluator gets wrong shifts the output by more than 1e-2.
PLAUSIBLE = 1e-2
FAR = "onnx.reference and ONNX Runtime differ by"
# Their floating constants say how large something is: a perturbed one would change shapes, not values.
SHAPE_OPERATORS = frozenset({"Resize", "Upsample", "Range", "OneHot", "NonMaxSuppression", "Pad"})
SEED = 20261123


@dataclass(frozen=True, slots=True)
class Truth:
    """The float64 outputs per feed and the fp32 ones beside them; ``trouble`` says why float64 could not be had."""

    float64: Outputs
    fp32: Outputs
    trouble: str


_last: dict[str, Truth] = {}  # one entry: the precisions of one source are asked for one after the other


def evaluate_onnx(source: Source, feeds: Sequence[Feed], precision: str) -> tuple[Outputs, str]:
    """The outputs per feed at ``float64`` or a precision's name, and one line that says by which method."""
    path = Path(source.location)
    if precision == AS_WRITTEN:
        return _as_written(path, feeds)
    truth = _truth(path, feeds)
    if precision == "float64":
        return _true(truth)
    change = rounding.weight_rounding(precision)
    if change is not None:
        model = _single(path)
        _round_constants(model, change, precision)
        return onnx_run.run_ort(model, path, feeds), f"{precision}: constants rounded to fp16, ONNX Runtime in fp32"
    if truth.trouble:
        return _estimated(path, feeds, precision, truth)
    if precision in ("fp32", "default"):
        return truth.fp32, "fp32: native, ONNX Runtime, graph optimisation disabled, 1 thread"
    return _run_rounded(
        _single(path), feeds, precision
    ), f"{_rounded_what(precision)} inside an fp32 onnx.reference run"


def _true(truth: Truth) -> tuple[Outputs, str]:
    if truth.trouble:
        return truth.fp32, f"estimated: fp32 run taken as truth ({truth.trouble})"
    return truth.float64, "float64: upcast graph, onnx.reference.ReferenceEvaluator"


def _as_written(path: Path, feeds: Sequence[Feed]) -> tuple[Outputs, str]:
    """In float64 where the file says float32, through every cast to a narrower type; raises Unsupported, RunError."""
    outputs, trouble = _float64(path, feeds, onnx_run.run_ort(onnx_graph.load_model(path), path, feeds), casts=True)
    if trouble:
        raise Unsupported(trouble)
    return outputs, "float64: upcast graph, its casts to narrower types kept, onnx.reference.ReferenceEvaluator"


def _rounded_what(precision: str) -> str:
    asked = PRECISIONS[precision]
    if asked.operands_only:
        return f"{precision}: operands of products and convolutions rounded to {asked.mantissa_bits} mantissa bits"
    return f"{precision}: every weight and operator result rounded to it"


def _estimated(path: Path, feeds: Sequence[Feed], precision: str, truth: Truth) -> tuple[Outputs, str]:
    """Without onnx.reference: rounded inside ONNX Runtime's graph, or perturbed where that cannot run.

    Raises: Unsupported where what is perturbed has no numbers in places where the source has them.
    """
    import onnx

    if precision in ("tf32", "fp16", "bf16"):
        try:
            return _rounded_graph(path, feeds, precision), f"{_rounded_what(precision)} by nodes added to the graph"
        except (RunError, Unsupported, ValueError, onnx.shape_inference.InferenceError):
            pass
    for what, products in (("inputs and weights", False), ("inputs and the weights of products", True)):
        outputs = _perturbed(path, feeds, precision, products=products)
        if rounding.keeps_numbers(truth.fp32, outputs):
            return outputs, f"estimated: {what} perturbed by one rounding unit of {precision}, run by ONNX Runtime"
    msg = (
        f"there is no float64 evaluation ({truth.trouble}), and the estimate in its place failed: "
        f"{rounding.NO_ESTIMATE.format(precision=precision)}"
    )
    raise Unsupported(msg)


def _rounded_graph(path: Path, feeds: Sequence[Feed], precision: str) -> Outputs:
    model = _single(path)
    model = onnx_rounding.insert_rounding(model, precision, frozenset(_sizes(model)))
    return onnx_run.run_ort(model, path, _round_weights(model, feeds, precision))


def _truth(path: Path, feeds: Sequence[Feed]) -> Truth:
    stat = path.stat()
    digest = hashlib.sha256(f"{path}\0{stat.st_mtime_ns}\0{stat.st_size}".encode())
    for feed in feeds:
        for name in sorted(feed):
            digest.update(f"{name}{feed[name].dtype}{feed[name].shape}".encode())
            digest.update(feed[name].tobytes())
    key = digest.hexdigest()
    if key not in _last:
        fp32 = onnx_run.run_ort(_single(path), path, feeds)
        float64, trouble = _float64(path, feeds, fp32)
        _last.clear()
        _last[key] = Truth(float64, fp32, trouble)
    return _last[key]


def _single(path: Path) -> onnx.ModelProto:
    """The model in fp32 throughout: its half-precision parts raised, and those in float64 narrowed.

    A part in float64 is no precision that fp32 could be asked for: what fp32 costs the model it costs there too.
    """
    from onnx import TensorProto

    model = onnx_graph.narrowed(onnx_graph.load_model(path))
    halves = onnx_graph.narrow_types(TensorProto.FLOAT)
    return onnx_graph.retype(model, TensorProto.FLOAT) if onnx_graph.holds(model, halves) else model


def _float64(path: Path, feeds: Sequence[Feed], fp32: Outputs, *, casts: bool = False) -> tuple[Outputs, str]:
    """The outputs of the upcast graph, or why they are not to be trusted; with ``casts`` narrower types stay."""
    import numpy as np
    from onnx import TensorProto

    model = onnx_graph.load_model(path)
    lossy = sorted({node.op_type for node in onnx_graph.nodes(model)} & FLOAT32_ONLY)
    if lossy:
        return [], f"onnx.reference computes {', '.join(lossy)} in float32"
    onnx_graph.retype(model, TensorProto.DOUBLE, frozenset({TensorProto.FLOAT} if casts else ()))
    doubles = [{k: v.astype(np.float64) if _is_floating(v) else v for k, v in feed.items()} for feed in feeds]
    try:
        outputs = onnx_run.run_reference(model, doubles, None)
    except Exception as error:  # noqa: BLE001 - the evaluator raises whatever numpy and its operators raise
        return [], f"onnx.reference cannot run it: {type(error).__name__}: {onnx_graph.first_line(error)}"
    for got, expected in zip(outputs, fp32, strict=True):
        for one, other in zip(got, expected, strict=True):
            trouble = _distance_trouble(one, other)
            # Far apart, and every operator alone is right: the model amplifies what fp32 rounds away.
            if trouble and not (trouble.startswith(FAR) and one_by_one.agree(path, feeds[0])):
                return [], trouble
    return outputs, ""


def _distance_trouble(got: np.ndarray, expected: np.ndarray) -> str:
    import numpy as np

    if got.shape != expected.shape:
        return f"onnx.reference gives the shape {got.shape}, ONNX Runtime {expected.shape}"
    if not _is_floating(expected):
        return ""
    if got.dtype != np.float64:
        return f"onnx.reference gives a {got.dtype} output for a float64 graph"
    finite = np.isfinite(got) & np.isfinite(expected)
    if got.size and not finite.any() and (np.isfinite(got).any() or np.isfinite(expected).any()):
        return "onnx.reference and ONNX Runtime are nowhere finite together"
    scale = float(np.sqrt(np.mean(np.square(expected[finite], dtype=np.float64)))) if finite.any() else 0.0
    distance = float(np.sqrt(np.mean(np.square(got[finite] - expected[finite])))) if finite.any() else 0.0
    if distance > PLAUSIBLE * scale and distance > np.finfo(np.float32).tiny:
        return f"{FAR} {distance / (scale or 1):.1e}"
    return ""


def _is_floating(array: np.ndarray) -> bool:
    return array.dtype.kind == "f"


def _run_rounded(model: onnx.ModelProto, feeds: Sequence[Feed], precision: str) -> Outputs:
    inputs = _round_weights(model, feeds, precision)
    try:
        return onnx_run.run_reference(model, inputs, precision)
    except Exception as error:
        msg = f"onnx.reference cannot run the model rounded to {precision}: {onnx_graph.first_line(error)}"
        raise Unsupported(msg) from error


def _round_weights(model: onnx.ModelProto, feeds: Sequence[Feed], precision: str) -> list[Feed]:
    """Round the weights in place, and return the feeds rounded; where only operands are, both stay as they are."""
    raised = [onnx_run.raised(feed) for feed in feeds]
    if PRECISIONS[precision].operands_only:
        return raised
    for _, tensor in _float_tensors(model):
        _replace(tensor, lambda weight: rounding.saturated(weight, precision))
    return [{k: onnx_run.round_if_floating(v, precision) for k, v in feed.items()} for feed in raised]


def _perturbed(path: Path, feeds: Sequence[Feed], precision: str, *, products: bool = False) -> Outputs:
    """The outputs with inputs and weights moved; ``products``: of the weights only those that are multiplied there."""
    import numpy as np

    generator = np.random.default_rng(SEED)
    model = _single(path)
    operands_only = PRECISIONS[precision].operands_only
    operands = onnx_rounding.weight_operands(model) if operands_only or products else None
    exponents = {node.input[1] for node in onnx_graph.nodes(model) if node.op_type == "Pow"}
    for name, tensor in _float_tensors(model, without=exponents):
        if operands is None or name in operands:
            _replace(tensor, lambda weight: rounding.perturbed(weight, precision, generator))
    inputs = [onnx_run.raised(feed) for feed in feeds]
    if not operands_only:
        inputs = [rounding.perturbed_feed(feed, precision, generator) for feed in inputs]
    return onnx_run.run_ort(model, path, inputs)


def _round_constants(model: onnx.ModelProto, change: Callable[[np.ndarray], np.ndarray], precision: str) -> None:
    """Round the weights in place; at a draw those that a converter may fold something into, and the others plainly.

    Raises: Unsupported at a draw of a model that has nothing to fold: there is one rounding of its weights.
    """
    folded = onnx_rounding.folded_weights(model) if "~" in precision else set()
    if "~" in precision and not folded:
        msg = "no weight of it meets a constant that a converter could fold into it"
        raise Unsupported(msg)
    for name, tensor in _float_tensors(model):
        _replace(tensor, change if name in folded or "~" not in precision else rounding.compressed)


def _float_tensors(model: onnx.ModelProto, without: Collection[str] = ()) -> list[tuple[str, onnx.TensorProto]]:
    """The float32 initialisers and Constant nodes that are values, not sizes, by the name that nodes know them by.

    Those named in ``without`` are left out.
    """
    from onnx import TensorProto

    found = [(t.name, t) for graph in onnx_graph.graphs(model) for t in graph.initializer]
    for node in onnx_graph.nodes(model):
        if node.op_type == "Constant":
            found.extend((node.output[0], a.t) for a in node.attribute if a.name == "value")
    left = _sizes(model).union(without)
    return [(name, tensor) for name, tensor in found if name not in left and tensor.data_type == TensorProto.FLOAT]


def _sizes(model: onnx.ModelProto) -> set[str]:
    return {name for node in onnx_graph.nodes(model) if node.op_type in SHAPE_OPERATORS for name in node.input}


def _replace(tensor: onnx.TensorProto, change: Callable[[np.ndarray], np.ndarray]) -> None:
    from onnx import numpy_helper

    tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor)), tensor.name))
