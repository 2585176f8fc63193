"""A golden bundle: a model's inputs, truth, noise floors and contract, without the model and its framework.

What other formats evaluate is looked up here by the inputs' SHA-256. Inputs whose truth was not
stored are Unsupported: a check that needs them is skipped and says so.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_modelformats.errors import ConvertError, SourceError, Unsupported
from pytest_modelformats.schema import DTYPES, PRECISIONS, Description, TensorSpec
from pytest_modelformats.systems.golden import file as golden_file

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

    from pytest_modelformats.compare.noise import Noise
    from pytest_modelformats.compare.reference import Reference
    from pytest_modelformats.schema import Source
    from pytest_modelformats.schema.contract import Feed
    from pytest_modelformats.source.samples import Samples
    from pytest_modelformats.source.sizes import Sizes
    from pytest_modelformats.systems.golden.file import GoldenFile

_WRONG = (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError)


def sniff(path: Path, head: bytes) -> str | None:
    """Return ``golden`` for a zip that begins with a golden bundle's description; raises SourceError where cut off."""
    return "golden" if golden_file.is_golden(path, head) else None


def describe(source: Source) -> Description:
    """The contract of the model that the bundle was exported from; raises SourceError."""
    return description_of(golden_file.read(Path(source.location)))


def evaluate(source: Source, feeds: Sequence[Feed], precision: str) -> tuple[list[list[np.ndarray]], str]:
    """The stored outputs for these inputs; raises Unsupported where there are none, or where they are sampled."""
    outputs: list[list[np.ndarray]] = []
    found = ""
    for feed in feeds:
        held, found = stored(source, feed, precision)
        if not all(hasattr(array, "tobytes") for array in held):
            raise Unsupported(f"{Path(source.location).name} holds a sample of a large output only")
        outputs.append([array for array in held if hasattr(array, "tobytes")])
    return outputs, found


def check(artifact: Path) -> None:
    """Refuse: nothing is converted to a golden bundle."""
    raise ConvertError(f"{artifact.name}: golden bundles are written by 'modelformats golden export'")


