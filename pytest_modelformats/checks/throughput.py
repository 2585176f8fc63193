"""What a cell delivers per second: by batch size, and with several requests in flight.

Runs in the pytest process. A figure counts only where the outputs that were produced in the
same way are those of one call: a mode that drops requests or answers early is a failure here,
not a record.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pytest_modelformats.checks.subject import shuffled
from pytest_modelformats.compare import between_runs
from pytest_modelformats.errors import Unsupported
from pytest_modelformats.measure.sampling import COUNTED, FOREIGN_SHARE, statistics
from pytest_modelformats.measure.uncertainty import UNUSABLE, mean_uncertainty
from pytest_modelformats.schema import Outcome, Verdict, numbers, registry

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_modelformats.checks.subject import Subject
    from pytest_modelformats.settings.nouns import Settings

# Where the suite is named and nothing is said.
BATCHES, CONCURRENCIES = (1, 8), (1, 2)
SYNC, THREADS, ASYNC = "sync", "threads", "async"
# Two figures of one kind that differ by less are not called different; design §7's margin of a regression.
MARGIN = 0.05
# Below this the binding of a runtime to Python is a part of a call that can be seen (2 to 50 us were measured).
SHORT_CALL_NS = 1e6


@dataclass(frozen=True, slots=True)
class Scenario:
    """One way of loading a cell: batches of a size, one after the other, or several requests in flight.

    ``batch`` 0 is the smallest that was asked for, or the one that the model has fixed.
    """

    batch: int = 0
    concurrency: int = 1

    def __str__(self) -> str:
        """What stands in a test's id."""
        return f"batch{self.batch}" if self.concurrency == 1 and self.batch else f"concurrency{self.concurrency}"


@dataclass(frozen=True, slots=True)
class Figure:
    """What was delivered in one mode; without samples, ``why_not`` says why there is nothing."""

    batch: int
    concurrency: int
    mode: str
    items_per_s: float = 0.0
    latency_p50_ns: float = 0.0
    samples_ns: tuple[int, ...] = ()
    disturbed: str = ""
    unusable: str = ""
    why_not: str = ""
    more: Mapping[str, Any] = field(default_factory=dict)

    def data(self) -> dict[str, Any]:
        """What a check line holds of it."""
        which = {"batch": self.batch, "concurrency": self.concurrency, "mode": self.mode}
        if self.why_not:
            return {**which, "why_not": self.why_not}
        numbers = {"items_per_s": self.items_per_s, "latency_p50_ns": self.latency_p50_ns}
        said = {"samples": len(self.samples_ns), "disturbed": self.disturbed, "unusable": self.unusable}
        return {**which, **numbers, **said, **self.more}


@dataclass(frozen=True, slots=True)
class Throughput:
    """The figures of one scenario, and the verdict over the outputs that stand behind them."""

    verdict: Verdict
    figures: tuple[Figure, ...] = ()
    # Of the free dimensions of the inputs, by name.
    sizes: Mapping[str, int] = field(default_factory=dict)

    @property
    def measured(self) -> tuple[Figure, ...]:
        """Those that have samples."""
        return tuple(figure for figure in self.figures if not figure.why_not)


def scenarios(settings: Settings) -> tuple[Scenario, ...]:
    """What is to be measured of every cell: each batch alone, and each concurrency at the smallest batch."""
    asked = settings.batch or settings.concurrency
    batches = settings.batch if asked else BATCHES
    several = [count for count in (settings.concurrency if asked else CONCURRENCIES) if count > 1]
    alone = [Scenario(batch) for batch in batches] or [Scenario(0)] * (1 in settings.concurrency)
    return (*alone, *(Scenario(min(batches, default=0), count) for count in several))


