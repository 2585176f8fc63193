"""Inputs that ordinary samples are not: a fault that is active only there is not seen on any number of ordinary rows.

Measured in docs/detection-power.md over 440 faithful cells: a clipped input, a branch for
negative rows, zeros read as 1e-4 were found in 0.5 to 1.4 % of the cells on 8 as on 128
ordinary rows, and in 99.9 to 100 % on stress rows. Pooled into one rms with
the ordinary rows, the large ones would drown the others (an error of 4 times the noise was
found in 16 % instead of 90 %), so they are a feed of their own, and each row is judged by its own noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pytest_modelformats.compare import noise_profile
from pytest_modelformats.compare.floating import SMALLEST, SMALLEST_NORMAL
from pytest_modelformats.compare.sampled import matched
from pytest_modelformats.compare.single_input import RESOLUTION
from pytest_modelformats.compare.verdict import judge_exact
from pytest_modelformats.schema import FailureKind, Outcome, OutputParity, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np

    from pytest_modelformats.compare.noise import Noise
    from pytest_modelformats.schema import Precision, TensorSpec
    from pytest_modelformats.source.samples import Samples

# Eight times the ordinary magnitude is beyond the largest of 256 ordinary rows, and far from overflow in fp16.
KINDS = {
    "large": "8 times as large as ordinary ones",
    "small": "a thousandth of ordinary ones",
    "zeros": "all zero",
    "sparse": "zero in seven of eight places",
    "constant": "one constant",
    "negative": "all negative",
    "positive": "all positive",
    "mixed": "of magnitudes from 2^-6 to 2^3",
}
# In units of k(p), for rows of many elements; over the 440 faithful fp32 cells the largest was 4.9 for rows of 8 to 32
# elements, 6.0 for 4 and 36 for 1 (limits 6.8 to 12, 18 and 54).
LIMIT = 1.5
# A row's own noise is one sample of its elements' and small by chance where these are few, so it counts as if this many
# more elements had the noise of ordinary rows.
PRIOR_ELEMENTS = 8
FP32_BITS = 23
_UNUSUAL = "on ordinary inputs but not on unusual ones"
_NOT_FINITE = "on inputs that are stressed."


@dataclass(frozen=True, slots=True)
class Stressed:
    """One output of a candidate on the stress rows.

    Units: ``ratio`` and ``worst`` in units of each row's own noise, ``kind`` is the worst row's.
    """

    ratio: float
    worst: float
    kind: str
    limit: float
    not_finite: bool = False


@dataclass(frozen=True, slots=True)
class RowLimits:
    """What the stress rows of one output may be off by: the rms over rows of (error / noise) is at most ``limit``.

    Shapes: ``noise`` and ``judged`` (whether a row counts) are [row].
    """

    noise: np.ndarray
    judged: np.ndarray
    limit: float


def make_stress(specs: Sequence[TensorSpec], seed: int, dims: Mapping[str, int] | None = None) -> Samples | None:
    """One row of every kind; ``None`` where no input is of floats, or the batch stands in several dimensions.

    ``dims`` are the sizes of free dimensions, as ``make_samples`` has them.
    """
    import numpy as np

    from pytest_modelformats.source.samples import as_float, make_samples

    ordinary = make_samples(specs, len(KINDS), seed, dims)
    several = any(len(axes) > 1 for axes in ordinary.batch_axes.values())
    if several or not any(spec.is_float for spec in specs):
        return None
    feeds = []
    for start, feed in zip(range(0, ordinary.rows, ordinary.rows // len(ordinary.feeds)), ordinary.feeds, strict=True):
        made = dict(feed)
        for position, spec in enumerate(specs):
            axes = ordinary.batch_axes.get(spec.name, ()) if ordinary.batch_symbol else (0,)
            if not spec.is_float or not axes or not feed[spec.name].ndim:
                continue
            rows = np.moveaxis(feed[spec.name].astype(np.float64), axes[0], 0)
            generator = np.random.default_rng([seed, start, position])
            kinds = list(KINDS)
            wide = np.stack([_row(kinds[(start + i) % len(kinds)], row, generator) for i, row in enumerate(rows)])
            wide = wide if spec.low is None or spec.high is None else wide.clip(spec.low, spec.high)
            made[spec.name] = np.ascontiguousarray(np.moveaxis(as_float(wide, spec.dtype), 0, axes[0]))
        feeds.append(made)
    return replace(ordinary, feeds=tuple(feeds), origin=f"stress rows, seed {seed}")


def _row(kind: str, ordinary: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    import numpy as np

    every: dict[str, Callable[[], np.ndarray]] = {
        "large": lambda: ordinary * 8,
        "small": lambda: ordinary * 2.0**-10,
        "zeros": lambda: ordinary * 0,
        "sparse": lambda: ordinary * (generator.random(ordinary.shape) < 1 / 8),
        "constant": lambda: np.full(ordinary.shape, ordinary.flat[0] if ordinary.size else 0.0),
        "negative": lambda: -np.abs(ordinary),
        "positive": lambda: np.abs(ordinary),
        "mixed": lambda: ordinary * 2.0 ** generator.integers(-6, 4, ordinary.shape),
    }
    return np.asarray(every[kind](), np.float64)


def judge_stress(
    verdict: Verdict,
    truths: Sequence[Sequence[np.ndarray]],
    outputs: Sequence[Sequence[np.ndarray]],
    noise: Sequence[Noise],
    ordinary: Sequence[tuple[float, float]],
    precision: Precision,
) -> Verdict:
    """The verdict, failed where the stress rows differ by more than rounding explains.

    Shapes: ``truths`` and ``outputs`` are [feed][output], of the stress rows; ``noise`` has
    their rounding, ``ordinary`` the rms of noise and of truth over the ordinary rows, one per output.
    """
    judged = []
    for index, output in enumerate(verdict.outputs):
        truth, got = [t[index] for t in truths], [o[index] for o in outputs]
        refused = _reshaped(output, truth, got) or _exact(output, truth, got, noise[index], precision)
        if refused is not None:
            judged.append(refused)
            continue
        found = _stressed(truth, got, noise[index], ordinary[index], precision)
        judged.append(output if found is None else _with(output, found, precision))
    failed = next((o for o in judged if o.outcome is Outcome.FAILED), None)
    if failed is None:
        return replace(verdict, outputs=tuple(judged))
    return Verdict(Outcome.FAILED, failed.failure_kind, failed.sentence, tuple(judged), verdict.statement)


def failed(verdict: Verdict) -> bool:
    """Whether it is the stress rows alone that a verdict failed on."""
    return any(
        o.outcome is Outcome.FAILED and (_UNUSUAL in o.sentence or _NOT_FINITE in o.sentence) for o in verdict.outputs
    )


def truth_rms(truths: Sequence[np.ndarray]) -> float:
    """The rms of an output over the elements of all feeds that are finite."""
    import numpy as np

    finite = [np.asarray(t, np.float64)[np.isfinite(t)] for t in truths]
    total = sum(t.size for t in finite)
    return math.sqrt(sum(float(np.dot(t, t)) for t in finite) / total) if total else 0.0


def _reshaped(output: OutputParity, truth: Sequence[np.ndarray], got: Sequence[np.ndarray]) -> OutputParity | None:
    """Failed where a shape is another one than the source's."""
    for t, y in zip(truth, got, strict=True):
        if t.shape != y.shape:
            sentence = (
                f"Output '{output.name}' agrees {_UNUSUAL}: there it has shape {list(y.shape)} where the source gives "
                f"{list(t.shape)}."
            )
            return replace(output, outcome=Outcome.FAILED, failure_kind=FailureKind.CONTRACT, sentence=sentence)
    return None


