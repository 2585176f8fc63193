"""The stages of a model: what it is, the samples it is judged on, its reference.

Runs in the pytest process; everything that needs a framework is asked of a worker.
"""

from __future__ import annotations

import contextlib
import importlib
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar, cast

from pytest_modelformats.compare import second_look
from pytest_modelformats.compare.reference import EVALUATED, Reference, build_reference, reference_of
from pytest_modelformats.compare.stress import make_stress
from pytest_modelformats.convert.chain import Origin
from pytest_modelformats.convert.code_digest import imported_digest
from pytest_modelformats.errors import ConvertError, ModelFormatsError, RunError, SourceError, Undecidable, Unsupported
from pytest_modelformats.run import sizes as found_sizes
from pytest_modelformats.run.once import remember
from pytest_modelformats.run.workers.asking import RUNTIME, read_arrays, write_feed
from pytest_modelformats.schema import Description, Source, TensorSpec, registry
from pytest_modelformats.schema.contract import AS_WRITTEN
from pytest_modelformats.settings.machine import versions
from pytest_modelformats.source.free_dimensions import term
from pytest_modelformats.source.identify import content_hash

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import numpy as np

    from pytest_modelformats.convert.cache import Cache
    from pytest_modelformats.run.sizes import AtSizes
    from pytest_modelformats.run.workers.asking import Asker
    from pytest_modelformats.settings.nouns import Settings
    from pytest_modelformats.source.samples import Samples
    from pytest_modelformats.source.sizes import Sizes

_T = TypeVar("_T")
# With real samples and small inputs, more rows cost little and make flips and accuracy mean something.
REAL_ROWS = 256
REAL_ROWS_BYTES = 4_000_000
_MADE_STILL = "no conversion of it can be judged, so leave its random operators out or put them into evaluation mode"


