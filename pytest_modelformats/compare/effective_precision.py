"""Which of two precisions of nearly the same noise made an error: the one that makes an error alike.

TF32 and fp16 both keep 10 bits of mantissa. Over 36 random networks of nine families tf32's
noise was 0.36 to 1.01 times fp16's (median 0.65), so the size of an error names neither. But
TF32 rounds operands alone, to values that hardly depend on who sums them: the errors of two
implementations of it (PyTorch, onnx.reference) correlated by 0.97 to 1.00 on these networks, by
0.93 to 0.97 on a text encoder (which, depends on the fp32 kernels of the CPU) and by 0.95 on
ResNet-50, those of tf32 and fp16 by -0.06 to 0.83. Weights rounded to fp16 are the
same weights to everybody, so their error repeats too (0.9995 to 1.0). fp16 arithmetic rounds
every result, and two implementations of it correlate by 0.35 to 1.00: fp16 is what is left.

When the inputs move by one unit of TF32's rounding, its error is another: over 45 of these
networks the two correlated by 0.27 to 0.89, below what ``compare/reroll.py`` takes for a fault.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_modelformats.compare.floating import fallback_sentence, plausible
from pytest_modelformats.compare.reroll import correlation
from pytest_modelformats.compare.sampled import matched
from pytest_modelformats.schema import Outcome, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

    from pytest_modelformats.compare.noise import Noise
    from pytest_modelformats.schema import OutputParity, Precision

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
