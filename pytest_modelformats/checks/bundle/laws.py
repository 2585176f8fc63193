"""The reproduction bundles of the laws that compare runs of one artifact, and of a generated input.

What the runs are comes from the laws themselves, each of which has a file in ``checks/``;
``checks/bundle/script.py`` makes them again.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pytest_modelformats.checks import permutation
from pytest_modelformats.checks.after_others import between
from pytest_modelformats.checks.concurrency import ROUNDS, callers
from pytest_modelformats.checks.subject import PAIR, ROWS, TRIPLE, Subject
from pytest_modelformats.checks.threads import several_threads
from pytest_modelformats.compare.single_input import LIMIT
from pytest_modelformats.schema import PRECISIONS, FailureKind, Outcome, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_modelformats.checks.bundle.nouns import Case
    from pytest_modelformats.checks.cell import Stages
    from pytest_modelformats.checks.fuzz.search import Shown
    from pytest_modelformats.errors import ModelFormatsError
    from pytest_modelformats.schema import PlannedCell

LAWS = frozenset({"permutation", "unmodified", "concurrency", "history", "threads"})
FUZZ = "fuzz"
# As laws.between_runs judges two runs against each other: √2 of the noise, twice the largest rounding error.
TWO_RUNS = (2.0**0.5, 2.0)
# Threads meet by chance: the law tries once, the script up to so often and so long.
ATTEMPTS, SECONDS = 20, 20.0
# Above this, what was run before is left out: a bundle is to be sent.
BEFORE_BYTES = 50_000_000
UNSEEN = (
    "It failed by a statistic that repro.py does not compute. Where the numbers that it does compute are right, "
    "repro.py is undecided: judge by pytest."
)
DOES_NOT_REPEAT = (
    "In a fresh session the same input was right: the result depends on what was run before, or does not repeat. Where "
    "repro.py finds it right too, it is undecided: judge by pytest."
)


def with_runs(
    stages: Stages, planned: PlannedCell, stage: str, case: Case, ended: Verdict | ModelFormatsError, threads: int
) -> Case:
    """The case with the runs that a law makes, or with the generated input that failed.

    ``threads`` is how many a session has otherwise.
    """
    if stage == FUZZ:
        return _with_input(stages.fuzzer.shown[planned.cell.id], case, ended)
    # Nothing is run or judged for it: the precision of this subject does not matter.
    subject = Subject(planned, stages.models, stages.cells, PRECISIONS[planned.cell.precision])
    law = _RUNS[stage](subject, case, threads)
    law = law if stage == "threads" else after_samples(stages, planned, law, ended)
    if isinstance(ended, Verdict):
        return law
    return replace(law, groups=())


def after_samples(stages: Stages, planned: PlannedCell, case: Case, ended: Verdict | ModelFormatsError) -> Case:
    """The case whose session first runs what the parity check had run in it: a state may come from there."""
    before = list(stages.models.samples(planned.cell.model).feeds)
    stressed = stages.models.stress(planned.cell.model)
    judged = stages.parity(planned).outputs if isinstance(ended, Verdict) else ()
    if stressed is not None and any(output.stress_ratio is not None for output in judged):
        before += stressed.feeds
    if sum(array.nbytes for feed in before for array in feed.values()) > BEFORE_BYTES:
        return case
    own = len(case.feeds)
    return replace(case, feeds=(*case.feeds, *before), before=tuple(range(own, own + len(before))))


def _permutation(subject: Subject, case: Case, _: int) -> Case:
    feed = subject.rows(0, ROWS)
    axes, orders = subject.models.samples(subject.model).batch_axes, permutation.orders()
    # Where the law failed, the source was asked what it keeps in order; where the runtime did, nothing is judged.
    outputs = permutation.ordered(subject) if case.outcome == Outcome.FAILED.value else subject.batched
    groups = [
        {**_pair(f"rows {what}", number, 0), "order": order.tolist(), "outputs": outputs}
        for number, (what, order) in enumerate(orders.items(), 1)
    ]
    feeds = (feed, *(permutation.reordered(feed, order, axes) for order in orders.values()))
    return replace(case, feeds=feeds, runs=tuple((i, 0) for i in range(len(feeds))), groups=tuple(groups))


def _unmodified(subject: Subject, case: Case, _: int) -> Case:
    return replace(case, feeds=(subject.rows(0, PAIR),), runs=((0, 0),))


def _concurrency(subject: Subject, case: Case, _: int) -> Case:
    feeds = tuple(callers(subject))
    together = {"rounds": ROUNDS, "attempts": ATTEMPTS, "seconds": SECONDS, "wide": TWO_RUNS}
    together["feeds"] = list(range(len(feeds)))
    return replace(case, feeds=feeds, runs=tuple((i, 0) for i in range(len(feeds))), together=together)


def _history(subject: Subject, case: Case, _: int) -> Case:
    feeds = (subject.rows(0, TRIPLE), *between(subject))
    runs = (*((i, 0) for i in range(len(feeds))), (0, 0))
    return replace(case, feeds=feeds, runs=runs, groups=(_pair("the same input after others", len(feeds), 0),))


def _threads(subject: Subject, case: Case, asked: int) -> Case:
    several = several_threads(asked)
    groups = (
        _pair("a session with one thread, again", 1, 0),
        _pair(f"a session with {several} threads against one with one thread", 2, 0),
    )
    feeds = (subject.rows(0, ROWS),)
    return replace(case, feeds=feeds, runs=((0, 0), (0, 1), (0, 2)), groups=groups, threads=(1, 1, several))


_RUNS = {
    "permutation": _permutation,
    "unmodified": _unmodified,
    "concurrency": _concurrency,
    "history": _history,
    "threads": _threads,
}


def _pair(what: str, left: int, right: int) -> dict[str, Any]:
    """All rows of one run against those of another one."""
    return {"what": what, "left": [[left, None]], "right": [[right, None]], "wide": TWO_RUNS}


def _with_input(shown: Shown, case: Case, ended: Verdict | ModelFormatsError) -> Case:
    """The case of one generated input: its truth, noise and limits, where it did not end the worker."""
    failed = isinstance(ended, Verdict)
    case = replace(case, feeds=(shown.drawn.feed,), runs=((0, 0),), layouts=(dict(shown.drawn.layouts),))
    if not failed or not shown.truth:
        return replace(case, law="other", notes=(DOES_NOT_REPEAT,)) if failed else case
    group: dict[str, Any] = {"what": "the generated input", "left": [[0, None]], "right": None, "wide": (1.0, 1.0)}
    # Equal rows in are equal rows out: that the result does not vary is no fault of its own here.
    group["may_be_constant"] = True
    expected: tuple[Sequence[Any], ...] = (shown.truth,)
    if shown.flushed is not None:
        expected, group = (*expected, shown.flushed), {**group, "or_expected": 1}
    limits = tuple(
        {
            "noise_rms": noise.rms,
            "noise_max": noise.max,
            "limit_rms": rms,
            "limit_max": largest,
            "allowed_flips": LIMIT * noise.flips,
        }
        for noise, (rms, largest) in zip(shown.noise, shown.limits, strict=True)
    )
    case = replace(case, groups=(group,), expected=expected, limits=limits)
    return case if shown.repeats else replace(case, law="other", notes=(DOES_NOT_REPEAT,))


def seen(case: Case, verdict: Verdict) -> Case:
    """The case as it is where the script's own numbers show the failure of a law, otherwise one that it leaves open."""
    limits = {output["name"]: (output["limit_rms"], output["limit_max"]) for output in case.outputs}
    failing = [o for o in verdict.outputs if o.outcome is Outcome.FAILED]
    for output in failing:
        rms, largest = (limit * wide for limit, wide in zip(limits[output.name], TWO_RUNS, strict=True))
        told = output.failure_kind is not FailureKind.NUMERIC or output.error_rms is None
        if told or (output.error_rms or 0.0) > rms or (output.error_max or 0.0) > largest:
            return case
    return replace(case, law="other", notes=(UNSEEN,)) if failing else case