def measure(subject: Subject, scenario: Scenario, settings: Settings) -> Throughput:
    """Measure a scenario; raises Unsupported where the batch is fixed or nothing can be in flight together."""
    batch = _batch(subject, scenario.batch)
    alone = _sequential(subject, batch, settings)
    if scenario.concurrency == 1:
        return Throughput(_verdict([alone], alone, {}), (alone,))
    figures: list[Figure] = []
    verdicts: dict[str, Verdict] = {}
    try:
        for mode in (THREADS, ASYNC):
            try:
                figure, found = _together(subject, Scenario(batch, scenario.concurrency), mode, settings)
            except Unsupported as error:
                figures.append(Figure(batch, scenario.concurrency, mode, why_not=str(error)))
                continue
            figures.append(figure)
            verdicts |= found
    finally:
        subject.cells.close(_session(scenario))
    if not verdicts:
        raise Unsupported("; ".join(dict.fromkeys(figure.why_not for figure in figures)))
    return Throughput(_verdict(figures, alone, verdicts), tuple(figures))


def _batch(subject: Subject, asked: int) -> int:
    samples, model = subject.models.samples(subject.model), subject.model
    if samples.batch_symbol:
        return asked or 1
    fixed = samples.rows // len(samples.feeds)
    if asked not in {0, fixed}:
        raise Unsupported(f"the first dimension of the inputs of {model} is {fixed}, so it has no batch of {asked}")
    return fixed


def _sequential(subject: Subject, batch: int, settings: Settings) -> Figure:
    """One call after the other; measured once per cell and batch, also where several scenarios compare with it."""

    def load() -> Figure:
        feed = subject.rows(0, batch)
        figure = _sync_figure(subject, feed, batch, settings)
        return _sync_figure(subject, feed, batch, settings) if figure.unusable else figure

    return subject.cells.once(f"sequential-{batch}", subject.planned, load)


def _sync_figure(subject: Subject, feed: Mapping[str, Any], batch: int, settings: Settings) -> Figure:
    taken, _ = subject.cells.keep_busy(subject.planned, [feed], SYNC, settings.time_budget_s)
    samples = taken["samples_ns"]
    stated = statistics(samples, batch, taken)
    # Items over time are one over the mean: unlike the median it takes in everything that others took.
    added = mean_uncertainty(samples, taken)
    found = [f"other work took {added:.0%} of the time"] if added > FOREIGN_SHARE else []
    said = "; ".join([*found, *([stated["disturbed"]] if stated["disturbed"] else [])])
    too_much = f"The throughput may be off by {added:.0%}: {said}" if added > UNUSABLE else stated["unusable"]
    more = {"wall_s": sum(samples) / 1e9, "threads": settings.threads, "pinned": taken["pinned"]}
    return Figure(
        batch,
        1,
        SYNC,
        stated["items_per_s"],
        stated["latency_p50_ns"],
        tuple(samples),
        said,
        too_much,
        more={**more, "machine_state": stated["machine_state"]},
    )


def _together(subject: Subject, scenario: Scenario, mode: str, settings: Settings) -> tuple[Figure, dict[str, Verdict]]:
    """A figure of several requests in flight, and the verdicts over their outputs; measured again if disturbed."""
    if mode == THREADS:
        reason = registry.backends()[subject.planned.cell.backend].one_call_at_a_time
        if reason:
            raise Unsupported(f"one session takes one call at a time: {reason}")
    size = scenario.batch
    # Other rows and in another order: an answer that belongs to another request is to be seen as such.
    feeds = [shuffled(subject.rows(i * size, (i + 1) * size), i) for i in range(scenario.concurrency)]
    which = _session(scenario)
    subject.cells.session(subject.planned, which, cores=settings.threads * scenario.concurrency)
    alone = [subject.run(feed, which) for feed in feeds]
    figure, verdicts = None, {}
    for _ in range(2):
        taken, answers = subject.cells.keep_busy(subject.planned, feeds, mode, settings.time_budget_s / 2, which)
        verdicts = {
            f"{mode}, {scenario.concurrency} in flight, answer {number + 1}": subject.agree(alone[feed], outputs)
            for number, (feed, outputs) in enumerate(answers)
        }
        figure = _figure(scenario, mode, taken, settings.threads)
        if not figure.unusable:
            break
    if figure is None or not verdicts:
        raise Unsupported("nothing was in flight")
    return figure, verdicts