class Models:
    """Description, samples and reference of every source, each made when it is first asked for."""

    def __init__(
        self, settings: Settings, sources: Sequence[Source], data: Mapping[str, str], asker: Asker, cache: Cache
    ) -> None:
        """``data`` says by the name of a source where its real samples are, "" if nowhere."""
        self._settings = settings
        self._sources = {s.name: s for s in sources}
        self._data = dict(data)
        self._asker = asker
        self._cache = cache
        self._memo: dict[tuple[str, str], Any] = {}

    def source(self, model: str) -> Source:
        """The model as the user gave it, with its content's hash."""

        def load() -> Source:
            source = self._sources[model]
            return replace(source, sha256=content_hash(source)) if source.kind != "factory" else source

        return self._per_model("source", model, load)

    def description(self, model: str) -> Description:
        """What the loaded source says of itself; under ``--mf-static`` with every dimension fixed."""

        def load() -> Description:
            stated = self._stated(model)
            if not self._settings.static:
                return stated
            if self._stored(model, "stored_samples"):
                location = self.source(model).location
                raise SourceError(f"{location} has the dimensions it was exported with; leave out --mf-static")
            return _fixed(stated, self.sizes(model).by_symbol)

        return self._per_model("description", model, load)

    def _stated(self, model: str) -> Description:
        """What the loaded source says of itself."""

        def load() -> Description:
            source = self.source(model)
            module = registry.formats()[source.format].module
            answer = self._asker.runtime(
                RUNTIME, f"loading {model}", "describe", module=module, source=source.to_json()
            )
            return Description.from_json(answer["description"])

        return self._per_model("stated", model, load)

    def sizes(self, model: str) -> Sizes:
        """The sizes of the free dimensions, and who states them; raises RunError where the source takes none."""

        def load() -> Sizes:
            stated = self._stated(model)
            stored = self._stored(model, "stored_sizes")
            if stored is not None:
                return cast("Sizes", stored(self.source(model)))
            data, seed = self._data.get(model) or stated.data, self._settings.seed

            def samples() -> Samples:
                # With --mf-static the samples wait for the sizes.
                return self._load_samples(model, stated) if self._settings.static else self.samples(model)

            return found_sizes.find(model, stated, data, samples, lambda f: self.evaluate(model, f, "float64"), seed)

        return self._per_model("sizes", model, load)

    def dims(self, model: str) -> dict[str, int]:
        """The sizes by the symbols of the inputs; with ``--mf-static`` these have none."""
        return {} if self._settings.static else self.sizes(model).by_symbol

    def further_sizes(self, model: str) -> list[AtSizes]:
        """A few samples at other sizes than those of the samples, where nothing states which sizes count."""

        def load() -> list[AtSizes]:
            fixed = self._settings.static
            found = self.sizes(model)
            return [] if fixed else found_sizes.further(self.description(model), found, self.seed(model))

        return self._per_model("further-sizes", model, load)

    def output_names(self) -> list[str]:
        """The outputs of every model of the run that can be described."""
        found: list[str] = []
        for model in self._sources:
            with contextlib.suppress(ModelFormatsError):
                found.extend(spec.name for spec in self.description(model).outputs)
        return found

    def samples(self, model: str) -> Samples:
        """The inputs that parity is judged on."""
        return self._per_model("samples", model, lambda: self._load_samples(model, self.description(model)))

    def _stored(self, model: str, what: str) -> Callable[..., Any] | None:
        """The function of a format that has samples, reference or outputs in its file, ``None`` where it has not."""
        return getattr(importlib.import_module(registry.formats()[self._sources[model].format].module), what, None)

    def is_stored(self, model: str) -> bool:
        """Whether a file with results on some inputs stands for the model, so that no others can be evaluated."""
        return self._stored(model, "stored") is not None

    def seed(self, model: str) -> int:
        """The seed of everything that is drawn for a model: the run's, or the one that its file was made with."""
        stored = self._stored(model, "stored_seed")
        return int(stored(self.source(model))) if stored is not None else self._settings.seed

    def reference(self, model: str) -> Reference:
        """The float64 truth and the noise per precision, over all samples."""

        def load() -> Reference:
            stored = self._stored(model, "stored_reference")
            if stored is not None:
                return cast("Reference", stored(self.source(model)))
            return self._built(model, self.samples(model), "all", EVALUATED)

        return self._per_model("reference", model, load)

    def stress(self, model: str) -> Samples | None:
        """Inputs that ordinary samples are not; ``None`` where the user's own samples say what is ordinary."""

        def load() -> Samples | None:
            description = self.description(model)
            if self._data.get(model) or description.data:
                return None
            return make_stress(description.inputs, self.seed(model), self.dims(model))

        return self._per_model("stress", model, load)

    def stress_reference(self, model: str, precision: str) -> Reference | None:
        """The float64 truth and the noise at a precision on the stress rows; ``None`` where there are none."""

        def load() -> Reference | None:
            samples = self.stress(model)
            if samples is None:
                return None
            try:
                built = self._built(model, samples, "stress", (precision,))
            except (Unsupported, ConvertError, RunError):
                return None  # what the source itself cannot do with such inputs is not asked of a candidate
            return built if precision in built.noise else None

        return self._per_model(f"stress-{precision}", model, load)

    def moved(self, model: str, precision: str) -> tuple[tuple[dict[str, np.ndarray], ...], Reference]:
        """The first rows moved a little several times (second_look.py), their truth and the noise at a precision."""

        def load() -> tuple[tuple[dict[str, np.ndarray], ...], Reference]:
            feeds = self.moved_feeds(model)
            samples = replace(self.samples(model), feeds=feeds, labels=None)
            return feeds, self._built(model, samples, "moved", (precision,))

        return self._per_model(f"moved-{precision}", model, load)

    def further(
        self, model: str, name: str, feeds: Sequence[Mapping[str, np.ndarray]], precisions: tuple[str, ...]
    ) -> Reference:
        """The float64 truth and the noise over other feeds; ``name`` stands for them.

        Raises: Unsupported, ConvertError, RunError where the source does not take them.
        """

        def load() -> Reference:
            samples = replace(self.samples(model), feeds=tuple(dict(f) for f in feeds), labels=None)
            return self._built(model, samples, name, precisions)

        return self._per_model(f"further-{name}-{precisions}", model, load)

    def moved_feeds(self, model: str) -> tuple[dict[str, np.ndarray], ...]:
        """The first rows moved a little several times."""
        return second_look.moved(self.rows(model, 0, second_look.ROWS), self.seed(model))

    def _built(self, model: str, samples: Samples, name: str, precisions: tuple[str, ...]) -> Reference:
        if self.is_stored(model):
            return self._stored_reference(model, samples, precisions)
        source = self.source(model)
        feeds = [self.written(model, f"{name}-{i}", feed) for i, feed in enumerate(samples.feeds)]
        form = registry.formats()[source.format]
        again = self.written(model, "again", self.rows(model, 0, 1)) if name == "all" else None
        parts = {
            **self.identity(model),
            "samples": digest(samples),
            "precisions": list(precisions),
            "libraries": versions(_libraries_of(source.format)),
            "format": imported_digest(form.module),
        }

        def evaluate(precision: str, folder: Path) -> dict[str, Any]:
            arguments: dict[str, Any] = {"module": form.module, "source": source.to_json(), "feeds": feeds}
            what = f"evaluating {model} at {precision}"
            more = {"again": again} if precision == "float64" else {}
            arguments |= {"precision": precision, "folder": str(folder), **more}
            try:
                answer = self._asker.runtime(RUNTIME, what, "evaluate", **arguments)
            except RunError as error:
                if name != "all":
                    raise
                raise self._refused(model, samples, error) from error
            if answer["random"]:
                raise Undecidable(f"{model} is random: {answer['random']}; {_MADE_STILL}")
            return answer

        return build_reference(self._cache, parts, len(feeds), evaluate, precisions)

    def _refused(self, model: str, samples: Samples, error: RunError) -> RunError:
        """The error of a source that its own framework cannot run on its own samples."""
        description = self.description(model)
        drawn = not (self._data.get(model) or description.data)
        return refused(model, str(error).rstrip("."), description.inputs, samples.origin, drawn=drawn)

    def _stored_reference(self, model: str, samples: Samples, precisions: tuple[str, ...]) -> Reference:
        """The same of the outputs that a file holds; raises Unsupported where it has none for these inputs."""

        def evaluate(precision: str) -> tuple[list[list[np.ndarray]], str]:
            return self.evaluate(model, samples.feeds, precision), "stored"

        return reference_of(evaluate, precisions)

    def identity(self, model: str) -> dict[str, Any]:
        """What decides the reference besides the libraries: the model's content and code, inputs and samples."""

        def load() -> dict[str, Any]:
            description = self.description(model)
            return {
                "content": self.source(model).sha256,
                "fingerprint": description.fingerprint,
                "inputs": [str(s) for s in description.inputs],
                "samples": digest(self.samples(model)),
            }

        return self._per_model("identity", model, load)

    def _load_samples(self, model: str, description: Description) -> Samples:
        from pytest_modelformats.source.batch_axes import batch
        from pytest_modelformats.source.samples import Samples, make_samples
        from pytest_modelformats.source.users_samples import class_labels

        source = self.source(model)
        stored = self._stored(model, "stored_samples")
        if stored is not None:
            if self._data.get(model):
                raise SourceError(f"{source.location} holds its own samples; leave out --mf-data")
            return cast("Samples", stored(source))
        data = self._data.get(model) or description.data
        if not data:
            return make_samples(description.inputs, self._settings.samples, self._settings.seed, self.dims(model))
        row = sum(_bytes_per_row(s) for s in description.inputs)
        limit = max(self._settings.samples, REAL_ROWS if row * REAL_ROWS <= REAL_ROWS_BYTES else 0)
        answer = self._asker.runtime(
            RUNTIME,
            f"loading the samples of {model}",
            "samples",
            data=data,
            specs=[s.to_json() for s in description.inputs],
            search_path=list(source.search_path),
            limit=limit,
            folder=str(self._asker.folder("samples")),
        )
        feeds = tuple(dict(zip(f, read_arrays(list(f.values())), strict=True)) for f in answer["feeds"])
        labels = read_arrays([answer["labels"]])[0] if answer["labels"] else None
        classes = description.outputs[0].shape if description.classifier and description.outputs else None
        if labels is not None and classes and isinstance(classes[-1], int):
            labels = class_labels(labels, classes[-1], answer["origin"])
        symbol, axes = batch(description.inputs)
        return Samples(feeds, answer["rows"], answer["origin"], labels, symbol, axes)

    def rows(self, model: str, start: int, stop: int) -> Mapping[str, np.ndarray]:
        """Rows of the samples, as a feed."""
        from pytest_modelformats.source.samples import rows

        return rows(self.samples(model), start, stop)

    def written(self, model: str, name: str, feed: Mapping[str, np.ndarray]) -> dict[str, str]:
        """A feed of a model as files, under a name of its own."""
        return write_feed(feed, self._asker.pool.folder / "models" / model / name)

    def evaluated(self, model: str, name: str, feed: Mapping[str, np.ndarray], precision: str) -> list[np.ndarray]:
        """The source's own outputs for one feed at a precision; ``name`` stands for the feed."""

        def load() -> list[np.ndarray]:
            return self.evaluate(model, [feed], precision)[0]

        return self._per_model(f"evaluated-{name}-{precision}", model, load)

    def evaluate(self, model: str, feeds: Sequence[Mapping[str, np.ndarray]], precision: str) -> list[list[np.ndarray]]:
        """The source's own outputs for feeds at a precision, [feed][output]; nothing is kept."""
        source = self.source(model)
        stored = self._stored(model, "stored")
        if stored is not None:
            return [cast("list[np.ndarray]", stored(source, feed, precision)[0]) for feed in feeds]
        return self._evaluated(source, feeds, precision)[0]

    def evaluate_artifact(
        self,
        model: str,
        path: Path,
        form: str,
        names: Sequence[str],
        feeds: Sequence[Mapping[str, np.ndarray]],
        *,
        as_written: bool = False,
    ) -> tuple[list[list[np.ndarray]], str]:
        """What an artifact's own graph gives in float64, [feed][output], and by which method; nothing is kept.

        ``names`` are the artifact's inputs in the source's order. ``as_written``: with its casts to narrower types,
        where the format can. Raises: Unsupported, ConvertError, RunError.
        """
        described = registry.formats().get(form)
        if described is None:
            raise Unsupported(f"artifacts in {form} are not evaluated")
        source = replace(self.source(model), location=str(path), kind=form, format=form, inputs=())
        named = [dict(zip(names, feed.values(), strict=True)) for feed in feeds]
        return self._evaluated(source, named, AS_WRITTEN if as_written and described.as_written else "float64")

    def _evaluated(
        self, source: Source, feeds: Sequence[Mapping[str, np.ndarray]], precision: str
    ) -> tuple[list[list[np.ndarray]], str]:
        folder = self._asker.folder("evaluated")
        try:
            answer = self._asker.runtime(
                RUNTIME,
                f"evaluating {source.name} at {precision}",
                "evaluate",
                module=registry.formats()[source.format].module,
                source=source.to_json(),
                feeds=[write_feed(feed, folder / f"in-{i}") for i, feed in enumerate(feeds)],
                precision=precision,
                folder=str(folder / "out"),
            )
            return [read_arrays(paths) for paths in answer["outputs"]], answer["method"]
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def need_noise(self, model: str, precision: str) -> None:
        """The noise at a precision is known; raises Unsupported where it is not."""
        reference = self.reference(model)
        if precision not in reference.noise:
            why = reference.missing.get(precision, "it was not evaluated")
            raise Unsupported(f"the rounding noise of {model} at {precision} is not known: {why}")

    def is_own(self, model: str, error: Exception) -> bool:
        """Whether an error is one in which a stage of the model itself ended, not one of its cells."""
        return any(name == model and found is error for (_, name), found in self._memo.items())

    def _per_model(self, stage: str, model: str, make: Callable[[], _T]) -> _T:
        return remember(self._memo, (stage, model), make)


