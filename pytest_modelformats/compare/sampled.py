"""A large output of which only some elements are kept: the same positions of every row."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np


@dataclass(frozen=True, eq=False, slots=True)
class Sampled:
    """Stands for an array of ``shape``: of every row (the first dimension) the elements at ``positions`` are known.

    What is compared with it is taken at the same positions. An array without rows counts as one row.
    Shapes: ``values`` [rows, k], ``positions`` [k], each below the size of a row.
    """

    values: np.ndarray
    positions: np.ndarray
    shape: tuple[int, ...]

    # numpy would take this for a scalar object; so it asks __rsub__ instead.
    __array_ufunc__ = None

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the elements."""
        return self.values.dtype

    @property
    def size(self) -> int:
        """How many elements the whole array has."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """The memory that is held."""
        return self.values.nbytes

    def of(self, array: np.ndarray | Sampled) -> np.ndarray:
        """The elements of another array of this shape at the positions that are known here."""
        if isinstance(array, Sampled):
            return array.values
        found: np.ndarray = array.reshape(rows_of(self.shape), -1)[:, self.positions]
        return found

    def __getitem__(self, rows: slice) -> Sampled:
        """Some of the rows."""
        values = self.values[rows]
        return Sampled(values, self.positions, (len(values), *self.shape[1:]))

    def __sub__(self, other: Sampled | np.ndarray) -> np.ndarray:
        """The difference at the positions that are known."""
        theirs = other.values if isinstance(other, Sampled) else self.of(other)
        found: np.ndarray = self.values - theirs
        return found

    def __rsub__(self, other: np.ndarray) -> np.ndarray:
        """The difference at the positions that are known."""
        found: np.ndarray = self.of(other) - self.values
        return found


def rows_of(shape: Sequence[int]) -> int:
    """The number of rows of an array of this shape: its first dimension, where there is more than one."""
    return shape[0] if len(shape) > 1 else 1


def take(array: np.ndarray, positions: np.ndarray) -> Sampled:
    """The array, of which only some elements of every row are kept."""
    whole = Sampled(array, positions, tuple(array.shape))
    return Sampled(whole.of(array), positions, whole.shape)


def matched(
    truths: Sequence[np.ndarray | Sampled], others: Sequence[np.ndarray | Sampled]
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Both sides at the positions that are known; arrays of equal shape, pair by pair."""
    pairs = zip(truths, others, strict=True)
    return [_values(t) for t in truths], [t.of(o) if isinstance(t, Sampled) else _values(o) for t, o in pairs]


def alike(
    truths: Sequence[Sequence[np.ndarray | Sampled]], outputs: Sequence[Sequence[np.ndarray | Sampled]]
) -> tuple[list[list[np.ndarray]], list[list[np.ndarray]]]:
    """Both sides, [feed][output], at the positions that are known; an output of another shape stays as it is."""
    known: list[list[np.ndarray]] = []
    taken: list[list[np.ndarray]] = []
    for feed, others in zip(truths, outputs, strict=True):
        fits = [t.shape == o.shape for t, o in zip(feed, others, strict=True)]
        pairs = zip(fits, feed, others, strict=True)
        known.append([_values(t) for t in feed])
        taken.append([t.of(o) if fit and isinstance(t, Sampled) else _values(o) for fit, t, o in pairs])
    return known, taken


def shares(names: Sequence[str], truths: Sequence[Sequence[np.ndarray | Sampled]]) -> str:
    """What is said of outputs of which only some elements are judged, "" where all are known in full.

    Shapes: ``truths`` is [feed][output].
    """
    parts = []
    for index, name in enumerate(names):
        found = [feed[index] for feed in truths]
        if any(isinstance(truth, Sampled) for truth in found):
            known, whole = sum(_values(t).size for t in found), sum(t.size for t in found)
            parts.append(f"{known:,} of {whole:,} elements of '{name}'")
    return f"Judged were {' and '.join(parts)} (sampled)." if parts else ""


def _values(array: np.ndarray | Sampled) -> np.ndarray:
    return array.values if isinstance(array, Sampled) else array
