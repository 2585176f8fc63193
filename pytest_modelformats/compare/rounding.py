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
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np

# How many bits of a float32 these leave out at its low end; their exponents are float32's.
DROPPED_BITS = {"bf16": 16, "tf32": 13}
# fp16's largest and smallest positive numbers; what a weight may lose at most and counts as held; and the share of a
# tensor's values that are not held from which it stays as it is (see ``compressed``).
LARGEST, SMALLEST = 65504.0, 2.0**-24
COMPRESSIBLE = 1e-3
# What is said where an estimate does not keep the source's numbers.
NO_ESTIMATE = (
    "moved by one rounding unit of {precision}, inputs and weights give NaN or Inf where the source itself gives "
    "numbers. Next: judge the conversion from the framework that this file was exported from"
)
LOST_SHARE = 0.75


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
    return np.where(overflow, np.copysign(np.array(LARGEST, array.dtype), array), result) if overflow.any() else result


def compressed(array: np.ndarray) -> np.ndarray:
    """A weight as compressing a model's weights to fp16 leaves it, in its own dtype.

    Rounded to nearest even, and what fp16 cannot hold is its largest value. A single number stays as it is, and so
    does a tensor three quarters of whose values fp16 does not have: infinite there, smaller than its smallest number,
    or off by more than a thousandth.

    Source: read off the files that the compressing converter writes; a test of its family compares them.
    """
    import numpy as np

    if array.size <= 1:
        return array
    result = np.clip(rounded(array, "fp16"), -LARGEST, LARGEST)
    size = np.abs(array)
    with np.errstate(invalid="ignore"):
        lost = (size > LARGEST) | ((size < SMALLEST) & (size > 0)) | (np.abs(result - array) > COMPRESSIBLE * size)
    return array if np.count_nonzero(lost) >= LOST_SHARE * array.size else result


def weight_rounding(precision: str) -> Callable[[np.ndarray], np.ndarray] | None:
    """The rounding of each weight in turn at ``fp16-weights`` or one of its draws; ``None`` at another precision.

    At a draw (``fp16-weights~1``) the grid is shifted for every row of a tensor by a factor between a half and one, as
    it is for a weight that a converter multiplies by a scale before it rounds (``compare/weights_noise.py``).
    """
    import numpy as np

    name, _, draw = precision.partition("~")
    if name != "fp16-weights":
        return None
    if not draw:
        return compressed
    generator = np.random.default_rng(int(draw))

    def shifted(array: np.ndarray) -> np.ndarray:
        if array.size <= 1:
            return array
        rows = (*array.shape[:1], *(1 for _ in array.shape[1:]))
        scale = (2.0 ** -generator.uniform(0, 1, rows)).astype(array.dtype)
        with np.errstate(invalid="ignore"):
            return np.asarray(compressed(array * scale) / scale, dtype=array.dtype)

    return shifted


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


def keeps_numbers(own: Sequence[Sequence[np.ndarray]], moved: Sequence[Sequence[np.ndarray]]) -> bool:
    """Whether an estimate is finite wherever the source's own outputs are; both are [feed][output].

    Moving a value by a rounding unit can take it out of an operator's domain (the square of a negative number becomes
    its 2.0000001th power, which is NaN): such an estimate says nothing of what rounding does to the source.
    """
    import numpy as np

    pairs = [pair for ours, theirs in zip(own, moved, strict=True) for pair in zip(ours, theirs, strict=True)]
    floating = [(o, m) for o, m in pairs if o.dtype.kind == m.dtype.kind == "f"]
    return all(o.shape == m.shape and not np.any(np.isfinite(o) & ~np.isfinite(m)) for o, m in floating)


def perturbed_feed(
    feed: Mapping[str, np.ndarray], precision: str, generator: np.random.Generator
) -> dict[str, np.ndarray]:
    """Every floating input of ``feed`` perturbed by one rounding unit."""
    return {name: perturbed(array, precision, generator) for name, array in feed.items()}
