"""Integers that rounding decides: the index of the largest of two numbers that are equal but for rounding.

A runtime that sums in another order may give the other index, and the source's own fp32 need not flip on the very
samples. So an element is excused by its place and its value: the source itself gives that value there

- when its inputs move by up to the limit's multiple of one unit of rounding (:func:`within_rounding`), or
- when they move by 2^-12 of themselves (``second_look.py``: less leaves sums that round alike), which says only that
  two numbers are close; so there may be no more of these than rounding changes in the source on such copies.

What no copy of the source gives (an argmax along another axis, a class off by one, another order) is excused nowhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pytest_modelformats.compare.noise import size_of
from pytest_modelformats.compare.single_input import neighbour, size
from pytest_modelformats.compare.verdict import allowed_flips, of_outputs
from pytest_modelformats.schema import FailureKind, Outcome, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

    from pytest_modelformats.compare.noise import Noise
    from pytest_modelformats.schema import OutputParity, Precision

    Feed = Mapping[str, np.ndarray]
    Outputs = Sequence[np.ndarray]

# Half of them by one unit of rounding, half by as many as the limit allows of the noise.
MOVES = 8
# Where these explain most of what differs and not all: of three equal numbers, 8 moves miss one in 4 % of places.
MORE = 32


@dataclass(frozen=True, slots=True)
class Copies:
    """What the source gives for copies of one feed, moved within rounding and moved a little.

    Shapes: each is [copy][output]. ``near`` are at float64 and at the precision; ``rounded`` at the precision and
    ``exact`` at float64 are of the same copies.
    """

    near: Sequence[Outputs]
    rounded: Sequence[Outputs]
    exact: Sequence[Outputs]


def suspects(verdict: Verdict, truths: Outputs) -> list[int]:
    """The outputs, by number, that failed for integers or booleans that are not equal."""
    return [
        number
        for number, output in enumerate(verdict.outputs)
        if output.failure_kind is FailureKind.NUMERIC and truths[number].dtype.kind in "iub"
    ]


def within_rounding(feed: Feed, precision: Precision, usual: Feed, seeds: range) -> list[dict[str, np.ndarray]]:
    """Copies of the feed, moved by one unit of rounding at the precision and by the limit's multiple of it.

    The unit is that of the samples (``usual``) as well: an input of zeros moves, too.
    """
    scales = {name: size(array)[0] for name, array in usual.items()}
    wide = precision.mantissa_bits - int(math.log2(precision.limit))
    return [neighbour(feed, precision.mantissa_bits if seed % 2 else wide, scales, seed) for seed in seeds]


def excused(
    truths: Outputs,
    got: Outputs,
    copies: Sequence[Copies],
    number: int,
    floor: Noise,
    precision: Precision,
) -> list[np.ndarray] | None:
    """Where the values of one output are near-ties, ``None`` where not all that differ are explained.

    Shapes: ``truths``, ``got`` and what is returned are [feed]; ``copies`` too.
    """
    import numpy as np

    tight, wide = [], []
    flips, seen = floor.flips * size_of(got), size_of(got)
    for truth, ours, around in zip(truths, got, copies, strict=True):
        changed = np.asarray(truth != ours)
        own = changed & _taken(ours, around.near, number)
        tight.append(own)
        wide.append(changed & ~own & _taken(ours, (*around.rounded, *around.exact), number))
        for rounded, exact in zip(around.rounded, around.exact, strict=True):
            if rounded[number].shape == exact[number].shape:
                flips += int((rounded[number] != exact[number]).sum())
                seen += exact[number].size
    left = sum(int((t != y).sum()) for t, y in zip(truths, got, strict=True)) - sum(int(m.sum()) for m in tight)
    loose = sum(int(m.sum()) for m in wide)
    if left <= allowed_flips(floor.flips, precision, size_of(got)):
        return tight
    pooled = allowed_flips(flips / seen if seen else 0.0, precision, size_of(got))
    return [t | w for t, w in zip(tight, wide, strict=True)] if left == loose <= pooled else None


def most_are_explained(truths: Outputs, got: Outputs, copies: Sequence[Copies], number: int) -> bool:
    """Whether copies within rounding have our value in at least half of the places that differ: more may explain all.

    Shapes: as of :func:`excused`.
    """
    changed = [t != y for t, y in zip(truths, got, strict=True)]
    own = [c & _taken(y, a.near, number) for c, y, a in zip(changed, got, copies, strict=True)]
    return 2 * sum(int(m.sum()) for m in own) >= sum(int(c.sum()) for c in changed)


def _taken(ours: np.ndarray, copies: Sequence[Outputs], number: int) -> np.ndarray:
    """Where any of the copies has our value."""
    import numpy as np

    found = np.zeros(ours.shape, bool)
    for outputs in copies:
        if outputs[number].shape == ours.shape:
            found |= outputs[number] == ours
    return found


def settle(verdict: Verdict, masks: Mapping[int, Sequence[np.ndarray]]) -> Verdict:
    """The verdict with the outputs passed whose differing elements are excused; ``masks`` are by output number."""
    if not masks:
        return verdict
    outputs = [_settled(o, masks[i]) if i in masks else o for i, o in enumerate(verdict.outputs)]
    return replace(of_outputs(outputs), statement=verdict.statement)


def _settled(output: OutputParity, mask: Sequence[np.ndarray]) -> OutputParity:
    changed, ties = round((output.flips or 0.0) * output.elements), sum(int(m.sum()) for m in mask)
    which = "each" if ties == changed else f"{ties}"
    sentence = (
        f"Output '{output.name}' differs in {changed} of {output.elements} elements, {which} of them a near-tie: the "
        "source itself gives these values there when its inputs move a little. It is the same model."
    )
    return replace(output, outcome=Outcome.PASSED, failure_kind=None, sentence=sentence)
