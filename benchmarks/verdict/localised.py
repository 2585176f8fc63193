"""How well the product names the place of a fault: first, near, or not at all."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

    from benchmarks.verdict.cases import Case
    from benchmarks.verdict.product import Judged


def distance(model: onnx.ModelProto, named: str, true: tuple[str, ...]) -> int | None:
    """Edges between the node that was named and the nearest true one; ``None`` where there is no way.

    Nodes are neighbours where one reads what the other writes.
    """
    writer = {out: node.name for node in model.graph.node for out in node.output}
    edges: dict[str, set[str]] = {node.name: set() for node in model.graph.node}
    for node in model.graph.node:
        for name in node.input:
            if name in writer:
                edges[node.name].add(writer[name])
                edges[writer[name]].add(node.name)
    queue, seen = deque([(named, 0)]), {named}
    while queue:
        node, steps = queue.popleft()
        if node in true:
            return steps
        for other in edges.get(node, ()):
            if other not in seen:
                seen.add(other)
                queue.append((other, steps + 1))
    return None


def located(case: Case, judged: Judged) -> int | str:
    """The distance in edges (0: named first), "elsewhere" without a path, "not located" without a statement.

    TorchScript has module paths: 0 for the module itself or one inside or around it that is named.
    """
    said = judged.localisation
    if not said or not (said.get("node") or said.get("module")):
        return "not located"
    if case.form == "torchscript":
        module = said.get("module") or said.get("node") or ""
        near = module == case.node or module.startswith(f"{case.node}.")
        return 0 if near else "elsewhere"
    import onnx

    steps = distance(onnx.load(case.path), said.get("node", ""), case.touched)
    return "elsewhere" if steps is None else steps
