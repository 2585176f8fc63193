"""The stages of a cell, each computed once: what the fixtures hand out.

Runs in the pytest process. Everything that needs a framework is asked of a worker; an
error of a stage is kept, so that a conversion that failed is not tried again by the next
check, and a worker that died takes only its own cell with it.
"""

from __future__ import annotations

import fnmatch
import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from pytest_modelformats import laws, registry, reroll
from pytest_modelformats.compare import Tolerance, judge, with_accuracy
from pytest_modelformats.convert import RUNTIME, Artifact, Origin, convert
from pytest_modelformats.errors import (
    ConvertError,
    ModelFormatsError,
    OutOfMemory,
    RunError,
    Unsupported,
    WorkerCrashed,
    WorkerTimeout,
)
from pytest_modelformats.interface import differences
from pytest_modelformats.machine import versions
from pytest_modelformats.reference import Reference, build_reference
from pytest_modelformats.schema import (
    PRECISIONS,
    Description,
    Environment,
    FailureKind,
    Outcome,
    PlannedCell,
    Precision,
    Source,
    TensorSpec,
    Timing,
    Verdict,
)
from pytest_modelformats.source import content_hash
from pytest_modelformats.workers.process import WorkerFailure

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import numpy as np

    from pytest_modelformats.cache import Cache
    from pytest_modelformats.inputs import Samples
    from pytest_modelformats.options import Settings
    from pytest_modelformats.schema import Backend
    from pytest_modelformats.workers.pool import Asked, Pool

_T = TypeVar("_T")
_FATAL = (WorkerCrashed, WorkerTimeout, OutOfMemory)
# With real samples and small inputs, more rows cost little and make flips and accuracy mean something.
REAL_ROWS = 256
REAL_ROWS_BYTES = 4_000_000


@dataclass(frozen=True, slots=True)
class Opened:
    """An opened artifact in its worker. ``first_run_ns`` is filled in by the first inference."""

    worker: Asked
    number: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    statement: Mapping[str, Any]
    load_ns: int
    idle_rss_bytes: int | None


