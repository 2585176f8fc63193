"""Errors in units of the noise where they stand: one broken element, one wrong channel of a small scale.

Where the noise of an output differs from channel to channel (scales of 1e-3 and 1e3 in one
tensor), one rms and one maximum see the loudest alone. The noise of an element is therefore
estimated as the product of what each axis contributes, and the noise of every slice along an
axis is kept. Measured in docs/detection-power.md on 140 large outputs: this finds 86 % of the
elements that are off by 50 times the noise of their channel, and 86 % of the least channels
that are off by 4 times their own noise, where one maximum over one maximum finds 54 % and
17 % (one kind in seven, peaked softmax, escapes both). Estimating an element's noise from its own eight rows or
re-rolls instead is worse: a denominator of eight values is small by chance somewhere among a
million.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

# Below this many elements a slice's rms scatters too much: over 440 faithful cells the largest ratio of a column to the
# whole was 6.1 with 8 elements, 3.6 with 16 and 2.8 from 64 on.
FEWEST = 64
# And a slice whose noise is that of a few of its elements says nothing of the others: a channel of a peaked softmax
# is near 1 in some places and 1e-30 in most, and faithful runtimes differ there by 58 times the slice's noise (3.3 with
# this). Such a slice counts as having the whole output's. The effective number of elements is (sum of e^2)^2 / (sum of
# e^4); of normal noise it is a third of all.
FEWEST_EFFECTIVE = 16
# The limit of a slice of fewer elements is SCATTER^(1/d) times wider, 5.6 times for 8 elements: the ratio of two rms
# values of d independent errors each is larger about once in SCATTER slices (the tail of the F distribution with d and
# d degrees of freedom). Of normal noise the effective number of elements is (n + 2) / 3: d where it is less even. Where
# one element makes all of it, d counts as 2: a slice's noise is never below what writing it down costs, and a thousand
# times more than that is no chance.
SCATTER = 1e6
FEWEST_DEGREES = 2.0
# A runtime may flush to zero what is smaller (floating.py).
SMALLEST_NORMAL = 2.0**-126
# Profiles live in the metadata of the cache; along a longer axis there is none.
LONGEST = 4096


@dataclass(frozen=True, slots=True)
class Profile:
    """The noise of an output along its axes.

    ``axes`` has per axis the rms of every slice, or nothing where its slices are too small
    or too many; ``largest`` is the largest rounding error in units of its element's noise.
    ``few`` has the rms of slices that are too small for that, per axis, and ``wider`` how many times
    wider their limit is.
    """

    shape: tuple[int, ...]
    axes: tuple[tuple[float, ...], ...]
    largest: float
    few: tuple[tuple[float, ...], ...] = ()
    wider: tuple[tuple[float, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Local:
    """The worst slice and the worst element of an error, in units of their own noise.

    ``wider`` is how many times wider than usual that slice's limit is, which ``slice_ratio`` allows for.
    ``point_ratio`` is over the same of the rounding errors; ``error`` and ``allowed`` are
    that element's error and the largest that rounding does there, in the output's unit.
    """

    slice_ratio: float
    axis: int
    index: int
    slice_noise: float
    point_ratio: float
    position: tuple[int, ...]
    error: float
    allowed: float
    wider: float = 1.0


def measure(
    truths: Sequence[np.ndarray], rounded: Sequence[np.ndarray], noise_rms: float, unit: float
) -> Profile | None:
    """The profile of an output's noise over all feeds, ``None`` where it has no axis with slices.

    Units: ``noise_rms`` is the whole output's; ``unit`` is the relative rounding unit: no slice's noise is below what
    writing it down costs.
    """
    import numpy as np

    error, truth = _joined_error(truths, rounded), _joined(truths)
    if error is None or truth is None:
        return None
    usable = [2 <= n <= LONGEST and error.size // n >= FEWEST for n in error.shape]  # noqa: PLR2004 - an axis of 1 is none
    small = [2 <= n <= LONGEST and 2 <= error.size // n < FEWEST for n in error.shape]  # noqa: PLR2004 - likewise
    if not any((*usable, *small)) or not noise_rms:
        return None
    finite = np.where(np.isfinite(truth), truth, 0.0)
    axes = tuple(
        _noise_along(error, finite, axis, noise_rms, unit) if use else np.empty(0) for axis, use in enumerate(usable)
    )
    largest = float((np.abs(error) / _sigma(error.shape, axes, noise_rms)).max())
    few, wider = [], []
    for axis, use in enumerate(small):
        own, width = _few_along(error, finite, axis, noise_rms, unit) if use else ((), ())
        few.append(tuple(own))
        wider.append(tuple(width))
    return Profile(error.shape, tuple(tuple(a.tolist()) for a in axes), max(largest, 1.0), tuple(few), tuple(wider))


def compare(
    profile: Profile, noise_rms: float, truths: Sequence[np.ndarray], got: Sequence[np.ndarray]
) -> Local | None:
    """The worst slice and element; ``None`` for other samples than the profile was made of."""
    import numpy as np

    error = _joined_error(truths, got)
    if error is None or error.shape != tuple(profile.shape) or not noise_rms:
        return None
    axes = tuple(np.array(a) for a in profile.axes)
    worst, wider = (0.0, 0, 0, noise_rms), 1.0
    for axis in range(error.ndim):
        noise, width = axes[axis], np.ones(1)
        if axis < len(profile.few) and profile.few[axis]:
            noise, width = np.array(profile.few[axis]), np.array(profile.wider[axis])
        if noise.size:
            ratios = _along(error, axis) / noise / width
            index = int(ratios.argmax())
            if ratios[index] > worst[0]:
                worst = (float(ratios[index]), axis, index, float(noise[index]))
                wider = float(np.broadcast_to(width, noise.shape)[index])
    sigma = _sigma(error.shape, axes, noise_rms)
    relative = np.abs(error) / sigma
    position = tuple(int(i) for i in np.unravel_index(int(relative.argmax()), error.shape))
    allowed = profile.largest * float(np.broadcast_to(sigma, error.shape)[position])
    # Without a large slice there is no more to say of an element than what the output as a whole says.
    point = float(relative[position]) / profile.largest if any(a.size for a in axes) else 0.0
    return Local(*worst, point, position, float(abs(error[position])), allowed, wider)


def by_row(truths: Sequence[np.ndarray], rounded: Sequence[np.ndarray]) -> tuple[float, ...]:
    """The rms of the error of every row of all feeds, -1 where a row is not finite; () where outputs have no rows."""
    import numpy as np

    truth, other = _joined(truths), _joined(rounded)
    if truth is None or other is None or not truth.size or truth.shape[0] > LONGEST:
        return ()
    with np.errstate(invalid="ignore", over="ignore"):
        error = (other - truth).reshape(truth.shape[0], -1)
        rows = np.sqrt(np.mean(np.square(error), axis=1)) if error.shape[1] else np.zeros(len(error))
    return tuple(float(f"{v:.6g}") if np.isfinite(v) else -1.0 for v in rows)


def from_json(data: dict[str, object] | None) -> Profile | None:
    """The profile as the cache's metadata has it."""
    if data is None:
        return None
    axes, few, wider = (
        tuple(tuple(float(v) for v in a) for a in data.get(key, ()))  # type: ignore[attr-defined]
        for key in ("axes", "few", "wider")
    )
    return Profile(tuple(data["shape"]), axes, float(data["largest"]), few, wider)  # type: ignore[arg-type]


