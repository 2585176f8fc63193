"""Is a result on one generated input wrong, or is this input one on which rounding costs more?

The noise of a single input is a noisy estimate: of ten logits it is the rms of ten numbers,
and on a constant input the source's own rounding may happen to be exactly zero. So the noise
here is the larger one of this input's and of the samples' in relation to the size of the
outputs; and where that does not explain the error, it is measured again over the same input
moved by one unit of rounding, eight times, before anything is called a fault.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pytest_modelformats.compare.floating import POINT_LIMIT
from pytest_modelformats.compare.noise import Noise, measure_noise
from pytest_modelformats.compare.verdict import judge
from pytest_modelformats.schema import PRECISIONS, FailureKind, Outcome, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np

    from pytest_modelformats.compare.floating import Tolerance
    from pytest_modelformats.schema import Precision, TensorSpec

    Feed = Mapping[str, np.ndarray]
    Outputs = Sequence[np.ndarray]

MOVES = 8
# For the rms and for the worst element, at every precision; the parity check has judged the samples by
# tighter ones before. On one small input the ratio of two rms values scatters more. Over 216 faithful cells
# (three networks of each of nine families in the eight lanes of benchmarks/false_alarms.py) and 7,407 generated
# inputs the largest ratio was 5.95 at fp32, 5.30 at bf16 (a saturated LSTM), 2.78 at fp16 and 1.33 with fp16
# weights, that of the worst elements 4.06. What depends on the input and is wrong is far beyond: one per cent
# of a logit is 8·10⁴ (tests/checks/fuzz/test_fuzz.py).
LIMIT = 12.0
# Below the smallest normal number a runtime may flush to zero: a legitimate choice (ONNX Runtime's
# session.set_denormal_as_zero, torch.set_flush_denormal, OpenVINO's DENORMALS_OPTIMIZATION). Of fp16, whose
# denormals processors keep, it is the distance between two of them.
SMALLEST = {"fp16": 2.0**-24}
SMALLEST_NORMAL = 2.0**-126
# Half of the distance between two float32 numbers, in units of their size.
RESOLUTION = 2.0**-24


class OverflowsItself(Exception):
    """The source has no finite result at this precision where it has one in float64: nothing to judge by."""


def noise_of(truth: Outputs, rounded: Outputs, usual: Sequence[Usual], precision: Precision) -> list[Noise]:
    """The noise of each output for one input, not below the samples' in relation to the size of the outputs."""
    found = []
    for t, r, known in zip(truth, rounded, usual, strict=True):
        here = measure_noise([t], [r], precision.mantissa_bits)
        rms, largest = size(t)
        tiny = max(known.meaningful, SMALLEST.get(precision.yardstick, SMALLEST_NORMAL))
        found.append(
            replace(
                here,
                rms=max(here.rms, known.rms * rms, tiny),
                max=max(here.max, known.max * largest, tiny),
                flips=max(here.flips, known.flips),
            )
        )
    return found


@dataclass(frozen=True, slots=True)
class Usual(Noise):
    """The noise of an output over the samples in relation to its size there: ``rms`` and ``max`` are ratios.

    ``meaningful`` is what counts at the output's usual size, in its unit: what float32 tells apart there, and as much
    of the samples' noise as the limit makes up for. An output of zeros through a deep network is 1e-10 of rounding, and
    what that is off by in another runtime is no number that anybody uses.
    """

    meaningful: float = 0.0


def usual_noise(truths: Sequence[Outputs], noise: Sequence[Noise]) -> list[Usual]:
    """What rounding costs the samples, relative to the rms and to the largest element of each output."""
    found = []
    for index, known in enumerate(noise):
        sizes = [size(t[index]) for t in truths]
        elements = [max(t[index].size, 1) for t in truths]
        mean = (sum(n * rms**2 for n, (rms, _) in zip(elements, sizes, strict=True)) / sum(elements)) ** 0.5
        largest = max(m for _, m in sizes)
        found.append(
            Usual(
                known.rms / mean if mean else 0.0,
                known.max / largest if largest else 0.0,
                known.raw_rms,
                known.flips,
                meaningful=max(mean * RESOLUTION, known.rms / LIMIT),
            )
        )
    return found


