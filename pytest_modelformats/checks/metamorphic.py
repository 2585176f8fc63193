"""The laws that need no reference but other runs of the same artifact: order, memory, threads, history.

Runs in the pytest process. Each law is a function of a ``Subject``; the suites hold cells to it.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_modelformats.checks.subject import BIT_EQUAL, REFUSED
from pytest_modelformats.compare import between_runs, row_noise
from pytest_modelformats.errors import Unsupported
from pytest_modelformats.schema import FailureKind, Outcome, Verdict, registry
from pytest_modelformats.source.samples import why_fixed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

    from pytest_modelformats.checks.subject import Subject
    from pytest_modelformats.run.models import Models
    from pytest_modelformats.schema import PlannedCell, TensorSpec

    Feed = Mapping[str, np.ndarray]

ROWS = max(between_runs.BATCHES)
# Batches that the batch check has run before: a runtime that compiles per shape compiles nothing anew.
PAIR, TRIPLE = 2, 3
CALLERS, ROUNDS = 4, 3
# A model that takes longer than this for one call alone overlaps with the others in one round.
LONG_CALL_S = 0.1
MOST_THREADS = 4
# So far outside of the samples that a state which follows the values is moved by it.
_OTHER_SCALE = -4.0


def permutation(subject: Subject) -> Verdict:
    """f(x[p]) = f(x)[p]: the rows of a batch in another order give the same rows in that order.

    Where it does not hold, the source itself is asked: what keeps no order there is asked of no cell.
    Raises: Unsupported where the batch is fixed, no output has it, or the source keeps no order.
    """
    samples = subject.models.samples(subject.model)
    symbol, axes = samples.batch_symbol, samples.batch_axes
    if not symbol:
        fixed = why_fixed(subject.model, subject.specs)
        raise Unsupported(f"{fixed}, so its rows have no order to change")
    batched = subject.batched
    if not batched:
        raise Unsupported(f"no output of {subject.model} has the batch as its first dimension")
    feed = subject.rows(0, ROWS)
    straight = subject.run(feed)
    results = {what: subject.run(reordered(feed, order, axes)) for what, order in orders().items()}
    verdict = _in_order(subject, straight, results, batched)
    if verdict.passed:
        return verdict
    kept = ordered(subject)
    if kept == batched:
        return verdict
    mixed = ", ".join(f"'{subject.names[i]}'" for i in batched if i not in kept)
    said = f"in the source itself a row of {mixed} depends on its place or on the other rows"
    if not kept:
        raise Unsupported(f"{said}, so no order is kept")
    verdict = _in_order(subject, straight, results, kept)
    return replace(verdict, sentence=f"{verdict.sentence} Not compared: {said}.")


def _in_order(
    subject: Subject, straight: Sequence[np.ndarray], results: Mapping[str, Sequence[np.ndarray]], chosen: Sequence[int]
) -> Verdict:
    """Whether the chosen outputs of every other order are those of the straight one, in that order."""
    verdicts, count = {}, len(subject.names)
    for what, order in orders().items():
        got = results[what]
        if len(got) != count or len(straight) != count:
            verdicts[f"rows {what}"] = subject.agree(straight, got)
            continue
        expected = [straight[i][order] if straight[i].shape[:1] == (ROWS,) else straight[i] for i in chosen]
        verdicts[f"rows {what}"] = subject.agree(expected, [got[i] for i in chosen], chosen)
    return _together(verdicts, f"The {ROWS} rows of a batch, reversed and rotated, give their own results")


def ordered(subject: Subject) -> list[int]:
    """The outputs with the batch in front whose rows the source itself keeps in order, all where it cannot be asked."""
    models, model = subject.models, subject.model
    try:
        straight, *others = models.further(model, "orders", in_orders(models, model), ()).truths
    except REFUSED:
        return subject.batched
    yardstick = subject.precision.yardstick
    noise = models.reference(model).noise[yardstick]

    def keeps(i: int) -> bool:
        floor = row_noise.of_rows(noise[i], (0, ROWS), straight[i], yardstick)
        pairs = zip(others, orders().values(), strict=True)
        return all(row_noise.same(other[i], row_noise.rearranged(straight[i], order), floor) for other, order in pairs)

    return [i for i in subject.batched if keeps(i)]


def in_orders(models: Models, model: str) -> list[Feed]:
    """What the permutation check runs: the rows as they are and in every other order."""
    feed, axes = models.rows(model, 0, ROWS), models.samples(model).batch_axes
    return [feed, *(reordered(feed, order, axes) for order in orders().values())]


def orders() -> dict[str, np.ndarray]:
    """The orders in which the rows of a batch are run, by what is said of them."""
    import numpy as np

    return {"reversed": np.arange(ROWS)[::-1], "rotated by three": np.roll(np.arange(ROWS), 3)}


def reordered(feed: Feed, order: np.ndarray, axes: Mapping[str, Sequence[int]]) -> dict[str, np.ndarray]:
    """The feed with its rows in another order; ``axes`` says by name which dimensions are the batch."""
    return {name: _taken(array, order, axes.get(name, ())) for name, array in feed.items()}


def _taken(array: np.ndarray, order: np.ndarray, axes: Sequence[int]) -> np.ndarray:
    import numpy as np

    for axis in axes:
        array = np.take(array, order, axis)
    return array


def unmodified(subject: Subject) -> Verdict:
    """The arrays that are handed in hold the same bits after the call."""
    names = subject.cells.changed_inputs(subject.planned, subject.rows(0, PAIR))
    if names:
        said = ", ".join(f"'{name}'" for name in names)
        sentence = (
            f"The call changes its input {said}: what the caller holds afterwards is not what was handed in. "
            "Hand over copies, or report it to the runtime."
        )
        return Verdict(Outcome.FAILED, FailureKind.CONTRACT, sentence)
    return Verdict(Outcome.PASSED, None, "The inputs hold the same bits after a call as before it.")


def refuse_one_at_a_time(planned: PlannedCell) -> None:
    """Raises: Unsupported where the backend says that its sessions take one call at a time."""
    reason = registry.backends()[planned.cell.backend].one_call_at_a_time
    if reason:
        raise Unsupported(f"one session takes one call at a time: {reason}")


def concurrency(subject: Subject) -> Verdict:
    """Calls of one session from several threads at once give what each call gives alone."""
    feeds = callers(subject)
    started = time.monotonic()
    alone = [subject.run(feed) for feed in feeds]
    rounds = ROUNDS if time.monotonic() - started < CALLERS * LONG_CALL_S else 1
    beside = subject.cells.run_together(subject.planned, feeds, rounds)
    verdicts = {
        f"call {call + 1} of thread {caller + 1} of {CALLERS}, beside the others": subject.agree(alone[caller], got)
        for caller, calls in enumerate(beside)
        for call, got in enumerate(calls)
    }
    times = "once" if rounds == 1 else f"{rounds} times"
    return _together(
        verdicts, f"{CALLERS} threads that call one session at once, {times} each, get what each call gives alone"
    )


def callers(subject: Subject) -> list[dict[str, np.ndarray]]:
    """What each thread hands in."""
    return [shuffled(subject.rows(0, PAIR), caller) for caller in range(CALLERS)]


def between(subject: Subject) -> list[dict[str, np.ndarray]]:
    """What is run between an input and the same one again."""
    return [others(subject.rows(0, rows), subject.specs) for rows in (PAIR, TRIPLE)]


def history(subject: Subject) -> Verdict:
    """x, then inputs of other values and another shape, then x again: the answer to x is the same."""
    feed = subject.rows(0, TRIPLE)
    before = subject.run(feed)
    for other in between(subject):
        subject.run(other)
    verdict = subject.agree(before, subject.run(feed))
    if not verdict.passed:
        # Whoever runs next must not inherit what was kept.
        subject.cells.close("first")
    return _together(
        {"the same input after others": verdict},
        "The same input gives the same result after inputs of other values and another batch",
    )


def threads(subject: Subject, asked: int) -> Verdict:
    """Fresh sessions with one thread, and one with several, agree.

    Raises: Unsupported on a machine with one core.
    """
    several = several_threads(asked)
    if several < PAIR:
        raise Unsupported("this machine has one core, so a session with several threads has nothing to run them on")
    feed = subject.rows(0, ROWS)
    results = {}
    for what, count in (("one thread", 1), ("one thread, again", 1), (f"{several} threads", several)):
        subject.cells.session(subject.planned, what, threads=count)
        try:
            results[what] = subject.run(feed, what)
        finally:
            subject.cells.close(what)
    first, *rest = results
    verdicts = {f"a session with {what} against one with {first}": subject.agree(results[first], results[what])
                for what in rest}  # fmt: skip
    return _together(verdicts, f"Fresh sessions with 1, 1 and {several} threads agree")


def several_threads(asked: int) -> int:
    """How many threads are compared with one, 1 on a machine with one core."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 1 if cores < PAIR else max(min(cores, MOST_THREADS), asked)


def _together(verdicts: Mapping[str, Verdict], agreed: str) -> Verdict:
    """The first that did not pass; otherwise ``agreed``, and whether to the bit."""
    exact = all(v.sentence == BIT_EQUAL for v in verdicts.values())
    return between_runs.worst(verdicts, f"{agreed}, {'bit for bit' if exact else 'within what rounding explains'}.")


def shuffled(feed: Feed, seed: int) -> dict[str, np.ndarray]:
    """The same values in other places: other inputs of the same shape, range and size; seed 0 leaves them."""
    import numpy as np

    if not seed:
        return dict(feed)
    random = np.random.default_rng(seed)
    return {name: random.permutation(a.ravel()).reshape(a.shape) for name, a in feed.items()}


def others(feed: Feed, specs: Sequence[TensorSpec]) -> dict[str, np.ndarray]:
    """Inputs unlike these: shuffled, and floats without a range four times as large and of the other sign."""
    import numpy as np

    free = {spec.name for spec in specs if spec.is_float and spec.low is None and spec.high is None}
    return {
        name: (a * _OTHER_SCALE).astype(a.dtype) if name in free and np.issubdtype(a.dtype, np.floating) else a
        for name, a in shuffled(feed, 1).items()
    }
