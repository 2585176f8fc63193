"""The samples that parity is judged on: seeded ones made from the model's inputs, or the user's own."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pytest_modelformats.errors import ConfigurationError, SourceError, Unsupported
from pytest_modelformats.schema import DTYPES
from pytest_modelformats.schema.names import suggest
from pytest_modelformats.source.batch_axes import ANONYMOUS, batch
from pytest_modelformats.source.free_dimensions import term

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

    from pytest_modelformats.schema import TensorSpec

LABELS = "labels"
# Where a caller says no size: a run does (sizes.py).
DEFAULT_SIZE = 16
DEFAULT_IMAGE_SIZE = 64
_IMAGE_SYMBOLS = frozenset({"h", "w", "height", "width"})


@dataclass(frozen=True)
class Samples:
    """A pool of samples.

    With a symbolic batch there is one feed of ``rows`` rows; with a fixed one
    (``batch_symbol`` "") as many feeds as it takes. ``batch_axes`` are the axes of each
    input that carry the batch.

    Shapes: ``labels`` [rows, ...].
    """

    feeds: tuple[dict[str, np.ndarray], ...]
    rows: int
    origin: str
    labels: np.ndarray | None = None
    batch_symbol: str = ""
    batch_axes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


def make_samples(specs: Sequence[TensorSpec], count: int, seed: int, dims: Mapping[str, int] | None = None) -> Samples:
    """A pool of ``count`` seeded samples; an input's values depend on the seed and on its name alone.

    A larger pool begins with the rows of a smaller one. ``dims`` sets symbols to other sizes
    than the defaults, and so the terms of them. With a fixed batch the last feed is filled up, so there may be more
    than ``count`` rows.

    Raises: SourceError where an input's shape or range of values is not known.
    """
    check_specs(specs)
    symbol, axes = batch(specs)
    sizes = _sizes(specs, dims or {})
    origin = _origin(specs, seed)
    if symbol:
        feed = {s.name: _values(s, _shape(s, sizes, axes, count), axes.get(s.name, ()), (seed, 0)) for s in specs}
        return Samples((feed,), count, origin, None, symbol, axes)
    size = fixed_batch(specs)
    feeds = tuple(
        {s.name: _values(s, _shape(s, sizes, axes, size), (0,), (seed, part)) for s in specs}
        for part in range(-(-count // size))
    )
    return Samples(feeds, len(feeds) * size, origin)


def load_samples(
    data: str, specs: Sequence[TensorSpec], search_path: Sequence[str] = (), limit: int | None = None
) -> Samples:
    """The user's samples, checked against the model's inputs; with ``limit``, the first ones of them.

    ``data`` is an .npz, a folder of ``<input>.npy``, ``module:callable`` or
    ``path.py:callable`` returning a dict; each holds one array per input and, if it likes,
    ``labels``. With a fixed batch of B, every B rows become a feed.

    Raises: SourceError, naming the array, what it is and what the model takes.
    """
    from pytest_modelformats.source.users_samples import checked_feed, read_arrays, row_count, split, whole_labels

    check_specs(specs)
    arrays, origin = read_arrays(data, search_path)
    labels = arrays.pop(LABELS, None) if all(spec.name != LABELS for spec in specs) else None
    feed = checked_feed(arrays, specs, origin)
    symbol, axes = batch(specs)
    feeds = (feed,) if symbol else split(feed, specs, origin)
    count = row_count(feed, axes, origin) if symbol else len(feeds) * fixed_batch(specs)
    labels = None if labels is None else whole_labels(labels, count, origin)
    return _limited(Samples(feeds, count, f"{origin}, {count} samples", labels, symbol, axes), limit)


def rows(samples: Samples, start: int, stop: int) -> dict[str, np.ndarray]:
    """The rows ``start`` to ``stop`` of every input that carries the batch; the other inputs as they are.

    Beyond the last row the pool begins again, so that any batch size can be had. With a
    fixed batch: the feed that row ``start`` is in.
    """
    import numpy as np

    if not samples.batch_symbol:
        size = samples.rows // len(samples.feeds)
        return dict(samples.feeds[start // size % len(samples.feeds)])
    # A pool that came back from a worker may have lost the axes.
    axes = samples.batch_axes or {n: (0,) for n, a in samples.feeds[0].items() if a.shape[:1] == (samples.rows,)}
    wanted = np.arange(start, stop) % samples.rows
    feed = dict(samples.feeds[0])
    for name, along in axes.items():
        for axis in along:
            feed[name] = np.take(feed[name], wanted, axis)
    return feed


def check_specs(specs: Sequence[TensorSpec]) -> None:
    """Every input has a name of its own, a shape and numbers in it; raises SourceError, Unsupported."""
    for spec in specs:
        if spec.dtype not in DTYPES:
            kind = "text" if spec.dtype in {"object", "str", "string"} else spec.dtype
            msg = f"the input '{spec.name}' of the model is {kind}; only numbers and booleans can be drawn and compared"
            raise Unsupported(msg)
        if not spec.name or spec.shape is None:
            proposed = replace(spec, name=spec.name or "input", shape=("N", 3, 224, 224))
            msg = (
                f"the model does not state the {'shape' if spec.name else 'name'} of an input ({spec}); "
                f"add --mf-input {proposed.pasted} with its own dimensions"
            )
            raise SourceError(msg)
    twice = [name for name, times in Counter(spec.name for spec in specs).items() if times > 1]
    if twice or not specs:
        what = f"two inputs are called '{twice[0]}'" if twice else "the model states no inputs"
        msg = f"{what}; describe the inputs by --mf-input"
        raise SourceError(msg)


def why_fixed(model: str, specs: Sequence[TensorSpec]) -> str:
    """Why such a model has no batch of another size, as a clause; what may vary without being the batch is named."""
    first = next((spec for spec in specs if spec.shape), None)
    varying = ((s.name, i, dim) for s in specs for i, dim in enumerate(s.shape or ()) if isinstance(dim, str))
    found = next(varying, None)
    if first is None or found is None:
        return f"the batch dimension of {model} is fixed"
    name, axis, symbol = found
    what = f"'{symbol}'" if symbol not in ANONYMOUS else "a dimension"
    return (
        f"the first dimension of input '{first.name}' of {model} is fixed at {fixed_batch(specs)}, and no other is "
        f"taken for the batch ({what} that may vary is dimension {axis} of '{name}')"
    )


def fixed_batch(specs: Sequence[TensorSpec]) -> int:
    """The first dimension of the first input that has one, where it is fixed; else 1."""
    first = next((spec.shape[0] for spec in specs if spec.shape), 1)
    return first if isinstance(first, int) else 1


def _limited(samples: Samples, limit: int | None) -> Samples:
    """The first ``limit`` rows; with a fixed batch as many feeds as hold them."""
    if limit is None or limit >= samples.rows:
        return samples
    size = 1 if samples.batch_symbol else samples.rows // len(samples.feeds)
    count = -(-limit // size) * size
    return replace(
        samples,
        feeds=(rows(samples, 0, count),) if samples.batch_symbol else samples.feeds[: count // size],
        rows=count,
        origin=f"{samples.origin}, the first {count} used",
        labels=None if samples.labels is None else samples.labels[:count],
    )


def _sizes(specs: Sequence[TensorSpec], dims: Mapping[str, int]) -> dict[str, int]:
    symbols = {dim for spec in specs for dim in spec.shape or () if isinstance(dim, str)}
    for name in dims:
        if name not in symbols:
            msg = f"'{name}' is not a dimension of the model's inputs{suggest(name, symbols)}"
            raise ConfigurationError(msg)
    usual = {s: DEFAULT_IMAGE_SIZE if s.lower() in _IMAGE_SYMBOLS else DEFAULT_SIZE for s in symbols}
    terms = {symbol: size for symbol in symbols - set(dims) if (size := term(symbol, dims)) is not None}
    return {**usual, **terms, **dims}


def _shape(
    spec: TensorSpec, sizes: Mapping[str, int], axes: Mapping[str, tuple[int, ...]], count: int
) -> tuple[int, ...]:
    along = axes.get(spec.name, ())
    dims = enumerate(spec.shape or ())
    return tuple(count if i in along else dim if isinstance(dim, int) else sizes[dim] for i, dim in dims)


def _origin(specs: Sequence[TensorSpec], seed: int) -> str:
    kinds = ["standard normal"] if any(spec.is_float and spec.low is None for spec in specs) else []
    kinds += ["uniform"] if any(not spec.is_float or spec.low is not None for spec in specs) else []
    return f"seeded random ({', '.join(kinds)}), seed {seed}"


def _values(spec: TensorSpec, shape: tuple[int, ...], along: tuple[int, ...], seed: tuple[int, int]) -> np.ndarray:
    """Values for one input; one stream per input, so that no input's values depend on another's."""
    import numpy as np

    streams = np.random.SeedSequence([*seed, *spec.name.encode()]).spawn(2)
    values, scales = (np.random.default_rng(stream) for stream in streams)
    axis = along[0] if shape and len(along) == 1 else 0
    # Drawn row by row, so that asking for more rows leaves the first ones as they were.
    drawn = (shape[axis], *shape[:axis], *shape[axis + 1 :]) if shape else ()
    if spec.dtype == "bool":
        array = np.asarray(values.integers(0, 2, drawn), bool)
    elif not spec.is_float:
        low, high = _integer_range(spec)
        array = np.asarray(values.integers(low, high, drawn, dtype=np.dtype(spec.dtype), endpoint=True))
    elif spec.low is not None and spec.high is not None:
        array = as_float(values.uniform(spec.low, spec.high, drawn), spec.dtype)
    else:
        normal = values.standard_normal(drawn)
        if drawn:  # real samples differ in magnitude: by up to a factor of 4 here
            normal *= np.exp2(scales.uniform(-1, 1, drawn[0])).reshape(-1, *[1] * (len(drawn) - 1))
        array = as_float(normal, spec.dtype)
    return np.ascontiguousarray(np.moveaxis(array, 0, axis)) if axis else array


def as_float(array: Any, dtype: str) -> np.ndarray:
    """The values in ``dtype``; bfloat16, which NumPy lacks, as float32 that bfloat16 holds exactly."""
    import numpy as np

    if dtype != "bfloat16":
        return np.asarray(array, dtype)
    kept: np.ndarray = np.array(array, np.float32)
    bits = kept.view(np.uint32)
    bits &= np.uint32(0xFFFF0000)
    return kept


def _integer_range(spec: TensorSpec) -> tuple[int, int]:
    import numpy as np

    limits = np.iinfo(spec.dtype)
    if spec.low is None or spec.high is None:
        proposed = replace(spec, low=0, high=min(30521, int(limits.max)))
        msg = (
            f"the input '{spec.name}' is {spec.dtype} and its range of values is not known; "
            f"add --mf-input {proposed.pasted} with its own range"
        )
        raise SourceError(msg)
    low, high = int(spec.low), int(spec.high)
    if low != spec.low or high != spec.high or not limits.min <= low <= high <= limits.max:
        msg = f"the range of the input {spec} is not one of whole {spec.dtype} numbers, low to high; correct --mf-input"
        raise SourceError(msg)
    return low, high
