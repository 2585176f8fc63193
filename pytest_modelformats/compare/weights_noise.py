"""The noise of a precision that rounds weights alone: several roundings, and the arithmetic of fp32 beside them.

The rounding of weights is made once, when a model is converted, and every output has that one draw of it. A converter
that folds a normalisation or a scale into a weight rounds another number, and has another draw: on a classifier of text
angles with 35 batch normalisations folded (5 sets of rows) the artifact's error was 0.9 to 3.6 times that of rounding
the source's own weights, and 0.4 to 0.8 times the rms over sets of weights rounded on grids that are shifted for each
row of a tensor, as folding shifts them; on a text recogniser with 38 convolutions 0.7 to 1.5 and 1.1 to 1.5 times. On a
classifier of bytes, into whose weights nothing is folded, it was 0.9 to 1.0 times that of rounding its own weights. So
the further roundings are of weights that something may be folded into; where there are none there is one rounding.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_modelformats.compare.noise import Error, measure_noise
from pytest_modelformats.schema import PRECISIONS

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from pytest_modelformats.compare.noise import Noise

# What such a precision computes in.
ARITHMETIC = "fp32"
DRAWS = 3


def draws(precision: str) -> tuple[str, ...]:
    """The names under which a source is evaluated with its weights rounded on other grids; none elsewhere."""
    return tuple(f"{precision}~{n}" for n in range(1, DRAWS + 1)) if PRECISIONS[precision].weights_only else ()


def weights_noise(
    truths: Sequence[np.ndarray],
    roundings: Sequence[Sequence[np.ndarray]],
    arithmetic: Sequence[np.ndarray] | None,
    precision: str,
) -> Noise:
    """The noise of one output over all feeds: the rms over the roundings and, beside them, fp32's own.

    Where fp16 holds the weights nearly or exactly, fp32's rounding is all that is left, and fp32's limit is for it: its
    share counts as often as that limit is wider than the precision's. ``raw_rms`` is of the first rounding alone.

    Shapes: one array per feed in each; the first of ``roundings`` is that of the source's own weights. ``arithmetic``
    is the source's fp32 run.
    """
    import numpy as np

    asked = PRECISIONS[precision]
    if not np.issubdtype(truths[0].dtype, np.floating):
        every = [*roundings, *([] if arithmetic is None else [arithmetic])]
        return max((measure_noise(truths, one, asked.result_bits) for one in every), key=lambda n: n.flips)
    wider = PRECISIONS[ARITHMETIC].limit / asked.limit
    together = []
    for feed, truth in enumerate(truths):
        known = truth.astype(np.float64)
        with np.errstate(invalid="ignore"):
            squares = sum(np.square(r[feed] - known) for r in roundings) / len(roundings)
            if arithmetic is not None:
                squares = squares + np.square(wider * (arithmetic[feed] - known))
            together.append(known + np.sqrt(squares))
    noise = measure_noise(truths, together, asked.result_bits)
    errors = [Error(truths, r) for r in roundings]
    return replace(noise, max=max(noise.max, *(e.max for e in errors)), raw_rms=errors[0].rms)
