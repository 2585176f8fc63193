"""The law that the rows of a batch in another order give the same rows in that order."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_modelformats.checks import near_ties
from pytest_modelformats.checks.subject import REFUSED, ROWS, together
from pytest_modelformats.compare import row_noise
from pytest_modelformats.errors import Unsupported
from pytest_modelformats.source.samples import why_fixed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

    from pytest_modelformats.checks.subject import Subject
    from pytest_modelformats.run.models import Models
    from pytest_modelformats.schema import Verdict

    Feed = Mapping[str, np.ndarray]


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
    straight: Sequence[np.ndarray] = subject.run(feed)
    results: Mapping[str, Sequence[np.ndarray]] = {
        what: subject.run(reordered(feed, order, axes)) for what, order in orders().items()
    }
    verdict = _in_order(subject, straight, results, batched)
    if verdict.passed:
        return verdict
    straight, results = _but_for_ties(subject, verdict, straight, results)
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


def _but_for_ties(
    subject: Subject, verdict: Verdict, straight: Sequence[np.ndarray], results: Mapping[str, Sequence[np.ndarray]]
) -> tuple[Sequence[np.ndarray], Mapping[str, Sequence[np.ndarray]]]:
    """The results, with the source's value for integers that rounding decides, where integers made the verdict fail."""
    models, model = subject.models, subject.model
    noise = models.reference(model).noise[subject.precision.yardstick]
    feeds = in_orders(models, model)
    try:
        truths = models.further(model, "orders", feeds, ()).truths
    except REFUSED:  # what cannot be asked explains nothing
        return straight, results
    if not near_ties.among(verdict, subject.names, truths[0]):
        return straight, results
    got = (straight, *results.values())
    first, *others = (
        near_ties.left_by_rounding(subject, feed, truth, one, noise)
        for feed, truth, one in zip(feeds, truths, got, strict=True)
    )
    return first, dict(zip(results, others, strict=True))


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
    return together(verdicts, f"The {ROWS} rows of a batch, reversed and rotated, give their own results")


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
