"""The order and the names of an ONNX graph's nodes, in its If, Loop and Scan bodies too."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from pytest_modelformats.systems.onnx import graph as onnx_graph

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import onnx

OWN_DOMAIN = ("", "ai.onnx")
_OPSET_OF_CASTS = 13  # the first with a Cast that every later runtime has as it is
_WEIGHTS_ARE_INPUTS = 4  # below this IR version. Source: ONNX's IR.md, "Initializers"


def bodies(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs that a node carries itself."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def prepare(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its local functions inlined and every node named, no two alike.

    The converters know no functions, and call what they insert after the node that it is for: of two nameless nodes
    they make two tensors of one name, or connect one with the other's input. Weights are no inputs, which old files
    list them as: they would be kept in fp32 like inputs. :func:`list_weights` adds them again. A model that has no
    operator of ONNX's own imports them, for the casts.
    """
    from onnx import helper

    if model.functions:
        from onnx import inliner

        model = inliner.inline_local_functions(model)
    nodes = list(onnx_graph.nodes(model))
    held = Counter(node.name for node in nodes)
    taken = set(held)
    for number, node in enumerate(nodes):
        if not node.name or held[node.name] > 1:
            node.name = unused(f"{node.op_type}_{number}", taken)
    if not any(entry.domain in OWN_DOMAIN for entry in model.opset_import):
        model.opset_import.append(helper.make_opsetid("", _OPSET_OF_CASTS))
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    if len(inputs) < len(model.graph.input):
        copies = [type(value).FromString(value.SerializeToString()) for value in inputs]
        del model.graph.input[:]
        model.graph.input.extend(copies)
    return model


def list_weights(half: onnx.ModelProto, source: onnx.ModelProto) -> None:
    """List the weights as inputs where the source does: before IR version 4 every one, else those that it lists."""
    from onnx import helper

    listed = {value.name for value in source.graph.input}
    for tensor in half.graph.initializer:
        if tensor.name in listed or half.ir_version < _WEIGHTS_ARE_INPUTS:
            listed.discard(tensor.name)
            half.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))


def unused(name: str, taken: set[str]) -> str:
    """The name, or the first numbered one that is not taken; it is taken from then on."""
    number, found = 1, name
    while found in taken:
        number, found = number + 1, f"{name}_{number}"
    taken.add(found)
    return found


def sort(graph: onnx.GraphProto) -> bool:
    """Put the nodes of a graph and its bodies behind what they need; say whether any had to move.

    Nodes that need nothing of each other keep their order. Those of a circle stay last, for the checker to name.
    """
    moved = False
    for node in graph.node:
        for body in bodies(node):
            moved = sort(body) or moved
    ordered = _ordered(graph)
    if ordered == list(range(len(graph.node))):
        return moved
    replace(graph, [graph.node[i] for i in ordered])
    return True


def replace(graph: onnx.GraphProto, nodes: Sequence[onnx.NodeProto]) -> None:
    """Let these be the graph's nodes, some of which may be so already."""
    copies = [type(node).FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)


def _ordered(graph: onnx.GraphProto) -> list[int]:
    made_by = {name: i for i, node in enumerate(graph.node) for name in node.output if name}
    users, missing = defaultdict[int, list[int]](list), []
    for i, node in enumerate(graph.node):
        needed = {made_by[name] for name in needs(node) if name in made_by} - {i}
        missing.append(len(needed))
        for other in needed:
            users[other].append(i)
    ready = [i for i, count in enumerate(missing) if not count]
    ordered = []
    while ready:
        ordered.append(heapq.heappop(ready))
        for user in users[ordered[-1]]:
            missing[user] -= 1
            if not missing[user]:
                heapq.heappush(ready, user)
    done = set(ordered)
    return ordered + [i for i in range(len(graph.node)) if i not in done]


def needs(node: onnx.NodeProto) -> Iterator[str]:
    """The names that a node takes, those that its bodies take from around it included."""
    yield from (name for name in node.input if name)
    for body in bodies(node):
        for inner in body.node:
            yield from needs(inner)
        yield from (value.name for value in body.output)


def interface(half: onnx.ModelProto, source: onnx.ModelProto) -> Iterator[tuple[onnx.ValueInfoProto, int]]:
    """The inputs and outputs that state another element type than the source's, and the source's."""
    weights = {tensor.name for tensor in half.graph.initializer}
    stated = {v.name: v.type for v in (*source.graph.input, *source.graph.output)}
    for value in (*half.graph.input, *half.graph.output):
        kind = stated.get(value.name)
        if value.name in weights or kind is None or not kind.HasField("tensor_type"):
            continue
        if value.type.tensor_type.elem_type != kind.tensor_type.elem_type:
            yield value, kind.tensor_type.elem_type


def state_interface(half: onnx.ModelProto, source: onnx.ModelProto) -> None:
    """Let the inputs and outputs state the source's element types."""
    for value, element_type in interface(half, source):
        value.type.tensor_type.elem_type = element_type


def names(model: onnx.ModelProto) -> set[str]:
    """Every name of a node or value."""
    found = {node.name for node in onnx_graph.nodes(model)}
    found.update(name for node in onnx_graph.nodes(model) for name in node.output)
    for graph in onnx_graph.graphs(model):
        found.update(value.name for value in (*graph.input, *graph.initializer))
    return found


def constants(model: onnx.ModelProto, element_type: int) -> dict[str, onnx.TensorProto]:
    """The constants of an element type by name, initialisers and Constant nodes; none whose name stands for two."""
    found = [(tensor.name, tensor) for graph in onnx_graph.graphs(model) for tensor in graph.initializer]
    for node in onnx_graph.nodes(model):
        if node.op_type == "Constant":
            found += [(node.output[0], a.t) for a in node.attribute if a.name == "value"]
    times = Counter(name for name, _ in found)
    return {name: t for name, t in found if times[name] == 1 and t.data_type == element_type}


def rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Call a value of a graph otherwise, where it is made and wherever it is taken, but not as the graph's output."""
    for tensor in graph.initializer:
        tensor.name = new if tensor.name == old else tensor.name
    for node in graph.node:
        for names_of_node in (node.input, node.output):
            for position, name in enumerate(names_of_node):
                if name == old:
                    names_of_node[position] = new
        for body in bodies(node):
            rename(body, old, new)
            for value in body.output:
                value.name = new if value.name == old else value.name
