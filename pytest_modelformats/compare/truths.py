"""The true tensors of a model in float64, and what rounding costs each: kept as files, read one at a time.

Made once for a model, its inputs and a precision; every candidate that is compared with it reads the same files.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pytest_modelformats.schema import PRECISIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import numpy as np

_INDEX = "index.json"
# The ratio of two maxima scatters more than that of two rms values (floating.POINT_LIMIT over the limit of r).
POINTS = 1.5
# Fewer elements than this agree by chance: two scalars of 1.0 are not one tensor.
_TELLING = 4


@dataclass(frozen=True, slots=True)
class Known:
    """A tensor of the reference: where its float64 values are, and the rms and maximum of its rounding noise.

    ``own`` is where its values at the precision are, if they are not finite in other places than the float64 ones.
    """

    name: str
    file: str
    operator: str
    shape: tuple[int, ...]
    floating: bool
    rms: float
    noise_rms: float
    noise_max: float
    own: str = ""


@dataclass(frozen=True, slots=True)
class Distance:
    """How far a tensor is from what it should hold, in units of its rounding noise; infinite where not comparable.

    ``overflows``: it is not finite where the reference is, but so is the reference itself at the precision.
    """

    ratio: float
    error_rms: float = math.inf
    overflows: bool = False


class Truths:
    """The tensors of a reference by name."""

    def __init__(self, folder: Path) -> None:
        """Read the index; the tensors stay on disk."""
        self.folder = folder
        entries = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
        self.known = {e["name"]: Known(**{**e, "shape": tuple(e["shape"])}) for e in entries}

    def __contains__(self, name: str) -> bool:
        """Whether the reference has a tensor of this name."""
        return name in self.known

    def load(self, name: str) -> np.ndarray:
        """The values of a tensor."""
        import numpy as np

        array: np.ndarray = np.load(self.folder / self.known[name].file, allow_pickle=False)
        return array

    def distance(self, name: str, value: Any) -> Distance:
        """How far ``value`` is from the tensor ``name``."""
        import numpy as np

        entry = self.known[name]
        got = np.asarray(value)
        if got.shape != entry.shape or (got.dtype.kind == "f") != entry.floating:
            return Distance(math.inf)
        truth = self.load(name)
        if not entry.floating:
            return Distance(0.0, 0.0) if np.array_equal(truth, got) else Distance(math.inf)
        rms, largest, comparable = spread(truth, got)
        overflows = not comparable and bool(entry.own)
        if overflows:
            own = np.load(self.folder / entry.own, allow_pickle=False)
            rms, largest, comparable = spread_beside(truth, own, got)
        if not comparable:
            return Distance(math.inf)
        ratio = max(_over(rms, entry.noise_rms), _over(largest, entry.noise_max) / POINTS)
        return Distance(ratio, rms, overflows)

    def like(self, value: Any, limit: float) -> str:
        """The name of a tensor of the same shape that holds these values, "" where there is none."""
        import numpy as np

        got = np.asarray(value)
        if got.dtype.kind != "f" or got.size < _TELLING:
            return ""
        rms = _rms(got)
        for entry in self.known.values():
            near = abs(entry.rms - rms) <= limit * entry.noise_rms + 1e-3 * entry.rms
            if entry.floating and entry.shape == got.shape and near:
                found = self.distance(entry.name, got).ratio
                if found <= limit:
                    return entry.name
        return ""


def complete(folder: Path) -> bool:
    """Whether the truths in a folder were written to their end."""
    return (folder / _INDEX).is_file()


class Writer:
    """Writes truths one tensor after the other."""

    def __init__(self, folder: Path, precision: str) -> None:
        """Write into ``folder``, which exists; ``precision`` is what the rounded values were computed at."""
        self._folder = folder
        self._unit = 2.0 ** -(PRECISIONS[precision].mantissa_bits + 1)
        self._entries: list[dict[str, Any]] = []

    def add(self, name: str, operator: str, wide: Any, rounded: Any) -> None:
        """Keep a tensor and what rounding does to it."""
        import numpy as np

        truth, other = np.asarray(wide), np.asarray(rounded)
        file = f"{len(self._entries)}.npy"
        np.save(self._folder / file, truth, allow_pickle=False)
        floating = truth.dtype.kind == "f"
        size = _rms(truth) if floating else 0.0
        rms, largest, comparable = spread(truth, other) if floating and truth.shape == other.shape else (0.0, 0.0, True)
        peak = _peak(truth) if floating else 0.0
        own = ""
        if not comparable:
            own = f"{len(self._entries)}-own.npy"
            np.save(self._folder / own, other, allow_pickle=False)
            rms, largest, _ = spread_beside(truth, other, other)
        # Writing a value down at a precision costs u/√3 rms and u at most (noise.measure_noise).
        noise = (max(rms, size * self._unit / math.sqrt(3)), max(largest, peak * self._unit))
        self._entries.append(asdict(Known(name, file, operator, truth.shape, floating, size, *noise, own)))

    def close(self) -> Truths:
        """Write the index: from here on the truths are complete."""
        text = json.dumps(self._entries)
        (self._folder / _INDEX).write_text(text, encoding="utf-8")
        return Truths(self._folder)


def spread(truth: np.ndarray, got: np.ndarray) -> tuple[float, float, bool]:
    """The rms and maximum of the difference of two arrays of one shape, and whether NaN and Inf stand alike."""
    import numpy as np

    wide = got.astype(np.float64, copy=False)
    finite = np.isfinite(truth)
    if not np.array_equal(finite, np.isfinite(wide)):
        return math.inf, math.inf, False
    difference = np.subtract(wide, truth)
    if not finite.all():
        same = np.array_equal(truth[~finite], wide[~finite], equal_nan=True)
        difference = difference[finite]
        if not same:
            return math.inf, math.inf, False
    return _rms(difference), _peak(difference), True


def spread_beside(truth: np.ndarray, own: np.ndarray, got: np.ndarray) -> tuple[float, float, bool]:
    """As :func:`spread`, where ``got`` may hold the NaN and Inf of ``own``, the reference at the precision, too."""
    import numpy as np

    odd = ~np.isfinite(got)
    as_truth, as_own = (odd & _alike(got, other) for other in (truth, own))
    # A runtime with a wider accumulator may stay finite where the precision overflows, but not where truth does.
    finite = ~odd & np.isfinite(truth)
    if not (as_truth | as_own | finite | (~odd & np.isfinite(own))).all():
        return math.inf, math.inf, False
    difference = np.subtract(got[finite].astype(np.float64), truth[finite])
    return _rms(difference), _peak(difference), True


def _alike(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    import numpy as np

    same: np.ndarray = (one == other) | (np.isnan(one) & np.isnan(other))
    return same


def _rms(array: np.ndarray) -> float:
    import numpy as np

    flat = array.ravel().astype(np.float64, copy=False)
    flat = flat if np.isfinite(flat).all() else flat[np.isfinite(flat)]
    return math.sqrt(float(np.dot(flat, flat)) / flat.size) if flat.size else 0.0


def _peak(array: np.ndarray) -> float:
    import numpy as np

    flat = array.ravel()
    flat = flat if np.isfinite(flat).all() else flat[np.isfinite(flat)]
    return float(max(flat.max(), -flat.min())) if flat.size else 0.0


def _over(error: float, noise: float) -> float:
    if noise:
        return error / noise
    return 0.0 if error == 0 else math.inf


def worst(distances: Sequence[Distance]) -> float:
    """The largest ratio, 0 where there is none."""
    return max((d.ratio for d in distances), default=0.0)


class OutOfTimeError(Exception):
    """The budget ended; the message says how far it came."""


def timer(seconds: float) -> Callable[[int, int], None]:
    """A check to be called at every step; raises OutOfTimeError once the budget has ended."""
    ends = time.monotonic() + seconds

    def check(done: int, everything: int) -> None:
        if time.monotonic() > ends:
            msg = f"the time budget ended after {done} of {everything} nodes"
            raise OutOfTimeError(msg)

    return check


def read(paths: Mapping[str, str]) -> dict[str, np.ndarray]:
    """The arrays of a feed that is given as files."""
    import numpy as np

    return {name: np.load(path, allow_pickle=False) for name, path in paths.items()}
