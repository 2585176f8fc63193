"""Running an ONNX model for reference: by onnx.reference with its results rounded, and by ONNX Runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_modelformats.compare import rounding, rounding_steps
from pytest_modelformats.errors import MissingDependency, RunError, Unsupported
from pytest_modelformats.schema import PRECISIONS
from pytest_modelformats.systems.onnx import graph as onnx_graph
from pytest_modelformats.systems.onnx.reference import operators
from pytest_modelformats.systems.onnxruntime.backend import missing_feature

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    import onnx

    from pytest_modelformats.schema.contract import Feed

    Outputs = list[list[np.ndarray]]

# The operators that multiply and sum, and how many of their first inputs are multiplied (Einsum: all of them).
PRODUCTS = {"MatMul": 2, "Gemm": 2, "Conv": 2, "ConvTranspose": 2, "DeformConv": 2, "Einsum": 99, "Attention": 3}
RECURRENT = frozenset({"LSTM", "GRU", "RNN"})


def run_reference(model: onnx.ModelProto, feeds: Sequence[Feed], precision: str | None) -> Outputs:
    """Run in the graph's own types; with a precision, every operator's result is rounded to it."""
    import numpy as np
    from onnx import inliner

    inlined = inliner.inline_local_functions(model) if model.functions else model
    evaluator = operators.evaluator()(inlined)
    if precision:
        _round_results(evaluator, precision)
    with np.errstate(all="ignore"):
        return [[np.asarray(y) for y in evaluator.run(None, dict(feed))] for feed in feeds]


class _Rounded:
    """An operator of the evaluator whose floating results, or for tf32 the operands of its products, are rounded."""

    def __init__(self, operator: Any, precision: str) -> None:
        self._operator = operator
        self._precision = precision

    def __getattr__(self, name: str) -> Any:
        return getattr(self._operator, name)

    def run(self, *inputs: Any, **keywords: Any) -> tuple[Any, ...]:
        kind = self._operator.onnx_node.op_type
        if kind in RECURRENT:  # many steps in one operator: each of them rounds
            inputs = tuple(rounding_steps.rounding_steps(v, self._precision) for v in inputs)
            return tuple(rounding_steps.plain(r) for r in self._operator.run(*inputs, **keywords))
        if not PRECISIONS[self._precision].operands_only:
            results = self._operator.run(*inputs, **keywords)
            return tuple(round_if_floating(r, self._precision) for r in results)
        operands = PRODUCTS.get(kind, 0)
        rounded = (round_if_floating(v, self._precision) for v in inputs[:operands])
        result: tuple[Any, ...] = self._operator.run(*rounded, *inputs[operands:], **keywords)
        return result


def round_if_floating(value: Any, precision: str) -> Any:
    """``value`` rounded to ``precision`` if it is a floating array, else as it is."""
    floating = getattr(getattr(value, "dtype", None), "kind", "") == "f"
    return rounding.rounded(value, precision) if floating else value


def _round_results(evaluator: Any, precision: str) -> None:
    """Wrap every operator, in the bodies of If, Loop and Scan too; Gelu and its like stay one operator each."""
    evaluator.rt_nodes_ = [_Rounded(operator, precision) for operator in evaluator.rt_nodes_]
    for wrapped in evaluator.rt_nodes_:
        for attribute in wrapped.onnx_node.attribute:
            body = getattr(wrapped, attribute.name, None) if attribute.HasField("g") else None
            if body is not None and hasattr(body, "rt_nodes_"):
                _round_results(body, precision)


def raised(feed: Feed) -> Feed:
    """The feed with half-precision arrays as float32, which is what the raised graph takes."""
    import numpy as np

    return {k: v.astype(np.float32) if v.dtype == np.float16 else v for k, v in feed.items()}


def run_ort(model: onnx.ModelProto, path: Path, feeds: Sequence[Feed]) -> Outputs:
    """ONNX Runtime on the CPU without graph optimisation, one thread."""
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        msg = "the reference of an ONNX model needs onnxruntime: pip install 'pytest-modelformats[onnxruntime]'"
        raise MissingDependency(msg) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(_serialised(model), options, providers=["CPUExecutionProvider"])
        single = {i.name for i in session.get_inputs() if i.type == "tensor(float)"}
        return [session.run(None, _as_single(raised(feed), single)) for feed in feeds]
    except Exception as error:  # its error classes share no base but Exception
        lacks = missing_feature(str(error), path.name, "CPU")
        if lacks:
            msg = f"the reference of '{path.name}' is made by onnxruntime {onnxruntime.__version__}, which {lacks}"
            raise Unsupported(msg) from error
        msg = f"ONNX Runtime cannot run the source '{path.name}': {onnx_graph.first_line(error)}"
        raise RunError(msg) from error


def _as_single(feed: Feed, names: set[str]) -> Feed:
    """The feed with float64 as float32 where a model takes that: one whose float64 parts were narrowed."""
    import numpy as np

    return {k: v.astype(np.float32) if k in names and v.dtype == np.float64 else v for k, v in feed.items()}


def _serialised(model: onnx.ModelProto) -> bytes:
    try:
        return bytes(model.SerializeToString())
    except ValueError as error:  # protobuf's 2 GiB limit
        msg = "the reference of an ONNX model above 2 GiB cannot be run from memory"
        raise Unsupported(msg) from error
