"""The numbers of parity and the one verdict rule.

A difference is judged against what rounding alone costs this model, not against a guessed
tolerance: with truth t (the source in float64), ``noise(p)`` = rms(source at precision p − t)
and ``error`` = rms(candidate − t), the noise ratio r = error / noise(p) is near 1 for a
faithful conversion.

Constants and where they come from
----------------------------------
``PRECISIONS[p].limit`` is k(p). fp32: 4, because over 240 faithful fp32 cells (60 random
networks × four runtimes) r had median 1.15, 95th percentile 1.9 and maximum 3.34. fp16 and
bf16: 2, because over 120 faithful cells r was 0.11 to 0.92 (runtimes keep wider
accumulators than the reference). Over the 360 faithful cells of ``benchmarks/false_alarms.py``
(45 networks of nine families × eight lanes) the maximum of r was 2.52 at fp32, 0.94 at fp16,
1.62 at bf16 and 1.31 with fp16 weights. The faults to be found give 7 to 5·10⁴. Over the 440
faithful fp32 cells of docs/detection-power.md 99.5 % of r lay below 3.4, and two cells of one
network at 5.3 to 6.2: what lies between 1.5 and twice k is settled by a second look.

``POINT_LIMIT``: the largest element error over the largest rounding error; the ratio of two
maxima over few elements scatters more than that of two rms values, so it is wider than k.
Over the same 360 cells its maximum was 2.67 at fp32, 1.12 at fp16, 1.35 at bf16 and 1.32
with fp16 weights; the limits are about twice that.

fp16 weights: fp16's limits. With the noise of ``weights_noise.py`` r was at most 1.04 and the point ratio at most 1.06
over 18 of these networks, and 1.35 and 1.88 over seven public models (a classifier of bytes, three text models with
normalisations or factors folded on 28 sets of rows, a detector, two voice detectors); there an element was at most 1.2
times its own noise, and so was a slice (limits 3 and 4). Rounding the source's own weights once, r was up to 4.3.

tf32: k is 4 and the point limit 6, as for fp32, whose sums it has. Over 18 random networks, a
text encoder and ResNet-50, other implementations of the same rounding of operands
(``tests/compare/test_noise_methods.py``) lay at r 0.98 to 1.05 and point ratio 0.87 to 1.30. NVIDIA's units
round: on an H100 the five tf32 lanes of a small CNN lay at 0.56, and each was named tf32
(``reports/verified``). Operands that are cut off instead, as AMD's gfx942
(ROCm/rocm-libraries pull request 9176) and Triton's dot (triton-lang/triton issue 4574) do, gave r
1.6 to 12.6 over 36 networks (median 3.6): less than TF32 promises, half of which fails. tf32's
noise is 0.36 to 1.01 times fp16's: by size the two cannot be told apart, and ``compare/effective_precision.py`` looks
at whose error is alike. TF32 is suspected of fp32 and tf32 cells only.

``LOCAL_POINT_LIMIT`` and ``SLICE_LIMIT`` (in units of k): the worst element and the worst slice
in units of their own noise (``noise_profile.py``). Over 140 faithful fp32 outputs of 0.5 million
elements they were at most 2.8 and 3.3 (limits 4 and 8), over 7 at bf16 1.5 and 2.0 (3 and 4).

``FAITHFUL_LOW``: an error below this share of the asked precision's noise (half of the
smallest seen in a faithful cell) was not made at that precision.

``PLAUSIBLE``: between these shares of another precision's noise, that precision is what ran;
outside of it the model is wrong rather than differently rounded (one tensor of 54 rounded
to fp16 makes at most 0.07 of the noise of a whole fp16 run).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pytest_modelformats.compare import noise_profile
from pytest_modelformats.compare.noise import Error, judgeable, size_of
from pytest_modelformats.schema import PRECISIONS, FailureKind, Outcome, OutputParity, Precision

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

    from pytest_modelformats.compare.noise import Noise

POINT_LIMIT = {"fp32": 6.0, "tf32": 6.0, "fp16": 3.0, "bf16": 3.0, "fp16-weights": 3.0}
LOCAL_POINT_LIMIT = {"fp32": 4.0, "tf32": 4.0, "fp16": 3.0, "bf16": 3.0, "fp16-weights": 3.0}
SLICE_LIMIT = 2.0
FAITHFUL_LOW = 0.05
PLAUSIBLE = (0.1, 2.0)
# Where the truth varies by no more than this many times what rounding costs (sigmoid(20 + ...) at fp32), the source's
# own run is constant too: the deviation of what is constant from the truth is at least the truth's spread. Two for
# the few rows of a small batch, whose spread scatters.
SPREAD = 2.0
# What is smaller than the smallest normal float32 and bfloat16 may come out as 0 (single_input.py names the switches);
# of fp16, whose denormals processors keep, what is smaller than the distance between two of them.
SMALLEST_NORMAL = 2.0**-126
SMALLEST = {"fp16": 2.0**-24}
CLASSIFIED = {"fp32": 23, "tf32": 10, "fp16": 10, "bf16": 7}
# TF32 is a way to compute what was asked for in fp32: a cell at fp16 or bf16 never runs it instead.
INSTEAD_OF_FP32 = frozenset({"fp32", "tf32"})


@dataclass(frozen=True, slots=True)
class Tolerance:
    """A fixed tolerance that the user chose for an output instead of the measured one."""

    atol: float
    rtol: float


def judge_floating(
    name: str,
    truth: list[np.ndarray],
    got: list[np.ndarray],
    noise: Mapping[str, Noise],
    precision: Precision,
    classifier: bool,
    tolerance: Tolerance | None,
) -> OutputParity:
    """One floating output by the rule of design §5, or by the user's ``tolerance``.

    Shapes: one array per feed on both sides, of equal shapes; the truth is float64.
    """
    import numpy as np

    own = noise.get(precision.yardstick)
    left_out = 0
    if own is not None and own.lost:
        known = judgeable(truth, own)
        gone = [np.isnan(k) & ~np.isnan(t) for k, t in zip(known, truth, strict=True)]
        left_out = sum(int(g.sum()) for g in gone)
        # What is NaN on both sides is compared no more, and stands in the same places.
        got = [np.where(g, np.array(np.nan, y.dtype), y) for g, y in zip(gone, got, strict=True)]
        truth = known
    refused = _non_finite(name, truth, got) or nothing_to_compare(name, truth, got, left_out)
    if refused is not None:
        return refused
    truth = flushed(truth, got, precision)
    error = Error(truth, got)
    if _is_degenerate(truth, got, SPREAD * own.rms if own else 0.0):
        sentence = f"Output '{name}' is degenerate: it does not depend on its input, while the source's does."
        return OutputParity(name, Outcome.FAILED, FailureKind.DEGENERATE, sentence, elements=size_of(got))
    flips = _decision_flips(truth, got) if classifier else None
    if tolerance is not None:
        return _judge_fixed(name, truth, got, error, tolerance, flips)
    judged = _judge_by_noise(name, error, noise, precision, flips)
    judged = _judge_locally(judged, truth, got, noise[precision.yardstick], precision)
    if not left_out:
        return judged
    sentence = (
        f"{judged.sentence} In {left_out} of {size_of(got)} elements the source itself gives NaN or Inf at "
        f"{precision.yardstick}, where float64 has numbers: they are not judged."
    )
    return replace(judged, sentence=sentence)


def flushed(truth: list[np.ndarray], got: list[np.ndarray], precision: Precision) -> list[np.ndarray]:
    """The truth with 0 where it is below the smallest normal number and 0 came out: runtimes may flush."""
    import numpy as np

    least = SMALLEST.get(precision.yardstick, SMALLEST_NORMAL)
    zeros = [y == 0 for y in got]
    return [np.where(z & (np.abs(t) < least), 0.0, t) if z.any() else t for t, z in zip(truth, zeros, strict=True)]


def nothing_to_compare(
    name: str, truth: list[np.ndarray], got: list[np.ndarray], left_out: int = 0
) -> OutputParity | None:
    """No element, or no finite one, in the source as here; shapes, dtypes and the places of NaN and Inf are equal."""
    import numpy as np

    if not size_of(truth):
        shapes = ", ".join(sorted({str(list(y.shape)) for y in got}))
        sentence = (
            f"Output '{name}' is empty (shape {shapes}), as the source's is: its shape and dtype ({got[0].dtype.name}) "
            "are equal, there are no values to compare."
        )
        return OutputParity(name, Outcome.PASSED, None, sentence)
    if not np.issubdtype(truth[0].dtype, np.floating) or any(np.isfinite(t).any() for t in truth):
        return None
    # Nothing was compared, so nothing has passed.
    what = "in the source as here" if not left_out else "in the source itself at this precision"
    sentence = (
        f"Output '{name}' is NaN or Inf in every element, {what}: there is no number to compare. "
        "Give inputs for which the model answers (--mf-data), or bounds of them (--mf-input)."
    )
    return OutputParity(name, Outcome.INCONCLUSIVE, None, sentence, elements=size_of(got))


def _non_finite(name: str, truth: list[np.ndarray], got: list[np.ndarray]) -> OutputParity | None:
    """NaN and Inf stand in the same places, with the same sign."""
    import numpy as np

    wrong = 0
    for t, y in zip(truth, got, strict=True):
        # What overflows here overflows in every result of that dtype: no warning is due.
        with np.errstate(over="ignore"):
            narrow = t.astype(y.dtype, copy=False) if np.issubdtype(y.dtype, np.floating) else t
        nan = np.isnan(t) != np.isnan(y)
        infinite = (np.isinf(narrow) | np.isinf(y)) & (narrow != y) & ~np.isnan(t) & ~np.isnan(y)
        wrong += int(nan.sum()) + int(infinite.sum())
    if not wrong:
        return None
    size = size_of(got)
    sentence = f"Output '{name}' has NaN or Inf in other places than the source does, in {wrong} of {size} elements."
    return OutputParity(name, Outcome.FAILED, FailureKind.NAN, sentence, elements=size)


def _is_degenerate(truth: list[np.ndarray], got: list[np.ndarray], explained: float) -> bool:
    """Constant over all elements, or the same for every row, where the source varies by more than is explained."""
    import numpy as np

    def constant(arrays: list[np.ndarray]) -> bool:
        return all(a.size and bool(np.all(a == a.flat[0])) for a in arrays)

    def same_rows(arrays: list[np.ndarray]) -> bool:
        return all(a.ndim > 0 and a.shape[0] > 1 and bool(np.all(a == a[:1])) for a in arrays)

    def varies(axis: int | None) -> bool:
        finite = [np.where(np.isfinite(t), t, 0.0) for t in truth]
        with np.errstate(over="ignore"):
            squares = sum(float(np.sum(np.square(t - np.mean(t, axis, keepdims=True)))) for t in finite)
        return math.sqrt(squares / size_of(truth)) > explained

    if size_of(got) < 2:  # noqa: PLR2004 - one element is always constant
        return False
    if constant(got) and not constant(truth) and varies(None):
        return True
    return same_rows(got) and not same_rows(truth) and varies(0)


def _decision_flips(truth: list[np.ndarray], got: list[np.ndarray]) -> float | None:
    if truth[0].ndim < 2 or not size_of(truth):  # noqa: PLR2004 - [row, class]
        return None
    changed = sum(int((t.argmax(-1) != y.argmax(-1)).sum()) for t, y in zip(truth, got, strict=True))
    return changed / sum(math.prod(t.shape[:-1]) for t in truth)


def _judge_fixed(
    name: str, truth: list[np.ndarray], got: list[np.ndarray], error: Error, tolerance: Tolerance, flips: float | None
) -> OutputParity:
    import numpy as np

    close = all(
        np.allclose(y.astype(np.float64), t, rtol=tolerance.rtol, atol=tolerance.atol, equal_nan=True)
        for t, y in zip(truth, got, strict=True)
    )
    word = "within" if close else "outside"
    sentence = (
        f"Output '{name}': largest difference {error.max:.3g}, {word} the fixed tolerance from the configuration "
        f"(atol {tolerance.atol:g}, rtol {tolerance.rtol:g})."
    )
    return OutputParity(
        name,
        Outcome.PASSED if close else Outcome.FAILED,
        None if close else FailureKind.NUMERIC,
        sentence,
        error_rms=error.rms,
        error_max=error.max,
        flips=flips,
        elements=error.elements,
    )


def _judge_by_noise(
    name: str, error: Error, noise: Mapping[str, Noise], precision: Precision, flips: float | None
) -> OutputParity:
    """The rule of design §5 for one floating output."""
    own = noise[precision.yardstick]
    ratio = error.rms / own.rms if own.rms else (0.0 if error.rms == 0 else math.inf)
    point = error.max / own.max if own.max else (0.0 if error.max == 0 else math.inf)
    effective = effective_precision(error.rms, noise, precision)
    outcome, kind, sentence = _rule(name, ratio, point, effective, error, noise, precision)
    return OutputParity(
        name,
        outcome,
        kind,
        sentence,
        error_rms=error.rms,
        error_max=error.max,
        noise_rms=own.rms,
        noise_max=own.max,
        noise_ratio=ratio if math.isfinite(ratio) else None,
        point_ratio=point if math.isfinite(point) else None,
        effective_precision=effective,
        flips=flips,
        elements=error.elements,
        signal_rms=error.truth_rms,
    )


def _judge_locally(
    judged: OutputParity, truth: list[np.ndarray], got: list[np.ndarray], own: Noise, precision: Precision
) -> OutputParity:
    """What passed as a whole fails where a slice or an element is far beyond the noise that it has itself."""
    local = noise_profile.compare(own.profile, own.rms, truth, got) if own.profile else None
    if local is None or judged.outcome is not Outcome.PASSED:
        return judged
    asked, name = precision.yardstick, judged.name
    limit, point = SLICE_LIMIT * precision.limit, LOCAL_POINT_LIMIT.get(asked, LOCAL_POINT_LIMIT["fp32"])
    sentence = ""
    # A wrong slice has wrong elements too, and the larger of the two says which it is.
    by_slice = local.slice_ratio > limit and local.slice_ratio * local.wider >= local.point_ratio
    if local.point_ratio > point and not by_slice:
        sentence = (
            f"Output '{name}': its element {list(local.position)} is off by {local.error:.2g}, "
            f"{_times(local.point_ratio)} the worst that rounding at {asked} does there ({local.allowed:.2g}; the "
            f"limit is {point:g}), though the rms is fine: a few elements are wrong."
        )
    elif local.slice_ratio > limit:
        sentence = (
            f"Output '{name}': at index {local.index} of dimension {local.axis} the error is "
            f"{_times(local.slice_ratio * local.wider)} what rounding at {asked} explains there "
            f"({local.slice_noise:.2g}; the limit is {limit * local.wider:.3g}), though that of the whole "
            "output is fine: a part of small values is wrong."
        )
    judged = replace(judged, slice_ratio=local.slice_ratio, local_point_ratio=local.point_ratio or None)
    if not sentence:
        return judged
    return replace(judged, outcome=Outcome.FAILED, failure_kind=FailureKind.NUMERIC, sentence=sentence)


def effective_precision(error_rms: float, noise: Mapping[str, Noise], asked: Precision) -> str:
    """The precision whose noise is nearest to the error on a log scale; the asked one while it explains the error."""
    own = noise[asked.yardstick]
    if own.rms and FAITHFUL_LOW * own.rms <= error_rms <= asked.limit * own.rms:
        return asked.yardstick
    finest = noise.get("fp32")
    # Where rounding to the asked precision changes nothing (outputs that are exact in it), it cannot be told apart.
    if finest is not None and error_rms < own.rms and own.raw_rms < 10 * finest.raw_rms + own.rms * 1e-3:
        return asked.yardstick
    if error_rms == 0 and own.raw_rms == 0:
        return asked.yardstick
    possible = [p for p in CLASSIFIED if p != "tf32" or asked.yardstick in INSTEAD_OF_FP32]
    known = {p: noise[p].rms for p in possible if p in noise and noise[p].rms > 0}
    known.setdefault(asked.yardstick, own.rms)
    floor = min((v for v in known.values() if v > 0), default=1.0) * 1e-3
    return min(known, key=lambda p: abs(math.log(max(error_rms, floor) / max(known[p], 1e-300))))


def _rule(
    name: str,
    ratio: float,
    point: float,
    effective: str,
    error: Error,
    noise: Mapping[str, Noise],
    precision: Precision,
) -> tuple[Outcome, FailureKind | None, str]:
    asked = precision.yardstick
    measured = _measured(name, error.rms, noise[asked], precision)
    other = noise.get(effective)
    finer = CLASSIFIED.get(effective, precision.mantissa_bits) > precision.mantissa_bits
    # An error between the two is of what was rounded to the asked one, such as the weights, and not of the arithmetic.
    exact = finer and ratio < FAITHFUL_LOW and other is not None and error.rms <= PLAUSIBLE[1] * other.rms
    if effective != asked and other is not None and (plausible(error.rms, other) or exact):
        return Outcome.FALLBACK, None, fallback_sentence(name, error.rms, noise, precision, effective)
    if ratio > precision.limit:
        sentence = f"{measured}; the limit is {precision.limit:g}. The converted model computes something else."
        return Outcome.FAILED, FailureKind.NUMERIC, sentence
    limit = POINT_LIMIT.get(asked, POINT_LIMIT["fp32"]) * precision.limit / PRECISIONS[precision.name].limit
    if point > limit:
        sentence = (
            f"Output '{name}': its worst element is off by {error.max:.2g}, {_times(point)} the worst that rounding at "
            f"{asked} does ({noise[asked].max:.2g}; the limit is {limit:g}), though the rms is fine: "
            "a few elements are wrong."
        )
        return Outcome.FAILED, FailureKind.NUMERIC, sentence
    return Outcome.PASSED, None, f"{measured}; the limit is {precision.limit:g}. It is the same model."


def plausible(error_rms: float, noise: Noise) -> bool:
    """Whether an error is of the size of a precision's noise."""
    return PLAUSIBLE[0] * noise.rms <= error_rms <= PLAUSIBLE[1] * noise.rms