def _exact(
    output: OutputParity, truth: Sequence[np.ndarray], got: Sequence[np.ndarray], noise: Noise, precision: Precision
) -> OutputParity | None:
    """Failed where integers or booleans differ in more elements than the source itself changes at the precision."""
    import numpy as np

    if truth[0].dtype.kind == "f":
        return None
    truth, got = matched(truth, got)
    found = judge_exact(output.name, truth, got, {precision.yardstick: noise}, precision)
    if found.outcome is not Outcome.FAILED:
        return None
    where = ""
    rows = sum(t.shape[0] if t.ndim else 0 for t in truth)
    if rows and rows % len(KINDS) == 0:
        changed = [(t != y).reshape(len(t), -1).sum(1) for t, y in zip(truth, got, strict=True)]
        worst = int(np.concatenate(changed).argmax())
        where = f", most of them on inputs that are {KINDS[list(KINDS)[worst % len(KINDS)]]}"
    sentence = (
        f"Output '{output.name}' ({got[0].dtype.name}) agrees {_UNUSUAL}: it must be exact and differs in "
        f"{round((found.flips or 0.0) * found.elements)} of {found.elements} elements{where}. The converted model "
        "computes something else there."
    )
    return replace(output, outcome=Outcome.FAILED, failure_kind=FailureKind.NUMERIC, sentence=sentence)