def _session(scenario: Scenario) -> str:
    return f"{scenario.concurrency} in flight"


def _figure(scenario: Scenario, mode: str, taken: Mapping[str, Any], threads: int) -> Figure:
    wall_s, ordered = taken["wall_s"], sorted(taken["samples_ns"])
    found, unusable = disturbance(taken)
    state = {**taken["state"], **{name: taken.get(name) for name in COUNTED}}
    more = {
        "wall_s": wall_s,
        "threads": threads,
        "pinned": taken["pinned"],
        "machine_state": {name: value for name, value in state.items() if value is not None},
        **({"stated": taken["stated"]} if taken.get("stated") else {}),
    }
    return Figure(
        scenario.batch,
        scenario.concurrency,
        mode,
        scenario.batch * taken["completed"] / wall_s,
        float(ordered[len(ordered) // 2]),
        tuple(taken["samples_ns"]),
        found,
        unusable,
        more=more,
    )


def disturbance(taken: Mapping[str, Any]) -> tuple[str, str]:
    """What speaks against a figure of several requests in flight, and why it is not to be used ("" where it is).

    Threads of our own may share a core here, so context switches say nothing; the share of the cores that others
    had is missing from the throughput as it is, and so is what it lost from one half of the time to the other.
    """
    others = (taken.get("foreign_share") or 0.0) + (taken.get("steal_share") or 0.0)
    first = taken["completed_first_half"]
    second = taken["completed"] - first
    # Counts of fewer than 32 differ by more than a sixth by chance alone (one standard deviation of a Poisson count).
    change = second / first - 1 if min(first, second) >= 32 else 0.0  # noqa: PLR2004
    found = []
    if others > FOREIGN_SHARE:
        found.append(f"other work took {others:.0%} of the pinned cores")
    if abs(change) > 3 * MARGIN:
        found.append(f"throughput changed by {change:+.0%} from the first half to the second")
    said = "; ".join(found)
    too_much = max(others, abs(change) / 2) > UNUSABLE
    return said, f"The throughput may be off by {max(others, abs(change) / 2):.0%}: {said}" if too_much else ""


def _verdict(figures: Sequence[Figure], alone: Figure, verdicts: Mapping[str, Verdict]) -> Verdict:
    """Wrong outputs are wrong whatever the speed; figures that are too disturbed are inconclusive."""
    wrong = {name: verdict for name, verdict in verdicts.items() if not verdict.passed}
    if wrong:
        found = between_runs.worst(wrong, "")
        return replace(found, sentence=f"Its throughput is not believed. {found.sentence}")
    measured = [figure for figure in figures if not figure.why_not]
    unusable = [figure.unusable for figure in measured if figure.unusable]
    sentence = " ".join(_said(figure, alone) for figure in figures)
    outcome = Outcome.INCONCLUSIVE if unusable and len(unusable) == len(measured) else Outcome.PASSED
    return Verdict(outcome, None, sentence)


def _said(figure: Figure, alone: Figure) -> str:
    what = "one thread per request" if figure.mode == THREADS else "the runtime's asynchronous mode"
    if figure.why_not:
        return f"By {what}: no figure, {figure.why_not}."
    rate = f"{numbers.rate(figure.items_per_s).removesuffix(' /s')} items/s"
    doubt = f" {figure.unusable}." if figure.unusable else ""
    if figure.mode == SYNC:
        return f"Batches of {figure.batch}, one after the other, deliver {rate}.{doubt}"
    ratio = figure.items_per_s / alone.items_per_s if alone.items_per_s else 0.0
    told = not figure.unusable and not alone.unusable
    slower = ", so it gets slower by concurrency" if told and ratio < 1 - MARGIN else ""
    if slower and alone.latency_p50_ns < SHORT_CALL_NS:
        slower += f" (a call takes {numbers.duration(alone.latency_p50_ns)}: what Python adds to a request counts too)"
    return f"{figure.concurrency} in flight by {what} deliver {rate}, {ratio:.2f} times one at a time{slower}.{doubt}"