def _joined(arrays: Sequence[np.ndarray]) -> np.ndarray | None:
    """All feeds along the first axis, in float64; ``None`` where they do not fit together."""
    import numpy as np

    if not arrays or arrays[0].ndim == 0 or any(a.shape[1:] != arrays[0].shape[1:] for a in arrays):
        return None
    return np.concatenate([a.astype(np.float64) for a in arrays])


def _joined_error(truths: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> np.ndarray | None:
    """The difference, 0 where a side is not finite."""
    import numpy as np

    truth, other = _joined(truths), _joined(others)
    if truth is None or other is None:
        return None
    with np.errstate(invalid="ignore"):
        error = other - truth
    return np.where(np.isfinite(error), error, 0.0)


def _along(array: np.ndarray, axis: int) -> np.ndarray:
    import numpy as np

    others = tuple(a for a in range(array.ndim) if a != axis)
    with np.errstate(over="ignore"):
        result: np.ndarray = np.sqrt(np.mean(np.square(array), axis=others))
    if not np.isfinite(result).all():  # doubles whose squares overflow
        largest = float(np.abs(array).max())
        result = largest * np.sqrt(np.mean(np.square(array / largest), axis=others))
    return result


def _noise_along(error: np.ndarray, truth: np.ndarray, axis: int, whole: float, unit: float) -> np.ndarray:
    """The noise of every slice along an axis, the whole output's where a slice does not tell."""
    import numpy as np

    effective = _effective(error, axis, whole)
    own = np.maximum(_along(error, axis), _along(truth, axis) * unit / math.sqrt(3))
    told = np.where((effective >= FEWEST_EFFECTIVE) & (own > 0), own, np.maximum(own, whole))
    return np.array([float(f"{v:.4g}") for v in told])


def _few_along(
    error: np.ndarray, truth: np.ndarray, axis: int, whole: float, unit: float
) -> tuple[list[float], list[float]]:
    """The noise of every slice of few elements along an axis, and how many times wider its limit is."""
    import numpy as np

    written = _along(truth, axis) * unit / math.sqrt(3)
    own = np.maximum(np.maximum(_along(error, axis), written), SMALLEST_NORMAL)
    own = np.where(written > 0, own, np.maximum(own, whole))
    degrees = np.minimum(error.size // error.shape[axis], 3 * _effective(error, axis, whole) - 2)
    degrees = np.maximum(degrees, FEWEST_DEGREES)
    return [float(f"{v:.4g}") for v in own], [float(f"{v:.4g}") for v in SCATTER ** (1 / degrees)]


def _effective(error: np.ndarray, axis: int, whole: float) -> np.ndarray:
    """The effective number of elements of every slice along an axis."""
    import numpy as np

    others = tuple(a for a in range(error.ndim) if a != axis)
    relative = np.square(error / whole)
    fourth = np.sum(np.square(relative), axis=others)
    found: np.ndarray = np.square(np.sum(relative, axis=others)) / np.maximum(fourth, np.finfo(np.float64).tiny)
    return found


def _sigma(shape: tuple[int, ...], axes: Sequence[np.ndarray], whole: float) -> np.ndarray:
    """The noise of every element: the whole's, times what every axis has of it at that place."""
    import numpy as np

    sigma = np.full([1] * len(shape), whole)
    for axis, noise in enumerate(axes):
        if noise.size:
            sigma = sigma * (noise / whole).reshape([-1 if a == axis else 1 for a in range(len(shape))])
    return sigma
