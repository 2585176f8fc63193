"""The noise of some rows, and of results of a size: what explains a difference where the noise of all samples does not.

One row of unusual size may carry most of the noise of all samples, so that a batch is judged by the noise of its own
rows. Of few elements that is a noisy estimate: it is never below the usual noise of a row, in which no row counts for
more than ``MOST`` times the middle one. Of rows of one normal element 99.3 % count in full, of larger ones more.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pytest_modelformats.compare.noise import Noise
from pytest_modelformats.compare.sampled import Sampled
from pytest_modelformats.compare.single_input import Usual, size, usual_noise
from pytest_modelformats.schema import PRECISIONS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

    from pytest_modelformats.compare.reference import Reference

    Span = tuple[int, int]
    Floors = Mapping[str, Sequence[Noise]]

MOST = 4.0
# What evaluates the source may sum another batch in another order; with a cell's own √2 this stays below its limit.
ALIKE = 2.0


def of_rows(noise: Noise, span: Span, truth: Any, precision: str) -> Noise:
    """The noise of some rows of an output that goes by rows; ``truth`` is theirs.

    Not below what writing the rows down costs, nor below the usual noise of a row (see above).
    """
    import numpy as np

    rows = np.array([r for r in noise.rows if r >= 0], float)
    own = np.array([r for r in noise.rows[slice(*span)] if r >= 0], float)
    if not own.size or not noise.rms:
        return replace(noise, profile=None, rows=())
    pooled, middle = math.sqrt(np.mean(rows**2)), float(np.median(rows))
    typical = math.sqrt(np.mean(np.minimum(rows, MOST * middle) ** 2))
    share = typical / pooled if typical else 1.0
    unit = 2.0 ** -(PRECISIONS[precision].result_bits + 1) / math.sqrt(3)
    written = size(getattr(truth, "values", truth))[0] * unit
    rms = max(math.sqrt(np.mean(own**2)), noise.rms * share, written)
    return replace(noise, rms=rms, max=noise.max * min(1.0, rms / noise.rms), profile=None, rows=())


def of_results(reference: Reference, results: Sequence[np.ndarray], chosen: Sequence[int], yardstick: str) -> Floors:
    """The noise of some outputs, at a precision not below what is usual for results of this size.

    One row of unusual size among the samples makes more noise in the few rows that it is one of than in all.
    """
    # These may be other rows, or in another order, than the places are of.
    found = {p: [replace(values[i], lost=()) for i in chosen] for p, values in reference.noise.items()}
    if len(results) == len(chosen) and yardstick in found:
        known = usual(reference, yardstick)
        found[yardstick] = [
            larger(n, for_size(known[i], result))
            for n, i, result in zip(found[yardstick], chosen, results, strict=True)
        ]
    return found


def usual(reference: Reference, precision: str) -> list[Usual]:
    """What rounding costs each output over the samples, in relation to its size; also where outputs are sampled."""
    truths = [[getattr(t, "values", t) for t in of_feed] for of_feed in reference.truths]
    return usual_noise(truths, reference.noise[precision])


def for_size(usual: Usual, result: Any) -> Noise:
    """What is usual for a result of this size."""
    rms, largest = size(getattr(result, "values", result))
    return Noise(usual.rms * rms, usual.max * largest, usual.rms * rms, usual.flips)


def larger(one: Noise, other: Noise) -> Noise:
    """The first noise, not below the other one."""
    rms, largest, flips = max(one.rms, other.rms), max(one.max, other.max), max(one.flips, other.flips)
    return replace(one, rms=rms, max=largest, flips=flips, profile=None, rows=())


def same(one: Any, other: Any, noise: Noise) -> bool:
    """Whether two results of the source are the same but for rounding: the places of NaN and Inf are equal."""
    import numpy as np

    if tuple(one.shape) != tuple(other.shape):
        return False
    a, b = (getattr(side, "values", side) for side in (one, other))
    if not np.issubdtype(a.dtype, np.floating):
        return bool((a != b).sum() <= math.ceil(noise.flips * a.size))
    finite = np.isfinite(a)
    if not np.array_equal(finite, np.isfinite(b)):
        return False
    with np.errstate(invalid="ignore"):
        apart = size(np.where(finite, a - b, 0.0))[0]
    return bool(apart <= ALIKE * noise.rms)


def rearranged(array: Any, order: np.ndarray) -> Any:
    """The rows of a result of the source in another order, where it has so many."""
    if tuple(array.shape[:1]) != (len(order),):
        return array
    return replace(array, values=array.values[order]) if isinstance(array, Sampled) else array[order]