def size(array: np.ndarray) -> tuple[float, float]:
    """The rms and the largest element, of those that are finite; zeros for other dtypes than floating ones."""
    import numpy as np

    if not np.issubdtype(array.dtype, np.floating):
        return 0.0, 0.0
    finite = np.abs(array[np.isfinite(array)].astype(np.float64))
    return (float(np.sqrt(np.mean(finite**2))), float(finite.max())) if finite.size else (0.0, 0.0)


class Judgement:
    """Judges results on single inputs against the source.

    ``scales`` is the rms of each input over the samples. ``evaluate(feeds, precision)`` runs the
    source: [feed][output].
    """

    def __init__(
        self,
        specs: Sequence[TensorSpec],
        precision: Precision,
        usual: Sequence[Usual],
        scales: Mapping[str, float],
        evaluate: Callable[[Sequence[Feed], str], list[list[np.ndarray]]],
        tolerances: Mapping[str, Tolerance] | None = None,
    ) -> None:
        """Nothing is evaluated yet; what is beyond the noise passes within the ``tolerances``."""
        self._names = [s.name for s in specs]
        self._dtypes = [s.dtype for s in specs]
        self._precision = precision
        self._usual = usual
        self._scales = scales
        self._evaluate = evaluate
        self._allowed = tolerances

    def expected(self, feed: Feed) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """The source in float64 and at the cell's precision; raises OverflowsItself."""
        truth = self._evaluate([feed], "float64")[0]
        rounded = self._evaluate([feed], self._precision.yardstick)[0]
        _refuse_overflow(truth, rounded)
        return truth, rounded

    def settled(self, feed: Feed, truth: Outputs, rounded: Outputs, got: Outputs) -> Verdict:
        """The verdict; what fails at the first look gets a second one. Raises: OverflowsItself."""
        verdict = self.first(truth, rounded, got)
        return self.second(feed, truth, rounded, got) if verdict.outcome is Outcome.FAILED else verdict

    def first(self, truth: Outputs, rounded: Outputs, got: Outputs) -> Verdict:
        """The verdict by this input's noise and the samples'."""
        return self._judge(truth, got, noise_of(truth, rounded, self._usual, self._precision))

    def second(self, feed: Feed, truth: Outputs, rounded: Outputs, got: Outputs) -> Verdict:
        """The verdict by what rounding costs in the neighbourhood of the input.

        A runtime may flush denormal inputs to zero. A result that does not vary is a fault only where
        the source's varies by more than rounding explains: equal rows in are equal rows out.
        """
        noise = self.neighbourhood(feed, truth, rounded)
        verdict = self._judge(truth, got, noise)
        flushed = None if verdict.passed else self.flushed(feed)
        if flushed is not None:
            verdict = _either(verdict, self._judge(flushed, got, noise))
        if verdict.failure_kind is FailureKind.DEGENERATE:
            verdict = self._judge(*varied(truth, got), noise)
        return verdict

    def neighbourhood(self, feed: Feed, truth: Outputs, rounded: Outputs) -> list[Noise]:
        """The noise of each output around the input: what the second look judges by. Raises: OverflowsItself."""
        yardstick = self._precision.yardstick
        feeds = [neighbour(feed, self._precision.mantissa_bits, self._scales, seed) for seed in range(MOVES)]
        truths = [list(truth), *self._evaluate(feeds, "float64")]
        others = [list(rounded), *self._evaluate(feeds, yardstick)]
        for t, r in zip(truths, others, strict=True):
            _refuse_overflow(t, r)
        found = [noise_of(t, r, self._usual, self._precision) for t, r in zip(truths, others, strict=True)]
        return [_pooled([f[i] for f in found]) for i in range(len(self._names))]

    def flushed(self, feed: Feed) -> list[np.ndarray] | None:
        """The float64 truth with denormal inputs at zero, ``None`` where there are none."""
        return self._evaluate([flush(feed)], "float64")[0] if has_denormals(feed) else None

    def limits(self, noise: Sequence[Noise]) -> list[tuple[float, float]]:
        """The largest rms and the largest difference of each output that ``compare.judge`` lets through here."""
        return [(LIMIT * n.rms, LIMIT * n.max) for n in noise]

    def _judge(self, truth: Outputs, got: Outputs, noise: Sequence[Noise]) -> Verdict:
        # Only the precision that runs: which other one it might be is the parity check's to say.
        precision = replace(self._precision, limit=LIMIT)
        # ``compare`` widens the limit of the worst element as this one; for a single input the two are the same.
        usual = PRECISIONS[self._precision.name].limit
        wider = usual / POINT_LIMIT.get(precision.yardstick, POINT_LIMIT["fp32"])
        floors = {precision.yardstick: [replace(n, max=wider * n.max) for n in noise]}
        return judge(self._names, [truth], [got], floors, precision, dtypes=self._dtypes, allowed=self._allowed)