class Stages:
    """Description, samples and reference per model; artifact, session, outputs, verdicts and timing per cell."""

    def __init__(
        self,
        settings: Settings,
        sources: Sequence[Source],
        data: Mapping[str, str],
        pool: Pool,
        cache: Cache,
        progress: Callable[[str], Callable[[float], None] | None],
    ) -> None:
        """``progress(what)`` returns a function that shows the elapsed seconds, or ``None`` when nobody watches."""
        self.settings = settings
        self.pool = pool
        self._sources = {s.name: s for s in sources}
        self._data = dict(data)
        self._cache = cache
        self._progress = progress
        self._models: dict[tuple[str, str], Any] = {}
        self._cell_memo: dict[str, Any] = {}
        self._current: PlannedCell | None = None
        self._sessions: dict[str, Opened] = {}
        self._broken: ModelFormatsError | None = None
        self._folders = 0
        self.conversions: dict[str, int] = {"made": 0, "cached": 0}

    # --- per model -------------------------------------------------------------------------

    def source(self, model: str) -> Source:
        """The model as the user gave it, with its content's hash."""

        def load() -> Source:
            source = self._sources[model]
            return replace(source, sha256=content_hash(source)) if source.kind != "factory" else source

        return self._per_model("source", model, load)

    def description(self, model: str) -> Description:
        """What the loaded source says of itself; under ``--mf-static`` with every dimension fixed."""

        def load() -> Description:
            source = self.source(model)
            module = registry.formats()[source.format].module
            answer = self._ask(RUNTIME, f"loading {model}", "describe", module=module, source=source.to_json())
            description = Description.from_json(answer["description"])
            return _fixed(description) if self.settings.static else description

        return self._per_model("description", model, load)

    def samples(self, model: str) -> Samples:
        """The inputs that parity is judged on."""
        return self._per_model("samples", model, lambda: self._load_samples(model))

    def reference(self, model: str) -> Reference:
        """The float64 truth and the noise per precision, over all samples."""

        def load() -> Reference:
            source, description, samples = self.source(model), self.description(model), self.samples(model)
            feeds = [self._written(model, f"all-{i}", feed) for i, feed in enumerate(samples.feeds)]
            form = registry.formats()[source.format]
            parts = {
                "content": source.sha256,
                "fingerprint": description.fingerprint,
                "inputs": [str(s) for s in description.inputs],
                "samples": _digest(samples),
                "libraries": versions(_libraries_of(source.format)),
            }

            def evaluate(precision: str, folder: Path) -> dict[str, Any]:
                arguments = {"module": form.module, "source": source.to_json(), "feeds": feeds}
                what = f"evaluating {model} at {precision}"
                return self._ask(RUNTIME, what, "evaluate", **arguments, precision=precision, folder=str(folder))

            return build_reference(self._cache, parts, len(feeds), evaluate)

        return self._per_model("reference", model, load)

    def _load_samples(self, model: str) -> Samples:
        import numpy as np

        from pytest_modelformats.inputs import Samples, batch, make_samples

        source, description = self.source(model), self.description(model)
        data = self._data.get(model) or description.data
        if not data:
            return make_samples(description.inputs, self.settings.samples, self.settings.seed)
        row = sum(_bytes_per_row(s) for s in description.inputs)
        limit = max(self.settings.samples, REAL_ROWS if row * REAL_ROWS <= REAL_ROWS_BYTES else 0)
        answer = self._ask(
            RUNTIME,
            f"loading the samples of {model}",
            "samples",
            data=data,
            specs=[s.to_json() for s in description.inputs],
            search_path=list(source.search_path),
            limit=limit,
            folder=str(self._folder("samples")),
        )
        feeds = tuple({n: np.load(p, allow_pickle=False) for n, p in feed.items()} for feed in answer["feeds"])
        labels = np.load(answer["labels"], allow_pickle=False) if answer["labels"] else None
        symbol, axes = batch(description.inputs)
        return Samples(feeds, answer["rows"], answer["origin"], labels, symbol, axes)

    # --- per cell --------------------------------------------------------------------------

    def enter(self, planned: PlannedCell) -> None:
        """Make a cell the current one; what the one before held is let go."""
        if self._current is None or self._current.cell != planned.cell:
            self.leave()
            self._current = planned

    def leave(self) -> None:
        """Close the sessions of the current cell and forget its results."""
        for name in list(self._sessions):
            self._close(name)
        self._cell_memo.clear()
        self._broken = None
        self._current = None
        shutil.rmtree(self.pool.folder / "cell", ignore_errors=True)

    def artifact(self, planned: PlannedCell) -> Artifact:
        """The cell's model in the cell's format."""

        def make() -> Artifact:
            model = planned.cell.model
            description = self.description(model)
            example = self._written(model, "example", self._rows(model, 0, 2))
            options = {"opset": self.settings.opset, "dynamic": not self.settings.static}
            origin = Origin(self.source(model), description, self.source(model).sha256, example, options)

            def ask(converter: Any, job: dict[str, Any]) -> dict[str, Any]:
                what = f"converting {model} to {converter.target} ({job['precision']})"
                return self._ask(RUNTIME, what, "convert", entry=converter.entry, job=job)

            artifact = convert(planned, origin, self._cache, ask)
            self.conversions["made"] += artifact.made
            self.conversions["cached"] += artifact.cached
            return artifact

        return self._per_cell("artifact", planned, make)

    def session(self, planned: PlannedCell, which: str = "first") -> Opened:
        """The cell's artifact, opened in its backend's worker; ``which`` names one of several sessions."""
        self._raise_if_broken(planned)
        opened = self._sessions.get(which)
        if opened is None or opened.worker.dead:
            opened = self._per_cell(f"session-{which}", planned, lambda: self._open(planned), keep=False)
            self._sessions[which] = opened
        return opened

    def run(self, planned: PlannedCell, feed: Mapping[str, np.ndarray], which: str = "first") -> list[np.ndarray]:
        """The cell's outputs for one feed, in the contract's order."""

        def load() -> list[np.ndarray]:
            import numpy as np

            opened = self.session(planned, which)
            folder = self._folder("cell")
            paths = _write(feed, folder / "in")
            what = f"running {planned.cell.id}"
            answer = self._ask_worker(
                opened.worker, what, "run", session=opened.number, feed=paths, folder=str(folder / "out")
            )
            arrays = [np.load(p, allow_pickle=False) for p in answer["outputs"]]
            return self._in_order(planned, opened, arrays)

        return self._per_cell("run", planned, load, keep=False)

    def outputs(self, planned: PlannedCell) -> list[list[np.ndarray]]:
        """The cell's outputs for all samples: [feed][output]."""
        return self._per_cell(
            "outputs", planned, lambda: [self.run(planned, f) for f in self.samples(planned.cell.model).feeds]
        )

    def contract(self, planned: PlannedCell) -> Verdict:
        """Whether names, order, dtypes, ranks and dynamic dimensions survived."""
        opened = self.session(planned)
        description = self.description(planned.cell.model)
        form = registry.formats()[planned.cell.format]
        found = differences(
            description.inputs, description.outputs, opened.inputs, opened.outputs, form, planned.cell.precision
        )
        if found:
            return Verdict(Outcome.FAILED, FailureKind.CONTRACT, f"The interface changed: {'; '.join(found)}.")
        stated = (
            "The interface is the source's."
            if opened.inputs or opened.outputs
            else ("The format states no interface; what comes out is compared in the parity check.")
        )
        return Verdict(Outcome.PASSED, None, stated, (), opened.statement)

    def parity(self, planned: PlannedCell) -> Verdict:
        """The verdict of design §5."""

        def load() -> Verdict:
            model = planned.cell.model
            description = self.description(model)
            reference = self.reference(model)
            precision = PRECISIONS[planned.cell.precision]
            self._need_noise(reference, precision.yardstick, model)
            verdict = judge(
                [s.name for s in description.outputs],
                reference.truths,
                self.outputs(planned),
                reference.noise,
                precision,
                dtypes=[s.dtype for s in description.outputs],
                classifier=description.classifier,
                tolerances=self._tolerances(planned),
            )
            verdict = self._examined(planned, verdict)
            verdict = replace(verdict, statement=dict(self.session(planned).statement))
            labels = self.samples(model).labels
            if labels is None or not description.classifier or verdict.failure_kind is FailureKind.CONTRACT:
                return verdict
            got = [o[0] for o in self.outputs(planned)]
            return with_accuracy(verdict, labels, [t[0] for t in reference.truths], got)

        return self._per_cell("parity", planned, load)

    def determinism(self, planned: PlannedCell) -> Verdict:
        """The same input twice, and in a fresh session."""
        model = planned.cell.model
        feed = self._rows(model, 0, 1)
        first, again = self.run(planned, feed), self.run(planned, feed)
        self._close("first")
        fresh = self.run(planned, feed, "fresh")
        reference, precision = self.reference(model), self._running(planned)
        names = [s.name for s in self.description(model).outputs]
        return laws.determinism(names, first, again, fresh, reference.noise, precision)

    def batch(self, planned: PlannedCell) -> Verdict:
        """Batches of 1, 2, 3 and 7 agree with the reference, and each row with itself alone."""
        model = planned.cell.model
        samples, reference, description = self.samples(model), self.reference(model), self.description(model)
        if not samples.batch_symbol:
            raise Unsupported(f"the batch dimension of {model} is fixed, so there is only one batch size to run")
        precision = self._running(planned)
        names, dtypes = [s.name for s in description.outputs], [s.dtype for s in description.outputs]
        batched = [s.shape is not None and samples.batch_symbol in s.shape[:1] for s in description.outputs]
        verdicts: dict[str, Verdict] = {}
        alone = [self.run(planned, self._rows(model, i, i + 1)) for i in range(min(max(laws.BATCHES), samples.rows))]
        for size in (b for b in laws.BATCHES if b <= samples.rows):
            got = alone[0] if size == 1 else self.run(planned, self._rows(model, 0, size))
            truth = [t[:size] if has else t for t, has in zip(reference.truths[0], batched, strict=True)]
            verdict = judge(names, [truth], [got], reference.noise, precision, dtypes=dtypes)
            verdicts[f"batch {size} against the source"] = laws.by_size(verdict, precision)
            if size > 1 and all(batched):
                rows = [[o[i : i + 1] for o in got] for i in range(size)]
                verdicts[f"rows of batch {size} against themselves alone"] = laws.between_runs(
                    names, alone[:size], rows, reference.noise, precision
                )
        sizes = ", ".join(str(b) for b in laws.BATCHES if b <= samples.rows)
        return laws.worst(verdicts, f"Batches of {sizes} agree with the source, and each row with itself alone.")

    def timing(self, planned: PlannedCell) -> Timing:
        """Latency, load, first inference and memory, measured in a session of its own."""

        def load() -> Timing:
            from pytest_modelformats.measure import statistics

            artifact = self.artifact(planned)
            feed = self._rows(planned.cell.model, 0, 1)
            batch = next(iter(feed.values())).shape[0] if self.samples(planned.cell.model).batch_symbol else 1
            self._close("first")
            opened = self.session(planned, "fresh")
            paths = _write(feed, self._folder("cell") / "in")
            self.pool.settle(self.settings.timeout_s)
            answer = self._ask_worker(
                opened.worker,
                "",
                "measure",
                session=opened.number,
                feed=paths,
                budget_s=self.settings.time_budget_s,
                max_samples=2000,
                threads=self.settings.threads,
            )
            sampled, memory = answer["sampled"], answer["memory"]
            return Timing(
                **statistics(sampled["samples_ns"], batch, sampled),
                threads=self.settings.threads,
                warmup_runs=sampled["warmup_runs"],
                load_ns=opened.load_ns,
                first_inference_ns=answer["first_run_ns"],
                convert_ns=artifact.convert_ns,
                size_bytes=artifact.size_bytes,
                idle_rss_bytes=opened.idle_rss_bytes,
                peak_rss_bytes=memory.get("peak_bytes"),
                pinned=tuple(sampled["pinned"]),
            )

        return self._per_cell("timing", planned, load)

    # --- inside ----------------------------------------------------------------------------

    def _open(self, planned: PlannedCell) -> Opened:
        artifact = self.artifact(planned)
        backend = registry.backends()[planned.cell.backend]
        description = self.description(planned.cell.model)
        worker = self.pool.get(Environment(), backend.worker, backend.requires)
        job = {
            "source": self._opened_source(planned).to_json(),
            "artifact": str(artifact.path),
            "format": planned.cell.format,
            "artifact_precision": planned.artifact_precision,
            "precision": planned.cell.precision,
            "device": planned.cell.device,
            "threads": self.settings.threads,
            "inputs": [s.to_json() for s in description.inputs],
            "outputs": [s.to_json() for s in description.outputs],
            "options": {"optimization": self.settings.ort_optimization},
        }
        what = f"opening {planned.cell.id}"
        try:
            answer = self._ask_worker(worker, what, "open", entry=backend.entry, job=job)
        except WorkerFailure as error:
            raise RunError(f"{backend.name} could not open the artifact: {error}") from error
        return Opened(
            worker=worker,
            number=answer["session"],
            inputs=tuple(TensorSpec.from_json(s) for s in answer["inputs"]),
            outputs=tuple(TensorSpec.from_json(s) for s in answer["outputs"]),
            statement=answer["statement"],
            load_ns=answer["load_ns"],
            idle_rss_bytes=answer["idle_rss_bytes"],
        )

    def _opened_source(self, planned: PlannedCell) -> Source:
        """The source that a backend loads: the model's, or the candidate's own file with the model's architecture."""
        source = self.source(planned.cell.model)
        if not planned.candidate_path:
            return source
        return replace(source, location=planned.candidate_path, kind=planned.candidate_kind, sha256="")

    def _in_order(self, planned: PlannedCell, opened: Opened, arrays: list[np.ndarray]) -> list[np.ndarray]:
        """Outputs in the source's order where the format holds names; a name that is missing is left to the verdict."""
        wanted = [s.name for s in self.description(planned.cell.model).outputs]
        names = [s.name for s in opened.outputs]
        complete = len(arrays) == len(names) and sorted(names) == sorted(wanted)
        if complete and registry.formats()[planned.cell.format].named_outputs:
            return [arrays[names.index(name)] for name in wanted]
        return arrays

    def _examined(self, planned: PlannedCell, verdict: Verdict) -> Verdict:
        """A fallback to a coarser precision, examined: an error that moved inputs do not change is a fault."""
        ran = reroll.suspects(verdict, PRECISIONS[planned.cell.precision])
        model = planned.cell.model
        feed = self._rows(model, 0, max(laws.BATCHES))
        if not ran or not any(spec.is_float for spec in self.description(model).inputs):
            return verdict
        other = reroll.moved(feed, ran)
        errors = []
        for name, inputs in (("few", feed), (f"moved-{ran}", other)):
            truth = self._evaluated(model, name, inputs, "float64")
            got = self.run(planned, inputs)
            errors.append([y - t for y, t in zip(got, truth, strict=True)])
        weights: list[np.ndarray] | None = None
        if ran == "fp16" and "fp16-weights" in self.reference(model).noise:
            truth = self._evaluated(model, "few", feed, "float64")
            rounded = self._evaluated(model, "few", feed, "fp16-weights")
            weights = [y - t for y, t in zip(rounded, truth, strict=True)]
        return reroll.settle(verdict, ran, errors[0], errors[1], weights)

    def _evaluated(self, model: str, name: str, feed: Mapping[str, np.ndarray], precision: str) -> list[np.ndarray]:
        """The source's own outputs for one feed at a precision; ``name`` stands for the feed."""

        def load() -> list[np.ndarray]:
            import numpy as np

            source = self.source(model)
            answer = self._ask(
                RUNTIME,
                f"evaluating {model} at {precision}",
                "evaluate",
                module=registry.formats()[source.format].module,
                source=source.to_json(),
                feeds=[self._written(model, name, feed)],
                precision=precision,
                folder=str(self._folder("evaluated")),
            )
            return [np.load(path, allow_pickle=False) for path in answer["outputs"][0]]

        return self._per_model(f"evaluated-{name}-{precision}", model, load)

    def _running(self, planned: PlannedCell) -> Precision:
        """The precision that runs: the asked one, or after a fallback the one that was measured."""
        verdict = self.parity(planned)
        if verdict.outcome is not Outcome.FALLBACK:
            return PRECISIONS[planned.cell.precision]
        ran = {o.effective_precision for o in verdict.outputs if o.outcome is Outcome.FALLBACK}
        return max((PRECISIONS[name] for name in ran), key=lambda p: -p.mantissa_bits)

    def _tolerances(self, planned: PlannedCell) -> dict[str, Tolerance]:
        chosen = {}
        for tolerance in self.settings.tolerances:
            if fnmatch.fnmatchcase(planned.cell.id, tolerance.glob):
                for name in tolerance.outputs or ("*",):
                    chosen[name] = Tolerance(tolerance.atol, tolerance.rtol)
        return chosen

    def _need_noise(self, reference: Reference, precision: str, model: str) -> None:
        if precision not in reference.noise:
            why = reference.missing.get(precision, "it was not evaluated")
            raise Unsupported(f"the rounding noise of {model} at {precision} is not known: {why}")

    def _rows(self, model: str, start: int, stop: int) -> Mapping[str, np.ndarray]:
        from pytest_modelformats.inputs import rows

        return rows(self.samples(model), start, stop)

    def _written(self, model: str, name: str, feed: Mapping[str, np.ndarray]) -> dict[str, str]:
        return _write(feed, self.pool.folder / "models" / model / name)

    def _folder(self, name: str) -> Path:
        self._folders += 1
        return self.pool.folder / name / str(self._folders)

    def _close(self, which: str) -> None:
        opened = self._sessions.pop(which, None)
        if opened is not None and not opened.worker.dead:
            try:
                opened.worker.request("close", self.settings.timeout_s, session=opened.number)
            except ModelFormatsError:
                opened.worker.close()

    def _ask(self, runtime: str, what: str, op: str, **arguments: Any) -> dict[str, Any]:
        worker = self.pool.get(Environment(), runtime, ())
        return self._ask_worker(worker, what, op, **arguments)

    def _ask_worker(self, worker: Asked, what: str, op: str, **arguments: Any) -> dict[str, Any]:
        progress = self._progress(what) if what else None
        return worker.request(op, self.settings.timeout_s, progress, **arguments)

    def _per_model(self, stage: str, model: str, make: Callable[[], _T]) -> _T:
        return _remember(self._models, (stage, model), make)

    def _per_cell(self, stage: str, planned: PlannedCell, make: Callable[[], _T], *, keep: bool = True) -> _T:
        """A stage of the current cell; after its worker died, every further stage ends the same way."""
        self.enter(planned)
        self._raise_if_broken(planned)
        try:
            return _remember(self._cell_memo, stage, make) if keep else make()
        except _FATAL as error:
            self._broken = error
            raise

    def _raise_if_broken(self, planned: PlannedCell) -> None:
        self.enter(planned)
        if self._broken is not None:
            raise self._broken


