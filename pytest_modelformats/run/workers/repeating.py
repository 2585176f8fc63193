"""Whether a source gives the same outputs for the same input: one that draws numbers has no truth to be judged by."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

# Of the largest value: many times what the order of a sum changes in float64, and far below any other rounding.
SAME = 2.0**-40


def differing(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> str:
    """In words, the first output in which two runs in float64 on one input differ; "" where none does."""
    import numpy as np

    for index, (one, other) in enumerate(zip(first, second, strict=True)):
        if one.shape != other.shape:
            return f"the same input gives output {index} the shape {list(one.shape)}, then {list(other.shape)}"
        if not np.issubdtype(one.dtype, np.inexact):
            far = bool((one != other).any())
        else:
            with np.errstate(invalid="ignore"):
                apart, size = np.abs(one - other), np.abs(one)
            # NaN, and the difference of two equal infinities, are no numbers: their places are compared instead.
            known = np.isfinite(apart)
            finite = size[np.isfinite(size)]
            far = bool((apart[known] > SAME * finite.max(initial=0.0)).any())
            far = far or bool((np.isnan(one) != np.isnan(other)).any() or (np.isinf(one) != np.isinf(other)).any())
        if far:
            return f"the same input gives other values of output {index} the second time"
    return ""
