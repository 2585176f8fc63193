"""The constants that tell another precision's rounding from a fault, measured again on random networks."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from detection_cells import FAULTS, onnx_bytes, random_networks, run_openvino

from pytest_modelformats.compare.effective_precision import correlation, moved
from pytest_modelformats.systems.torch.reference import numerics

if TYPE_CHECKING:
    from torch import nn

ROWS = 7
FAULTY = {"fp16": "one tensor to fp16", "bf16": "one tensor to bf16"}


def _rms(a: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(a))))


def _outputs(module: nn.Module, x: np.ndarray, precision: str) -> np.ndarray:
    return numerics.evaluate(module, [{"input": x}], precision)[0][0][0].astype(np.float64)


def _native(module: nn.Module, x: np.ndarray, precision: str) -> dict[str, np.ndarray]:
    """Outputs of runtimes that compute at the precision."""
    inputs = torch.from_numpy(x)
    if precision == "bf16":
        graph = onnx_bytes(module, inputs)
        return {"openvino": run_openvino(graph, inputs, "bf16"), "torch": _outputs(module, x, "bf16")}
    with torch.no_grad():
        return {"torch": copy.deepcopy(module).half()(inputs.half()).double().numpy()}


def measure(seeds: int) -> dict[tuple[str, str], list[float]]:
    """By (precision, what) the values of ``seeds`` networks of every family."""
    found: dict[tuple[str, str], list[float]] = {}
    for family in random_networks.FAMILIES:
        for seed in range(seeds):
            module = random_networks.make(family, seed)
            shape = random_networks._shape(family, random_networks._generator(family, seed))  # noqa: SLF001
            x = np.random.default_rng(seed).standard_normal((ROWS, *shape)).astype(np.float32)
            for precision in ("fp16", "bf16"):
                for what, value in _one(module, x, precision, seed):
                    found.setdefault((precision, what), []).append(value)
    return found


def _one(module: nn.Module, x: np.ndarray, precision: str, seed: int) -> list[tuple[str, float]]:
    other = moved({"x": x}, precision)["x"]
    truths = [_outputs(module, inputs, "float64") for inputs in (x, other)]
    noise = _rms(_outputs(module, x, precision) - truths[0])
    values: list[tuple[str, float]] = []
    natives: list[dict[str, Any]] = [_native(module, inputs, precision) for inputs in (x, other)]
    for lane in natives[0]:
        errors = [natives[i][lane].reshape(truths[i].shape) - truths[i] for i in (0, 1)]
        values.append(("arithmetic: share of the noise", _rms(errors[0]) / noise))
        values.append(("arithmetic: correlation after moving", correlation(*errors)))
    with torch.no_grad():
        broken = FAULTS[FAULTY[precision]](copy.deepcopy(module), np.random.default_rng(seed), torch.from_numpy(x))
    errors = [_outputs(broken, inputs, "fp32") - truth for inputs, truth in zip((x, other), truths, strict=True)]
    values.append(("one tensor rounded: share of the noise", _rms(errors[0]) / noise))
    values.append(("one tensor rounded: correlation after moving", correlation(*errors)))
    return values


def table(found: dict[tuple[str, str], list[float]]) -> list[str]:
    """The ranges as lines of Markdown."""
    lines = ["| precision | what | cells | least | median | largest |", "|---|---|--:|--:|--:|--:|"]
    for (precision, what), values in sorted(found.items()):
        low, middle, high = np.quantile(values, [0, 0.5, 1])
        lines.append(f"| {precision} | {what} | {len(values)} | {low:.4g} | {middle:.4g} | {high:.5g} |")
    return lines
