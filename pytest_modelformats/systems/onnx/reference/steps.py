"""An ONNX graph evaluated node by node, in float64 or at a precision, with few tensors alive at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_modelformats.compare import rounding
from pytest_modelformats.schema import PRECISIONS
from pytest_modelformats.schema.contract import AS_WRITTEN
from pytest_modelformats.systems.onnx import graph as onnx_graph
from pytest_modelformats.systems.onnx.reference import operators
from pytest_modelformats.systems.onnx.reference import run as onnx_run

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy as np
    import onnx

    from pytest_modelformats.systems.onnx.reference.lazy import LazyModel


class Steps:
    """The nodes of a model, each run on its own; results that no later node takes are let go."""

    def __init__(self, model: LazyModel, precision: str) -> None:
        """``precision`` is one that results are rounded to inside an fp32 run, ``float64`` or ``AS_WRITTEN``."""
        from onnx import TensorProto

        self.model = model
        self.wide = precision in ("float64", AS_WRITTEN)
        self._weights_only = precision.endswith("-weights")
        self._precision = "" if self.wide or precision in ("fp32", "default") else precision
        graph = type(model.structure)()
        graph.CopyFrom(model.structure)
        kept = frozenset({TensorProto.FLOAT} if precision == AS_WRITTEN else ())
        onnx_graph.retype(graph, TensorProto.DOUBLE if self.wide else TensorProto.FLOAT, kept)
        evaluator = operators.evaluator()(graph if self.wide else onnx_graph.narrowed(graph))
        if self._precision and not self._weights_only:
            onnx_run._round_results(evaluator, self._precision)  # noqa: SLF001 - as for the noise of the outputs
        self.operators = evaluator.rt_nodes_
        self._free = [captured(node) for node in model.nodes]
        self._last = _last_uses(model.nodes, self._free)
        self.values: dict[str, Any] = {}

    def feed(self, feed: Mapping[str, np.ndarray]) -> None:
        """Start with these inputs."""
        self.values = {name: self._cast(array, rounds=not self._weights_only) for name, array in feed.items()}

    def step(self, index: int) -> dict[str, Any]:
        """The outputs of a node on the results so far, by name; they count among the results from here on."""
        outputs = self.run(index, self.values)
        self.values.update(outputs)
        return outputs

    def release(self, index: int) -> None:
        """Let go of what only this node and those before it take."""
        for name in self._last.get(index, ()):
            self.values.pop(name, None)

    def run(self, index: int, given: Mapping[str, Any]) -> dict[str, Any]:
        """The outputs of a node on given values, by name; weights are read for it alone."""
        import numpy as np

        node, operator = self.model.nodes[index], self.operators[index]
        inputs = [self._value(name, given) for name in node.input]
        more: dict[str, Any] = {}
        if operator.need_context():
            more["context"] = {name: self._value(name, given) for name in self._free[index]}
        with np.errstate(all="ignore"):
            results = operator.run(*inputs, **more)
        if self._weights_only and node.op_type == "Constant":
            results = [self._cast(value, rounds=True) for value in results]
        return {name: value for name, value in zip(node.output, results, strict=False) if name}

    def _value(self, name: str, given: Mapping[str, Any]) -> Any:
        if not name:
            return None
        if name in given:
            return given[name]
        return self._cast(self.model.weight(name), rounds=True)

    def _cast(self, array: np.ndarray, *, rounds: bool) -> np.ndarray:
        import numpy as np

        if array.dtype.kind != "f" and array.dtype.name != "bfloat16":
            return array
        if self.wide:
            return array.astype(np.float64)
        single = array.astype(np.float32)
        if not self._precision or not rounds or PRECISIONS[self._precision].operands_only:
            return single
        return rounding.compressed(single) if self._weights_only else rounding.saturated(single, self._precision)


def captured(node: onnx.NodeProto) -> list[str]:
    """The names that the bodies of a node (If, Loop, Scan) take from outside of it."""
    found: list[str] = []
    for attribute in node.attribute:
        for body in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
            own = {v.name for v in body.input} | {t.name for t in body.initializer}
            for inner in body.node:
                found += [n for n in (*inner.input, *captured(inner)) if n and n not in own]
                own.update(inner.output)
            found += [v.name for v in body.output if v.name not in own]
    return list(dict.fromkeys(found))


def takes(node: onnx.NodeProto) -> list[str]:
    """Every name that a node needs, its bodies' included."""
    return [name for name in (*node.input, *captured(node)) if name]


def dependent(nodes: Sequence[onnx.NodeProto], inputs: Sequence[str]) -> set[str]:
    """The tensors that depend on what is fed; all others are constants, however they are written."""
    found = set(inputs)
    for node in nodes:
        if found.intersection(takes(node)):
            found.update(name for name in node.output if name)
    return found


def _last_uses(nodes: Sequence[onnx.NodeProto], free: Sequence[Sequence[str]]) -> dict[int, list[str]]:
    last: dict[str, int] = {}
    for index, node in enumerate(nodes):
        for name in (*node.output, *node.input, *free[index]):
            last[name] = index
    uses: dict[int, list[str]] = {}
    for name, index in last.items():
        uses.setdefault(index, []).append(name)
    return uses


def walk(steps: Sequence[Steps], feed: Mapping[str, np.ndarray]) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Every node in turn, run by each of ``steps`` beside one another: (index, the outputs of each)."""
    for one in steps:
        one.feed(feed)
    for index in range(len(steps[0].operators)):
        yield index, [one.step(index) for one in steps]
        for one in steps:
            one.release(index)
