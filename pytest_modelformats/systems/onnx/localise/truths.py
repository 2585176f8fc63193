"""What every tensor of a reference graph holds in float64, and what rounding costs it: kept as files.

Made once for a graph, its inputs and a precision; every candidate that is compared with that
graph reads the same files, one tensor at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_modelformats.compare.truths import Truths, Writer
from pytest_modelformats.systems.onnx.reference import steps as onnx_steps

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import numpy as np

    from pytest_modelformats.systems.onnx.reference.lazy import LazyModel


def make(
    model: LazyModel, feed: Mapping[str, np.ndarray], precision: str, folder: Path, check: Callable[[int, int], None]
) -> Truths:
    """Evaluate a graph in float64 and at a precision beside one another; ``check(done, all)`` may raise to end it."""
    folder.mkdir(parents=True, exist_ok=True)
    writer = Writer(folder, precision)
    names = onnx_steps.dependent(model.nodes, model.inputs)
    operators = {name: node.op_type for node in model.nodes for name in node.output}
    steps = [onnx_steps.Steps(model, "float64"), onnx_steps.Steps(model, precision)]
    for one in steps:
        one.feed(feed)
    for name in feed:
        writer.add(name, "", steps[0].values[name], steps[1].values[name])
    for index, (wide, rounded) in onnx_steps.walk(steps, feed):
        check(index, len(model.nodes))
        for name in names.intersection(wide):
            if hasattr(wide[name], "dtype"):  # a sequence or a map is none of ours
                writer.add(name, operators[name], wide[name], rounded[name])
    return writer.close()
