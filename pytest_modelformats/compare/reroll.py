"""Is an error of another precision's size that precision's rounding, or a fault that happens to be as large?

Rounding is re-rolled when the inputs move by one unit of rounding: the error pattern
changes. A wrong weight or operator makes the same error again. Measured over 45 random
networks (docs/detection-power.md): the correlation of the two errors was -0.5 to 0.986 where
bf16 or fp16 arithmetic ran (OpenVINO, PyTorch), and 0.9978 to 1.0 for 249 wrong weights. Weights alone rounded to
fp16 make the same error again too (0.9995 to 1.0), but that error is known: the source
with rounded weights makes it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_modelformats.schema import PRECISIONS, FailureKind, Outcome, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

    from pytest_modelformats.schema import OutputParity, Precision

# Between the largest correlation of rounding (0.986) and the smallest of a fault (0.9978).
SAME_ERROR = 0.992
# Of elements that rounding at a precision changes, two independent runs at it differ by this factor in 1.3 % (the ratio
# of two normal errors has the Cauchy distribution). Where a quarter of them hardly differ, something else ran there.
UNTOUCHED = 0.02
UNTOUCHED_SHARE = 0.25
FEWEST_UNTOUCHED = 3
# One tensor of several rounded to fp16 correlates less: it makes only a part of the error.
SAME_WEIGHTS = 0.9


def suspects(verdict: Verdict, asked: Precision) -> str:
    """The coarser precision that a fallback verdict says has run, "" where there is none to examine."""
    for output in verdict.outputs:
        ran = PRECISIONS.get(output.effective_precision)
        if output.outcome is Outcome.FALLBACK and ran is not None and ran.mantissa_bits < asked.mantissa_bits:
            return ran.name
    return ""


def moved(feed: Mapping[str, np.ndarray], precision: str, seed: int = 0) -> dict[str, np.ndarray]:
    """The feed with every float moved by one unit of rounding of a precision, up or down.

    Units: relative, u = 2^-(mantissa bits + 1).
    """
    import numpy as np

    unit = 2.0 ** -(PRECISIONS[precision].mantissa_bits + 1)
    random = np.random.default_rng(seed)
    return {
        name: (a * (1 + unit * random.choice([-1.0, 1.0], a.shape))).astype(a.dtype)
        if np.issubdtype(a.dtype, np.floating)
        else a
        for name, a in feed.items()
    }


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    """The cosine between two errors, over the elements that are finite in both."""
    import numpy as np

    a, b = one.astype(np.float64).ravel(), other.astype(np.float64).ravel()
    finite = np.isfinite(a) & np.isfinite(b)
    a, b = a[finite], b[finite]
    norm = float(np.sqrt(np.dot(a, a) * np.dot(b, b)))
    return float(np.dot(a, b)) / norm if norm else 0.0


def settle(
    verdict: Verdict,
    ran: str,
    first: Sequence[np.ndarray],
    again: Sequence[np.ndarray],
    weights: Sequence[np.ndarray] | None,
) -> Verdict:
    """The verdict, with every fallback whose error is no rounding turned into a numeric failure.

    Shapes: one error array per output: of the samples, of the moved samples, and of the
    source with its weights rounded to fp16 (``None`` where that is not known).
    """
    outputs = []
    for index, output in enumerate(verdict.outputs):
        same = output.outcome is Outcome.FALLBACK and correlation(first[index], again[index]) >= SAME_ERROR
        known = weights is not None and correlation(first[index], weights[index]) >= SAME_WEIGHTS
        outputs.append(_fault(output, ran, STAYS) if same and not known else output)
    return _with(verdict, outputs)


def settle_by_place(verdict: Verdict, ran: str, error: Sequence[np.ndarray], rounded: Sequence[np.ndarray]) -> Verdict:
    """The verdict, with every fallback whose error is in some places only turned into a numeric failure.

    For inputs that cannot be moved, such as token ids: a precision rounds everywhere, a wrong row of an embedding
    shows where its token is.

    Shapes: one error array per output: the cell's, and the source's own at ``ran``.
    """
    return _with(
        verdict,
        [
            _fault(output, ran, IN_PLACES)
            if output.outcome is Outcome.FALLBACK and in_places(error[index], rounded[index])
            else output
            for index, output in enumerate(verdict.outputs)
        ],
    )


def settle_by_statement(
    verdict: Verdict, ran: str, error: Sequence[np.ndarray], weights: Sequence[np.ndarray] | None
) -> Verdict:
    """The verdict, with every fallback turned into a numeric failure that the runtime's own statement rules out.

    For inputs that cannot be moved: of a size that fits and a statement that does not, the size is the weaker ground.

    Shapes: one error array per output: the cell's, and the source's own with its weights rounded to fp16 (``None``
    where that is not known): an error that is the weights' is named for what it is, whatever computes with them.
    """
    return _with(
        verdict,
        [
            _fault(output, ran, STATED)
            if output.outcome is Outcome.FALLBACK
            and not (weights is not None and correlation(error[index], weights[index]) >= SAME_WEIGHTS)
            else output
            for index, output in enumerate(verdict.outputs)
        ],
    )


def in_places(error: np.ndarray, rounded: np.ndarray) -> bool:
    """Whether many elements that rounding changes are hardly off."""
    import numpy as np

    known = np.isfinite(error) & np.isfinite(rounded) & (rounded != 0)
    untouched = int(np.sum(np.abs(error[known]) < UNTOUCHED * np.abs(rounded[known])))
    return untouched >= max(FEWEST_UNTOUCHED, UNTOUCHED_SHARE * int(known.sum()))


def _with(verdict: Verdict, outputs: Sequence[OutputParity]) -> Verdict:
    changed = next((o for o in outputs if o.outcome is Outcome.FAILED), None)
    if changed is None:
        return verdict
    return replace(
        verdict,
        outcome=Outcome.FAILED,
        failure_kind=changed.failure_kind,
        sentence=changed.sentence,
        outputs=tuple(outputs),
    )


STAYS = "stays the same when the inputs move by one unit of rounding"
STATED = "the runtime states another precision for every operator"
IN_PLACES = "many elements that it would change are right"


def _fault(output: OutputParity, ran: str, why: str) -> OutputParity:
    ratio = "" if output.noise_ratio is None else f" ({output.noise_ratio:.3g} × what rounding explains)"
    sentence = (
        f"Output '{output.name}': error {output.error_rms:.2g} rms{ratio}. It is as large as {ran}'s rounding but "
        f"{why}: not the arithmetic, but weights (also rounded ones) or an operator of the converted model differ."
    )
    return replace(
        output,
        outcome=Outcome.FAILED,
        failure_kind=FailureKind.NUMERIC,
        sentence=sentence,
        effective_precision="",
    )
