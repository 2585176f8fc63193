"""Localisation's requests about OpenVINO's IR: by the results of the source's modules and tensors."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_modelformats.compare.truths import POINTS, Truths
from pytest_modelformats.schema import Source
from pytest_modelformats.systems.torch.localise.exported import first_wrong, last_of_modules, other_weight
from pytest_modelformats.systems.torch.reference.calling import unwrapped

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

# OpenVINO's PyTorch frontend calls operators __module.layer3.2.conv1/aten::_convolution/Convolution.
_OPENVINO = re.compile(r"^__module\.([^/]+)/")
# OpenVINO moves a module's last scale or bias into one that follows it (``linear(x) * 0.5``): the sum is then named by
# what follows. It may do so past these.
_SCALES = frozenset({"Add", "Subtract", "Multiply", "Divide"})
_SAME_VALUES = frozenset({"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Convert"})
# A scale and a bias fit two values always; of so many per channel an error that is none of theirs is left over.
_TELLING = 4


def plan_openvino(*, artifact: str, truths: str) -> dict[str, Any]:
    """The operators of an IR whose results are known, in topological order.

    Each is (friendly name, what it should equal, type, "loose" where a last scale or bias may stand elsewhere).
    Known are the results of the source's modules, or the tensors of its ONNX graph, whose names an IR keeps.
    """
    import openvino

    known = Truths(Path(truths))
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

    known = Truths(Path(truths))
    errors: dict[str, float] = {}
    apart: list[str] = []
    for (name, path, _, loose), file in zip(operators, files, strict=True):
        value = np.load(file, allow_pickle=False)
        ratio = known.distance(path, value).ratio
        if ratio > limit and _OPENVINO.match(name) and not _comparable(known, path, value, limit, loose=bool(loose)):
            apart.append(path)
        else:
            errors[name] = ratio
    found = first_wrong([(op[0], op[1]) for op in operators if op[0] in errors], errors, known, limit)
    if found is not None:
        found["operator"] = next(op[2] for op in operators if op[0] == found["node"])
        match = _OPENVINO.match(found["node"])
        found["module"] = unwrapped(match[1]) if match else ""
        order = [op[1] for op in operators]
        before = [path for path in apart if order.index(path) < order.index(found["output"])]
        found["how"] = _other_constant(Path(artifact), found["module"], source) or _unseen(before)
    return {"found": found, "apart": len(apart)}


def _comparable(known: Truths, path: str, value: np.ndarray, limit: float, *, loose: bool) -> bool:
    """Whether a wrong value can be the module's result at all; a false accusation is worse than none."""
    if value.shape != known.known[path].shape:
        return False  # another layout, or another one of the module's results
    return not loose or not _but_for_scale(known, path, value, limit)


def _but_for_scale(known: Truths, path: str, value: np.ndarray, limit: float) -> bool:
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
        if rms <= limit * noise * entry.noise_rms and largest <= limit * noise * POINTS * entry.noise_max:
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
    return other_weight(path, {name: torch.from_numpy(op.data.copy()) for name, op in own.items()}, weights)
