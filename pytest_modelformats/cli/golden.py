"""Writes a golden bundle: everything that a verdict needs of a model, so that it can be given without the model."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import asdict
from itertools import product
from typing import TYPE_CHECKING, Any

from pytest_modelformats import __version__
from pytest_modelformats.checks import batch as batches
from pytest_modelformats.checks.permutation import in_orders
from pytest_modelformats.checks.subject import REFUSED
from pytest_modelformats.compare import between_runs, effective_precision
from pytest_modelformats.compare.floating import CLASSIFIED, POINT_LIMIT
from pytest_modelformats.compare.noise import measure_noise
from pytest_modelformats.compare.sampled import Sampled, rows_of, take
from pytest_modelformats.compare.weights_noise import ARITHMETIC, draws, weights_noise
from pytest_modelformats.errors import ConvertError, RunError, SourceError, Unsupported
from pytest_modelformats.schema import PRECISIONS
from pytest_modelformats.schema.plain import plain
from pytest_modelformats.source import sizes
from pytest_modelformats.systems.golden import file as golden_file
from pytest_modelformats.systems.golden.format import feed_key

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy as np

    from pytest_modelformats.compare.noise import Noise
    from pytest_modelformats.run.models import Models

# Above this number of elements over all samples, an output is sampled: 2 MB of float64. 256 rows of a classifier
# with 1000 classes are just below it.
KEPT_ELEMENTS = 262_144
# Of every row at least so many elements: enough for an rms within 5 % (1/√(2n) for independent errors).
FEWEST_PER_ROW = 256
# Of the stress rows and of those moved for a second look, which are ten feeds beside the samples' one, as much less:
# their rms is still known within a per cent, and a bundle of 16 maps of 160 by 160 is 24 MB instead of 50.
UNUSUAL_SHARE = 8
SEED = 0


class Writer:
    """Collects the arrays and records of one bundle."""

    def __init__(self, models: Models, model: str) -> None:
        """Decide which outputs are sampled; nothing is evaluated beyond the reference."""
        self.models, self.model = models, model
        self.reference, self.description = models.reference(model), models.description(model)
        self.arrays: dict[str, np.ndarray] = {}
        self.records: list[dict[str, Any]] = []
        self._positions: dict[tuple[int, int, bool], str] = {}
        self.sampled = [self._is_large(index) for index in range(len(self.description.outputs))]

    def _is_large(self, output: int) -> bool:
        # A classifier's decisions need every class.
        whole = self.description.classifier and output == 0
        return not whole and sum(t[output].size for t in self.reference.truths) > KEPT_ELEMENTS

    def kept(self, output: int, array: np.ndarray, *, unusual: bool = False) -> np.ndarray | Sampled:
        """What is stored of an output: all of it, or the same elements of every row, chosen by a seed.

        Of ``unusual`` inputs it is fewer, of integers too: there only floats are judged.
        """
        import numpy as np

        budget = KEPT_ELEMENTS // UNUSUAL_SHARE if unusual else KEPT_ELEMENTS
        needless = unusual and array.size > budget and not np.issubdtype(array.dtype, np.floating)
        if not self.sampled[output] and not needless:
            return array
        size = array.size // max(rows_of(array.shape), 1)
        key = output, size, unusual
        name = self._positions.get(key)
        if name is None:
            rows = sum(rows_of(t[output].shape) for t in self.reference.truths)
            count = min(size, max(FEWEST_PER_ROW, budget // max(rows, 1)))
            chosen = np.random.default_rng((SEED, output)).choice(size, count, replace=False)
            name = f"positions/{len(self._positions)}.npy"
            self._positions[key] = name
            self.arrays[name] = np.sort(chosen).astype(np.uint32)
        return take(array, self.arrays[name])

    def record(
        self,
        feed: Mapping[str, np.ndarray],
        precision: str,
        outputs: Sequence[np.ndarray],
        method: str,
        *,
        unusual: bool = False,
    ) -> None:
        """Store the outputs for one feed, once."""
        key = feed_key(feed)
        if any((r["feed"], r["precision"]) == (key, precision) for r in self.records):
            return
        held = []
        for index, array in enumerate(outputs):
            kept, member = self.kept(index, array, unusual=unusual), f"evaluated/{len(self.records)}/{index}.npy"
            is_sampled = isinstance(kept, Sampled)
            self.arrays[member] = kept.values if isinstance(kept, Sampled) else kept
            size = array.size // max(rows_of(array.shape), 1)
            held.append(
                {
                    "member": member,
                    "shape": list(array.shape),
                    "positions": self._positions[index, size, unusual] if is_sampled else None,
                    "sha256": _sha256(array),
                }
            )
        self.records.append({"feed": key, "precision": precision, "method": method, "outputs": held})

    def evaluate(self, name: str, feed: Mapping[str, np.ndarray], precision: str, *, unusual: bool = False) -> None:
        """Evaluate and store unusual inputs; what the source itself cannot do with them is asked of no candidate."""
        try:
            outputs = self.models.evaluated(self.model, name, feed, precision)
        except (Unsupported, ConvertError, RunError):
            return
        self.record(feed, precision, outputs, precision, unusual=unusual)

    def noise(self) -> dict[str, list[dict[str, float]]]:
        """The noise floors; those of sampled outputs over the elements that are kept."""
        found = {p: [asdict(n) for n in values] for p, values in self.reference.noise.items()}
        if not any(self.sampled):
            return found
        for precision, values in found.items():
            for output in (i for i, large in enumerate(self.sampled) if large):
                values[output] = asdict(self._sampled_noise(output, precision))
        return found

    def _sampled_noise(self, output: int, precision: str) -> Noise:
        """The noise of an output of which a part is kept, over that part."""
        truths = [_values(self.kept(output, t[output])) for t in self.reference.truths]
        others = self._part(output, precision)
        if not PRECISIONS[precision].weights_only:
            return measure_noise(truths, others, PRECISIONS[precision].result_bits)
        roundings = [others]
        for draw in draws(precision):
            with suppress(Unsupported, ConvertError, RunError):
                roundings.append(self._part(output, draw))
        arithmetic = self._part(output, ARITHMETIC) if ARITHMETIC in self.reference.noise else None
        return weights_noise(truths, roundings, arithmetic, precision)

    def _part(self, output: int, precision: str) -> list[np.ndarray]:
        """What is kept of the source's own output at a precision, one array per feed."""
        feeds = self.models.samples(self.model).feeds
        evaluated = [self.models.evaluated(self.model, f"all-{i}", feed, precision) for i, feed in enumerate(feeds)]
        return [_values(self.kept(output, outputs[output])) for outputs in evaluated]


