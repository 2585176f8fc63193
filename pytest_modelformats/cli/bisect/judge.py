"""What one version of a runtime comes to for a cell: its verdict, or its latency beside that of another version.

Every version is an environment of its own, made when it is tried; what cannot be installed or opened is told apart
from what is wrong.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_modelformats.cli.bisect.search import Step
from pytest_modelformats.errors import (
    ConfigurationError,
    ModelFormatsError,
    OutOfMemory,
    WorkerCrashed,
    WorkerTimeout,
)
from pytest_modelformats.schema import Change, Outcome, Verdict, registry
from pytest_modelformats.schema.names import suggest
from pytest_modelformats.settings.nouns import EnvironmentEntry

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_modelformats.checks.cell import Stages
    from pytest_modelformats.run.sides import Opening
    from pytest_modelformats.schema import PlannedCell, Source
    from pytest_modelformats.settings.nouns import Settings

    Progress = Callable[[str], Callable[[float], None] | None]

# Of a runtime that ends its process, this is a verdict; any other error at opening is not one.
_ENDS = (WorkerCrashed, WorkerTimeout, OutOfMemory)
# A latency changes in both directions, as a verdict does.
_LATENCY_WORDS = {Change.REGRESSION: "slower", Change.IMPROVEMENT: "faster", Change.SAME: "unchanged"}
_NEARER = "not yet"


class Judge:
    """Tries versions of one package for one cell."""

    def __init__(
        self, settings: Settings, sources: Sequence[Source], cell: str, package: str, progress: Progress
    ) -> None:
        """Plan the cell; raises ConfigurationError where there is none, or its backend does not need the package."""
        from packaging.utils import canonicalize_name

        from pytest_modelformats.plan.build import build_plan
        from pytest_modelformats.settings import machine
        from pytest_modelformats.source.identify import find_candidates

        plain = replace(settings, environments=())
        plan = build_plan(plain, sources, find_candidates(plain), machine.machine())
        known = {planned.cell.id: planned for planned in plan.cells}
        if cell not in known:
            raise ConfigurationError(f"there is no cell '{cell}'{suggest(cell, known)}")
        self.planned: PlannedCell = known[cell]
        backend = registry.backends()[self.planned.cell.backend]
        if canonicalize_name(package) not in {canonicalize_name(library) for library in backend.libraries}:
            stands = ", ".join(backend.libraries) or "no package"
            raise ConfigurationError(f"{cell} runs on {backend.name}, which stands on {stands}, not on {package}")
        self._settings, self._sources, self._package, self._progress = settings, sources, package, progress
        self._stages: Stages | None = None
        self._entries: dict[str, EnvironmentEntry] = {}

    def declare(self, versions: Sequence[str], beside: Sequence[str] = (), python: str = "") -> None:
        """Every version has an environment, with the requirements ``beside`` in each; none is made yet."""
        from pytest_modelformats.session.campaign import stages_of

        for version in versions:
            name = f"{self._package}-{version}".replace("+", ".").replace("!", ".")
            self._entries[version] = EnvironmentEntry(name, (f"{self._package}=={version}", *beside), python)
        settings = replace(self._settings, environments=tuple(self._entries.values()))
        self._stages = stages_of(settings, self._sources, self._progress)

    @property
    def stages(self) -> Stages:
        """The stages over all versions; they exist once versions are declared."""
        if self._stages is None:
            raise ConfigurationError("no version is declared")
        return self._stages

    def close(self) -> None:
        """End the workers."""
        if self._stages is not None:
            self._stages.leave()
            self._stages.pool.close()
            self._stages = None

    def at(self, version: str) -> PlannedCell:
        """The cell in a version's environment."""
        decision = replace(self.planned.decision, outcome=None, reason="", install="")
        cell = replace(self.planned.cell, environment=self._entries[version].name)
        return replace(self.planned, cell=cell, decision=decision)

    def verdict(self, version: str, good: str | None = None) -> Step:
        """The cell's contract and parity at a version; ``bad`` is whether its word is another than ``good``."""
        started = time.monotonic()
        planned = self.at(version)
        try:
            self.stages.cells.session(planned)
            verdict = self.stages.contract(planned)
            verdict = self.stages.parity(planned) if verdict.passed else verdict
            step = _step(version, verdict, good)
        except _ENDS as error:
            step = Step(version, good is not None and error.outcome != good, error.outcome, str(error))
        except ModelFormatsError as error:
            step = self._failed(planned, version, error, good)
        finally:
            self.stages.leave()
        return replace(step, seconds=time.monotonic() - started)

    def latency(self, version: str, good: str, margin: float, budget_s: float, end: Step | None = None) -> Step:
        """The latency at a version beside that at the good one, both measured now in alternating blocks.

        ``bad`` is whether it is another one by more than ``margin``, slower or faster. What is unclear is measured once
        more, for twice as long. ``end`` is the bad version's step: where the margin stays unclear but the whole
        interval is nearer to no change than to that one, in factors, the change that is searched is not there yet.
        """
        started = time.monotonic()
        step = self._compared(version, good, margin, budget_s, end)
        if step.bad is None and step.ratio is not None:
            step = self._compared(version, good, margin, 2 * budget_s, end)
        return replace(step, seconds=time.monotonic() - started)

    def _compared(self, version: str, good: str, margin: float, budget_s: float, end: Step | None) -> Step:
        from pytest_modelformats.measure.two_sides.interleaved import compare_latency
        from pytest_modelformats.run.sides import pair_of

        started = time.monotonic()
        show = self._progress(f"comparing {self._package} {version} with {good}")
        tell = (lambda _: show(time.monotonic() - started)) if show is not None else None
        try:
            pair = pair_of(self.stages.pool, self._opening(good), self._opening(version))
            found = compare_latency(pair, margin=margin, budget_s=budget_s, seed=self._settings.seed, progress=tell)
        except ModelFormatsError as error:
            return Step(version, None, "skipped", str(error))
        finally:
            self.stages.leave()
        numbers = {"ratio": found.ratio, "ratio_low": found.ratio_low, "ratio_high": found.ratio_high}
        word = _LATENCY_WORDS.get(found.change)
        if word is not None:
            return Step(version, found.change is not Change.SAME, word, "", **numbers)
        if end is not None and _nearer_to_good(found.ratio_low, found.ratio_high, end):
            why = f"whether by more than the margin is unclear, but it is nearer to {good} than to {end.version}"
            return Step(version, bad=False, word=_NEARER, sentence=why, **numbers)
        why = f"inconclusive: {found.disturbed or 'the interval is too wide'}"
        return Step(version, None, "skipped", why, **numbers)

    def _opening(self, version: str) -> Opening:
        from pytest_modelformats.run.sides import Opening

        planned = self.at(version)
        backend = registry.backends()[planned.cell.backend]
        stages, settings, model = self.stages, self._settings, planned.cell.model
        return Opening(
            environment=stages.cells.environments.of(planned.cell.environment),
            worker=backend.worker,
            entry=backend.entry,
            job=stages.cells.opening(planned, stages.artifact(self.planned).path),
            feed=stages.models.written(model, "bisect", stages.models.rows(model, 0, 1)),
            threads=settings.threads,
            timeout_s=settings.timeout_s,
            what=f"{self._package} {version}",
        )

    def _failed(self, planned: PlannedCell, version: str, error: ModelFormatsError, good: str | None) -> Step:
        """An error once the artifact is open is a verdict; before, the version cannot be tried."""
        if self.stages.cells.is_open("first") and error.outcome == Outcome.FAILED:
            return Step(version, good is not None and error.outcome != good, error.outcome, str(error))
        if self.stages.models.is_own(planned.cell.model, error):
            raise error  # of the model, whatever the version
        return Step(version, None, "skipped", str(error))


def _nearer_to_good(low: float, high: float, end: Step) -> bool:
    """Whether a ratio's whole interval is less than half of the bad version's change away from 1, in factors."""
    if not (end.ratio_low and end.ratio_high):
        return False
    middle = math.sqrt(max(end.ratio_low, 1 / end.ratio_high))
    return 1 / middle < low <= high < middle


def _step(version: str, verdict: Verdict, good: str | None) -> Step:
    kind = f" ({verdict.failure_kind.value})" if verdict.failure_kind else ""
    word = f"{verdict.outcome.value}{kind}"
    return Step(version, good is not None and word != good, word, verdict.sentence, verdict.noise_ratio)