def digest(samples: Samples) -> str:
    """The SHA-256 of every sample: names, dtypes, shapes and values."""
    import hashlib

    hashed = hashlib.sha256()
    for feed in samples.feeds:
        for name, array in feed.items():
            hashed.update(f"{name}:{array.dtype}:{array.shape}".encode())
            hashed.update(array.tobytes())
    return hashed.hexdigest()


def _bytes_per_row(spec: TensorSpec) -> int:
    import math

    dims = [d if isinstance(d, int) else 1 for d in (spec.shape or ())]
    return 8 * math.prod(dims)


def _libraries_of(format_name: str) -> tuple[str, ...]:
    """The distributions that evaluate a format: those of the backends that run it."""
    runs = [b for b in registry.backends().values() if any(name == format_name for name, _ in b.precisions)]
    return tuple(dict.fromkeys(library for backend in runs for library in backend.libraries))


def _fixed(description: Description, dims: Mapping[str, int]) -> Description:
    """Every symbolic dimension of the inputs at its size, the batch at 1; of the outputs none is known then."""
    if any(s.shape is None for s in description.inputs):
        raise ConvertError("--mf-static needs inputs whose shapes are known; give them with --mf-input")

    def fix(spec: TensorSpec) -> TensorSpec:
        shape = tuple(term(d, dims) or 1 if isinstance(d, str) else d for d in spec.shape or ())
        return replace(spec, shape=shape)

    return replace(
        description,
        inputs=tuple(fix(s) for s in description.inputs),
        outputs=tuple(replace(s, shape=None) for s in description.outputs),
    )


def origin_of(models: Models, settings: Settings, model: str, example: Mapping[str, str]) -> Origin:
    """What the chains of a model start from; ``example`` names the files of a feed, and is in no key."""
    source = models.source(model)
    options = {"opset": settings.opset, "dynamic": not settings.static}
    return Origin(source, models.description(model), source.sha256, example, options)


def refused(model: str, reason: str, specs: Sequence[TensorSpec], origin: str, *, drawn: bool) -> RunError:
    """The error that says so; ``drawn``: the samples were drawn from the inputs' specifications."""
    whole = [spec.pasted for spec in specs if not spec.is_float and spec.low is not None]
    if not drawn:
        todo = "correct the samples that --mf-data gives"
    elif whole:
        todo = f"correct the range of --mf-input {' '.join(whole)} to what the model takes"
    else:
        todo = "correct --mf-input, or give samples that the model takes with --mf-data"
    return RunError(f"the model {model} itself cannot run its samples ({origin}): {reason}. Next: {todo}.")