def _values(kept: np.ndarray | Sampled) -> np.ndarray:
    return kept.values if isinstance(kept, Sampled) else kept


def _sha256(array: np.ndarray) -> str:
    import hashlib

    return hashlib.sha256(array.tobytes()).hexdigest()


def export(models: Models, model: str, path: Path) -> Mapping[str, Any]:
    """Write the golden bundle of a model; returns its description.

    Raises: what evaluating the model does; OSError.
    """
    writer = Writer(models, model)
    samples = models.samples(model)
    for index, feed in enumerate(samples.feeds):
        for place, spec in enumerate(writer.description.inputs):
            writer.arrays[f"inputs/{index}/{place}.npy"] = feed[spec.name]
        writer.record(feed, "float64", writer.reference.truths[index], writer.reference.methods.get("float64", ""))
    for name, further, precision in _further(models, model):
        writer.record(further, precision, models.evaluated(model, name, further, precision), precision)
    for name, further, precision in _unusual(models, model):
        writer.evaluate(name, further, precision, unusual=True)
    if samples.batch_symbol:
        _record_batches(models, model, writer)
    if samples.labels is not None:
        writer.arrays["labels/0.npy"] = samples.labels
    manifest: dict[str, Any] = _fit_to_show(plain(_manifest(models, model, writer)))
    golden_file.write(path, manifest, writer.arrays)
    return manifest


