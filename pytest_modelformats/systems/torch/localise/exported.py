"""Searching artifacts whose operators tell which module they came from: by the results of the source's modules."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_modelformats.errors import Unsupported
from pytest_modelformats.schema import Source
from pytest_modelformats.systems.onnx.localise import requests as onnx_localise
from pytest_modelformats.systems.onnx.localise import truths as onnx_truths
from pytest_modelformats.systems.onnx.localise.scopes import unwrapped
from pytest_modelformats.systems.torch.localise import intermediates

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import numpy as np

# OpenVINO's PyTorch frontend calls operators __module.layer3.2.conv1/aten::_convolution/Convolution.
_OPENVINO = re.compile(r"^__module\.([^/]+)/")
# OpenVINO moves a module's last scale or bias into one that follows it (``linear(x) * 0.5``): the sum is then named by
# what follows. It may do so past these.
_SCALES = frozenset({"Add", "Subtract", "Multiply", "Divide"})
_SAME_VALUES = frozenset({"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Convert"})
# A scale and a bias fit two values always; of so many per channel an error that is none of theirs is left over.
_TELLING = 4


def record(
    *, source: dict[str, Any], feed: dict[str, str], precision: str, truths: str, seconds: float
) -> dict[str, Any]:
    """Every module's result is written; ``reason`` says why not."""
    from pytest_modelformats.systems.torch.loading.load import load_module

    if onnx_truths.complete(Path(truths)):
        return {"reason": ""}
    arrays, check = onnx_localise.read(feed), onnx_localise.timer(seconds)
    try:
        intermediates.record(load_module(Source.from_json(source)), arrays, precision, Path(truths), check)
    except (onnx_localise.OutOfTimeError, Unsupported) as error:
        return {"reason": str(error)}
    return {"reason": ""}


def last_of_modules(paths: Iterable[str], known: onnx_truths.Truths) -> dict[int, str]:
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
    known = onnx_truths.Truths(Path(truths))
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

    tensors = {n: to_tensor(a) for n, a in onnx_localise.read(feed).items()}
    tensors = {n: t.to(dtype) if t.is_floating_point() else t for n, t in tensors.items()}
    args, kwargs = arguments(module, tensors)
    with plain_kernels():
        Looking(module).run(*torch.utils._pytree.tree_leaves((args, kwargs)))  # noqa: SLF001 - the program takes leaves
    order = [(node.name, named[node.name]) for node in nodes if node.name in errors]
    found = _first(order, errors, known, limit)
    if found is not None:
        weights = load_module(Source.from_json(source)).state_dict()
        found["how"] = _other_weight(found["module"], module.state_dict(), weights)
    reason = "" if found else f"{len(errors)} modules give what the source's give"
    return {"found": found, "reason": reason, "compared": len(errors)}


def _scope(node: Any) -> str:
    """The module that a node came from, "" where it does not tell or takes part in no computation."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return unwrapped(stack[-1][0]) if stack and node.op == "call_function" else ""


def _other_weight(path: str, mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    import torch

    own = {unwrapped(name): value for name, value in mine.items()}
    for name, value in theirs.items():
        other = own.get(name)
        if name.rpartition(".")[0] == path and other is not None and other.shape == value.shape:
            count = int(torch.count_nonzero(other != value.to(other.dtype)))
            if count:
                return f"'{name}' differs from the source's in {count} of {value.numel()} elements"
    return ""


def _first(
    order: Sequence[tuple[str, str]], errors: Mapping[str, float], known: onnx_truths.Truths, limit: float
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


def plan_openvino(*, artifact: str, truths: str) -> dict[str, Any]:
    """The operators of an IR whose results are known, in topological order.

    Each is (friendly name, what it should equal, type, "loose" where a last scale or bias may stand elsewhere).
    Known are the results of the source's modules, or the tensors of its ONNX graph, whose names an IR keeps.
    """
    import openvino

    known = onnx_truths.Truths(Path(truths))
    ops = openvino.Core().read_model(artifact).get_ordered_ops()
    paths = []
    tensors: dict[int, str] = {}
    for index, op in enumerate(ops):
        match = _OPENVINO.match(op.get_friendly_name())
        paths.append(unwrapped(match[1]) if match else "")
        if op.get_type_name() in ("Parameter", "Constant", "Result"):
            continue
        name = next((n for n in sorted(op.output(0).get_names()) if n in known), "")
        if name and known.known[name].operator:
            tensors[index] = name
    places = dict(sorted({**tensors, **last_of_modules(paths, known)}.items()))
    floating = {i: name for i, name in places.items() if known.known[name].floating}
    loose = {i: "loose" if i not in tensors and _is_loose(ops[i]) else "" for i in floating}
    return {
        "operators": [
            [ops[i].get_friendly_name(), name, ops[i].get_type_name(), loose[i]] for i, name in floating.items()
        ]
    }


def _is_loose(op: Any) -> bool:
    """Whether a scale or a bias follows that may hold what was the last of the operator's module."""
    name = op.get_friendly_name()
    if op.get_type_name() == "Add" and "/aten::add" not in name:
        return False  # the bias of a layer stands at its end
    waiting = [op]
    while waiting:
        for target in waiting.pop().output(0).get_target_inputs():
            follows = target.get_node()
            if follows.get_type_name() in _SAME_VALUES and target.get_index() == 0:
                waiting.append(follows)
            elif follows.get_type_name() in _SCALES and _is_constant(follows.input_value(1 - target.get_index())):
                return True
    return False


