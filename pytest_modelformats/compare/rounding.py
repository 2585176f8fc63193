"""Rounding and perturbing arrays to a precision, with numpy alone: what noise estimates are made of.

Measured on 18 nets (CNNs of 2 to 14 layers with batch and group norm, MLPs, transformer encoders): a
faithful fp32 run of another runtime lay at 0.6 to 1.9 times the perturbed estimate of fp32 noise,
and the estimate of fp16 and bf16 noise at 0.4 to 2.3 times that of rounding every operator's result.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_modelformats.errors import Unsupported
from pytest_modelformats.schema import PRECISIONS

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

# How many bits of a float32 these leave out at its low end; their exponents are float32's.
DROPPED_BITS = {"bf16": 16, "tf32": 13}


def rounding_unit(precision: str) -> float:
    """The largest relative error of rounding to nearest at ``precision``: 2^-(mantissa bits + 1)."""
    return float(2.0 ** -(PRECISIONS[precision].mantissa_bits + 1))


def rounded(array: np.ndarray, precision: str) -> np.ndarray:
    """``array`` with each value rounded to nearest even at ``precision``, in its own dtype.

    What fp16 cannot hold becomes infinite, as it does in an fp16 kernel.
    """
    import numpy as np

    yardstick = PRECISIONS[precision].yardstick.removesuffix("-weights")
    if yardstick == "fp32":
        return array.astype(np.float32).astype(array.dtype)
    if yardstick == "fp16":
        with np.errstate(over="ignore"):
            return array.astype(np.float16).astype(array.dtype)
    if yardstick not in DROPPED_BITS:
        msg = f"rounding to '{precision}' is not written; fp32, tf32, fp16 and bf16 are"
        raise Unsupported(msg)
    dropped = DROPPED_BITS[yardstick]
    bits = np.ascontiguousarray(array, dtype=np.float32).view(np.uint32)
    half, odd = np.uint32((1 << (dropped - 1)) - 1), (bits >> np.uint32(dropped)) & np.uint32(1)
    nearest = (bits + half + odd) & np.uint32((0xFFFFFFFF << dropped) & 0xFFFFFFFF)
    kept = np.where(np.isnan(array), np.float32("nan"), nearest.view(np.float32))
    return np.asarray(kept.reshape(array.shape), dtype=array.dtype)


def saturated(array: np.ndarray, precision: str) -> np.ndarray:
    """A weight rounded to ``precision``; what fp16 cannot hold becomes its largest value, as converters write it."""
    import numpy as np

    result = rounded(array, precision)
    overflow = np.isinf(result) & np.isfinite(array)
    return np.where(overflow, np.copysign(np.array(65504.0, array.dtype), array), result) if overflow.any() else result


def perturbed(array: np.ndarray, precision: str, generator: np.random.Generator) -> np.ndarray:
    """Each floating value times 1 + d, d uniform within one rounding unit of ``precision`` to either side.

    Where a precision rounds operands only, √2 units: a product's weight stands for its other operand too.
    """
    import numpy as np

    if array.dtype not in (np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64)):
        return array
    unit = rounding_unit(precision) * (2**0.5 if PRECISIONS[precision].operands_only else 1.0)
    factor = 1.0 + generator.uniform(-unit, unit, size=array.shape)
    return np.asarray(array * factor).astype(array.dtype)


def perturbed_feed(
    feed: Mapping[str, np.ndarray], precision: str, generator: np.random.Generator
) -> dict[str, np.ndarray]:
    """Every floating input of ``feed`` perturbed by one rounding unit."""
    return {name: perturbed(array, precision, generator) for name, array in feed.items()}
