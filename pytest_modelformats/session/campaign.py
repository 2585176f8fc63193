"""One pytest run over a matrix: settings, sources, plan, and the stages that the fixtures ask."""

from __future__ import annotations

import contextlib
import fnmatch
import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_modelformats.checks.tolerances import check_globs
from pytest_modelformats.errors import ConfigurationError, EnvironmentUnavailable, ModelFormatsError, SourceError
from pytest_modelformats.plan import build as plan
from pytest_modelformats.plan import unmet
from pytest_modelformats.schema import registry
from pytest_modelformats.session.expectations import read as expectations
from pytest_modelformats.session.stash import CAMPAIGN
from pytest_modelformats.settings import load as configuration
from pytest_modelformats.settings import machine, options
from pytest_modelformats.source import identify as source

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_modelformats.checks.cell import Stages
    from pytest_modelformats.history.baseline.family import Comparisons
    from pytest_modelformats.history.baseline.named import Baseline
    from pytest_modelformats.record.index import Recorded
    from pytest_modelformats.schema import PlannedCell, Source
    from pytest_modelformats.session.expectations.read import Expectation
    from pytest_modelformats.session.reuse import Reuse
    from pytest_modelformats.settings.nouns import Settings

# Starting more workers ahead than this would cost more memory than the waiting saves.
_MOST_AHEAD = 6


class Campaign:
    """Built when the first test asks for a cell; ``stages`` (and with it any process) only when one runs."""

    def __init__(self, config: pytest.Config) -> None:
        """Read the configuration; raises ConfigurationError, SourceError."""
        self.config = config
        self.settings: Settings = configuration.load(_root_of(config), options.given(config.option))
        self.started_stages: Stages | None = None

    @cached_property
    def sources(self) -> tuple[Source, ...]:
        """The models, as the user gave them."""
        return source.find_sources(self.settings)

    @cached_property
    def plan(self) -> tuple[PlannedCell, ...]:
        """Every cell with its decision."""
        candidates = source.find_candidates(self.settings)
        unmet.check_candidates(self.settings, candidates, options.given(self.config.option))
        return plan.build_plan(self.settings, self.sources, candidates, machine.machine()).cells

    @cached_property
    def cells(self) -> dict[str, PlannedCell]:
        """The planned cells by id."""
        return {p.cell.id: p for p in self.plan}

    @cached_property
    def order(self) -> dict[str, int]:
        """Where each cell stands in the plan."""
        return {p.cell.id: i for i, p in enumerate(self.plan)}

    @cached_property
    def expectations(self) -> Sequence[Expectation]:
        """The known failures; raises ConfigurationError where there is no file to update."""
        files = self.settings.expectations
        if self.settings.update_expectations:
            if not files:
                raise ConfigurationError(
                    "--mf-update-expectations has no file to write; name one with --mf-expectations FILE, "
                    "which is made if it is not there"
                )
            files = tuple(path for path in files if path.exists())
        return expectations.read(files)

    @cached_property
    def parameters(self) -> dict[bool, tuple[list[PlannedCell], list[str]]]:
        """The cells and ids that tests are parametrised with: those that run, and those that do not."""
        split: dict[bool, tuple[list[PlannedCell], list[str]]] = {True: ([], []), False: ([], [])}
        for planned in self.plan:
            cells, ids = split[planned.decision.runs]
            cells.append(planned)
            ids.append(planned.cell.id)
        return split

    @property
    def stages(self) -> Stages:
        """The stages of this run; creates the cache folder and the pool of workers. Raises CacheError."""
        if self.started_stages is None:
            self.started_stages = stages_of(self.settings, self.sources, self._progress())
        return self.started_stages

    @cached_property
    def reuse(self) -> Reuse:
        """What passed in earlier runs."""
        from pytest_modelformats.session.reuse import Reuse

        return Reuse(self.settings, self.stages.models, self.stages.cells.environments)

    @cached_property
    def baseline(self) -> Baseline | None:
        """What the run is compared with, as the settings name it; raises ConfigurationError."""
        from pytest_modelformats.history.baseline import named as baseline

        return baseline.find(self.settings.baseline, self.settings) if self.settings.baseline else None

    @cached_property
    def recorded(self) -> Recorded | None:
        """The record of the run that this one is compared with; raises ConfigurationError where it is none."""
        from pytest_modelformats.record.index import Recorded

        return Recorded(self.baseline.path) if self.baseline is not None and self.baseline.path else None

    @cached_property
    def comparisons(self) -> Comparisons:
        """Every cell beside its counterpart."""
        from pytest_modelformats.history.baseline.family import Comparisons

        return Comparisons(self.settings, self.cells, self.baseline, self.recorded, self.stages, self._progress())

    def start_ahead(self, cells: Sequence[str]) -> None:
        """Start the workers that a run will need, so that they import beside one another."""
        from pytest_modelformats.run.workers.asking import RUNTIME

        wanted: dict[tuple[str, str], tuple[str, ...]] = {}
        formats = {s.name: s.format for s in self.sources}
        for cell in cells:
            planned = self.cells[cell]
            if planned.decision.runs:
                wanted.setdefault(("", RUNTIME), registry.formats()[formats[planned.cell.model]].requires)
                if self.settings.reuse:
                    continue  # most likely there is nothing for the runtimes to do
                backend = registry.backends()[planned.cell.backend]
                wanted.setdefault((planned.cell.environment, backend.worker), backend.requires)
        if len(wanted) <= _MOST_AHEAD:
            for (name, runtime), modules in wanted.items():
                # One that cannot be made is what its cells tell.
                with contextlib.suppress(EnvironmentUnavailable):
                    self.stages.pool.get(self.stages.cells.environments.of(name), runtime, modules)

    def environments(self, cells: Sequence[str]) -> dict[str, Any]:
        """What the environments of these cells hold, each made here if need be."""
        names = {self.cells[cell].cell.environment for cell in cells if self.cells[cell].decision.runs}
        return self.stages.cells.environments.stated(names) if names - {""} else {}

    def open_only_source(self, cells: Sequence[str]) -> None:
        """Load the model where there is just one: if that fails, it is one error, not one for every check.

        Raises: SourceError, TrustError. Of several models, one that cannot be loaded fails its own cells only.
        """
        if len(self.sources) == 1 and any(self.cells[cell].decision.runs for cell in cells):
            try:
                self.stages.models.description(self.sources[0].name)
                self.stages.models.samples(self.sources[0].name)
            except SourceError:
                raise
            except ModelFormatsError:
                return  # a worker that died, say: its cells tell

    def size_notices(self, cells: Sequence[str]) -> list[str]:
        """A sentence for each model of these cells for which nothing states the sizes that a run judges it at."""
        from pytest_modelformats.source import sizes

        models = {self.cells[cell].cell.model for cell in cells if self.cells[cell].decision.runs}
        found = []
        for one in self.sources:
            if one.name in models:
                with contextlib.suppress(ModelFormatsError):  # what cannot be loaded is its cells' to tell
                    found.append(sizes.notice(one.name, self.stages.models.sizes(one.name)))
        return [text for text in found if text]

    def check_tolerance_globs(self) -> None:
        """Every cell-glob of a tolerance or budget matches a cell that could be planned; raises ConfigurationError."""
        from pytest_modelformats.session.completeness import narrowed_by

        def everything(settings: Settings) -> tuple[PlannedCell, ...]:
            return plan.build_plan(settings, self.sources, source.find_candidates(settings), machine.machine()).cells

        if self.settings.tolerances or self.settings.budgets:
            check_globs(self.settings, self.plan, everything, narrowed_by(self.config))

    def check_tolerances(self, cells: Sequence[str]) -> None:
        """The tolerances of these cells name outputs of their models; one that cannot be loaded is its cells' to tell.

        Raises: ConfigurationError.
        """
        globs = [t.glob for t in self.settings.tolerances if t.outputs]
        for cell in cells:
            planned = self.cells[cell]
            if planned.decision.runs and any(fnmatch.fnmatchcase(cell, glob) for glob in globs):
                try:
                    self.stages.check_tolerances(planned)
                except ConfigurationError:
                    raise
                except ModelFormatsError:
                    continue

    def close(self) -> None:
        """End the workers, and let go of the baseline's record."""
        if self.__dict__.get("recorded") is not None:
            self.__dict__["recorded"].close()
        if self.started_stages is not None:
            self.started_stages.leave()
            self.started_stages.pool.close()
            self.started_stages = None

    def versions(self) -> dict[str, str]:
        """The versions of everything that the registered systems stand on."""
        parts: list[Any] = [*registry.backends().values(), *registry.converters().values()]
        names = sorted({name for part in parts for name in part.libraries} | {"numpy", "pytest", "execnet"})
        return machine.versions(names)

    def _progress(self) -> Callable[[str], Callable[[float], None] | None]:
        reporter = self.config.pluginmanager.get_plugin("terminalreporter")
        if reporter is None or not getattr(reporter, "isatty", False) or hasattr(self.config, "workerinput"):
            return lambda _: None

        def watch(what: str) -> Callable[[float], None]:
            shown = False

            def show(elapsed: float) -> None:
                nonlocal shown
                if not shown:
                    reporter.ensure_newline()
                    shown = True
                reporter.rewrite(f"  {what} … {elapsed:.0f} s", erase=True)

            return show

        return watch


