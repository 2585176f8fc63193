"""The axes along which the inputs and outputs of a model grow with the batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_modelformats.schema import TensorSpec

# What runtimes write for a dimension that may vary and has no name: two of them need not be equal.
ANONYMOUS = frozenset({"", "?"})


def batch(specs: Sequence[TensorSpec]) -> tuple[str, dict[str, tuple[int, ...]]]:
    """The batch's symbol and the axes that carry it, by input; ("", {}) where the batch is fixed."""
    first = next((spec.shape[0] for spec in specs if spec.shape), 1)
    if isinstance(first, int):
        return "", {}
    if first in ANONYMOUS:
        return "?", {spec.name: (0,) for spec in specs if spec.shape and spec.shape[0] in ANONYMOUS}
    found = {spec.name: tuple(i for i, dim in enumerate(spec.shape or ()) if dim == first) for spec in specs}
    return first, {name: axes for name, axes in found.items() if axes}