def neighbour(feed: Feed, mantissa_bits: int, scales: Mapping[str, float], seed: int) -> dict[str, np.ndarray]:
    """The feed with every float moved by one unit of rounding, of its own size and of the samples'.

    The second moves zeros too: rounding decorrelates although nothing stands there.
    Units: ``scales`` is the rms of each input over the samples.
    """
    import numpy as np

    unit = 2.0 ** -(mantissa_bits + 1)
    random = np.random.default_rng(seed)

    def move(name: str, array: np.ndarray) -> np.ndarray:
        own, usual = (random.choice([-unit, unit], array.shape) for _ in range(2))
        other: np.ndarray = (array * (1 + own) + scales.get(name, 1.0) * usual).astype(array.dtype)
        return other

    return {name: move(name, a) if np.issubdtype(a.dtype, np.floating) else a for name, a in feed.items()}


def varied(truth: Outputs, got: Outputs) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Both with one row more, the same in both: what is compared is the numbers and not whether they vary."""
    import numpy as np

    def longer(array: np.ndarray, like: np.ndarray) -> np.ndarray:
        if not array.ndim or not np.issubdtype(array.dtype, np.floating):
            return array
        row = np.linspace(-1, 1, math.prod(like.shape[1:])).reshape(1, *like.shape[1:]) * size(like)[0]
        return np.concatenate([array, row.astype(np.float32).astype(array.dtype)])

    return (
        [longer(t, t) for t in truth],
        [longer(y, t) for y, t in zip(got, truth, strict=True)],
    )


def _either(one: Verdict, other: Verdict) -> Verdict:
    return other if other.passed else one


def _pooled(noise: Sequence[Noise]) -> Noise:
    count = len(noise)
    rms = (sum(n.rms**2 for n in noise) / count) ** 0.5
    raw = (sum(n.raw_rms**2 for n in noise) / count) ** 0.5
    # Not below this input's own: a neighbourhood may be calmer than the input.
    return Noise(max(rms, noise[0].rms), max(n.max for n in noise), raw, max(n.flips for n in noise))


def _refuse_overflow(truth: Outputs, rounded: Outputs) -> None:
    import numpy as np

    for t, r in zip(truth, rounded, strict=True):
        if np.issubdtype(t.dtype, np.floating) and bool((np.isfinite(t) & ~np.isfinite(r.astype(np.float64))).any()):
            raise OverflowsItself


def has_denormals(feed: Feed) -> bool:
    """Whether a float of the feed lies below the smallest normal number of its dtype."""
    import numpy as np

    return any(
        bool(((a != 0) & (np.abs(a) < np.finfo(a.dtype).tiny)).any())
        for a in feed.values()
        if np.issubdtype(a.dtype, np.floating)
    )


def flush(feed: Feed) -> dict[str, np.ndarray]:
    """The feed with its denormals at zero."""
    import numpy as np

    return {
        name: np.where(np.abs(a) < np.finfo(a.dtype).tiny, np.zeros((), a.dtype), a)
        if np.issubdtype(a.dtype, np.floating)
        else a
        for name, a in feed.items()
    }