def _stressed(
    truth: Sequence[np.ndarray],
    got: Sequence[np.ndarray],
    noise: Noise,
    ordinary: tuple[float, float],
    precision: Precision,
) -> Stressed | None:
    import numpy as np

    same = all(t.shape == y.shape for t, y in zip(truth, got, strict=True))
    rows = row_limits(truth, noise, ordinary, precision) if same else None
    errors = np.array(noise_profile.by_row(truth, got))
    if rows is None or rows.noise.size != errors.size:
        return None
    not_finite = bool(np.any(rows.judged & (errors < 0)) and precision.mantissa_bits >= FP32_BITS)
    # What overflows at a narrow precision may do so at another place in another runtime.
    usable = rows.judged & (errors >= 0)
    if not usable.any():
        return Stressed(math.inf, math.inf, next(iter(KINDS)), 0.0, not_finite) if not_finite else None
    ratios = np.where(usable, errors / rows.noise, 0.0)
    worst = int(ratios.argmax())
    ratio = float(np.sqrt(np.mean(ratios[usable] ** 2)))
    return Stressed(ratio, float(ratios[worst]), list(KINDS)[worst % len(KINDS)], rows.limit, not_finite)


def row_limits(
    truth: Sequence[np.ndarray], noise: Noise, ordinary: tuple[float, float], precision: Precision
) -> RowLimits | None:
    """The limits of one output on the stress rows, ``None`` where it is not judged there.

    Shapes: ``truth`` is [feed]; ``noise`` and ``ordinary`` as in :func:`judge_stress`, of this output.
    """
    import numpy as np

    if truth[0].dtype.kind != "f" or truth[0].ndim == 0 or not ordinary[0]:
        return None
    own, sizes = np.array(noise.rows), np.array(noise_profile.by_row([np.zeros(t.shape) for t in truth], truth))
    if not own.size or own.size != sizes.size or own.size % len(KINDS):
        return None
    elements = sum(t.size for t in truth) / own.size
    prior = ordinary[0] * np.maximum(1.0, sizes / ordinary[1] if ordinary[1] else 1.0)
    sigma = np.sqrt((elements * own**2 + PRIOR_ELEMENTS * prior**2) / (elements + PRIOR_ELEMENTS))
    sigma = np.maximum(sigma, sizes * 2.0 ** -(precision.mantissa_bits + 1) / 3**0.5)
    # Nor are outputs told apart that are smaller than what float32 resolves at their usual size (single_input.py).
    sigma = np.maximum(sigma, ordinary[1] * RESOLUTION)
    # What is smaller may be flushed to zero.
    sigma = np.maximum(sigma, SMALLEST.get(precision.yardstick, SMALLEST_NORMAL))
    limit = LIMIT * precision.limit * (1 + PRIOR_ELEMENTS / elements)
    return RowLimits(sigma, (own >= 0) & (sizes >= 0), limit)


def _with(output: OutputParity, found: Stressed, precision: Precision) -> OutputParity:
    ratio = found.ratio if math.isfinite(found.ratio) else None
    if found.not_finite:
        sentence = f"Output '{output.name}' has NaN or Inf where the source has none, {_NOT_FINITE}"
        return replace(
            output, outcome=Outcome.FAILED, failure_kind=FailureKind.NAN, sentence=sentence, stress_ratio=ratio
        )
    if found.ratio <= found.limit:
        return replace(output, stress_ratio=ratio)
    sentence = (
        f"Output '{output.name}' agrees {_UNUSUAL}: {found.ratio:.3g} × what rounding "
        f"at {precision.yardstick} explains (the limit is {found.limit:.2g}), {found.worst:.3g} × on inputs that are "
        f"{KINDS[found.kind]}. The converted model computes something else there."
    )
    return replace(
        output, outcome=Outcome.FAILED, failure_kind=FailureKind.NUMERIC, sentence=sentence, stress_ratio=ratio
    )
