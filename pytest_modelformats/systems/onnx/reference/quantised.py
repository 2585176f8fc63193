"""Quantisation in numpy for onnx.reference: of the opsets that it has none for, and in float64.

onnx 1.23.2 has QuantizeLinear and DequantizeLinear from opset 19 on, and a DynamicQuantizeLinear that computes its
scale in float32 whatever goes in.

Source: https://onnx.ai/onnx/operators, QuantizeLinear-13, DequantizeLinear-13, DynamicQuantizeLinear-11.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

# The first opset whose operators onnx.reference has.
SINCE = 19


def quantised(x: np.ndarray, scale: np.ndarray, zero: np.ndarray, axis: int) -> np.ndarray:
    """The nearest whole numbers (half to even), saturated to the type of ``zero``. Shapes: [*place] on both sides."""
    import numpy as np

    scale, shifted = _along(scale, x, axis), _along(zero, x, axis)
    bounds = np.iinfo(zero.dtype)
    with np.errstate(invalid="ignore"):
        whole = np.rint(x / scale) + shifted.astype(x.dtype)
    found: np.ndarray = np.clip(whole, bounds.min, bounds.max).astype(zero.dtype)
    return found


def restored(x: np.ndarray, scale: np.ndarray, zero: np.ndarray | None, axis: int) -> np.ndarray:
    """What whole numbers stand for, in the type of ``scale``. Shapes: [*place] on both sides."""
    wide = x.astype(scale.dtype)
    shifted = wide if zero is None else wide - _along(zero, x, axis).astype(scale.dtype)
    found: np.ndarray = shifted * _along(scale, x, axis)
    return found


def ranged(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The tensor as bytes, and the scale and zero point that its own range asks for."""
    import numpy as np

    low, high = min(0.0, float(x.min())), max(0.0, float(x.max()))
    scale = np.array((high - low) / 255 if high > low else 1 / 255, x.dtype)
    zero = np.array(np.rint(np.clip(-low / scale, 0, 255)), np.uint8)
    return quantised(x, scale, zero, 0), scale, zero


def _along(values: np.ndarray, x: np.ndarray, axis: int) -> np.ndarray:
    """One value, or one for each place along an axis, so that it meets every element."""
    if values.ndim == 0 or values.size == 1 or not x.ndim:
        return values.reshape(())
    return values.reshape([-1 if i == axis % x.ndim else 1 for i in range(x.ndim)])


@cache
def operators(opset: int) -> list[Any]:
    """The operators of this file that an opset needs."""
    import numpy as np
    from onnx.reference.op_run import OpRun

    class QuantizeLinear(OpRun):  # type: ignore[misc]
        op_domain = ""

        def _run(self, x: np.ndarray, scale: np.ndarray, zero: Any = None, **given: Any) -> tuple[np.ndarray]:
            zero = np.zeros(scale.shape, np.uint8) if zero is None else zero
            return (quantised(x, scale, zero, given.get("axis", 1)),)

    class DequantizeLinear(OpRun):  # type: ignore[misc]
        op_domain = ""

        def _run(self, x: np.ndarray, scale: np.ndarray, zero: Any = None, **given: Any) -> tuple[np.ndarray]:
            return (restored(x, scale, zero, given.get("axis", 1)),)

    class DynamicQuantizeLinear(OpRun):  # type: ignore[misc]
        op_domain = ""

        def _run(self, x: np.ndarray) -> tuple[np.ndarray, ...]:
            return ranged(x)

    return [DynamicQuantizeLinear, *([QuantizeLinear, DequantizeLinear] if opset < SINCE else [])]