def _measured(name: str, error_rms: float, own: Noise, precision: Precision) -> str:
    ratio = error_rms / own.rms if own.rms else (0.0 if error_rms == 0 else math.inf)
    explains = f"is {_times(ratio)} what rounding at {precision.yardstick} explains ({own.rms:.2g})"
    return f"Output '{name}': error {error_rms:.2g} rms {explains}"


def fallback_sentence(
    name: str, error_rms: float, noise: Mapping[str, Noise], precision: Precision, effective: str
) -> str:
    """What is said of an output that ran at ``effective`` where ``precision`` was asked for."""
    what = "the runtime's default" if precision.name == "default" else precision.name
    shares = f"{_times(error_rms / noise[effective].rms)} {effective}'s" if noise[effective].rms else "not a rounding"
    return (
        f"{_measured(name, error_rms, noise[precision.yardstick], precision)} and {shares}: "
        f"asked for {what}, {effective} is what ran. "
        + (
            "Next: set the precision explicitly."
            if precision.name == "default"
            else f"Next: judge or ship it as {effective}, or ask a backend that has {what}."
        )
    )


def _times(ratio: float) -> str:
    if not math.isfinite(ratio):
        return "infinitely many times"
    return f"{ratio:.3g} ×" if ratio >= 0.01 else f"{ratio:.1e} ×"  # noqa: PLR2004 - two readable digits
