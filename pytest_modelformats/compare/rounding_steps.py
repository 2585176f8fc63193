"""Arrays that round at every step of numpy code that was written for plain ones.

onnx.reference computes a whole LSTM, GRU or RNN layer in one operator. With its result alone
rounded, the noise of eight random recurrent networks was 0.62 to 0.76 times PyTorch's at fp16
and 0.61 to 1.02 at bf16; rounded at every step 0.90 to 1.24, and 0.97 to 1.90 (a bf16 LSTM of
oneDNN keeps a wider state inside).
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from pytest_modelformats.compare import rounding
from pytest_modelformats.schema import PRECISIONS

if TYPE_CHECKING:
    import numpy as np


def rounding_steps(value: Any, precision: str) -> Any:
    """``value`` as an array whose every sum, product and function is rounded to ``precision`` if it is a floating one.

    For a precision that rounds operands only, the operands of matrix products are.
    """
    floating = getattr(getattr(value, "dtype", None), "kind", "") == "f"
    return value.view(_array_class(precision)) if floating else value


def plain(value: Any) -> Any:
    """``value`` as a plain array again."""
    import numpy as np

    return np.asarray(value) if isinstance(value, np.ndarray) else value


@cache
def _array_class(precision: str) -> type[np.ndarray]:
    import numpy as np

    operands_only = PRECISIONS[precision].operands_only

    def nearest(value: Any) -> Any:
        return (
            rounding.rounded(value, precision) if getattr(getattr(value, "dtype", None), "kind", "") == "f" else value
        )

    class Stepwise(np.ndarray):
        def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **keywords: Any) -> Any:
            return _wrapped(getattr(ufunc, method), ufunc is np.matmul, inputs, keywords)

        def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
            if function is np.dot:
                return _wrapped(function, True, args, kwargs)  # noqa: FBT003 - it is one
            return super().__array_function__(function, types, args, kwargs)

    def _wrapped(function: Any, product: bool, inputs: Any, keywords: Any) -> Any:
        arrays = [plain(v) for v in inputs]
        if operands_only:
            result = function(*(map(nearest, arrays) if product else arrays), **keywords)
        else:
            result = nearest(function(*arrays, **keywords))
        return np.asarray(result).view(Stepwise)

    return Stepwise
