"""The other side of a cell in an earlier run: what it takes to open it again, now, or why that cannot be."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_modelformats.checks import provenance
from pytest_modelformats.errors import ModelFormatsError
from pytest_modelformats.history.baseline import named
from pytest_modelformats.run.workers.asking import write_feed
from pytest_modelformats.schema import Environment, registry
from pytest_modelformats.settings import machine
from pytest_modelformats.source.identify import content_hash

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_modelformats.checks.cell import Stages
    from pytest_modelformats.record.index import Facts, Recorded
    from pytest_modelformats.run.sides import Opening
    from pytest_modelformats.schema import PlannedCell
    from pytest_modelformats.settings.nouns import Settings

# What a backend is told by the settings of a run; the same key of the record's header holds it.
_THREADS, _OPTIMISATION = "threads", "ort_optimization"


@dataclass(frozen=True, slots=True)
class Counterpart:
    """How a cell of an earlier run can be opened now: where, and under which interpreter; or ``why_not``.

    ``identical``: artifact, runtime, code and options are those of this run, so it would be compared with itself.
    """

    versions: Mapping[str, str]
    path: Path | None = None
    environment: Environment = field(default_factory=Environment)
    why_not: str = ""
    identical: bool = False


def of(stages: Stages, settings: Settings, planned: PlannedCell, recorded: Recorded, facts: Facts) -> Counterpart:
    """The counterpart of a cell that an earlier run has recorded."""
    backend = registry.backends()[planned.cell.backend]
    installed = recorded.versions(facts.environment)
    versions = {name: installed[name] for name in backend.libraries if name in installed}
    own = machine.versions(backend.libraries)
    try:
        path = _artifact(stages, planned, recorded, facts)
    except ModelFormatsError as error:
        return Counterpart(versions, why_not=str(error))
    changed = facts.runtime.get("code") != provenance.code_of(planned)
    if changed and not provenance.is_own(planned):
        return Counterpart(versions, path, why_not=f"the code of the backend {backend.name} is another one since")
    if versions == own and not facts.environment:
        same = _same(stages, settings, planned, recorded, facts)
        if same and changed:
            why = "only the code of pytest-modelformats is another one since, and it would open both"
            return Counterpart(versions, path, why_not=why)
        return Counterpart(versions, path, identical=same)
    from pytest_modelformats.run.environments import made as environments

    found = environments.having(settings, versions)
    if found is None:
        return Counterpart(versions, path, why_not=environments.none_has(settings, versions))
    return Counterpart(versions, path, found.environment)


def before_opening(
    stages: Stages,
    settings: Settings,
    planned: PlannedCell,
    recorded: Recorded,
    found: Counterpart,
    feed: dict[str, str],
) -> Opening:
    """What opens the earlier run's artifact as that run opened it."""
    options = recorded.header.options
    threads = int(options.get(_THREADS) or settings.threads)
    path = found.path or Path()
    opened = opening(stages, settings, planned, path, found.environment, feed, f"the baseline of {planned.cell.id}")
    job = {**opened.job, "threads": threads, "options": _options(opened.job["options"], options)}
    if not planned.chain:
        job["source"] = {**job["source"], "location": str(path)}
    return replace(opened, job=job, threads=threads)


def opening(
    stages: Stages,
    settings: Settings,
    planned: PlannedCell,
    path: Path,
    environment: Environment,
    feed: dict[str, str],
    what: str = "",
) -> Opening:
    """What opens an artifact as this run opens the cell's, under an interpreter."""
    from pytest_modelformats.run.sides import Opening

    backend = registry.backends()[planned.cell.backend]
    return Opening(
        environment=environment,
        worker=backend.worker,
        entry=backend.entry,
        job=stages.cells.opening(planned, path),
        feed=feed,
        threads=settings.threads,
        timeout_s=settings.timeout_s,
        what=what or planned.cell.id,
    )


def feed_of(stages: Stages, planned: PlannedCell) -> dict[str, str]:
    """One row of the model's samples, written where both sides read it: what latency is measured with."""
    return write_feed(stages.models.rows(planned.cell.model, 0, 1), stages.asker.folder("compare"))


def _options(own: Mapping[str, Any], stated: Mapping[str, Any]) -> dict[str, Any]:
    return {**own, **({"optimization": stated[_OPTIMISATION]} if stated.get(_OPTIMISATION) else {})}


def _same(stages: Stages, settings: Settings, planned: PlannedCell, recorded: Recorded, facts: Facts) -> bool:
    options = recorded.header.options
    if (options.get(_THREADS), options.get(_OPTIMISATION)) != (settings.threads, settings.ort_optimization):
        return False
    own = provenance.artifact_facts(stages, planned, stages.artifact(planned))
    keys = ("where", "sha256", "fingerprint")
    return all(own.get(key) == facts.artifact.get(key) for key in keys)


def _artifact(stages: Stages, planned: PlannedCell, recorded: Recorded, facts: Facts) -> Path:
    """The earlier run's artifact, its content verified.

    Raises: ModelFormatsError saying why there is none.
    """
    said = facts.artifact
    where = said.get("where")
    if where == "cache" and planned.chain:
        entry = stages.cache.find(str(said.get("key")))
        if entry is None:
            raise ModelFormatsError("its artifact is no longer in the cache")
        return entry.folder / Path(str(said.get("path"))).name
    if where in {"file", "code"} and not planned.chain:
        fingerprint = stages.models.description(planned.cell.model).fingerprint
        if planned.candidate_path == "" and where == "code" and said.get("fingerprint") != fingerprint:
            raise ModelFormatsError("the code that builds its model is another one since")
        if where == "code":
            return Path(str(said.get("path")))
        return _file(stages, planned, recorded, said)
    raise ModelFormatsError("its record does not say which artifact it was")


def _file(stages: Stages, planned: PlannedCell, recorded: Recorded, said: Mapping[str, Any]) -> Path:
    """The very file, or the copy that was kept with the baseline."""
    source = stages.models.source(planned.cell.model)
    if planned.candidate_path:
        source = replace(source, kind=planned.candidate_kind)
    copy = named.kept_file(recorded.path, said)
    for path in (copy, stages.rootdir / str(said.get("path"))):
        with contextlib.suppress(ModelFormatsError, OSError):
            there = path is not None and path.is_file()
            located = replace(source, location=str(path), format=planned.cell.format)
            if there and path is not None and content_hash(located) == said.get("sha256"):
                return path
    raise ModelFormatsError("its file is another one since, and no copy was kept (--mf-save-baseline keeps one)")
