"""An ONNX graph that faults are put into: find nodes and constants, replace what they hold, insert nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable

    import numpy as np
    import onnx

WEIGHTED = frozenset({"Conv", "Gemm", "MatMul", "LSTM", "GRU", "Gather"})


class NoSite(Exception):  # no error: the graph has nothing that this fault could be put into
    """The graph holds no place for this fault."""


class Fault(NamedTuple):
    """One class of faults; ``inject`` edits the graph and returns the name of the node it was put in ("" for all)."""

    name: str
    inject: Callable[[Graph, random.Random], str]


FAULTS: dict[str, Fault] = {}


def fault(name: str) -> Callable[[Callable[[Graph, random.Random], str]], Callable[[Graph, random.Random], str]]:
    """Enter a function into the table of fault classes."""

    def enter(inject: Callable[[Graph, random.Random], str]) -> Callable[[Graph, random.Random], str]:
        FAULTS[name] = Fault(name, inject)
        return inject

    return enter


class Graph:
    """A copy of a model whose nodes and initialisers can be looked up and changed."""

    def __init__(self, model: onnx.ModelProto) -> None:
        """Copy the model; shapes are inferred once, from the correct graph."""
        import onnx

        self.model = onnx.ModelProto()
        self.model.CopyFrom(model)
        self.graph = self.model.graph
        inferred = onnx.shape_inference.infer_shapes(model).graph
        values = [*inferred.value_info, *inferred.input, *inferred.output]
        self._shapes = {
            v.name: [d.dim_value if d.HasField("dim_value") else None for d in v.type.tensor_type.shape.dim]
            for v in values
            if v.type.tensor_type.HasField("shape")
        }

    @property
    def nodes(self) -> list[onnx.NodeProto]:
        """The nodes in their order."""
        return list(self.graph.node)

    def of(self, *types: str) -> list[onnx.NodeProto]:
        """The nodes of these operator types; raises NoSite where there is none."""
        return some(node for node in self.graph.node if node.op_type in types)

    def constants(self) -> dict[str, np.ndarray]:
        """Every initialiser by name."""
        from onnx import numpy_helper

        return {t.name: numpy_helper.to_array(t) for t in self.graph.initializer}

    def constant(self, name: str) -> np.ndarray | None:
        """The value of an initialiser, ``None`` where the name is none's."""
        from onnx import numpy_helper

        return next((numpy_helper.to_array(t) for t in self.graph.initializer if t.name == name), None)

    def set_constant(self, name: str, value: np.ndarray) -> None:
        """Write another value into an initialiser."""
        from onnx import numpy_helper

        tensor = next(t for t in self.graph.initializer if t.name == name)
        tensor.CopyFrom(numpy_helper.from_array(value, name))

    def add_constant(self, value: np.ndarray, stem: str) -> str:
        """A new initialiser; returns its name."""
        from onnx import numpy_helper

        name = f"fault_{stem}_{len(self.graph.initializer)}"
        self.graph.initializer.append(numpy_helper.from_array(value, name))
        return name

    def set_own_constant(self, node: onnx.NodeProto, index: int, value: np.ndarray) -> None:
        """Give a node another constant as its input, without touching the other nodes that share the old one."""
        node.input[index] = self.add_constant(value, "constant")

    def shape(self, tensor: str) -> list[int | None]:
        """The inferred shape, ``None`` for a dimension that varies; empty where it is not known."""
        return list(self._shapes.get(tensor, []))

    def consumers(self, tensor: str) -> list[onnx.NodeProto]:
        """The nodes that read a tensor."""
        return [node for node in self.graph.node if tensor in node.input]

    def weights(self) -> list[tuple[onnx.NodeProto, int, np.ndarray]]:
        """Every floating weight of two or more dimensions: its node, which input it is, its value."""
        import numpy as np

        found = []
        for node in self.graph.node:
            for index, name in enumerate(node.input):
                value = self.constant(name) if node.op_type in WEIGHTED else None
                if value is not None and value.dtype == np.float32 and value.ndim > 1 and value.size > 1:
                    found.append((node, index, value))
        return some(found)

    def before(self, node: onnx.NodeProto, index: int, types: str, more: Iterable[str] = (), **attributes: Any) -> str:
        """Put a new node between a node's input and the node; returns the new node's name."""
        from onnx import helper

        name = f"{node.name}_before_{types}_{index}"
        new = helper.make_node(types, [node.input[index], *more], [f"{name}_out"], name=name, **attributes)
        self.graph.node.insert(self.nodes.index(node), new)
        node.input[index] = new.output[0]
        return name

    def after(self, node: onnx.NodeProto, types: str, more: Iterable[str] = (), **attributes: Any) -> str:
        """Put a new node behind a node's first output, under the same tensor name; returns the new node's name."""
        from onnx import helper

        name, out = f"{node.name}_after_{types}", node.output[0]
        node.output[0] = f"{name}_in"
        new = helper.make_node(types, [node.output[0], *more], [out], name=name, **attributes)
        self.graph.node.insert(self.nodes.index(node) + 1, new)
        return name

    def replace(self, node: onnx.NodeProto, *new: onnx.NodeProto) -> None:
        """Put other nodes where a node was; the last of them carries the node's name."""
        place = self.nodes.index(node)
        new[-1].name = node.name
        for offset, one in enumerate(new[:-1]):
            one.name = f"{node.name}_part_{offset}"
        self.graph.node.remove(node)
        for one in reversed(new):
            self.graph.node.insert(place, one)


def some(found: Iterable[Any]) -> list[Any]:
    """The list; raises NoSite where it is empty."""
    items = list(found)
    if not items:
        raise NoSite
    return items


def attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """The value of a node's attribute."""
    from onnx import helper

    found = next((a for a in node.attribute if a.name == name), None)
    return default if found is None else helper.get_attribute_value(found)


def set_attribute(node: onnx.NodeProto, name: str, value: Any) -> None:
    """Give a node's attribute another value."""
    from onnx import helper

    for old in [a for a in node.attribute if a.name == name]:
        node.attribute.remove(old)
    node.attribute.append(helper.make_attribute(name, value))