def stages_of(
    settings: Settings, sources: Sequence[Source], progress: Callable[[str], Callable[[float], None] | None]
) -> Stages:
    """The stages of a run; creates the cache folder and the pool of workers. Raises CacheError."""
    from pytest_modelformats.checks.cell import Stages
    from pytest_modelformats.convert.cache import Cache
    from pytest_modelformats.run.workers.pool import Pool

    cache = Cache(settings.cache)
    pool = Pool(
        memory_bytes=settings.memory_bytes,
        threads=settings.threads,
        isolate=settings.isolate,
        compiled=str(cache.compiled(machine.machine()["cpu_flags"])),
    )
    return Stages(settings, sources, source.find_data(settings), pool, cache, progress)


def _root_of(config: pytest.Config) -> Path:
    """The project's root: where the configuration is, and where the reports go.

    pytest's own rootdir may be another: before it knows our options it takes their values for
    test paths, so that ``--mf-model /elsewhere/model.pth`` would move the root to ``/elsewhere``.
    """
    if config.option.rootdir or config.option.inifilename:
        return config.rootpath
    start = config.invocation_params.dir
    if config.args_source is config.ArgsSource.ARGS:
        paths = [path for path in (start / arg.partition("::")[0] for arg in map(str, config.args)) if path.exists()]
        start = Path(os.path.commonpath(paths)) if paths else start
    return configuration.project_root(start if start.is_dir() else start.parent)


def campaign_of(config: pytest.Config) -> Campaign:
    """The run's campaign, started by the first test that asks for a cell; a wrong setting is a usage error."""
    if CAMPAIGN not in config.stash:
        try:
            campaign = Campaign(config)
            _ = campaign.plan, campaign.expectations, campaign.recorded
            campaign.check_tolerance_globs()
        except ModelFormatsError as error:
            raise pytest.UsageError(str(error)) from None
        config.stash[CAMPAIGN] = campaign
    return config.stash[CAMPAIGN]
