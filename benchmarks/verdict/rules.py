"""The rules that others use, on the outputs that the product judges. Each answers: is it still the same model?

All but dynamo's compare with the source's fp32 outputs; dynamo's compares errors against float64.
Integers and booleans are to be equal under every rule, shapes too.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np

    Feeds = Sequence[Sequence[np.ndarray]]

DYNAMO_TOLERANCE = 1e-4  # the default of torch._dynamo.utils.same
DYNAMO_FEW = 1000  # elements below which its multiplier is 3
COSINE, SNR_DB = 0.999, 20.0


def _max_difference(_truth: np.ndarray, fp32: np.ndarray, got: np.ndarray) -> bool:
    import numpy as np

    return bool(np.all(np.abs(got - fp32) <= 1e-3))  # noqa: PLR2004 - the rule


def _close(rtol: float, atol: float) -> Callable[[np.ndarray, np.ndarray, np.ndarray], bool]:
    def rule(_truth: np.ndarray, fp32: np.ndarray, got: np.ndarray) -> bool:
        import numpy as np

        return bool(np.allclose(got, fp32, rtol=rtol, atol=atol, equal_nan=True))

    return rule


def _rmse(one: np.ndarray, other: np.ndarray) -> float:
    import numpy as np

    return math.sqrt(float(np.mean(np.square(one - other))))


def _dynamo_ratio(truth: np.ndarray, fp32: np.ndarray, got: np.ndarray) -> bool:
    """The part of dynamo's rule that looks at float64, with k = 2 and without its tolerance."""
    return _rmse(truth, got) <= 2 * _rmse(truth, fp32)


def _dynamo_same(truth: np.ndarray, fp32: np.ndarray, got: np.ndarray) -> bool:
    """As shipped. Source: torch 2.13, torch/_dynamo/utils.py, same() with its defaults."""
    import numpy as np

    if np.allclose(got, fp32, rtol=DYNAMO_TOLERANCE, atol=DYNAMO_TOLERANCE):
        return True
    few = truth.size < DYNAMO_FEW or (fp32.ndim == 4 and fp32.shape[-1] == fp32.shape[-2] == 1)  # noqa: PLR2004
    return _rmse(truth, got) <= (3.0 if few else 2.0) * _rmse(truth, fp32) + DYNAMO_TOLERANCE / 10


def _cosine(_truth: np.ndarray, fp32: np.ndarray, got: np.ndarray) -> bool:
    import numpy as np

    a, b = fp32.ravel(), got.ravel()
    norm = float(np.sqrt(np.dot(a, a) * np.dot(b, b)))
    return bool(np.array_equal(a, b)) if not norm else float(np.dot(a, b)) / norm >= COSINE


def _snr(_truth: np.ndarray, fp32: np.ndarray, got: np.ndarray) -> bool:
    import numpy as np

    noise, signal = float(np.sum(np.square(got - fp32))), float(np.sum(np.square(fp32)))
    return noise == 0 or (signal > 0 and 10 * math.log10(signal / noise) >= SNR_DB)


RULES: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], bool]] = {
    "largest difference 1e-3": _max_difference,
    "allclose 1e-5 / 1e-5": _close(1e-5, 1e-5),
    "allclose 1e-3 / 1e-7 (ONNX suite)": _close(1e-3, 1e-7),
    "dynamo same(), as shipped": _dynamo_same,
    "dynamo's ratio, k = 2": _dynamo_ratio,
    "cosine 0.999": _cosine,
    "SNR 20 dB": _snr,
}


def verdicts(truths: Feeds, fp32: Feeds, got: Feeds) -> dict[str, bool]:
    """Whether each rule accepts every output of every feed, over all feeds together.

    Shapes: [feed][output] each.
    """
    return {name: _accepts(rule, truths, fp32, got) for name, rule in RULES.items()}


def _accepts(
    rule: Callable[[np.ndarray, np.ndarray, np.ndarray], bool], truths: Feeds, fp32: Feeds, got: Feeds
) -> bool:
    import numpy as np

    for t, y, g in zip(truths, fp32, got, strict=True):
        if len(t) != len(g):
            return False
        for truth, reference, output in zip(t, y, g, strict=True):
            if truth.shape != output.shape:
                return False
            if truth.dtype.kind != "f":
                if not np.array_equal(truth, output):
                    return False
                continue
            three = [a.astype(np.float64) for a in (truth, reference, output)]
            with np.errstate(all="ignore"):
                if not np.array_equal(np.isfinite(three[1]), np.isfinite(three[2])) or not rule(*three):
                    return False
    return True