def _remember(memo: dict[Any, Any], key: Any, make: Callable[[], _T]) -> _T:
    """The kept result, or the kept error raised again."""
    if key not in memo:
        try:
            memo[key] = make()
        except ModelFormatsError as error:
            memo[key] = error
    found = memo[key]
    if isinstance(found, ModelFormatsError):
        raise found
    return found  # type: ignore[no-any-return]


def _write(feed: Mapping[str, np.ndarray], folder: Path) -> dict[str, str]:
    import numpy as np

    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    for index, (name, array) in enumerate(feed.items()):
        path = folder / f"{index}.npy"
        np.save(path, np.ascontiguousarray(array), allow_pickle=False)
        paths[name] = str(path)
    return paths


def _digest(samples: Samples) -> str:
    import hashlib

    digest = hashlib.sha256()
    for feed in samples.feeds:
        for name, array in feed.items():
            digest.update(f"{name}:{array.dtype}:{array.shape}".encode())
            digest.update(array.tobytes())
    return digest.hexdigest()


def _bytes_per_row(spec: TensorSpec) -> int:
    import math

    dims = [d if isinstance(d, int) else 1 for d in (spec.shape or ())]
    return 8 * math.prod(dims)


def _libraries_of(format_name: str) -> tuple[str, ...]:
    """The distributions that evaluate a format: those of the backends that run it."""
    found: dict[str, None] = {}
    for backend in registry.backends().values():
        _collect(backend, format_name, found)
    return tuple(found)


def _collect(backend: Backend, format_name: str, found: dict[str, None]) -> None:
    if any(name == format_name for name, _ in backend.precisions):
        found.update(dict.fromkeys(backend.libraries))


def _fixed(description: Description) -> Description:
    """Every symbolic dimension of the inputs at 1, of the outputs likewise."""
    if any(s.shape is None for s in description.inputs):
        raise ConvertError("--mf-static needs inputs whose shapes are known; give them with --mf-input")

    def fix(spec: TensorSpec) -> TensorSpec:
        shape = None if spec.shape is None else tuple(1 if isinstance(d, str) else d for d in spec.shape)
        return replace(spec, shape=shape)

    return replace(
        description,
        inputs=tuple(fix(s) for s in description.inputs),
        outputs=tuple(replace(s, shape=None) for s in description.outputs),
    )
