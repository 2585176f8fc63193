"""Merging what a model file states of its inputs with what the user states (``--mf-input``)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_modelformats.errors import SourceError
from pytest_modelformats.source.batch_axes import ANONYMOUS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_modelformats.schema import TensorSpec


def symbolic(dims: Sequence[int | str]) -> tuple[int | str, ...]:
    """The dims with a letter for each that has neither size nor name: ``N`` for the first, ``D1`` … else."""
    letters = ("N" if index == 0 else f"D{index}" for index in range(len(dims)))
    return tuple(letter if dim in ANONYMOUS else dim for dim, letter in zip(dims, letters, strict=True))


def apply(
    file: str, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], stated: Sequence[TensorSpec]
) -> tuple[list[TensorSpec], list[TensorSpec]]:
    """The inputs as the user states them, by name or, unnamed, by position; outputs follow where a symbol was fixed.

    Raises: SourceError where the user names an input that is not there or contradicts the file.
    """
    merged = list(inputs)
    names = [spec.name for spec in inputs]
    symbols: dict[int | str, int | str] = {}
    for position, given in enumerate(stated):
        if given.name and given.name not in names:
            msg = f"'{file}' has no input '{given.name}'; its inputs are {', '.join(names) or 'none'}"
            raise SourceError(msg)
        index = names.index(given.name) if given.name else position
        if index >= len(merged):
            msg = f"'{file}' has {len(names)} inputs ({', '.join(names)}), {len(stated)} are stated"
            raise SourceError(msg)
        merged[index] = _merged(file, inputs[index], given, symbols)
    return merged, [_renamed(spec, symbols) for spec in outputs]


def _merged(file: str, own: TensorSpec, given: TensorSpec, symbols: dict[int | str, int | str]) -> TensorSpec:
    if given.dtype != own.dtype:
        msg = f"'{file}': the input '{own.name}' is {own.dtype}, not {given.dtype} as stated"
        raise SourceError(msg)
    if own.shape is not None and given.shape is not None:
        if len(own.shape) != len(given.shape):
            msg = f"'{file}': the input is {own}, which has {len(own.shape)} dimensions; {given} was stated"
            raise SourceError(msg)
        for old, new in zip(own.shape, given.shape, strict=True):
            if isinstance(old, int) and old != new:
                msg = f"'{file}': the input is {own}, with {old} fixed in the file; {given} was stated"
                raise SourceError(msg)
            if old != new:
                symbols[old] = new
    low, high = (own.low, own.high) if given.low is None else (given.low, given.high)
    return replace(own, shape=own.shape if given.shape is None else given.shape, low=low, high=high)


def _renamed(spec: TensorSpec, symbols: dict[int | str, int | str]) -> TensorSpec:
    if spec.shape is None or not symbols:
        return spec
    return replace(spec, shape=tuple(symbols.get(dim, dim) for dim in spec.shape))
