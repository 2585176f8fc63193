"""Which tensors of an ONNX graph are the results of the source's modules, by the exporter's metadata."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_modelformats.systems.onnx.localise import scopes as onnx_scopes
from pytest_modelformats.systems.onnx.reference import steps as onnx_steps
from pytest_modelformats.systems.torch.reference.calling import unwrapped

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx

    from pytest_modelformats.compare.truths import Truths
    from pytest_modelformats.systems.onnx.reference.lazy import LazyModel


class ModuleMatch:
    """Matches the last node that came from a module with that module's result."""

    named = True
    alien = ""

    def __init__(self, model: LazyModel, truths: Truths, weights: Mapping[str, Any]) -> None:
        """``weights`` is the source's state_dict."""
        self._model, self._weights = model, weights
        self.inputs: dict[str, str] = {}
        self.outputs: dict[str, str] = {}
        self.tensors: dict[str, str] = {}
        last: dict[str, int] = {}
        dependent = onnx_steps.dependent(model.nodes, model.inputs)
        for index, node in enumerate(model.nodes):
            path = onnx_scopes.module_of(node)
            if not path or not dependent.intersection(node.output):
                continue
            parts = path.split(".")
            last.update({".".join(parts[: size + 1]): index for size in range(len(parts))})
        # The innermost module whose last node it is names a tensor: what is around it returns the same.
        for path in sorted(last, key=len, reverse=True):
            if path in truths:
                self.tensors.setdefault(model.nodes[last[path]].output[0], path)

    def twin(self, node: onnx.NodeProto, /) -> object:
        """Nothing: modules are no nodes."""
        del node
        return None

    def missing(self, node: onnx.NodeProto, /) -> list[onnx.NodeProto]:
        """Nothing that could be named."""
        del node
        return []

    def wiring(self, node: onnx.NodeProto, /) -> list[str]:
        """Nothing that could be said of modules."""
        del node
        return []

    def difference(self, node: onnx.NodeProto, /) -> str:
        """Which of the module's own weights is another one in the graph, in words; fused ones cannot be compared."""
        import numpy as np

        from pytest_modelformats.systems.torch.reference.calling import to_numpy

        module = onnx_scopes.module_of(node)
        for name in node.input:
            own = unwrapped(name)
            if own.rpartition(".")[0] != module or own not in self._weights or name not in self._model.tensors:
                continue
            mine, theirs = self._model.weight(name), to_numpy(self._weights[own])
            if mine.shape != theirs.shape:
                return f"'{own}' has shape {list(mine.shape)}, in the source {list(theirs.shape)}"
            count = int(np.count_nonzero(mine != theirs.astype(mine.dtype)))
            if count:
                return f"'{own}' differs from the source's in {count} of {mine.size} elements"
        return ""
