"""The noise of a precision that rounds weights alone: several roundings, and the arithmetic of fp32 beside them.

The rounding of weights is made once, when a model is converted, and every output has that one draw of it. A converter
that folds a normalisation or a scale into a weight rounds another number, and has another draw. So where something may
be folded the source is evaluated with its weights rounded on grids that are shifted for each row of a tensor too, as
folding shifts them, and the noise is the largest of these errors: where all outputs hang on one number, as on a
classifier of text angles, one draw says little of another. If a normally distributed number is all, the next draw is
beyond twice the largest of 9 in 0.6 % of cases, beyond twice the rms of 9 in 7.6 % and of 4 in 12 %; of the sum of two
such squares 0.14, 3.7 and 6.3 %.

Measured on OpenVINO's files, the artifact's error over that of rounding the source's own weights alone, and over the
noise as it is here: a classifier of text angles (12 seeds of random rows) 0.6 to 3.6 and 0.4 to 1.35; a text detector
(10) 0.9 to 4.3 and 0.4 to 0.9; a text recogniser (6) 0.7 to 1.5 and 0.7 to 1.2. A classifier of bytes (5), into whose
weights nothing is folded, has one rounding: 0.9 to 1.0.
"""

from __future__ import annotations

import math
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
DRAWS = 8


def draws(precision: str) -> tuple[str, ...]:
    """The names under which a source is evaluated with its weights rounded on other grids; none elsewhere."""
    return tuple(f"{precision}~{n}" for n in range(1, DRAWS + 1)) if PRECISIONS[precision].weights_only else ()


def weights_noise(
    truths: Sequence[np.ndarray],
    roundings: Sequence[Sequence[np.ndarray]],
    arithmetic: Sequence[np.ndarray] | None,
    precision: str,
) -> Noise:
    """The noise of one output over all feeds: the largest of the roundings' and, beside it, fp32's own.

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
    errors = [Error(truths, rounding) for rounding in roundings]
    # Each element has the rms over the roundings, all of them as large as the largest.
    mean = math.sqrt(sum(e.rms**2 for e in errors) / len(errors))
    scale = max(e.rms for e in errors) / mean if mean else 1.0
    together = []
    for feed, truth in enumerate(truths):
        known = truth.astype(np.float64)
        with np.errstate(invalid="ignore"):
            squares = scale**2 * sum(np.square(r[feed] - known) for r in roundings) / len(roundings)
            if arithmetic is not None:
                squares = squares + np.square(wider * (arithmetic[feed] - known))
            together.append(known + np.sqrt(squares))
    noise = measure_noise(truths, together, asked.result_bits)
    return replace(noise, max=max(noise.max, *(e.max for e in errors)), raw_rms=errors[0].rms)
