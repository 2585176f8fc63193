"""Which precision ran, and is it that? Told by the size of an error, by its pattern, and by the source's own.

**Two precisions of nearly the same noise** are told apart by which of them makes an error alike. TF32 and fp16
both keep 10 bits of mantissa. Over 36 random networks of nine families tf32's
noise was 0.36 to 1.01 times fp16's (median 0.65), so the size of an error names neither. But
TF32 rounds operands alone, to values that hardly depend on who sums them: the errors of two
implementations of it (PyTorch, onnx.reference) correlated by 0.97 to 1.00 on these networks, by
0.93 to 0.97 on a text encoder (which, depends on the fp32 kernels of the CPU) and by 0.95 on
ResNet-50, those of tf32 and fp16 by -0.06 to 0.83. Weights rounded to fp16 are the
same weights to everybody, so their error repeats too (0.9995 to 1.0). fp16 arithmetic rounds
every result, and two implementations of it correlate by 0.35 to 1.00: fp16 is what is left.

When the inputs move by one unit of TF32's rounding, its error is another: over 45 of these
networks the two correlated by 0.27 to 0.89, below what ``SAME_ERROR`` takes for a fault.

**An error of another precision's size** is that precision's rounding, or a fault that happens to be as large.
Rounding is re-rolled when the inputs move by one unit of rounding: the error pattern
changes. A wrong weight or operator makes the same error again. Measured over 45 random
networks (docs/detection-power.md): the correlation of the two errors was -0.5 to 0.986 where
bf16 or fp16 arithmetic ran (OpenVINO, PyTorch), and 0.9978 to 1.0 for 249 wrong weights. Weights alone rounded to
fp16 make the same error again too (0.9995 to 1.0), but that error is known: the source
with rounded weights makes it.

**The file itself** may make that error: its graph, evaluated in float64, then does too, whatever runs it. Where a
graph can be asked, it is asked first.

**The model's own file**, run as it is at the precision that it is written down in, may be finer than that.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_modelformats.compare.floating import fallback_sentence, plausible
from pytest_modelformats.compare.sampled import matched
from pytest_modelformats.schema import PRECISIONS, FailureKind, Outcome, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

    from pytest_modelformats.compare.noise import Noise
    from pytest_modelformats.schema import OutputParity, PlannedCell, Precision

# Between the largest correlation of rounding (0.986) and the smallest of a fault (0.9978).
SAME_ERROR = 0.992
# Of elements that rounding at a precision changes, two independent runs at it differ by this factor in 1.3 % (the ratio
# of two normal errors has the Cauchy distribution). Where a quarter of them hardly differ, something else ran there.
UNTOUCHED = 0.02
UNTOUCHED_SHARE = 0.25
FEWEST_UNTOUCHED = 3
# How far from the error of weights that are all rounded to fp16 the cell's is, at most, to be that error: one tensor of
# several makes only a part of it. A correlation says less: where one class of a softmax is all but certain, every fault
# moves the outputs in one direction (0.9999998 for a lost bias, 126 times as large).
SAME_WEIGHTS = 0.45
# A graph whose own error in float64 is this share of the cell's makes it; the rest may be the arithmetic's.
OWN_SHARE = 0.5
# Evaluated in float64, weights that were all rounded make the known error to the last digits, and one of several not.
OWN_WEIGHTS = 0.1
_HARDLY = 4.0  # what fp32 itself may be off by (its limit of r)
STAYS = "stays the same when the inputs move by one unit of rounding"
OWN = "the file makes it itself when its graph is evaluated in float64"
STATED = "the runtime states another precision for every operator"
IN_PLACES = "many elements that it would change are right"

# What cannot be told apart by the size of the error.
ALIKE = ("fp16", "tf32", "fp16-weights")
# Between the largest correlation of tf32's error with fp16's (0.83) and the smallest of two TF32s (0.89, where an
# ONNX graph with rounding nodes does not reach into an LSTM; 0.93 otherwise).
SAME_ROUNDING = 0.87


def ambiguous(verdict: Verdict) -> bool:
    """Whether a fallback names a precision that others resemble in size."""
    return any(_unclear(output) for output in verdict.outputs)


def named(
    verdict: Verdict,
    error: Sequence[np.ndarray],
    rounded: Mapping[str, Sequence[np.ndarray]],
    noise: Mapping[str, Sequence[Noise]],
    asked: Precision,
) -> Verdict:
    """The verdict with its ambiguous fallbacks named after the one precision whose errors are most like theirs.

    Shapes: ``error`` is one array per output, ``rounded`` the same of the source at a precision,
    ``noise`` one Noise per output.
    """
    unclear = [i for i, o in enumerate(verdict.outputs) if _unclear(o)]
    if not unclear:
        return verdict
    alike = {p: min(correlation(error[i], errors[i]) for i in unclear) for p, errors in rounded.items()}
    sized = [p for p in alike if all(plausible(verdict.outputs[i].error_rms or 0.0, noise[p][i]) for i in unclear)]
    repeats = [p for p in sized if p == "fp16" or alike[p] >= SAME_ROUNDING]
    if not repeats:
        return verdict
    ran = max(repeats, key=lambda p: alike[p])
    outputs, sentence = list(verdict.outputs), verdict.sentence
    for index in unclear:
        output = outputs[index]
        floors = {p: values[index] for p, values in noise.items()}
        said = fallback_sentence(output.name, output.error_rms or 0.0, floors, asked, ran)
        outputs[index] = replace(output, effective_precision=ran, sentence=said)
        sentence = said if output.sentence == verdict.sentence else sentence
    return replace(verdict, sentence=sentence, outputs=tuple(outputs))


def errors(got: Sequence[np.ndarray], truth: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The difference of every floating output, where it is known; integers and booleans have none (zeros)."""
    import numpy as np

    return [
        y.astype(np.float64) - t if np.issubdtype(t.dtype, np.floating) else np.zeros(t.shape)
        for t, y in zip(*matched(truth, got), strict=True)
    ]