def _fit_to_show(value: Any) -> Any:
    """The same with every text on one line and of bounded length, as reading asks for."""
    if isinstance(value, dict):
        return {key: _fit_to_show(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_fit_to_show(item) for item in value]
    if isinstance(value, str):
        return "".join(c if c.isprintable() else " " for c in value)[: golden_file.LONGEST_TEXT]
    return value


def _further(models: Models, model: str) -> Iterator[tuple[str, Mapping[str, np.ndarray], str]]:
    """What ``Stages`` evaluates when it examines a fallback: a few rows, and the same moved by a unit of rounding."""
    few = models.rows(model, 0, max(between_runs.BATCHES))
    yield "few", few, "float64"
    moves = any(spec.is_float for spec in models.description(model).inputs)
    # Where no input can be moved, the source's own error at the suspected precision is looked at instead.
    for precision in (
        p for p in (*effective_precision.ALIKE, *(() if moves else ("bf16",))) if p in models.reference(model).noise
    ):
        yield "few", few, precision
    if not moves:
        return
    for precision in CLASSIFIED:
        if PRECISIONS[precision].mantissa_bits < max(CLASSIFIED.values()):
            yield f"moved-{precision}", effective_precision.moved(few, precision), "float64"


def _record_batches(models: Models, model: str, writer: Writer) -> None:
    """Store what the batch and permutation checks ask of the source; sizes that it does not take are not stored."""
    known = list(models.reference(model).noise)
    if not known:
        return
    source = batches.of_source(models, model, known[0])  # the finest: what goes by rows there does so at all
    for span, truth in () if source.cut else source.truths.items():
        writer.record(models.rows(model, *span), "float64", truth, "float64")
    mixed = not source.cut and not all(source.by_rows)
    for precision, size in product(known, source.sizes) if mixed else ():
        feed = models.rows(model, 0, size)
        with suppress(*REFUSED):
            writer.record(feed, precision, models.evaluated(model, f"rows-0-{size}", feed, precision), precision)
    for number, feed in enumerate(in_orders(models, model)):
        writer.evaluate(f"order-{number}", feed, "float64")


def _unusual(models: Models, model: str) -> Iterator[tuple[str, Mapping[str, np.ndarray], str]]:
    """What ``Stages`` evaluates besides: the stress rows, and the first rows moved for a second look."""
    stress = models.stress(model)
    for index, feed in enumerate(stress.feeds if stress else ()):
        for precision in ("float64", *models.reference(model).noise):
            yield f"stress-{index}", feed, precision
    for index, feed in enumerate(models.moved_feeds(model)):
        for precision in ("float64", "fp32"):
            yield f"second-look-{index}", feed, precision


def _manifest(models: Models, model: str, writer: Writer) -> dict[str, Any]:
    source, samples, reference = models.source(model), models.samples(model), writer.reference
    return {
        "tool": __version__,
        "model": {"name": source.name, "format": source.format, "kind": source.kind, "sha256": source.sha256},
        "description": {**writer.description.to_json(), "data": ""},
        "samples": {"feeds": len(samples.feeds), "rows": samples.rows, "origin": samples.origin},
        "sizes": [one.to_json() for one in models.sizes(model).dimensions],
        "reference": {"methods": reference.methods, "missing": reference.missing, "noise": writer.noise()},
        # For the reader: who judges by this bundle uses the limits of the tool that judges.
        "limits": {p: {"rms": k.limit, "worst": POINT_LIMIT.get(k.yardstick)} for p, k in PRECISIONS.items()},
        "sampled": [s.name for s, large in zip(writer.description.outputs, writer.sampled, strict=True) if large],
        "sampling_seed": SEED,
        "seed": models.seed(model),
        "records": writer.records,
    }


def told(golden: golden_file.GoldenFile) -> Iterator[str]:
    """What is in a golden bundle, line by line."""
    from pytest_modelformats.schema import Source
    from pytest_modelformats.systems.golden import format as form

    source = Source(golden.path.stem, str(golden.path), "golden", "golden")
    description, samples = form.description_of(golden), form.stored_samples(source)
    reference, said = form.stored_reference(source), golden.manifest
    try:
        model = {key: form.text_of(said["model"][key]) for key in ("name", "format", "kind", "sha256")}
        tool = form.text_of(said["tool"])
    except (KeyError, TypeError, ValueError) as error:
        msg = f"'{golden.path.name}' is a damaged golden bundle: it does not say of which model it is; export it again"
        raise SourceError(msg) from error
    yield f"{golden.path.name}: golden bundle, version {golden_file.VERSION}, by pytest-modelformats {tool}"
    content = f"sha256 {model['sha256']}" if model["sha256"] else "built by code"
    yield f"model: {model['name']} ({model['format']}, {model['kind']}), {content}"
    yield from (f"input: {spec}" for spec in description.inputs)
    for index, spec in enumerate(description.outputs):
        truth: Any = reference.truths[0][index]
        part = f", {len(truth.positions)} of each row's elements kept" if isinstance(truth, Sampled) else ""
        yield f"output: {spec}{part}"
    yield f"samples: {samples.rows} rows, {samples.origin}{', with labels' if samples.labels is not None else ''}"
    found = form.stored_sizes(source)
    if found.dimensions:
        yield f"sizes: {sizes.said(found.dimensions)}"
    for precision, values in reference.noise.items():
        for spec, noise in zip(description.outputs, values, strict=True):
            limit = PRECISIONS[precision].limit
            what = (
                f"rms {noise.rms:.3g}, worst {noise.max:.3g}, flips {noise.flips:.2%}"
                if not spec.is_float
                else (f"rms {noise.rms:.3g} (limit {limit * noise.rms:.3g}), worst {noise.max:.3g}")
            )
            yield f"rounding at {precision}, '{spec.name}': {what}"
    yield from (f"rounding at {precision}: not known, {why}" for precision, why in reference.missing.items())
    counts = Counter(str(record["precision"]) for record in said["records"])
    stored = ", ".join(f"{number} at {precision!s:.20}" for precision, number in counts.items())
    yield f"stored outputs: {stored}; {golden.path.stat().st_size:,} bytes"
