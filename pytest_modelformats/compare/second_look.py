"""A second look at a cell whose error is larger than usual: does it stay when the inputs move, as a fault does?

Eight copies of the samples, every float moved by 2^-12 of itself, are run by the candidate and
evaluated in float64. Rounding is made anew each time; a fault makes nearly the same error
again, so the covariance between the copies is the fault's alone.

Measured in docs/detection-power.md, over 440 faithful fp32 cells and a weight tensor scaled so
that the outputs change by a multiple of the noise: r alone at k = 4 found 60 % of those of 4
times the noise and 1 % of those of 2 times; with the second look it is 86 % and 1 %. Two
faithful cells had r = 5.3 (a naive sum over 256 nearly equal activations): their systematic part was
0.1. Moving inputs by one unit in the last place, the obvious choice, is too little: sums of
nearly equal values round alike, and the same two cells kept 5.6 of their 5.7.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pytest_modelformats.compare import noise_profile
from pytest_modelformats.compare.floating import LOCAL_POINT_LIMIT, POINT_LIMIT, SLICE_LIMIT
from pytest_modelformats.compare.noise import judgeable
from pytest_modelformats.compare.verdict import of_outputs
from pytest_modelformats.schema import FailureKind, Outcome, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

    from pytest_modelformats.compare.noise import Noise
    from pytest_modelformats.schema import OutputParity, Precision, TensorSpec

# 2^-16 left a systematic part of up to 2.7 in faithful cells; 2^-12 1.5, 2^-8 1.65.
MOVE = 2.0**-12
TIMES = 8
ROWS = 8
# 11 % of 440 faithful cells have a larger r than this; of the faults of 2 times the noise 95 % have at least 1.67.
LOOK = 1.5
POINT_LOOK = 2.5
# In units of k: the largest r of a faithful cell was 6.2.
FURTHEST = 2.0
# Over 440 faithful cells at most 1.50 and 1.34. An MLP with two ELUs on OpenVINO, whose exp is off by up to 1.8 units
# of rounding and so by the same in every copy, had 2.88 over 14 seeds (docs/detection-power.md).
SYSTEMATIC_LIMIT = 3.5
MEAN_POINT_LIMIT = 4.0
# Of the limit of one slice or element: rounding leaves some 1/√8 of itself in the mean of eight copies, a fault all.
MEAN_LOCAL_LIMIT = 0.75
FP32_BITS = 23


@dataclass(frozen=True, slots=True)
class Looked:
    """One output over the moved samples.

    Units: of its rounding noise. ``systematic`` is the rms of what all copies share,
    ``mean_point`` the largest mean error of an element over the largest rounding error, ``mean_local`` the same over
    what rounding does at that element, as a share of the limit there (``None`` where that is not known).
    """

    systematic: float
    mean_point: float
    mean_local: float | None = None


def wanted(verdict: Verdict, precision: Precision, inputs: Sequence[TensorSpec]) -> bool:
    """Whether the verdict leaves something to look at: an fp32 error above the usual, and not far beyond the limit."""
    if precision.mantissa_bits != FP32_BITS or not any(s.dtype in {"float32", "float64"} for s in inputs):
        return False
    if any(o.outcome is not Outcome.PASSED and not _is_near(o, precision) for o in verdict.outputs):
        return False
    return any(_is_unusual(o) for o in verdict.outputs)


def _is_unusual(output: OutputParity) -> bool:
    return (output.noise_ratio or 0.0) > LOOK or (output.point_ratio or 0.0) > POINT_LOOK or _is_local(output)


def _is_near(output: OutputParity, precision: Precision) -> bool:
    """Failed for its size alone, and by so little that rounding may have done it."""
    ratio, point = output.noise_ratio, output.point_ratio
    if output.failure_kind is not FailureKind.NUMERIC or ratio is None or point is None:
        return False
    found = (
        ratio / precision.limit,
        point / POINT_LIMIT.get(precision.yardstick, POINT_LIMIT["fp32"]),
        (output.slice_ratio or 0.0) / (SLICE_LIMIT * precision.limit),
        (output.local_point_ratio or 0.0) / _local_limit(precision),
    )
    return 1.0 < max(found) <= FURTHEST


def _is_local(output: OutputParity) -> bool:
    """Failed where it stands, though the whole is fine."""
    usual = (output.noise_ratio or 0.0) <= LOOK and (output.point_ratio or 0.0) <= POINT_LOOK
    return output.failure_kind is FailureKind.NUMERIC and usual


def _local_limit(precision: Precision) -> float:
    return LOCAL_POINT_LIMIT.get(precision.yardstick, LOCAL_POINT_LIMIT["fp32"])


def by_one_element(output: OutputParity, precision: Precision) -> bool:
    """Failed at a half precision by its worst element alone, and by little: one draw of rounding may be too few."""
    ratio, point = output.noise_ratio, output.point_ratio
    half = precision.mantissa_bits < FP32_BITS and output.failure_kind is FailureKind.NUMERIC
    if not half or ratio is None or point is None or ratio > precision.limit:
        return False
    return 1.0 < point / POINT_LIMIT.get(precision.yardstick, POINT_LIMIT["fp32"]) <= FURTHEST


def with_more_draws(verdict: Verdict, noise: Sequence[Noise], precision: Precision) -> Verdict:
    """The verdict with such an element judged by the worst that rounding does over all copies of the moved inputs.

    Shapes: ``noise`` has one Noise per output, over all copies.
    """
    outputs = []
    limit = POINT_LIMIT.get(precision.yardstick, POINT_LIMIT["fp32"])
    for output, more in zip(verdict.outputs, noise, strict=True):
        explained = by_one_element(output, precision) and (output.error_max or 0.0) <= limit * more.max
        outputs.append(_explained(output, more, precision) if explained else output)
    return replace(of_outputs(outputs), statement=verdict.statement)


def _explained(output: OutputParity, more: Noise, precision: Precision) -> OutputParity:
    sentence = (
        f"Output '{output.name}': error {output.error_rms:.2g} rms is {output.noise_ratio:.2g} × what rounding at "
        f"{precision.yardstick} explains ({output.noise_rms:.2g}); the worst element is off by {output.error_max:.2g}, "
        f"and rounding does {more.max:.2g} somewhere when the inputs move a little. It is the same model."
    )
    asked = precision.yardstick
    return replace(output, outcome=Outcome.PASSED, failure_kind=None, sentence=sentence, effective_precision=asked)


def moved(feed: Mapping[str, np.ndarray], seed: int = 0) -> tuple[dict[str, np.ndarray], ...]:
    """Copies of the feed, each with every float32 and float64 moved up or down by 2^-12 of itself."""
    import numpy as np

    copies = []
    for time in range(TIMES):
        random = np.random.default_rng([seed, time])
        copies.append(
            {
                name: (a * (1 + MOVE * random.choice([-1.0, 1.0], a.shape))).astype(a.dtype)
                if a.dtype in (np.float32, np.float64)
                else a
                for name, a in feed.items()
            }
        )
    return tuple(copies)


def look(
    truths: Sequence[np.ndarray],
    got: Sequence[np.ndarray],
    noise: Noise,
    precision: Precision,
    own: Noise | None = None,
) -> Looked | None:
    """What the copies of one output share; ``None`` where they cannot be compared.

    ``own`` is the noise of the samples that the copies are of: it knows what rounding does where.

    Source: with errors e_k of K copies, (|Σ e_k|² − Σ |e_k|²) / K(K − 1) estimates the squared
    part that all share, without bias.
    """
    import numpy as np

    shapes = {a.shape for a in (*truths, *got)}
    if len(shapes) != 1 or truths[0].dtype.kind != "f" or not truths[0].size or not noise.rms:
        return None
    total, squares, count = np.zeros(truths[0].shape), 0.0, len(truths)
    for truth, other in zip(judgeable(truths, noise), got, strict=True):
        with np.errstate(invalid="ignore"):
            error = other.astype(np.float64) - truth
        error = np.where(np.isfinite(error), error, 0.0)
        total += error
        squares += float(np.mean(np.square(error)))
    shared = (float(np.mean(np.square(total))) - squares) / (count * (count - 1))
    local = None
    if own is not None and own.profile is not None:
        mean = noise_profile.compare(own.profile, own.rms, [truths[0]], [truths[0] + total / count])
        if mean is not None:
            slices, points = SLICE_LIMIT * precision.limit, _local_limit(precision)
            local = max(mean.slice_ratio / slices, mean.point_ratio / points)
    return Looked(math.sqrt(max(shared, 0.0)) / noise.rms, float(np.abs(total).max()) / count / noise.max, local)


def settle(verdict: Verdict, looked: Sequence[Looked | None], precision: Precision) -> Verdict:
    """The verdict after the second look: what stays is a fault, what does not is rounding, at a limit twice as wide."""
    outputs = [
        _settled(output, found, precision) if found is not None and _is_unusual(output) else output
        for output, found in zip(verdict.outputs, looked, strict=True)
    ]
    failed = next((o for o in outputs if o.outcome is not Outcome.PASSED), None)
    if failed is not None:
        return Verdict(failed.outcome, failed.failure_kind, failed.sentence, tuple(outputs), verdict.statement)
    worst = max(outputs, key=lambda o: o.noise_ratio or 0.0)
    return Verdict(Outcome.PASSED, None, worst.sentence, tuple(outputs), verdict.statement)


def _settled(output: OutputParity, found: Looked, precision: Precision) -> OutputParity:
    asked = precision.yardstick
    measured = f"Output '{output.name}': error {output.error_rms:.2g} rms is {output.noise_ratio:.3g} ×"
    output = replace(output, systematic_ratio=found.systematic)
    if _is_local(output) and (found.mean_local is None or found.mean_local > MEAN_LOCAL_LIMIT):
        return output  # it stays where it is, or cannot be looked at
    if found.systematic > SYSTEMATIC_LIMIT or found.mean_point > MEAN_POINT_LIMIT:
        few = found.systematic <= SYSTEMATIC_LIMIT
        limit = MEAN_POINT_LIMIT if few else SYSTEMATIC_LIMIT
        size = f"{found.mean_point:.3g} × in one element" if few else f"{found.systematic:.3g} ×"
        sentence = (
            f"{measured} what rounding at {asked} explains ({output.noise_rms:.2g}), and {size} stays the same when "
            f"the inputs move a little, which rounding does not (the limit is {limit:g}). The converted model computes "
            "something else."
        )
        return replace(output, outcome=Outcome.FAILED, failure_kind=FailureKind.NUMERIC, sentence=sentence)
    if output.outcome is Outcome.PASSED:
        return output
    if _is_local(output):
        sentence = (
            f"{measured} what rounding at {asked} costs the source ({output.noise_rms:.2g}); one part of it is further "
            "off than rounding usually is there, and no more when the inputs move a little. It is the same model."
        )
        return replace(output, outcome=Outcome.PASSED, failure_kind=None, sentence=sentence, effective_precision=asked)
    sentence = (
        f"{measured} what rounding at {asked} costs the source ({output.noise_rms:.2g}), but of it only "
        f"{found.systematic:.2g} × stays when the inputs move a little (the limit is {SYSTEMATIC_LIMIT}): it is "
        "rounding, of another order of summing. It is the same model."
    )
    return replace(output, outcome=Outcome.PASSED, failure_kind=None, sentence=sentence, effective_precision=asked)