def feed_key(feed: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of the names, dtypes, shapes and values of inputs."""
    digest = hashlib.sha256()
    for name in sorted(feed):
        array = feed[name]
        digest.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def stored(source: Source, feed: Mapping[str, np.ndarray], precision: str) -> tuple[list[Any], str]:
    """The outputs that are stored for these inputs (large ones ``Sampled``), and how they were evaluated.

    Raises: Unsupported, SourceError.
    """
    golden = golden_file.read(Path(source.location))
    return _outputs(golden, feed_key(feed), precision)


def _outputs(golden: GoldenFile, key: str, precision: str) -> tuple[list[Any], str]:
    try:
        record = next(
            (r for r in golden.manifest["records"] if (r["feed"], r["precision"]) == (key, precision)),
            None,
        )
        if record is not None:
            return [_array(golden, o) for o in record["outputs"]], str(record["method"])
    except _WRONG as error:
        raise _odd(golden, error) from error
    msg = (
        f"the golden bundle '{golden.path.name}' holds no outputs at {precision} for these inputs; "
        "this check needs the model itself (--mf-model)"
    )
    raise Unsupported(msg)


def _array(golden: GoldenFile, held: Mapping[str, Any]) -> Any:
    from pytest_modelformats.compare.sampled import Sampled, rows_of

    values, shape = golden.arrays[held["member"]], tuple(int(d) for d in held["shape"])
    if held["positions"] is None:
        if values.shape != shape:
            raise ValueError(f"{held['member']} has another shape than is said")
        return values
    positions = golden.arrays[held["positions"]]
    rows = rows_of(shape)
    size = 1
    for dim in shape:
        size *= dim
    inside = positions.ndim == 1 and positions.dtype.kind == "u" and rows * int(positions.max(initial=0)) < max(size, 1)
    if values.shape != (rows, len(positions)) or not inside or rows * (int(positions.max(initial=0)) + 1) > size:
        raise ValueError(f"{held['member']} does not fit its positions")
    return Sampled(values, positions, shape)


def _odd(golden: GoldenFile, error: Exception) -> SourceError:
    why = golden_file.shown(f"{type(error).__name__}: {error}")
    return SourceError(
        f"'{golden.path.name}' is a damaged golden bundle: its description does not fit together ({why}); "
        "export or copy it again"
    )


def description_of(golden: GoldenFile) -> Description:
    """The stored contract, checked; raises SourceError."""
    try:
        data = dict(golden.manifest["description"])
        inputs, outputs = ([_spec(s) for s in data[side]] for side in ("inputs", "outputs"))
        if not inputs or not outputs:
            raise ValueError("no inputs or no outputs")
        # Where real samples come from would be code to import: the samples are in the file.
        return Description(
            inputs=tuple(inputs),
            outputs=tuple(outputs),
            fingerprint=text_of(data["fingerprint"]),
            classifier=data["classifier"] is True,
            summary=f"golden bundle of {text_of(golden.manifest['model']['format'])} ({text_of(data['summary'])})",
            invented=tuple(text_of(name) for name in data.get("invented", ())),
        )
    except _WRONG as error:
        raise _odd(golden, error) from error


def text_of(value: object) -> str:
    """A text of the file that is fit to be shown; raises ValueError."""
    if not isinstance(value, str) or len(value) > golden_file.LONGEST_TEXT or not (value.isprintable() or not value):
        raise ValueError(f"{str(value)[:40]!a} is no name")
    return value


def _spec(data: Mapping[str, Any]) -> TensorSpec:
    spec = TensorSpec.from_json(data)
    dims = spec.shape or ()
    if spec.dtype not in DTYPES or not all(isinstance(d, (int, str)) and not isinstance(d, bool) for d in dims):
        raise ValueError(f"{str(spec)[:80]!a} is no tensor")
    for text in (spec.name, *(d for d in dims if isinstance(d, str))):
        text_of(text)
    if not all(bound is None or isinstance(bound, (int, float)) for bound in (spec.low, spec.high)):
        raise ValueError(f"the range of '{spec.name}' is none")
    return spec


def stored_samples(source: Source) -> Samples:
    """The samples that the bundle was exported with; raises SourceError."""
    from pytest_modelformats.source.batch_axes import batch
    from pytest_modelformats.source.samples import Samples

    golden = golden_file.read(Path(source.location))
    specs = description_of(golden).inputs
    try:
        said = golden.manifest["samples"]
        count = int(said["feeds"])
        feeds = tuple(
            {spec.name: golden.arrays[f"inputs/{f}/{i}.npy"] for i, spec in enumerate(specs)} for f in range(count)
        )
        rows = int(said["rows"])
        fits = (feed[s.name].ndim == len(s.shape or ()) for feed in feeds for s in specs)
        if not feeds or rows < 1 or not all(fits):
            raise ValueError("the samples are not what the inputs take")
        labels = golden.arrays.get("labels/0.npy")
        symbol, axes = batch(specs)
        if symbol and any(feeds[0][n].shape[a] != rows for n, along in axes.items() for a in along):
            raise ValueError("the samples have another number of rows than is said")
        origin = f"{text_of(said['origin'])}, from {golden.path.name}"
        return Samples(feeds, rows, origin, labels, symbol, axes)
    except _WRONG as error:
        raise _odd(golden, error) from error


def stored_sizes(source: Source) -> Sizes:
    """The sizes of the samples' free dimensions, and which of them were only tried; raises SourceError."""
    from pytest_modelformats.schema.sizes import BUNDLE, TRIED
    from pytest_modelformats.source import sizes

    golden = golden_file.read(Path(source.location))
    specs, feed = description_of(golden).inputs, stored_samples(source).feeds[0]
    try:
        only_tried = {text_of(one["symbol"]) for one in golden.manifest.get("sizes", ()) if one["by"] == TRIED}
    except _WRONG as error:
        raise _odd(golden, error) from error
    own = sizes.of_feed(specs, feed, BUNDLE, golden.path.name)
    found = (replace(d, by=TRIED) if d.symbol in only_tried else d for d in own.dimensions)
    return sizes.Sizes(tuple(found), (), sizes.pins(specs, own.by_symbol))


def stored_seed(source: Source) -> int:
    """The seed of the samples, and of what is made of them; raises SourceError."""
    golden = golden_file.read(Path(source.location))
    seed = golden.manifest.get("seed", 0)
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise _odd(golden, ValueError("its seed is no whole number"))
    return seed


def stored_reference(source: Source) -> Reference:
    """The truth and the noise floors that the bundle was exported with; raises SourceError."""
    from pytest_modelformats.compare.reference import Reference

    golden = golden_file.read(Path(source.location))
    count = len(description_of(golden).outputs)
    try:
        truths = tuple(tuple(_outputs(golden, feed_key(f), "float64")[0]) for f in stored_samples(source).feeds)
        said = golden.manifest["reference"]
        noise = {p: tuple(_noise(n) for n in values) for p, values in said["noise"].items() if p in PRECISIONS}
        if any(len(values) != count for values in (*truths, *noise.values())):
            raise ValueError("not every output has its truth and its noise")
        methods, missing = ({text_of(k): text_of(v) for k, v in said[key].items()} for key in ("methods", "missing"))
        return Reference(truths, noise, methods, missing, made=False)
    except Unsupported as error:
        raise _odd(golden, error) from error
    except _WRONG as error:
        raise _odd(golden, error) from error


def _noise(data: Mapping[str, Any]) -> Noise:
    from pytest_modelformats.compare import noise_profile
    from pytest_modelformats.compare.noise import Noise

    profile = None
    if data["profile"] is not None:
        profile = noise_profile.from_json(data["profile"])
        shape, axes = (profile.shape, profile.axes) if profile else ((), ())
        fits = len(shape) == len(axes) and all(len(a) in {0, n} for n, a in zip(shape, axes, strict=True))
        few, wider = (profile.few, profile.wider) if profile else ((), ())
        fits = fits and len(few) in {0, len(shape)} and [len(a) for a in few] == [len(a) for a in wider]
        fits = fits and all(len(a) in {0, n} for n, a in zip(shape, few, strict=False))
        positive = all(_number(v) > 0 for a in (*axes, *few, *wider) for v in a)
        if not fits or not positive or _number(data["profile"]["largest"]) < 1:
            raise ValueError("a profile of the noise does not fit its output")
    rows = tuple(float(v) if v == -1 else _number(v) for v in data["rows"])
    values = {key: _number(data[key]) for key in ("rms", "max", "raw_rms", "flips")}
    return Noise(**values, rows=rows, profile=profile, lost=_runs(data.get("lost", ())))


def _runs(data: Sequence[Any]) -> tuple[int, ...]:
    """Where the source has no number, as starts and lengths."""
    if len(data) % 2 or not all(isinstance(v, int) and not isinstance(v, bool) and 0 <= v < 2**48 for v in data):
        raise ValueError("where the source has no number is not said in starts and lengths")
    return tuple(data)


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
        raise ValueError(f"{str(value)[:40]!a} is no noise")
    return float(value)
