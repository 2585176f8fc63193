"""Every cell of a run beside its counterpart: measured cell by cell, judged as one family."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pytest_modelformats.errors import ModelFormatsError, NotMeasured
from pytest_modelformats.history.baseline import changes, stored
from pytest_modelformats.history.baseline import counterpart as counterparts
from pytest_modelformats.record.decode import decode
from pytest_modelformats.record.index import Facts
from pytest_modelformats.record.nouns import Latency, Parity
from pytest_modelformats.record.write import verdict_data
from pytest_modelformats.schema import Change, Comparison, Environment, Outcome, PlannedCell, registry
from pytest_modelformats.schema import metrics as margins
from pytest_modelformats.schema.outcome import RUN
from pytest_modelformats.schema.plain import plain
from pytest_modelformats.settings import machine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from pytest_modelformats.checks.cell import Stages
    from pytest_modelformats.history.baseline.named import Baseline
    from pytest_modelformats.record.index import Recorded
    from pytest_modelformats.run.sides import Opening, Readings
    from pytest_modelformats.settings.nouns import Settings

# A ratio of two medians needs more than one median, and what is found has to be found again.
BUDGETS = 5


@dataclass(frozen=True, slots=True)
class Compared:
    """What came of a cell and its counterpart; ``compared`` is false where there was nothing that both have."""

    cell: str
    sentence: str
    found: tuple[changes.Found, ...] = ()

    @property
    def compared(self) -> bool:
        """Whether anything could be compared."""
        return bool(self.found)


class Comparisons:
    """The comparisons of one run. ``family`` are the cells that are judged together."""

    def __init__(
        self,
        settings: Settings,
        cells: Mapping[str, PlannedCell],
        baseline: Baseline | None,
        recorded: Recorded | None,
        stages: Stages,
        progress: Callable[[str], Callable[[float], None] | None],
    ) -> None:
        """Nothing is measured yet; ``recorded`` is the record of the baseline where that is a run."""
        self.baseline = baseline
        # Between environments alone the question is what an upgrade would change: nothing fails unless it is asked to.
        unasked = margins.DEFAULT if baseline is not None else ()
        self.asked = unasked if settings.fail_on is None else settings.fail_on
        self.recorded = recorded
        self.family: tuple[str, ...] = ()
        self._settings = settings
        self._cells = cells
        self._stages = stages
        self._progress = progress
        self._done: dict[str, Compared | ModelFormatsError] = {}
        self._seen: dict[str, Facts] = {}
        self._judged: dict[str, list[Comparison]] | None = None

    def saw(self, planned: PlannedCell, stage: str, result: Any) -> None:
        """A stage of this run came to this; kept without its samples, for cells that are compared with each other."""
        cell = planned.cell.id
        facts = self._seen.get(cell, Facts(cell, RUN))
        if stage == "parity":
            facts = replace(facts, outcome=result.outcome, parity=decode(Parity, plain(verdict_data(result))))
        elif stage == "timing":
            facts = replace(facts, latency=decode(Latency, plain(result)), timed=Outcome.PASSED)
        elif stage == "throughput":
            facts = replace(facts, throughput=(*facts.throughput, *(figure.data() for figure in result.figures)))
        self._seen[cell] = facts

    @property
    def idle(self) -> bool:
        """Whether cells were to be compared and none had anything on both sides: a gate that looked at nothing."""
        found = [f for c in self._done.values() if isinstance(c, Compared) for f in c.found]
        return bool(self.family) and not any(changes.has_both(f.comparison) for f in found)

    def is_done(self, cell: str) -> bool:
        """Whether the cell was looked at already."""
        return cell in self._done

    def measure(self, planned: PlannedCell) -> Compared:
        """The cell beside its counterpart, once.

        Raises: NotMeasured where it has none; what converting and measuring the cell raises.
        """
        cell = planned.cell.id
        if cell not in self._done:
            self._judged = None
            try:
                self._done[cell] = self._measure(planned)
            except ModelFormatsError as error:
                self._done[cell] = error
        done = self._done[cell]
        if isinstance(done, ModelFormatsError):
            raise done
        return done

    def stated(self, cell: str) -> list[dict[str, Any]]:
        """What the check's line says: the comparisons of a cell as they stand alone."""
        done = self._done.get(cell)
        return [plain(f.comparison) for f in done.found] if isinstance(done, Compared) else []

    def judged(self, cell: str) -> list[Comparison]:
        """The comparisons of a cell, judged among those of the whole family."""
        if self._judged is None:
            found = [f for c in self._done.values() if isinstance(c, Compared) for f in c.found]
            judged: dict[str, list[Comparison]] = {}
            for comparison in changes.controlled(found):
                judged.setdefault(comparison.cell, []).append(comparison)
            self._judged = judged
        return self._judged.get(cell, [])

    def _measure(self, planned: PlannedCell) -> Compared:
        other = self.baseline.environment if self.baseline else ""
        if planned.cell.environment and planned.cell.environment != other:
            return self._across(planned, planned, self._without(planned))
        if self.baseline is None:
            raise NotMeasured("there is nothing to compare with; name a run with --mf-baseline")
        if self.baseline.environment:
            if planned.cell.environment:
                raise NotMeasured(f"it is the baseline of {self._without(planned).cell.id}, and compared there")
            return self._across(planned, self._within(planned, self.baseline.environment), planned)
        return self._with_recorded(planned, self.baseline)

    def _without(self, planned: PlannedCell) -> PlannedCell:
        return self._within(planned, "")

    def _within(self, planned: PlannedCell, environment: str) -> PlannedCell:
        other = replace(planned, cell=replace(planned.cell, environment=environment))
        return self._cells.get(other.cell.id, other)

    def _with_recorded(self, planned: PlannedCell, baseline: Baseline) -> Compared:
        recorded = self.recorded
        cell = planned.cell.id
        before = recorded.facts(cell) if recorded else Facts(cell)
        own = machine.versions(registry.backends()[planned.cell.backend].libraries)
        if recorded is None or not before.ran:
            why = f"did not run there ({before.reason})" if before.decision else "is not there"
            sentence = f"New: the cell {why or 'is not there'} in {baseline.title}."
            appeared = changes.missing(cell, Change.APPEARED, sentence, (baseline.title, _what("this run", own)))
            return Compared(cell, sentence, (changes.Found(appeared),))
        after = self._facts(planned, _stages_of(before))
        counterpart = None
        if before.latency and after.latency:
            counterpart = counterparts.of(self._stages, self._settings, planned, recorded, before)
        versions = counterpart.versions if counterpart else {}
        whats = _what(baseline.title, versions), _what("this run", own)
        latency = []
        if counterpart is not None:
            latency = self._latency(planned, recorded, before, after, counterpart, whats)
        same_thing = counterpart is not None and counterpart.identical and not self._settings.remeasure
        facts = changes.of_facts(before, after, self.asked, whats)
        return _together(cell, _with(latency, _identical(facts) if same_thing else facts), baseline.title)

    def _latency(
        self,
        planned: PlannedCell,
        recorded: Recorded,
        before: Facts,
        after: Facts,
        counterpart: counterparts.Counterpart,
        whats: tuple[str, str],
    ) -> list[changes.Found]:
        """The latencies: not at all where nothing differs, measured now where that can be, of stored samples else."""
        margin = margins.fraction("latency", self.asked)
        if counterpart.identical and not self._settings.remeasure:
            return [stored.identical(after, whats, margin)]
        why_not = counterpart.why_not
        if not why_not:
            try:
                feed = counterparts.feed_of(self._stages, planned)
                then = counterparts.before_opening(self._stages, self._settings, planned, recorded, counterpart, feed)
                now = self._opening(planned, feed)
                return self._interleaved(planned.cell.id, then, now, whats)
            except ModelFormatsError as error:
                why_not = f"measuring it again failed ({str(error)[:300]})"
        machines = recorded.header.machine, machine.machine()
        return stored.latencies(machines, (before, after), whats, margin, why_not)

    def _across(self, planned: PlannedCell, first: PlannedCell, second: PlannedCell) -> Compared:
        """Two cells of this run that differ in the versions of their runtime; the older one is the one before."""
        versions = [self._versions(p) for p in (first, second)]
        pair = [first, second]
        if not (self.baseline and self.baseline.environment) and _newer(versions[0], versions[1]):
            pair.reverse()
            versions.reverse()
        first_what, second_what = (
            _what(p.cell.environment or "this environment", v) for p, v in zip(pair, versions, strict=True)
        )
        whats = first_what, second_what
        seen = [self._seen.get(p.cell.id, Facts(p.cell.id)) for p in pair]
        wanted = set().union(*map(_stages_of, seen)) or {"parity", "timing"}
        before, after = (self._facts(p, wanted) for p in pair)
        facts = [replace(c, cell=planned.cell.id) for c in changes.of_facts(before, after, self.asked, whats)]
        try:
            feed = counterparts.feed_of(self._stages, planned)
            openings = self._opening(pair[0], feed), self._opening(pair[1], feed)
            latency = self._interleaved(planned.cell.id, *openings, whats)
        except ModelFormatsError as error:
            if not facts:
                raise
            margin = margins.fraction("latency", self.asked)
            said = f"The latencies were not compared: {error}"
            latency = [stored.unknown(planned.cell.id, said, whats, margin)]
        return _together(planned.cell.id, _with(latency, facts), whats[0])

    def _interleaved(self, cell: str, before: Opening, after: Opening, whats: tuple[str, str]) -> list[changes.Found]:
        """Latency in turns; load time and memory of the same fresh processes, and of two more where it takes them."""
        from pytest_modelformats.history.baseline import fresh_readings
        from pytest_modelformats.measure.two_sides.interleaved import compare_latency
        from pytest_modelformats.run.sides import pair_of

        self._stages.pool.settle(self._settings.timeout_s)
        margin = margins.fraction("latency", self.asked)
        kept: list[tuple[Readings, Readings]] = []
        open_pair = pair_of(self._stages.pool, before, after, kept)
        measured = compare_latency(
            open_pair,
            margin=margin,
            budget_s=BUDGETS * self._settings.time_budget_s,
            seed=self._settings.seed,
            progress=self._shown(after.what),
        )
        if fresh_readings.suspects(kept, self.asked):
            fresh_readings.read_again(open_pair)
        read = fresh_readings.of_pairs(cell, kept, self.asked, whats)
        return [changes.of_measured(cell, measured, "interleaved", whats, margin), *map(changes.Found, read)]

    def _shown(self, cell: str) -> Callable[[str], None] | None:
        show = self._progress(f"comparing {cell}")
        if show is None:
            return None
        started = time.monotonic()
        return lambda _: show(time.monotonic() - started)

    def _opening(self, planned: PlannedCell, feed: dict[str, str]) -> Opening:
        path = self._stages.artifact(planned).path
        return counterparts.opening(
            self._stages, self._settings, planned, path, self._environment(planned.cell.environment), feed
        )

    def _environment(self, name: str) -> Environment:
        if not name:
            return Environment()
        from pytest_modelformats.run.environments import made as environments

        return environments.ready(self._settings, name).environment

    def _versions(self, planned: PlannedCell) -> dict[str, str]:
        libraries = registry.backends()[planned.cell.backend].libraries
        if not planned.cell.environment:
            return machine.versions(libraries)
        from pytest_modelformats.run.environments import made as environments

        installed = environments.ready(self._settings, planned.cell.environment).versions
        return {name: installed[name] for name in libraries if name in installed}

    def _facts(self, planned: PlannedCell, wanted: AbstractSet[str]) -> Facts:
        """What this run has found of a cell; of the wanted stages, what is missing is found now."""
        cell = planned.cell.id
        for stage in (s for s in ("parity", "timing") if s in wanted):
            seen = self._seen.get(cell, Facts(cell, RUN))
            if (seen.outcome if stage == "parity" else seen.latency) is None:
                try:
                    self.saw(planned, stage, getattr(self._stages, stage)(planned))
                except ModelFormatsError as error:
                    ended = Outcome(error.outcome)
                    parity = stage == "parity"
                    self._seen[cell] = replace(seen, outcome=ended) if parity else replace(seen, timed=ended)
        return self._seen.get(cell, Facts(cell, RUN))


