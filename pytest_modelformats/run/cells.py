"""Convert a cell's model, open it in a worker, feed inputs, take outputs: one cell at a time.

An error is kept, and a worker that died takes only its own cell with it: every further
stage of that cell ends the same way, and the next cell gets a fresh worker.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from pytest_modelformats.compare import reference
from pytest_modelformats.convert.chain import Artifact, convert
from pytest_modelformats.errors import (
    MissingDependency,
    ModelFormatsError,
    OutOfMemory,
    RunError,
    Unsupported,
    WorkerCrashed,
    WorkerTimeout,
)
from pytest_modelformats.run.environments.made import Environments
from pytest_modelformats.run.models import origin_of
from pytest_modelformats.run.once import remember
from pytest_modelformats.run.workers.asking import RUNTIME, read_arrays, write_feed
from pytest_modelformats.run.workers.process import WorkerFailure
from pytest_modelformats.schema import PlannedCell, Source, TensorSpec, registry

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import numpy as np

    from pytest_modelformats.convert.cache import Cache
    from pytest_modelformats.run.models import Models
    from pytest_modelformats.run.workers.asking import Asker
    from pytest_modelformats.run.workers.pool import Asked
    from pytest_modelformats.settings.nouns import Settings

_T = TypeVar("_T")
_FATAL = (WorkerCrashed, WorkerTimeout, OutOfMemory)


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


class Cells:
    """Artifact and sessions of the current cell."""

    def __init__(self, settings: Settings, models: Models, asker: Asker, cache: Cache) -> None:
        """No cell is the current one yet."""
        self._settings = settings
        self._models = models
        self._asker = asker
        self._cache = cache
        self.environments = Environments(settings, asker.watched)
        self._memo: dict[str, Any] = {}
        self._current: PlannedCell | None = None
        self._sessions: dict[str, Opened] = {}
        # Workers that have one session of the current cell and nothing else, by the session's name.
        self._apart: dict[str, Asked] = {}
        self._broken: ModelFormatsError | None = None
        # What the current cell's session was last opened with, also where that did not go well.
        self.job: dict[str, Any] = {}
        self.conversions: dict[str, int] = {"made": 0, "cached": 0}

    def enter(self, planned: PlannedCell) -> None:
        """Make a cell the current one; what the one before held is let go."""
        if self._current is None or self._current.cell != planned.cell:
            self.leave()
            self._current = planned

    def leave(self) -> None:
        """Close the sessions of the current cell and forget its results."""
        for name in list(self._sessions):
            self.close(name)
        self._memo.clear()
        self._broken = None
        self._current = None
        self.job = {}
        shutil.rmtree(self._asker.pool.folder / "cell", ignore_errors=True)

    def artifact(self, planned: PlannedCell) -> Artifact:
        """The cell's model in the cell's format."""

        def make() -> Artifact:
            artifact = self.converted(planned, self._asker)
            self.conversions["made"] += artifact.made
            self.conversions["cached"] += artifact.cached
            return artifact

        return self.once("artifact", planned, make)

    def converted(self, planned: PlannedCell, asker: Asker) -> Artifact:
        """What a chain makes, by the time-out of ``asker``; the current cell stays the current one."""
        model = planned.cell.model
        example = self._models.written(model, "example", self._models.rows(model, 0, 2))
        origin = origin_of(self._models, self._settings, model, example)

        def ask(converter: Any, job: dict[str, Any]) -> dict[str, Any]:
            what = f"converting {model} to {converter.target} ({job['precision']})"
            return asker.runtime(RUNTIME, what, "convert", entry=converter.entry, job=job)

        return convert(planned, origin, self._cache, ask)

    def session(self, planned: PlannedCell, which: str = "first", threads: int | None = None, cores: int = 0) -> Opened:
        """The cell's artifact, opened in its backend's worker; ``which`` names one of several sessions.

        ``threads`` counts where the session is opened here; ``None`` is what ``--mf-threads`` says. With ``cores``
        it is opened in a worker of its own that sees so many: a runtime that has once looked at its cores
        (OpenVINO) keeps what it found for as long as its process lives.
        """
        self._raise_if_broken(planned)
        opened = self._sessions.get(which)
        if opened is None or opened.worker.dead:
            opened = self.once(
                f"session-{which}", planned, lambda: self._open(planned, threads, which, cores), keep=False
            )
            self._sessions[which] = opened
        return opened

    def run(
        self,
        planned: PlannedCell,
        feed: Mapping[str, np.ndarray],
        which: str = "first",
        layouts: Mapping[str, str] | None = None,
    ) -> list[np.ndarray]:
        """The cell's outputs for one feed, in the contract's order; ``layouts`` as ``workers.calls`` has them."""
        return self._run(planned, feed, which, layouts=dict(layouts or {}))[0]

    def changed_inputs(self, planned: PlannedCell, feed: Mapping[str, np.ndarray]) -> list[str]:
        """The names of the inputs whose arrays were different after the call than before it."""
        return self._run(planned, feed, "first", watch=True)[1]

    def _run(
        self, planned: PlannedCell, feed: Mapping[str, np.ndarray], which: str, **more: Any
    ) -> tuple[list[np.ndarray], list[str]]:
        def load() -> tuple[list[np.ndarray], list[str]]:
            opened = self.session(planned, which)
            folder = self._asker.folder("cell")
            paths = write_feed(feed, folder / "in")
            what = f"running {planned.cell.id}"
            answer = self._asker.worker(
                opened.worker, what, "run", session=opened.number, feed=paths, folder=str(folder / "out"), **more
            )
            return self._in_order(planned, opened, read_arrays(answer["outputs"])), answer["changed"]

        return self.once("run", planned, load, keep=False)

    def run_together(
        self, planned: PlannedCell, feeds: Sequence[Mapping[str, np.ndarray]], rounds: int
    ) -> list[list[list[np.ndarray]]]:
        """The outputs of one session that is called from as many threads as there are feeds.

        Shapes: [feed][round][output].
        """

        def load() -> list[list[list[np.ndarray]]]:
            opened = self.session(planned)
            folder = self._asker.folder("cell")
            answer = self._asker.worker(
                opened.worker,
                f"running {planned.cell.id}",
                "run_together",
                session=opened.number,
                feeds=[write_feed(feed, folder / f"in-{i}") for i, feed in enumerate(feeds)],
                rounds=rounds,
                folder=str(folder / "out"),
            )
            return [
                [self._in_order(planned, opened, read_arrays(paths)) for paths in of_feed]
                for of_feed in answer["outputs"]
            ]

        return self.once("run", planned, load, keep=False)

    def keep_busy(
        self,
        planned: PlannedCell,
        feeds: Sequence[Mapping[str, np.ndarray]],
        mode: str,
        budget_s: float,
        which: str = "busy",
    ) -> tuple[dict[str, Any], list[tuple[int, list[np.ndarray]]]]:
        """What a worker measures when it keeps a session busy in one mode, and (number of the feed, its outputs)."""

        def load() -> tuple[dict[str, Any], list[tuple[int, list[np.ndarray]]]]:
            opened = self.session(planned, which)
            folder = self._asker.folder("cell")
            paths = [write_feed(feed, folder / f"in-{i}") for i, feed in enumerate(feeds)]
            self._asker.pool.settle(self._settings.timeout_s)
            answer = self._asker.worker(
                opened.worker,
                "",
                "keep_busy",
                session=opened.number,
                feeds=paths,
                mode=mode,
                budget_s=budget_s,
                threads=self._settings.threads,
                folder=str(folder / "out"),
            )
            outputs = [(n, self._in_order(planned, opened, read_arrays(files))) for n, files in answer["answers"]]
            return answer["taken"], outputs

        return self.once("run", planned, load, keep=False)

    def execution(self, planned: PlannedCell, feed: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """What the runtime states of what it executes; a runtime that fails to say it does not fail the cell."""
        opened = self.session(planned)
        paths = write_feed(feed, self._asker.folder("cell") / "in")
        what = f"asking what {planned.cell.id} executes"
        try:
            stated: dict[str, Any] = self._asker.worker(
                opened.worker, what, "execution", session=opened.number, feed=paths
            )["execution"]
        except ModelFormatsError as error:
            return {"source": "", "why_not": str(error)[:300]}
        return stated

    def is_open(self, which: str) -> bool:
        """Whether the current cell has this session."""
        return which in self._sessions

    def close(self, which: str) -> None:
        """Close one of the sessions, if it is open."""
        opened = self._sessions.pop(which, None)
        if opened is not None and not opened.worker.dead:
            try:
                opened.worker.request("close", self._settings.timeout_s, session=opened.number)
            except ModelFormatsError:
                opened.worker.close()
        apart = self._apart.pop(which, None)
        if apart is not None:
            apart.close()

    def once(self, stage: str, planned: PlannedCell, make: Callable[[], _T], *, keep: bool = True) -> _T:
        """A stage of the current cell; after its worker died, every further stage ends the same way."""
        self.enter(planned)
        self._raise_if_broken(planned)
        try:
            return remember(self._memo, stage, make) if keep else make()
        except _FATAL as error:
            self._broken = error
            raise

    def _raise_if_broken(self, planned: PlannedCell) -> None:
        self.enter(planned)
        if self._broken is not None:
            raise self._broken

    def _open(self, planned: PlannedCell, threads: int | None = None, which: str = "", cores: int = 0) -> Opened:
        artifact = self.artifact(planned)
        backend = registry.backends()[planned.cell.backend]
        if cores:
            where = self.environments.of(planned.cell.environment)
            worker = self._apart[which] = self._asker.pool.fresh(where, backend.worker)
        else:
            worker = self.worker(planned)
        job = self.opening(planned, artifact.path)
        if threads is not None:
            job["threads"] = threads
        what = f"opening {planned.cell.id}"
        self.job = job
        try:
            answer = self._asker.worker(worker, what, "open", entry=backend.entry, job=job, cores=cores)
        except MissingDependency as error:
            if not planned.cell.environment:
                raise
            msg = f"the environment '{planned.cell.environment}' lacks something ({error}); add it to its requirements"
            raise MissingDependency(msg) from error
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

    def worker(self, planned: PlannedCell) -> Asked:
        """The worker of the cell's backend in the cell's environment; raises ConfigurationError where it has none."""
        backend = registry.backends()[planned.cell.backend]
        environment = self.environments.of(planned.cell.environment)
        return self._asker.pool.get(environment, backend.worker, backend.requires)

    def opening(self, planned: PlannedCell, path: Path) -> dict[str, Any]:
        """What a backend is told to open a file as it opens the cell's artifact."""
        description = self._models.description(planned.cell.model)
        return {
            "source": self._opened_source(planned).to_json(),
            "artifact": str(path),
            "format": planned.cell.format,
            "artifact_precision": planned.artifact_precision,
            "precision": planned.cell.precision,
            "device": planned.cell.device,
            "threads": self._settings.threads,
            "inputs": [s.to_json() for s in description.inputs],
            "outputs": [s.to_json() for s in description.outputs],
            "options": {"optimization": self._settings.ort_optimization},
        }

    def _opened_source(self, planned: PlannedCell) -> Source:
        """The source that a backend loads: the model's, or the candidate's own file with the model's architecture."""
        source = self._models.source(planned.cell.model)
        if not planned.candidate_path:
            return source
        return replace(source, location=planned.candidate_path, kind=planned.candidate_kind, sha256="")

    def graph_in_float64(
        self, planned: PlannedCell, feeds: Sequence[Mapping[str, np.ndarray]], *, as_written: bool = False
    ) -> list[list[np.ndarray]]:
        """What the artifact's own graph gives in float64, [feed][output] in the contract's order.

        ``as_written``: with its casts to narrower types. Raises: Unsupported (also where it could only be estimated),
        ConvertError, RunError.
        """
        artifact, opened = self.artifact(planned), self.session(planned)
        own, wanted = [spec.name for spec in opened.inputs], list(feeds[0])
        by_place = len(own) == len(wanted) and sorted(own) != sorted(wanted)
        outputs, method = self._models.evaluate_artifact(
            planned.cell.model,
            artifact.path,
            artifact.format,
            own if by_place else wanted,
            feeds,
            as_written=as_written,
        )
        if reference.word(method) not in reference.REAL:
            raise Unsupported(f"the graph of {planned.cell.id} is not evaluated in float64: {method}")
        return [self._in_order(planned, opened, one) for one in outputs]

    def _in_order(self, planned: PlannedCell, opened: Opened, arrays: list[np.ndarray]) -> list[np.ndarray]:
        """Outputs in the source's order where the format holds names; a name that is missing is left to the verdict."""
        wanted = [s.name for s in self._models.description(planned.cell.model).outputs]
        names = [s.name for s in opened.outputs]
        complete = len(arrays) == len(names) and sorted(names) == sorted(wanted)
        if complete and registry.formats()[planned.cell.format].named_outputs:
            return [arrays[names.index(name)] for name in wanted]
        return arrays
