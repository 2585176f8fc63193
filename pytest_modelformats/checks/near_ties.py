"""Asking the source whether the integers that differ are near-ties (``compare/near_ties.py``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_modelformats.checks.subject import REFUSED
from pytest_modelformats.compare import near_ties, second_look
from pytest_modelformats.compare.near_ties import Copies
from pytest_modelformats.compare.sampled import alike
from pytest_modelformats.schema import FailureKind

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

    from pytest_modelformats.checks.subject import Subject
    from pytest_modelformats.compare.noise import Noise
    from pytest_modelformats.run.models import Models
    from pytest_modelformats.schema import Precision, Verdict

    Feeds = Sequence[Mapping[str, np.ndarray]]
    Outputs = Sequence[Sequence[np.ndarray]]


def examined(
    models: Models, model: str, verdict: Verdict, feeds: Feeds, outputs: Outputs, precision: Precision
) -> Verdict:
    """A verdict that failed on integers, passed where each that differs is a near-tie of the source.

    Shapes: ``outputs`` is [feed][output], of the samples.
    """
    reference = models.reference(model)
    numbers = near_ties.suspects(verdict, reference.truths[0])
    return near_ties.settle(
        verdict, _masks(models, model, numbers, feeds, (reference.truths, outputs), reference.noise, precision)
    )


def broken(
    models: Models,
    model: str,
    feeds: Feeds,
    pair: tuple[Outputs, Outputs],
    noise: Sequence[Noise],
    precision: Precision,
) -> list[list[np.ndarray]]:
    """The outputs, with the source's value where they are near-ties: what is left of integers is no rounding.

    Shapes: ``pair`` are the truths and the outputs, [feed][output].
    """
    import numpy as np

    truths, outputs = pair
    numbers = [
        i
        for i, first in enumerate(truths[0])
        if first.dtype.kind in "iub"
        and all(t[i].shape == o[i].shape for t, o in zip(truths, outputs, strict=True))
        and any((t[i] != o[i]).any() for t, o in zip(truths, outputs, strict=True))
    ]
    masks = _masks(models, model, numbers, feeds, pair, {precision.yardstick: noise}, precision)
    return [
        [np.where(masks[i][f], t, o) if i in masks else o for i, (t, o) in enumerate(zip(truth, got, strict=True))]
        for f, (truth, got) in enumerate(zip(truths, outputs, strict=True))
    ]


def among(verdict: Verdict, names: Sequence[str], truth: Sequence[np.ndarray]) -> bool:
    """Whether integers or booleans are what a verdict failed for; ``truth`` has the outputs' dtypes, by ``names``."""
    whole = {name for name, array in zip(names, truth, strict=True) if array.dtype.kind in "iub"}
    return any(o.failure_kind is FailureKind.NUMERIC and o.name in whole for o in verdict.outputs)


def left_by_rounding(
    subject: Subject,
    feed: Mapping[str, np.ndarray],
    truth: Sequence[np.ndarray],
    got: Sequence[np.ndarray],
    noise: Sequence[Noise],
) -> Sequence[np.ndarray]:
    """The outputs for one feed, with the source's value where they are near-ties (:func:`broken`)."""
    if len(truth) != len(got) or len(noise) != len(got):
        return got
    return broken(subject.models, subject.model, [feed], ([truth], [got]), noise, subject.precision)[0]


def _masks(
    models: Models,
    model: str,
    numbers: Sequence[int],
    feeds: Feeds,
    pair: tuple[Outputs, Outputs],
    noise: Mapping[str, Sequence[Noise]],
    precision: Precision,
) -> dict[int, list[np.ndarray]]:
    """Of each of the outputs where its elements are excused; none of those that are not explained."""
    movable = any(spec.is_float for spec in models.description(model).inputs)
    if not numbers or not movable or precision.yardstick not in noise:
        return {}
    truths, outputs = alike(*pair)
    differs = [any((t[i] != o[i]).any() for i in numbers) for t, o in zip(truths, outputs, strict=True)]

    def copies(seeds: range) -> list[Copies]:
        return [
            _copies(models, model, feed, precision, seeds) if differing else Copies((), (), ())
            for feed, differing in zip(feeds, differs, strict=True)
        ]

    found = {}
    try:
        first, more = copies(range(near_ties.MOVES)), None
        for i in numbers:
            right, got, floor = [t[i] for t in truths], [o[i] for o in outputs], noise[precision.yardstick][i]
            mask = near_ties.excused(right, got, first, i, floor, precision)
            if mask is None and near_ties.most_are_explained(right, got, first, i):
                more = more or copies(range(near_ties.MORE))
                mask = near_ties.excused(right, got, more, i, floor, precision)
            if mask is not None:
                found[i] = mask
    except REFUSED:  # a source that cannot be asked explains nothing
        return {}
    return found


def _copies(models: Models, model: str, feed: Mapping[str, np.ndarray], precision: Precision, seeds: range) -> Copies:
    near = near_ties.within_rounding(feed, precision, models.samples(model).feeds[0], seeds)
    moved = second_look.moved(feed, models.seed(model))
    exact = models.evaluate(model, [*near, *moved], "float64")
    rounded = models.evaluate(model, [*near, *moved], precision.yardstick)
    count = len(near)
    return Copies((*exact[:count], *rounded[:count]), rounded[count:], exact[count:])