def _stages_of(facts: Facts) -> set[str]:
    """The stages that a run has to have gone through to be compared with these facts."""
    return {name for name, found in (("parity", facts.outcome), ("timing", facts.latency)) if found is not None}


def _with(measured: Sequence[changes.Found], facts: Iterable[Comparison]) -> list[changes.Found]:
    """What was measured now, and of what the two runs have read the rest."""
    now = {f.comparison.metric for f in measured}
    return [*measured, *(changes.Found(c) for c in facts if c.metric not in now)]


def _identical(facts: Iterable[Comparison]) -> Iterator[Comparison]:
    """Of a thing and itself, what one reading differs from the next by is no change."""
    why = "identical: the same artifact, runtime, code and options as the baseline's"
    for one in facts:
        if one.how == "reading" or one.metric in margins.ONLY_WHEN_ASKED:
            said = f"{one.sentence.rstrip('.')}; {why}."
            yield replace(one, change=Change.SAME, how="identical", before=None, ratio=None, sentence=said)
        else:
            yield one


def _together(cell: str, found: Sequence[changes.Found], title: str) -> Compared:
    if not found:
        raise NotMeasured(f"this run and {title} have nothing in common for this cell: no parity, no latency")
    return Compared(cell, found[0].comparison.sentence, tuple(found))


def _what(title: str, versions: Mapping[str, str]) -> str:
    return ", ".join((title, *(f"{name} {version}" for name, version in versions.items())))


def _newer(first: Mapping[str, str], second: Mapping[str, str]) -> bool:
    """Whether the first environment has the newer runtime, by the first library in which the two differ."""
    from packaging.version import InvalidVersion, Version

    for name in first:
        if name in second and first[name] != second[name]:
            try:
                return Version(first[name]) > Version(second[name])
            except InvalidVersion:
                return first[name] > second[name]
    return False