def _unclear(output: OutputParity) -> bool:
    return output.outcome is Outcome.FALLBACK and output.effective_precision in ALIKE


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


def apart(one: np.ndarray, other: np.ndarray) -> float:
    """How far two errors are from one another, as a share of the second: rms over rms, where both are finite."""
    import numpy as np

    finite = np.isfinite(one) & np.isfinite(other)
    size = _size(other[finite])
    return _size((one - other)[finite]) / size if size else math.inf


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
        known = weights is not None and apart(first[index], weights[index]) <= SAME_WEIGHTS
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
            and not (weights is not None and apart(error[index], weights[index]) <= SAME_WEIGHTS)
            else output
            for index, output in enumerate(verdict.outputs)
        ],
    )


def settle_by_graph(verdict: Verdict, ran: str, error: Sequence[np.ndarray], graph: Sequence[np.ndarray]) -> Verdict:
    """The verdict, with every fallback turned into a numeric failure whose error the file itself makes in float64.

    No arithmetic of a runtime has a part in that evaluation. One rounded tensor of several, another threshold, a lost
    bias are no precision; a file whose weights are all rounded to fp16 (``OWN_WEIGHTS``) is not asked this.

    Shapes: one error array per output: the cell's, and the graph's own in float64.
    """
    outputs = []
    for index, output in enumerate(verdict.outputs):
        own = output.outcome is Outcome.FALLBACK and _size(graph[index]) >= OWN_SHARE * _size(error[index])
        outputs.append(_fault(output, ran, OWN) if own else output)
    return _with(verdict, outputs)


def _size(error: np.ndarray) -> float:
    import numpy as np

    finite = error[np.isfinite(error)]
    return float(np.sqrt(np.mean(np.square(finite)))) if finite.size else 0.0


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


def finer_is_faithful(planned: PlannedCell, verdict: Verdict, noise: Mapping[str, Sequence[Noise]]) -> Verdict:
    """A fallback that passes, where the file is written down at the asked precision and was computed with more finely.

    A model written down in fp16 asks for no arithmetic: its numbers are exact in fp32, and a runtime that has no
    fp16 kernels (ONNX Runtime on a CPU) computes with these. Of a conversion to fp16 the rounded weights make an error
    of fp16's size, and so the cell passes; where the weights were fp16's before, they make none, and it is the same.
    """
    asked = PRECISIONS[planned.cell.precision]
    own = not planned.chain and not planned.candidate_path
    if planned.artifact_precision != planned.cell.precision or not (own or _exact(noise)):
        return verdict
    if asked.name == "fp32" or verdict.outcome is not Outcome.FALLBACK:
        return verdict
    fell = [o for o in verdict.outputs if o.outcome is Outcome.FALLBACK]
    if not fell or any(PRECISIONS[o.effective_precision].mantissa_bits <= asked.mantissa_bits for o in fell):
        return verdict
    outputs = tuple(_passed(o, asked.name) if o.outcome is Outcome.FALLBACK else o for o in verdict.outputs)
    sentence = next(new.sentence for new, o in zip(outputs, verdict.outputs, strict=True) if o is fell[0])
    return replace(verdict, outcome=Outcome.PASSED, failure_kind=None, sentence=sentence, outputs=outputs)


def _exact(noise: Mapping[str, Sequence[Noise]]) -> bool:
    """Whether rounding the weights to fp16 costs hardly more than fp32 does: they are fp16's numbers already."""
    if "fp16-weights" not in noise or "fp32" not in noise:
        return False
    return all(w.rms <= _HARDLY * s.rms for w, s in zip(noise["fp16-weights"], noise["fp32"], strict=True))


def _passed(output: OutputParity, asked: str) -> OutputParity:
    sentence = (
        f"Output '{output.name}': error {output.error_rms:.2g} rms is {output.noise_ratio:.2g} × what rounding at "
        f"{asked} explains ({output.noise_rms:.2g}): the file's {asked} numbers were computed with in "
        f"{output.effective_precision}, which is finer. It is the same model."
    )
    return replace(output, outcome=Outcome.PASSED, failure_kind=None, sentence=sentence)
