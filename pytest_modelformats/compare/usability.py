"""Does the source survive this precision? Asked beside whether the conversion is faithful: they are two questions.

A conversion may be what rounding at fp16 makes of the source and yet be no use: where rounding costs as much as the
signal, no converter can help. So a half precision that is faithful is asked for its signal-to-noise ratio as well, the
rms of the truth over the rms of the error, in dB (Widrow and Kollar, Quantization Noise, 2008, §1).

- ``USABLE_DB``: below it the precision has lost the model. The error is then more than 18 % of the signal.
- Between ``USABLE_DB`` and ``CLEAR_DB`` it depends on what the output is for. A classifier that decides otherwise for
  more than ``FLIPPED`` of the samples is lost, and so is an output with an element that is off by more than ``OFF`` of
  the whole range of its values: a probability on the other side of one half, a box at the other end of the image.
  Above that, decisions that change are near-ties.
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

from pytest_modelformats.compare.sampled import matched
from pytest_modelformats.compare.verdict import of_outputs
from pytest_modelformats.schema import FailureKind, Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

    from pytest_modelformats.compare.noise import Noise
    from pytest_modelformats.schema import OutputParity, Precision, Verdict

HALVES = frozenset({"fp16", "bf16", "fp16-weights"})
USABLE_DB = 15.0
CLEAR_DB = 30.0
FLIPPED = 0.1
OFF = 0.5
# A bundle shows such an error where nearly all of it is there again.
_SEEN = 0.9


def signal_db(signal_rms: float, error_rms: float) -> float:
    """The signal over the error in dB; infinite where there is no error. Units: both in the output's own."""
    if not error_rms:
        return math.inf
    return 20 * math.log10(signal_rms / error_rms) if signal_rms else -math.inf


def largest_error(output: OutputParity) -> float:
    """The error from which on an output that is lost is of no use; rms, in the output's unit."""
    limit = (output.signal_rms or 0.0) * 10 ** (-USABLE_DB / 20)
    error = output.error_rms or 0.0
    return limit if error >= limit else _SEEN * error  # lost by its decisions or its worst element


def ranges(truths: Sequence[Sequence[np.ndarray]]) -> list[float]:
    """The largest less the smallest finite value of every floating output over all feeds, 0 of any other."""
    import numpy as np

    found = []
    for index, first in enumerate(truths[0]):
        known = [matched([t[index]], [t[index]])[0][0] for t in truths] if first.dtype.kind == "f" else []
        values = [v for v in (k[np.isfinite(k)] for k in known) if v.size]
        found.append(float(max(v.max() for v in values) - min(v.min() for v in values)) if values else 0.0)
    return found


def examined(
    verdict: Verdict,
    noise: Mapping[str, Sequence[Noise]],
    precision: Precision,
    spans: Sequence[float] = (),
) -> Verdict:
    """The verdict of a half precision with the second question asked of every output that was judged by its noise.

    Shapes: ``noise`` has one Noise per output at every precision that is known, ``spans`` the range of each output's
    values (see :func:`ranges`), where it is known.
    """
    if precision.yardstick not in HALVES or not any(output.signal_rms for output in verdict.outputs):
        return verdict
    outputs = [
        _asked(output, {p: values[i] for p, values in noise.items()}, precision, spans[i] if spans else 0.0)
        for i, output in enumerate(verdict.outputs)
    ]
    return replace(of_outputs(outputs), statement=verdict.statement)


def _asked(output: OutputParity, noise: Mapping[str, Noise], precision: Precision, span: float) -> OutputParity:
    signal, error, own = output.signal_rms, output.error_rms, noise[precision.yardstick]
    numeric = output.failure_kind in {None, FailureKind.NUMERIC} and output.outcome is not Outcome.INCONCLUSIVE
    if not signal or error is None or not numeric or not _known_at_fp32(signal, noise):
        return output
    swamped = signal_db(signal, own.rms) < USABLE_DB
    kept = signal_db(signal, error)
    if kept < USABLE_DB and (swamped or output.outcome is Outcome.PASSED):
        return _lost(output, noise, precision, _no_signal(output))
    if kept < CLEAR_DB and output.outcome is Outcome.PASSED:
        why = _other_answers(output, kept, span)
        if why:
            return _lost(output, noise, precision, why)
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


def _no_signal(output: OutputParity) -> str:
    share = (output.error_rms or 0.0) / (output.signal_rms or 1.0)
    limit = f"{10 ** (-USABLE_DB / 20):.2g} × ({USABLE_DB:g} dB)"
    return f"the error here ({output.error_rms:.2g}) {_times(share)}; from {limit} on nothing is left to use"


def _other_answers(output: OutputParity, kept: float, span: float) -> str:
    """Why an output is of no use though most of its signal is left, in words; "" where it is of use."""
    if (output.flips or 0.0) > FLIPPED:
        return (
            f"though the error is {kept:.0f} dB below the signal, {output.flips:.0%} of the samples are decided "
            f"otherwise (the limit is {FLIPPED:.0%})"
        )
    if span and (output.error_max or 0.0) > OFF * span:
        return (
            f"though the error is {kept:.0f} dB below the signal, its worst element is off by {output.error_max:.2g}, "
            f"{_times((output.error_max or 0.0) / span)} the range of all its values (the limit is {OFF:g} ×)"
        )
    return ""


def _lost(output: OutputParity, noise: Mapping[str, Noise], precision: Precision, why: str) -> OutputParity:
    """The output, failed because the precision loses the model."""
    sentence = _sentence(output, noise, precision, why)
    kind = FailureKind.PRECISION
    return replace(output, outcome=Outcome.FAILED, failure_kind=kind, sentence=sentence, effective_precision="")


def _sentence(output: OutputParity, noise: Mapping[str, Noise], precision: Precision, why: str) -> str:
    asked, signal = precision.yardstick, output.signal_rms or 0.0
    others = {p: signal_db(signal, noise[p].rms) for p in ("bf16", "fp16", "fp32") if p in noise and p != asked}
    better = [f"{p} ({min(db, 150):.0f} dB)" for p, db in others.items() if db >= CLEAR_DB]
    return (
        f"Output '{output.name}': {asked} is too coarse for this model. Its own rounding at {asked} "
        f"({noise[asked].rms:.2g} rms) is {_times(noise[asked].rms / signal)} its signal ({signal:.2g}), and "
        f"{why}, and no converter can help. Next: keep the operators that lose it in fp32"
        + (f", or ship {' or '.join(better)}." if better else ".")
    )


def _times(ratio: float) -> str:
    return f"{ratio:.3g} ×"
