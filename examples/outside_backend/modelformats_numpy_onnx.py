"""ONNX run by ``onnx.reference.ReferenceEvaluator``: NumPy, one operator after another, as the standard says.

Too slow to ship, and independent of every runtime: a second opinion on what a graph computes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_modelformats.errors import RunError, Unsupported
from pytest_modelformats.schema import Backend, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np

    from pytest_modelformats.schema.contract import Feed, SessionJob

BACKEND = Backend(
    name="onnx-reference",
    title="ONNX reference evaluator",
    worker="onnx-reference",
    precisions={("onnx", "fp32"): ("fp32",)},
    devices=("cpu",),
    entry="modelformats_numpy_onnx:open_session",
    requires=("onnx",),
    install="pip install modelformats-numpy-onnx",
    libraries=("onnx",),
)


def open_session(job: SessionJob) -> ReferenceSession:
    """Read the graph and bind every operator to its NumPy implementation.

    Raises: Unsupported (names the operator), RunError.
    """
    import onnx
    from onnx.reference import ReferenceEvaluator

    try:
        model = onnx.load(str(job.artifact))
        evaluator = ReferenceEvaluator(model)
    except NotImplementedError as error:  # its base class for an operator that has no implementation
        raise Unsupported(f"onnx {onnx.__version__}: {_first_line(error)}") from error
    except Exception as error:  # protobuf and the evaluator raise classes without a common base
        raise RunError(f"onnx cannot open '{job.artifact.name}': {_first_line(error)}") from error
    # Weights may be listed among a graph's inputs; they are not fed.
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [_spec(value) for value in model.graph.input if value.name not in weights]
    return ReferenceSession(evaluator, inputs, [_spec(value) for value in model.graph.output], str(onnx.__version__))


class ReferenceSession:
    """A graph that is evaluated operator by operator."""

    def __init__(
        self, evaluator: Any, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], version: str
    ) -> None:
        """Take over an evaluator."""
        self.inputs = inputs
        self.outputs = outputs
        self.statement = {"evaluator": "onnx.reference", "version": version}
        self._evaluator = evaluator

    def run(self, feed: Feed) -> list[np.ndarray]:
        """Run once; raises RunError with what the operator says."""
        import numpy as np

        try:
            return [np.asarray(output) for output in self._evaluator.run(None, dict(feed))]
        except Exception as error:  # an operator's implementation may raise anything
            raise RunError(f"the reference evaluator raised while running: {_first_line(error)}") from error

    def bind(self, feed: Feed) -> Callable[[], object]:
        """NumPy's arrays are the runtime's own tensors: there is nothing to hand over."""
        held = dict(feed)
        run = self._evaluator.run
        return lambda: run(None, held)

    def close(self) -> None:
        """Drop the evaluator and its weights."""
        self._evaluator = None


def _spec(value: Any) -> TensorSpec:
    """The declaration of a graph's input or output; a dimension that may vary is its symbol, or ``?``."""
    from onnx.helper import tensor_dtype_to_np_dtype

    tensor = value.type.tensor_type
    dims = [dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?" for dim in tensor.shape.dim]
    shape = tuple(dims) if tensor.HasField("shape") else None
    return TensorSpec(value.name, tensor_dtype_to_np_dtype(tensor.elem_type).name, shape)


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
