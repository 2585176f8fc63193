"""Rounds the constants of an fp16 model from the source's own, whatever the library that made it did to them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_modelformats.systems.onnx.half import structure

if TYPE_CHECKING:
    import numpy as np
    import onnx


def round_constants(half: onnx.ModelProto, source: onnx.ModelProto) -> int:
    """Let the fp16 constants be the source's, rounded; return how many values rounding would have lost.

    What is too large stays finite: a mask of -1e9 becomes -65504 and not -infinity, which makes a softmax NaN. A
    constant of one element stays above zero: it is an epsilon, there to be divided by. Tiny weights become zero.
    """
    from onnx import TensorProto, numpy_helper

    now = structure.constants(half, TensorProto.FLOAT16)
    lost = 0
    for name, tensor in structure.constants(source, TensorProto.FLOAT).items():
        if name in now and list(tensor.dims) == list(now[name].dims):
            values, count = rounded(numpy_helper.to_array(tensor))
            now[name].CopyFrom(numpy_helper.from_array(values, now[name].name))
            lost += count
    return lost


def rounded(values: np.ndarray) -> tuple[np.ndarray, int]:
    """Values in fp16, and how many of them are not what rounding to the nearest gives."""
    import numpy as np

    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    overflown = np.isinf(half) & np.isfinite(values)
    vanished = (half == 0) & (values != 0) if values.size == 1 else np.zeros(values.shape, bool)
    bounds = np.finfo(np.float16)
    half = np.where(overflown, np.copysign(bounds.max, half), half)
    half = np.where(vanished, np.copysign(bounds.smallest_subnormal, half), half).astype(np.float16)
    return half, int((overflown | vanished).sum())
