"""Laws that hold of a model without a reference: the same input gives the same output, rows do not mix."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_modelformats.compare.floating import Tolerance
from pytest_modelformats.compare.noise import Noise
from pytest_modelformats.compare.verdict import judge
from pytest_modelformats.schema import FailureKind, Outcome, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

    from pytest_modelformats.schema import Precision

BATCHES = (1, 2, 3, 7)
# Two runs each carry their own rounding error; the rms of the difference of two independent ones is √2 of one.
_TWO_RUNS = 2.0**0.5


def bit_equal(one: Sequence[np.ndarray], other: Sequence[np.ndarray]) -> bool:
    """Whether two results are the same bits, dtypes and shapes; NaN equals the same NaN."""
    if len(one) != len(other):
        return False
    return all(
        a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
        for a, b in zip(one, other, strict=True)
    )


def determinism(
    names: Sequence[str],
    first: Sequence[np.ndarray],
    again: Sequence[np.ndarray],
    fresh: Sequence[np.ndarray],
    noise: Mapping[str, Sequence[Noise]],
    precision: Precision,
) -> Verdict:
    """The same input twice, and once more in a fresh session: bit-equal, or different by no more than rounding.

    A result that is not bit-equal but within rounding passes, and the sentence says so.
    """
    repeats = {"the second run": again, "a fresh session": fresh}
    unequal = {where: other for where, other in repeats.items() if not bit_equal(first, other)}
    if not unequal:
        return Verdict(Outcome.PASSED, None, "The same input gives the same bits, twice and in a fresh session.")
    said = " and ".join(unequal)
    for where, other in unequal.items():
        verdict = between_runs(names, [first], [other], noise, precision)
        if not verdict.passed and verdict.outcome is not Outcome.INCONCLUSIVE:
            sentence = f"The same input gives another result in {where}. {verdict.sentence}"
            return Verdict(Outcome.FAILED, verdict.failure_kind or FailureKind.NUMERIC, sentence, verdict.outputs)
    sentence = f"Not bit-equal in {said}, but different by no more than rounding explains."
    return Verdict(Outcome.PASSED, None, sentence)


def between_runs(
    names: Sequence[str],
    first: Sequence[Sequence[np.ndarray]],
    other: Sequence[Sequence[np.ndarray]],
    noise: Mapping[str, Sequence[Noise]],
    precision: Precision,
    tolerances: Mapping[str, Tolerance] | None = None,
) -> Verdict:
    """Judge two runs of one artifact against each other: their difference against √2 of the noise.

    Beyond it an output passes within twice the user's tolerance, since each run may be off by that.
    Shapes: both are of the first rows that the noise is of, or ``lost`` is not in it.
    """
    wide = {
        p: [Noise(n.rms * _TWO_RUNS, n.max * 2, n.raw_rms * _TWO_RUNS, n.flips * 2, lost=n.lost) for n in v]
        for p, v in noise.items()
    }
    dtypes = [a.dtype.name for a in first[0]]
    allowed = {name: Tolerance(2 * t.atol, 2 * t.rtol) for name, t in (tolerances or {}).items()}
    return by_size(judge(names, first, other, wide, precision, dtypes=dtypes, allowed=allowed), precision)


def by_size(verdict: Verdict, precision: Precision) -> Verdict:
    """The verdict by the size of the difference alone: which precision ran is the parity check's to say."""
    verdict = but_for_finer(verdict, precision)
    if verdict.outcome is not Outcome.FALLBACK:
        return verdict
    apart = max(verdict.outputs, key=lambda o: o.noise_ratio or 0.0)
    sentence = (
        f"Output '{apart.name}': the two are {apart.error_rms or 0.0:.2g} rms apart, {apart.noise_ratio or 0.0:.3g} × "
        f"what rounding at {precision.yardstick} explains; the limit is {precision.limit:g}."
    )
    return Verdict(Outcome.FAILED, FailureKind.NUMERIC, sentence, verdict.outputs)


def but_for_finer(verdict: Verdict, precision: Precision) -> Verdict:
    """The verdict without a fallback to a finer precision: equal results look like one, and parity has told of it.

    A fallback to a coarser one stays: here it is seen in other runs than parity's.
    """
    if verdict.outcome is not Outcome.FALLBACK or (verdict.noise_ratio or 0.0) > precision.limit:
        return verdict
    return Verdict(Outcome.PASSED, None, "The results agree.", verdict.outputs)


def worst(verdicts: Mapping[str, Verdict], agreed: str) -> Verdict:
    """The first verdict that did not pass, its sentence headed by where it was; otherwise ``agreed``.

    Where some could be judged, those that could not (rows of NaN alone) decide nothing.
    """
    undecided = [where for where, verdict in verdicts.items() if verdict.outcome is Outcome.INCONCLUSIVE]
    for where, verdict in verdicts.items():
        if not verdict.passed and (where not in undecided or len(undecided) == len(verdicts)):
            sentence = f"{where}: {verdict.sentence}"
            return Verdict(verdict.outcome, verdict.failure_kind, sentence, verdict.outputs)
    return Verdict(Outcome.PASSED, None, agreed)