def _is_constant(value: Any) -> bool:
    node = value.get_node()
    while node.get_type_name() == "Convert":
        node = node.input_value(0).get_node()
    return bool(node.get_type_name() == "Constant")


def expose_openvino(*, artifact: str, names: list[str], path: str) -> dict[str, Any]:
    """Write the IR with the results of these operators as its outputs, in this order."""
    import openvino
    from openvino import opset13

    Path(path).parent.mkdir(parents=True, exist_ok=True)
    model = openvino.Core().read_model(artifact)
    ops = {op.get_friendly_name(): op for op in model.get_ordered_ops()}
    results = [opset13.result(ops[name].output(0)) for name in names]
    exposed = openvino.Model(results, model.get_parameters(), "exposed")
    openvino.save_model(exposed, path, compress_to_fp16=False)
    return {}


def blame_openvino(
    *,
    artifact: str,
    source: dict[str, Any],
    truths: str,
    operators: list[list[str]],
    files: list[str],
    limit: float,
) -> dict[str, Any]:
    """The first wrong one of the operators whose results are in these files.

    ``apart`` counts those that are something else than the result that they were taken for.
    """
    import numpy as np

    known = onnx_truths.Truths(Path(truths))
    errors: dict[str, float] = {}
    apart: list[str] = []
    for (name, path, _, loose), file in zip(operators, files, strict=True):
        value = np.load(file, allow_pickle=False)
        ratio = known.distance(path, value).ratio
        if ratio > limit and _OPENVINO.match(name) and not _comparable(known, path, value, limit, loose=bool(loose)):
            apart.append(path)
        else:
            errors[name] = ratio
    found = _first([(op[0], op[1]) for op in operators if op[0] in errors], errors, known, limit)
    if found is not None:
        found["operator"] = next(op[2] for op in operators if op[0] == found["node"])
        match = _OPENVINO.match(found["node"])
        found["module"] = unwrapped(match[1]) if match else ""
        order = [op[1] for op in operators]
        before = [path for path in apart if order.index(path) < order.index(found["output"])]
        found["how"] = _other_constant(Path(artifact), found["module"], source) or _unseen(before)
    return {"found": found, "apart": len(apart)}


def _comparable(known: onnx_truths.Truths, path: str, value: np.ndarray, limit: float, *, loose: bool) -> bool:
    """Whether a wrong value can be the module's result at all; a false accusation is worse than none."""
    if value.shape != known.known[path].shape:
        return False  # another layout, or another one of the module's results
    return not loose or not _but_for_scale(known, path, value, limit)


def _but_for_scale(known: onnx_truths.Truths, path: str, value: np.ndarray, limit: float) -> bool:
    """Whether a scale and a bias per channel make of the value what it should be, or too few values tell."""
    import numpy as np

    truth, entry = known.load(path).astype(np.float64), known.known[path]
    for axis in {truth.ndim - 1, min(1, truth.ndim - 1)} if truth.ndim else ():
        right = np.moveaxis(truth, axis, 0).reshape(truth.shape[axis], -1)
        got = np.moveaxis(value.astype(np.float64), axis, 0).reshape(right.shape)
        if right.shape[1] < _TELLING:
            return True
        if not (np.isfinite(right).all() and np.isfinite(got).all()):
            continue
        mean, centre = got.mean(1, keepdims=True), right.mean(1, keepdims=True)
        power = np.square(got - mean).sum(1, keepdims=True)
        slope = ((got - mean) * (right - centre)).sum(1, keepdims=True) / np.where(power > 0, power, 1.0)
        left = right - centre - slope * (got - mean)
        rms, largest = float(np.sqrt(np.mean(left**2))), float(np.abs(left).max())
        # The noise is that of the result; one that a scale makes of a larger value has that value's.
        noise = max(1.0, float(np.abs(slope * got).max()) / max(float(np.abs(right).max()), np.finfo(float).tiny))
        if rms <= limit * noise * entry.noise_rms and largest <= limit * noise * onnx_truths.POINTS * entry.noise_max:
            return True
    return False


def _unseen(paths: Sequence[str]) -> str:
    if not paths:
        return ""
    named = " and ".join(f"'{path}'" for path in paths[-3:])
    return f"the IR does not hold the result of {named} as such, so the fault may lie there too"


def _other_constant(artifact: Path, path: str, source: dict[str, Any]) -> str:
    """Which weight of a module is another one in the IR, whose constants keep their names, in words."""
    import openvino

    from pytest_modelformats.systems.torch.loading.load import load_module

    if not path or source["format"] != "pytorch":
        return ""
    mine: dict[str, Any] = {}
    for op in openvino.Core().read_model(str(artifact)).get_ordered_ops():
        kind = op.get_element_type().get_type_name() if op.get_type_name() == "Constant" else ""
        if kind in ("f32", "f16", "f64") and op.get_friendly_name().startswith("self."):
            mine[op.get_friendly_name().removeprefix("self.")] = op
    own = {name: op for name, op in mine.items() if name.rpartition(".")[0] == path}
    if not own:
        return ""
    import torch

    weights = load_module(Source.from_json(source)).state_dict()
    return _other_weight(path, {name: torch.from_numpy(op.data.copy()) for name, op in own.items()}, weights)
