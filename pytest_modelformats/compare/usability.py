"""Does the source survive this precision? Asked beside whether the conversion is faithful: they are two questions.

A conversion may be what rounding at fp16 makes of the source and yet be no use: where rounding costs as much as the
signal, no converter can help. So a half precision that is faithful is asked for its signal-to-noise ratio as well, the
rms of the truth over the rms of the error, in dB (Widrow and Kollar, Quantization Noise, 2008, §1).

- ``USABLE_DB``: below it the precision has lost the model.
- Where the source's own noise is that near to its signal, the noise ratio says nothing (twice the noise is nothing like
  the model either), nor does the size of an error say which precision ran. Then the error against the truth alone
  decides: from ``CLEAR_DB`` on the numbers are the source's, below ``USABLE_DB`` they are not, and between them it is
  left open.
- An output that its source's own fp32 does not know either (a difference of equals) has no signal to lose.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_modelformats.compare.verdict import of_outputs
from pytest_modelformats.schema import FailureKind, Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_modelformats.compare.noise import Noise
    from pytest_modelformats.schema import OutputParity, Precision, Verdict

HALVES = frozenset({"fp16", "bf16", "fp16-weights"})
USABLE_DB = 15.0
CLEAR_DB = 30.0


def signal_db(signal_rms: float, error_rms: float) -> float:
    """The signal over the error in dB; infinite where there is no error. Units: both in the output's own."""
    if not error_rms:
        return math.inf
    return 20 * math.log10(signal_rms / error_rms) if signal_rms else -math.inf


def largest_error(output: OutputParity) -> float:
    """The error from which on an output is of no use; rms, in the output's unit."""
    return (output.signal_rms or 0.0) * 10 ** (-USABLE_DB / 20)


def examined(verdict: Verdict, noise: Mapping[str, Sequence[Noise]], precision: Precision) -> Verdict:
    """The verdict of a half precision with the second question asked of every output that was judged by its noise.

    Shapes: ``noise`` has one Noise per output at every precision that is known.
    """
    if precision.yardstick not in HALVES or not any(output.signal_rms for output in verdict.outputs):
        return verdict
    outputs = [
        _asked(output, {p: values[i] for p, values in noise.items()}, precision)
        for i, output in enumerate(verdict.outputs)
    ]
    return replace(of_outputs(outputs), statement=verdict.statement)


def _asked(output: OutputParity, noise: Mapping[str, Noise], precision: Precision) -> OutputParity:
    signal, error, own = output.signal_rms, output.error_rms, noise[precision.yardstick]
    numeric = output.failure_kind in {None, FailureKind.NUMERIC} and output.outcome is not Outcome.INCONCLUSIVE
    if not signal or error is None or not numeric or not _known_at_fp32(signal, noise):
        return output
    swamped = signal_db(signal, own.rms) < USABLE_DB
    kept = signal_db(signal, error)
    if kept < USABLE_DB and (swamped or output.outcome is Outcome.PASSED):
        return replace(
            output,
            outcome=Outcome.FAILED,
            failure_kind=FailureKind.PRECISION,
            sentence=_lost(output, noise, precision),
            effective_precision="",
        )
    if not swamped:
        return output
    said = (
        f"Output '{output.name}': at {precision.yardstick} the source's own rounding ({own.rms:.2g}) is "
        f"{_times(own.rms / signal)} its signal ({signal:.2g}), and the error here ({error:.2g} rms) is {kept:.0f} dB "
        "below it"
    )
    if kept < CLEAR_DB:
        sentence = (
            f"{said}: whether that is rounding or a fault cannot be told. Next: judge it in fp32, or give inputs of "
            "the size that the model was made for (--mf-data)."
        )
        return replace(output, outcome=Outcome.INCONCLUSIVE, failure_kind=None, sentence=sentence)
    sentence = f"{said}: the runtime keeps what the source loses. It is the same model."
    return replace(
        output, outcome=Outcome.PASSED, failure_kind=None, sentence=sentence, effective_precision=precision.yardstick
    )


def _known_at_fp32(signal: float, noise: Mapping[str, Noise]) -> bool:
    return "fp32" not in noise or signal_db(signal, noise["fp32"].rms) >= CLEAR_DB


def _lost(output: OutputParity, noise: Mapping[str, Noise], precision: Precision) -> str:
    """The sentence of a precision that loses the model."""
    asked, signal, error = precision.yardstick, output.signal_rms or 0.0, output.error_rms or 0.0
    others = {p: signal_db(signal, noise[p].rms) for p in ("bf16", "fp16", "fp32") if p in noise and p != asked}
    better = [f"{p} ({min(db, 150):.0f} dB)" for p, db in others.items() if db >= CLEAR_DB]
    return (
        f"Output '{output.name}': {asked} is too coarse for this model. Its own rounding at {asked} "
        f"({noise[asked].rms:.2g} rms) is {_times(noise[asked].rms / signal)} its signal ({signal:.2g}), and the error "
        f"here ({error:.2g}) {_times(error / signal)}; from {10 ** (-USABLE_DB / 20):.2g} × ({USABLE_DB:g} dB) on "
        "nothing is left to use, and no converter can help. Next: keep the operators that lose it in fp32"
        + (f", or ship {' or '.join(better)}." if better else ".")
    )


def _times(ratio: float) -> str:
    return f"{ratio:.3g} ×"
