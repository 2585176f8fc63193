"""Operators in numpy for onnx.reference, where its own are wrong, lose float64 or take minutes.

Each is summed one place of the kernel after the other, so that nothing but views and products of matrices is needed.
What is wrong in onnx 1.23.2: BatchNormalization of opset 9 to 13 mixes in the statistics of the batch, GlobalMaxPool
takes the maximum over the wrong dimensions unless there are four of them, ConvTranspose in groups slices the weights by
output channels (docs/found.md). Erf gives float32. GatherElements refuses indices of fewer places than the data, and
more than 64 of them. MaxPool and ConvTranspose run element by element in Python. FusedConv, which ONNX Runtime's
optimised files hold, it does not know.

Shapes and attributes are those of the ONNX operators (https://onnx.ai/onnx/operators) and of ONNX Runtime's
(https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md).
"""

from __future__ import annotations

import itertools
import math
from functools import cache
from typing import TYPE_CHECKING, Any

from pytest_modelformats.systems.onnx.reference import quantised

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import numpy as np

    Padding = list[tuple[int, int]]


def convolved(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None,
    group: int,
    strides: Sequence[int],
    dilations: Sequence[int],
    padding: Padding,
) -> np.ndarray:
    """Conv. Shapes: [batch, channel, *place] and [out, channel / group, *kernel] give [batch, out, *place]."""
    import numpy as np

    wide = np.pad(x, [(0, 0), (0, 0), *padding])
    kernel, batch = weight.shape[2:], x.shape[0]
    size = [
        _places(wide.shape[2 + i], k, s, d) for i, (k, s, d) in enumerate(zip(kernel, strides, dilations, strict=True))
    ]
    found = np.zeros((batch, group, weight.shape[0] // group, math.prod(size)), x.dtype)
    for place in _offsets(kernel):
        part = wide[_views(place, size, strides, dilations)].reshape(batch, group, x.shape[1] // group, -1)
        found += _weights(weight, place).reshape(group, weight.shape[0] // group, -1) @ part
    result = found.reshape(batch, weight.shape[0], *size)
    return result if bias is None else result + bias.reshape(-1, *[1] * len(kernel))


def spread(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None,
    group: int,
    strides: Sequence[int],
    dilations: Sequence[int],
    padding: Padding,
    output_padding: Sequence[int],
) -> np.ndarray:
    """ConvTranspose. Shapes: [batch, channel, *place] and [channel, out / group, *kernel] give [batch, out, *place]."""
    import numpy as np

    kernel, batch, places = weight.shape[2:], x.shape[0], x.shape[2:]
    size = [
        s * (n - 1) + (k - 1) * d + 1 + extra
        for n, k, s, d, extra in zip(places, kernel, strides, dilations, output_padding, strict=True)
    ]
    found = np.zeros((batch, group * weight.shape[1], *size), x.dtype)
    parts = x.reshape(batch, group, x.shape[1] // group, -1)
    for place in _offsets(kernel):
        turned = _weights(weight, place).reshape(group, x.shape[1] // group, weight.shape[1]).swapaxes(1, 2)
        views = _views(place, places, strides, dilations)
        found[views] += (turned @ parts).reshape(batch, group * weight.shape[1], *places)
    # What is not padding is cut, what is negative padding is zero.
    kept = (slice(max(low, 0), n - max(high, 0)) for n, (low, high) in zip(size, padding, strict=True))
    cut: Any = (Ellipsis, *kept)
    result = np.pad(found[cut], [(0, 0), (0, 0), *((max(-low, 0), max(-high, 0)) for low, high in padding)])
    return result if bias is None else result + bias.reshape(-1, *[1] * len(kernel))


def largest(
    x: np.ndarray, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int], padding: Padding, ceil: bool
) -> np.ndarray:
    """MaxPool without indices. Shapes: [batch, channel, *place] on both sides."""
    import numpy as np

    least: Any = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
    size, grown = [], []
    for n, k, s, d, (low, high) in zip(x.shape[2:], kernel, strides, dilations, padding, strict=True):
        left = n + low + high - ((k - 1) * d + 1)
        count = (-(-left // s) if ceil else left // s) + 1
        if ceil and (count - 1) * s >= n + low:  # a window that starts behind the input and its padding is none
            count -= 1
        size.append(count)
        grown.append((low, max(high, (count - 1) * s + (k - 1) * d + 1 - n - low)))
    wide = np.pad(x, [(0, 0), (0, 0), *grown], constant_values=least)
    found = np.full((*x.shape[:2], *size), least, x.dtype)
    for place in _offsets(kernel):
        np.maximum(found, wide[_views(place, size, strides, dilations)], out=found)
    return found


def gathered(data: np.ndarray, indices: np.ndarray, axis: int) -> np.ndarray:
    """GatherElements. Shapes: those of the indices, which are no larger than the data's but along ``axis``."""
    import numpy as np

    axis %= data.ndim
    index: Any = tuple(slice(None) if i == axis else slice(n) for i, n in enumerate(indices.shape))
    found: np.ndarray = np.take_along_axis(data[index], indices, axis)
    return found


def activated(x: np.ndarray, activation: str, parameters: Sequence[float]) -> np.ndarray:
    """What FusedConv does to its sums; raises NotImplementedError for what it does not do."""
    import numpy as np

    first, second = (*parameters, 0.0, 0.0)[:2]
    known: dict[str, Callable[[], Any]] = {
        "": lambda: x,
        "Relu": lambda: np.maximum(x, 0),
        "LeakyRelu": lambda: np.where(x < 0, first * x, x),
        "Tanh": lambda: np.tanh(x),
        "Sigmoid": lambda: 1 / (1 + np.exp(-x)),
        "HardSigmoid": lambda: np.clip(first * x + second, 0, 1),
        "Clip": lambda: np.clip(x, first, second),
    }
    if activation not in known:
        raise NotImplementedError(f"FusedConv's activation '{activation}' is unknown")
    found: np.ndarray = known[activation]().astype(x.dtype)
    return found


def padding_of(
    auto_pad: str | None,
    pads: Sequence[int] | None,
    places: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
) -> Padding:
    """How many places are added in front of and behind each dimension of an operator that slides over its input."""
    rank = len(places)
    if auto_pad in {"SAME_UPPER", "SAME_LOWER"}:
        found = []
        for n, k, s, d in zip(places, kernel, strides, dilations, strict=True):
            total = max(0, (-(-n // s) - 1) * s + (k - 1) * d + 1 - n)
            less, more = total // 2, total - total // 2
            found.append((less, more) if auto_pad == "SAME_UPPER" else (more, less))
        return found
    if auto_pad == "VALID" or pads is None:
        return [(0, 0)] * rank
    return list(zip(pads[:rank], pads[rank:], strict=True))


def padding_of_spread(
    given: Mapping[str, Any],
    places: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    extra: Sequence[int],
) -> Padding:
    """How many places are cut in front of and behind each dimension of what ConvTranspose spreads."""
    upper = given["auto_pad"] == "SAME_UPPER"
    wanted = given["output_shape"]
    if wanted is None and given["auto_pad"] not in {"SAME_UPPER", "SAME_LOWER"}:
        return padding_of(given["auto_pad"], given["pads"], places, kernel, strides, dilations)
    wanted = wanted or [n * s for n, s in zip(places, strides, strict=True)]
    found = []
    for n, k, s, d, e, out in zip(places, kernel, strides, dilations, extra, wanted, strict=True):
        total = s * (n - 1) + e + (k - 1) * d + 1 - out
        less, more = total // 2, total - total // 2
        found.append((less, more) if upper else (more, less))
    return found


def _places(n: int, kernel: int, stride: int, dilation: int) -> int:
    return (n - ((kernel - 1) * dilation + 1)) // stride + 1


def _offsets(kernel: Sequence[int]) -> Iterator[tuple[int, ...]]:
    return itertools.product(*(range(k) for k in kernel))


def _weights(weight: np.ndarray, place: tuple[int, ...]) -> np.ndarray:
    """Those of one place of the kernel, which are the last dimensions."""
    index: Any = (Ellipsis, *place)
    found: np.ndarray = weight[index]
    return found


def _views(place: Sequence[int], size: Sequence[int], strides: Sequence[int], dilations: Sequence[int]) -> Any:
    """The elements that one place of the kernel meets: an index with a slice for each of the last dimensions."""
    slices = (
        slice(p * d, p * d + (n - 1) * s + 1, s) if n > 0 else slice(0, 0)
        for p, n, s, d in zip(place, size, strides, dilations, strict=True)
    )
    return (Ellipsis, *slices)


@cache
def evaluator() -> Any:
    """A ReferenceEvaluator with the operators of this file, also inside the functions that Gelu and others are."""
    from onnx.reference import ReferenceEvaluator

    own = [*_wrong_ones(), *_slow_ones()]

    class Evaluator(ReferenceEvaluator):  # type: ignore[misc]
        def __init__(self, proto: Any, **keywords: Any) -> None:
            opsets = {o.domain: o.version for o in getattr(proto, "opset_import", ())} or keywords.get("opsets") or {}
            opset = opsets.get("", quantised.SINCE)
            keywords["new_ops"] = keywords.get("new_ops") or [*own, *quantised.operators(opset)]
            super().__init__(proto, **keywords)

    return Evaluator


def _wrong_ones() -> list[Any]:
    import numpy as np
    from onnx.reference.op_run import OpRun
    from onnx.reference.ops.op_batch_normalization import BatchNormalization_14

    class BatchNormalization(BatchNormalization_14):  # type: ignore[misc]
        op_domain = ""

    class Erf(OpRun):  # type: ignore[misc]
        op_domain = ""

        def _run(self, x: np.ndarray) -> tuple[np.ndarray]:
            return (np.vectorize(math.erf, otypes=["d"])(x).astype(x.dtype),)

    class GlobalMaxPool(OpRun):  # type: ignore[misc]
        op_domain = ""

        def _run(self, x: np.ndarray) -> tuple[np.ndarray]:
            return (x.max(axis=tuple(range(2, x.ndim)), keepdims=True),)

    class GatherElements(OpRun):  # type: ignore[misc]
        op_domain = ""

        def _run(self, data: np.ndarray, indices: np.ndarray, **given: Any) -> tuple[np.ndarray]:
            return (gathered(data, indices, given.get("axis") or 0),)

    return [BatchNormalization, Erf, GlobalMaxPool, GatherElements]


def _slow_ones() -> list[Any]:
    from onnx import helper
    from onnx.reference.op_run import OpRun
    from onnx.reference.ops import op_max_pool

    def ones(given: Sequence[int] | None, rank: int) -> Sequence[int]:
        return [1] * rank if given is None else given

    class Conv(OpRun):  # type: ignore[misc]
        op_domain = ""

        def _run(self, x: np.ndarray, weight: np.ndarray, bias: Any = None, **given: Any) -> tuple[np.ndarray]:
            strides, dilations = (ones(given[name], x.ndim - 2) for name in ("strides", "dilations"))
            padding = padding_of(given["auto_pad"], given["pads"], x.shape[2:], weight.shape[2:], strides, dilations)
            return (convolved(x, weight, bias, given["group"] or 1, strides, dilations, padding),)

    class FusedConv(OpRun):  # type: ignore[misc]
        op_domain = "com.microsoft"

        def _run(
            self, x: np.ndarray, weight: np.ndarray, bias: Any = None, added: Any = None, **_: Any
        ) -> tuple[np.ndarray]:
            said = {a.name: helper.get_attribute_value(a) for a in self.onnx_node.attribute}
            strides, dilations = (ones(said.get(name), x.ndim - 2) for name in ("strides", "dilations"))
            auto = said.get("auto_pad", b"NOTSET").decode()
            padding = padding_of(auto, said.get("pads"), x.shape[2:], weight.shape[2:], strides, dilations)
            sums = convolved(x, weight, bias, said.get("group", 1), strides, dilations, padding)
            sums = sums if added is None else sums + added
            return (activated(sums, said.get("activation", b"").decode(), said.get("activation_params", ())),)

    class ConvTranspose(OpRun):  # type: ignore[misc]
        op_domain = ""

        def _run(self, x: np.ndarray, weight: np.ndarray, bias: Any = None, **given: Any) -> tuple[np.ndarray]:
            strides, dilations = (ones(given[name], x.ndim - 2) for name in ("strides", "dilations"))
            extra = given["output_padding"] or [0] * (x.ndim - 2)
            padding = padding_of_spread(given, x.shape[2:], weight.shape[2:], strides, dilations, extra)
            return (spread(x, weight, bias, given["group"] or 1, strides, dilations, padding, extra),)

    class MaxPool(op_max_pool.MaxPool):  # type: ignore[misc]
        op_domain = ""

        def _run(self, x: np.ndarray, **given: Any) -> tuple[np.ndarray, ...]:
            if len(self.onnx_node.output) > 1:  # with the places of the largest
                found: tuple[np.ndarray, ...] = super()._run(x, **given)
                return found
            kernel = given["kernel_shape"]
            strides, dilations = (ones(given[name], x.ndim - 2) for name in ("strides", "dilations"))
            padding = padding_of(given["auto_pad"], given["pads"], x.shape[2:], kernel, strides, dilations)
            return (largest(x, kernel, strides, dilations, padding, bool(given["ceil_mode"])),)

    return [Conv, FusedConv, ConvTranspose, MaxPool]
