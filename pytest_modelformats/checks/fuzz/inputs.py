"""Generated inputs: Hypothesis strategies from a model's input specification.

An input is drawn as a recipe of a few small choices, not element by element: that is quick for
large tensors, and it shrinks along every choice on its own, towards batch 1, zeros, and one element.

Imports Hypothesis inside the functions that use it: who has not asked for it does not pay for it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pytest_modelformats.run.workers.calls import CONTIGUOUS, LAYOUTS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    from hypothesis.strategies import SearchStrategy

    from pytest_modelformats.schema import TensorSpec
    from pytest_modelformats.source.samples import Samples

# Sizes of the batch and of other dimensions, as far as the samples go: one, two, odd ones, the largest.
BATCH_SIZES = (1, 2, 3, 5, 7, 16)
OTHER_SIZES = (1, 2, 3, 7, 8, 15, 16, 31, 33, 64)
# The batch stays below this, so that one input costs no more than the samples do: 5 rows of 3 x 224 x 224.
MOST_BYTES = 4 << 20
FEWEST_ROWS = 3
MAGNITUDES = ("equal", "normal", "mixed")
SIGNS = ("+", "-", "±")
# Factors on what is usual for the input, the rms of its samples; the last two are absolute.
SCALES: dict[str, float] = {"usual": 1.0, "small": 2.0**-10, "large": 2.0**3, "very large": 2.0**7, "tiny": 2.0**-60}
DENORMAL = "denormal"
SCALE_NAMES = (*SCALES, DENORMAL)
TOKENS = ("lowest", "highest", "lowest but one", "highest but one", "both ends", "uniform")
# "mixed" magnitudes lie between these powers of two, times the scale.
_MIXED_BITS = (-12.0, 4.0)
_SEEDS = 2**16


@dataclass(frozen=True)
class Generated:
    """An input as it was drawn; ``said`` describes each tensor in words, ``layouts`` how it lies in memory."""

    feed: Mapping[str, np.ndarray]
    layouts: Mapping[str, str]
    said: Mapping[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """SHA-256 over values, dtypes, shapes and layouts."""
        import hashlib

        found = hashlib.sha256(str(sorted(self.layouts.items())).encode())
        for name, array in self.feed.items():
            found.update(f"{name}:{array.dtype}:{array.shape}".encode())
            found.update(array.tobytes())
        return found.hexdigest()

    def __str__(self) -> str:
        """One clause per tensor."""
        return "; ".join(self.said.values())


def strategy(
    specs: Sequence[TensorSpec],
    samples: Samples,
    layouts: Sequence[str] = LAYOUTS,
    of_images: Mapping[str, Sequence[int]] | None = None,
) -> SearchStrategy[Generated]:
    """Every kind of input that the specification allows; what the samples hold says what is usual.

    ``of_images`` are the sizes of heights and widths, by symbol: below the ones in use a network has nothing to see.
    """
    from hypothesis import strategies as st

    @st.composite
    def draw_all(draw: Callable[[SearchStrategy[Any]], Any]) -> Generated:
        sizes: dict[Any, int] = {
            (name, 0): draw(st.sampled_from(tuple(known))) for name, known in (of_images or {}).items()
        }
        feed, lies, said = {}, {}, {}
        for spec in specs:
            observed = samples.feeds[0][spec.name]
            shape = tuple(
                dim if isinstance(dim, int) else _size(draw, sizes, _symbol(dim, axis), samples, observed.shape[axis])
                for axis, dim in enumerate(spec.shape or ())
            )
            maker = _floats if spec.is_float else _tokens
            array, words = maker(draw, spec, shape, observed)
            feed[spec.name] = array
            lies[spec.name] = layout = draw(st.sampled_from(tuple(layouts)))
            memory = "" if layout == CONTIGUOUS else f", {layout} in memory"
            said[spec.name] = f"'{spec.name}' {spec.dtype}{list(shape)}: {words}{memory}"
        return Generated(feed, lies, said)

    return draw_all()


def _symbol(dim: str, axis: int) -> tuple[str, int]:
    """What two dimensions share that must be equal: their name, or for those without one their axis."""
    from pytest_modelformats.source.batch_axes import ANONYMOUS

    return ("", axis) if dim in ANONYMOUS else (dim, 0)


def _size(draw: Any, sizes: dict[Any, int], symbol: Any, samples: Samples, largest: int) -> int:
    """The size of a symbolic dimension, the same wherever the symbol stands."""
    from hypothesis import strategies as st

    if symbol not in sizes:
        is_batch = symbol[0] == samples.batch_symbol or (samples.batch_symbol == "?" and symbol == ("", 0))
        rows = max(MOST_BYTES // max(_row_bytes(samples), 1), FEWEST_ROWS)
        known = (
            tuple(s for s in BATCH_SIZES if s <= rows)
            if is_batch
            else (*(s for s in OTHER_SIZES if s < largest), largest)
        )
        sizes[symbol] = draw(st.sampled_from(known))
    return sizes[symbol]


def _row_bytes(samples: Samples) -> int:
    """What one row of all inputs takes."""
    return sum(array.nbytes for array in samples.feeds[0].values()) // max(samples.rows // len(samples.feeds), 1)


def _filled(draw: Any, size: int) -> tuple[np.ndarray, str]:
    """The places that hold something, as indices into the flat tensor: all of them, or a run."""
    import numpy as np
    from hypothesis import strategies as st

    # One number for both, so that shrinking goes from all to few.
    count = min(draw(st.integers(0, 2 * size)), size)
    start = draw(st.integers(0, max(size - 1, 0)))
    if count == size:
        return np.arange(size), "everywhere"
    return (start + np.arange(count)) % size, f"in {count} of {size} elements"


def _floats(draw: Any, spec: TensorSpec, shape: tuple[int, ...], observed: np.ndarray) -> tuple[np.ndarray, str]:
    import math

    import numpy as np
    from hypothesis import strategies as st

    from pytest_modelformats.source.samples import as_float

    places, where = _filled(draw, math.prod(shape))
    magnitude, sign = draw(st.sampled_from(MAGNITUDES)), draw(st.sampled_from(SIGNS))
    scale = draw(st.sampled_from(SCALE_NAMES))
    random = np.random.default_rng(draw(st.integers(0, _SEEDS - 1)))
    values = np.ones(places.size)
    if magnitude == "normal":
        values = np.abs(random.standard_normal(places.size))
    elif magnitude == "mixed":
        values = np.exp2(random.uniform(*_MIXED_BITS, places.size))
    if sign != "+":
        values = -values if sign == "-" else values * random.choice([-1.0, 1.0], places.size)
    values = values * (_denormal(spec.dtype) if scale == DENORMAL else _usual(observed) * SCALES[scale])
    flat = np.zeros(math.prod(shape))
    flat[places] = values
    if spec.low is not None and spec.high is not None:
        flat = np.clip(flat, spec.low, spec.high)
    array = as_float(np.clip(flat, *_limits(spec.dtype)), spec.dtype).reshape(shape)
    if not places.size:
        return array, "zeros"
    return array, f"{scale}, {magnitude}, {sign} {where}"


def _usual(observed: np.ndarray) -> float:
    """The rms of the samples as a power of two, 1 where they are zero."""
    import math

    import numpy as np

    finite = observed[np.isfinite(observed)].astype(np.float64)
    rms = math.sqrt(float(np.mean(finite**2))) if finite.size else 0.0
    return 2.0 ** round(math.log2(rms)) if rms else 1.0


def _limits(dtype: str) -> tuple[float, float]:
    """The largest finite values of a dtype."""
    import numpy as np

    largest = float(np.finfo("float32" if dtype == "bfloat16" else dtype).max)
    return -largest, largest


def _denormal(dtype: str) -> float:
    """A number of which ``dtype`` keeps some bits, but not all."""
    import numpy as np

    return float(np.finfo("float32" if dtype == "bfloat16" else dtype).tiny) * 2.0**-4


def _tokens(draw: Any, spec: TensorSpec, shape: tuple[int, ...], observed: np.ndarray) -> tuple[np.ndarray, str]:
    import math

    import numpy as np
    from hypothesis import strategies as st

    low, high = _range(spec, observed)
    places, where = _filled(draw, math.prod(shape))
    kind = draw(st.sampled_from(TOKENS))
    random = np.random.default_rng(draw(st.integers(0, _SEEDS - 1)))
    ends = {"lowest": low, "highest": high, "lowest but one": min(low + 1, high), "highest but one": max(high - 1, low)}
    if kind in ends:
        values = np.full(places.size, ends[kind])
    elif kind == "both ends":
        values = np.where(np.arange(places.size) % 2, low, high)
    else:
        values = random.integers(low, high, places.size, endpoint=True)
    flat = np.full(math.prod(shape), low)
    flat[places] = values
    array = flat.astype(bool if spec.dtype == "bool" else spec.dtype).reshape(shape)
    said = f"{kind} ({ends[kind]})" if kind in ends else f"{kind} of {low}..{high}"
    if not places.size:
        return array, f"all {low}"
    return array, f"{said} {where}" + ("" if places.size == array.size else f", the others {low}")


def _range(spec: TensorSpec, observed: np.ndarray) -> tuple[int, int]:
    """The range that the specification states, or what the samples hold."""
    if spec.dtype == "bool":
        return 0, 1
    if spec.low is not None and spec.high is not None:
        return int(spec.low), int(spec.high)
    return (int(observed.min()), int(observed.max())) if observed.size else (0, 0)
