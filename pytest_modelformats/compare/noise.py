"""What rounding alone costs one output of the source: measured, and how an error is summed to stand beside it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_modelformats.compare import noise_profile

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from pytest_modelformats.compare.noise_profile import Profile

# Squares of errors 10¹⁶ times smaller than these are still no denormals, and their sum no infinity.
SQUARABLE = (1e-130, 1e140)


@dataclass(frozen=True, slots=True)
class Noise:
    """What rounding alone costs one output of the source at one precision, in the output's unit.

    ``raw_rms`` is as measured; ``rms`` and ``max`` are not below what writing the output
    down at that precision costs. ``flips`` is the share of integer elements that change.
    ``profile`` says how the noise lies along the axes, ``rows`` the rms of every row of all
    feeds (-1 where a row is not finite); both only where they were measured. ``lost`` is where
    the source itself has NaN or Inf at the precision and numbers in float64: start and length
    of every run of elements, over all feeds one after the other.
    """

    rms: float
    max: float
    raw_rms: float
    flips: float = 0.0
    profile: Profile | None = None
    rows: tuple[float, ...] = ()
    lost: tuple[int, ...] = ()


def measure_noise(truths: Sequence[np.ndarray], rounded: Sequence[np.ndarray], mantissa_bits: int) -> Noise:
    """The noise of one output over all feeds.

    Source: representation floor u/√3 with u = 2^-(mantissa_bits + 1), the rms of an error
    uniform in ±u (Higham, Accuracy and Stability of Numerical Algorithms, §2.1).
    """
    import numpy as np

    if not np.issubdtype(truths[0].dtype, np.floating):
        changed = [np.asarray(t != r) for t, r in zip(truths, rounded, strict=True)]
        total = sum(c.size for c in changed)
        return Noise(0.0, 0.0, 0.0, sum(int(c.sum()) for c in changed) / total if total else 0.0)
    error = Error(truths, rounded)
    unit = 2.0 ** -(mantissa_bits + 1)
    rms = max(error.rms, error.truth_rms * unit / math.sqrt(3))
    return Noise(
        rms,
        max(error.max, error.truth_max * unit),
        error.rms,
        profile=noise_profile.measure(truths, rounded, rms, unit),
        rows=noise_profile.by_row(truths, rounded),
        lost=_lost(truths, rounded),
    )


def _lost(truths: Sequence[np.ndarray], rounded: Sequence[np.ndarray]) -> tuple[int, ...]:
    """The runs of elements that are finite in the truth and not when rounded, as :class:`Noise` has them."""
    import numpy as np

    gone = [np.isfinite(t) & ~np.isfinite(r.astype(np.float64)) for t, r in zip(truths, rounded, strict=True)]
    if not any(g.any() for g in gone):
        return ()
    steps = np.diff(np.concatenate([g.ravel() for g in gone]).astype(np.int8), prepend=0, append=0)
    starts, ends = np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)
    return tuple(int(v) for v in np.stack([starts, ends - starts], 1).ravel())


def judgeable(truths: Sequence[np.ndarray], noise: Noise) -> list[np.ndarray]:
    """The truths with NaN where the source itself has no number at the precision: nothing can be judged there.

    Shapes: one array per feed, of the feeds that the noise is of or of the first rows of them.
    """
    import numpy as np

    if not noise.lost or not all(isinstance(t, np.ndarray) for t in truths):  # a sampled truth has no such noise
        return list(truths)
    gone = np.zeros(size_of(truths), bool)
    for start, length in zip(noise.lost[::2], noise.lost[1::2], strict=True):
        gone[start : start + length] = True
    parts = np.split(gone, np.cumsum([t.size for t in truths])[:-1])
    return [np.where(g.reshape(t.shape), np.nan, t) for g, t in zip(parts, truths, strict=True)]


class Error:
    """rms and maximum of a difference over the positions where both sides are finite."""

    def __init__(self, truths: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> None:
        """Sum the difference over all feeds; in the arrays' unit."""
        self._sum(truths, others, 1.0)
        largest = max(self.max, self.truth_max)
        if largest and not SQUARABLE[0] < largest < SQUARABLE[1]:
            self._sum(truths, others, 2.0 ** math.floor(math.log2(largest)))

    def _sum(self, truths: Sequence[np.ndarray], others: Sequence[np.ndarray], scale: float) -> None:
        import numpy as np

        squares = truth_squares = 0.0
        self.max = self.truth_max = 0.0
        self.elements = 0
        for truth, other in zip(truths, others, strict=True):
            t, y = truth.astype(np.float64), other.astype(np.float64)
            finite = np.isfinite(t) & np.isfinite(y)
            t, y = (t.ravel(), y.ravel()) if finite.all() else (t[finite], y[finite])
            if t.size:
                difference = np.abs(y - t)
                self.max = max(self.max, float(difference.max()))
                self.truth_max = max(self.truth_max, float(np.abs(t).max()))
                if scale != 1:
                    difference, t = difference / scale, t / scale
                with np.errstate(over="ignore"):  # what overflows here is summed again, scaled
                    squares += float(np.dot(difference, difference))
                    truth_squares += float(np.dot(t, t))
            self.elements += t.size
        self.rms = scale * math.sqrt(squares / self.elements) if self.elements else 0.0
        self.truth_rms = scale * math.sqrt(truth_squares / self.elements) if self.elements else 0.0


def size_of(arrays: Sequence[np.ndarray]) -> int:
    """The number of elements over all feeds."""
    return sum(a.size for a in arrays)
