"""Searching artifacts whose operators tell which module they came from: by the results of the source's modules."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_modelformats.compare.truths import OutOfTimeError, Truths, complete, read, timer
from pytest_modelformats.errors import Unsupported
from pytest_modelformats.schema import Source
from pytest_modelformats.systems.torch.localise import intermediates
from pytest_modelformats.systems.torch.reference.calling import unwrapped

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


def record(
    *, source: dict[str, Any], feed: dict[str, str], precision: str, truths: str, seconds: float
) -> dict[str, Any]:
    """Every module's result is written; ``reason`` says why not."""
    from pytest_modelformats.systems.torch.loading.load import load_module

    if complete(Path(truths)):
        return {"reason": ""}
    arrays, check = read(feed), timer(seconds)
    try:
        intermediates.record(load_module(Source.from_json(source)), arrays, precision, Path(truths), check)
    except (OutOfTimeError, Unsupported) as error:
        return {"reason": str(error)}
    return {"reason": ""}


def last_of_modules(paths: Iterable[str], known: Truths) -> dict[int, str]:
    """Of operators in topological order and the modules they came from: the last of each module whose result is known.

    Where several modules end with one operator, the innermost one names it.
    """
    last: dict[str, int] = {}
    for index, path in enumerate(paths):
        parts = path.split(".") if path else []
        last.update({".".join(parts[: size + 1]): index for size in range(len(parts))})
    found: dict[int, str] = {}
    for path in sorted(last, key=len, reverse=True):
        if path in known:
            found.setdefault(last[path], path)
    return dict(sorted(found.items()))


def exported_program(
    *,
    source: dict[str, Any],
    artifact: str,
    feed: dict[str, str],
    precision: str,
    truths: str,
    seconds: float,
    limit: float,
) -> dict[str, Any]:
    """The first module of a ``.pt2`` whose result is wrong, run node by node by torch.fx."""
    import torch

    from pytest_modelformats.systems.torch.loading.load import load_module
    from pytest_modelformats.systems.torch.loading.programs import load_exported
    from pytest_modelformats.systems.torch.reference.calling import arguments, plain_kernels, to_numpy, to_tensor

    told = record(source=source, feed=feed, precision=precision, truths=truths, seconds=seconds)
    if told["reason"]:
        return {"found": None, "compared": 0, **told}
    known = Truths(Path(truths))
    module: Any = load_exported(Path(artifact), trust=True)[1]
    nodes = list(module.graph.nodes)
    places = last_of_modules([_scope(node) for node in nodes], known)
    named = {nodes[index].name: path for index, path in places.items()}
    errors: dict[str, float] = {}
    dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)

    class Looking(torch.fx.Interpreter):  # type: ignore[misc] # torch is untyped here
        def run_node(self, node: Any) -> Any:
            result = super().run_node(node)
            tensor = intermediates.first_tensor(result)
            if node.name in named and tensor is not None:
                errors[node.name] = known.distance(named[node.name], to_numpy(tensor.float())).ratio
            return result

    tensors = {n: to_tensor(a) for n, a in read(feed).items()}
    tensors = {n: t.to(dtype) if t.is_floating_point() else t for n, t in tensors.items()}
    args, kwargs = arguments(module, tensors)
    with plain_kernels():
        Looking(module).run(*torch.utils._pytree.tree_leaves((args, kwargs)))  # noqa: SLF001 - the program takes leaves
    order = [(node.name, named[node.name]) for node in nodes if node.name in errors]
    found = first_wrong(order, errors, known, limit)
    if found is not None:
        weights = load_module(Source.from_json(source)).state_dict()
        found["how"] = other_weight(found["module"], module.state_dict(), weights)
    reason = "" if found else f"{len(errors)} modules give what the source's give"
    return {"found": found, "reason": reason, "compared": len(errors)}


def _scope(node: Any) -> str:
    """The module that a node came from, "" where it does not tell or takes part in no computation."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return unwrapped(stack[-1][0]) if stack and node.op == "call_function" else ""


def other_weight(path: str, mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    """Say which weight of a module differs from the source's, and in how many elements; "" where none does."""
    import torch

    own = {unwrapped(name): value for name, value in mine.items()}
    for name, value in theirs.items():
        other = own.get(name)
        if name.rpartition(".")[0] == path and other is not None and other.shape == value.shape:
            count = int(torch.count_nonzero(other != value.to(other.dtype)))
            if count:
                return f"'{name}' differs from the source's in {count} of {value.numel()} elements"
    return ""


def first_wrong(
    order: Sequence[tuple[str, str]], errors: Mapping[str, float], known: Truths, limit: float
) -> dict[str, Any] | None:
    """The first wrong one of (operator's name, what it should equal), with the largest error before it."""
    before = 0.0
    for index, (name, path) in enumerate(order):
        ratio = errors[name]
        if ratio > limit:
            return {
                "operator": known.known[path].operator,
                "node": name,
                "module": path,
                "output": path,
                "input_error": before,
                "output_error": ratio if math.isfinite(ratio) else None,
                "how": "",
                "missing": [],
                "before": [earlier for earlier, _ in order[max(0, index - 6) : index]],
            }
        before = max(before, ratio)
    return None
