"""The one verdict over all outputs of a cell: contract, then floats by the rule, integers exactly, and accuracy."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_modelformats.compare.floating import judge_floating, nothing_to_compare
from pytest_modelformats.compare.noise import size_of
from pytest_modelformats.compare.sampled import matched
from pytest_modelformats.errors import Undecidable
from pytest_modelformats.schema import FailureKind, Outcome, OutputParity, Precision, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

    from pytest_modelformats.compare.floating import Tolerance
    from pytest_modelformats.compare.noise import Noise

# Of the integers of an output: where rounding changes so many, four times as much changes nearly all (15 in 16).
NOTHING_LEFT = 0.5
# Design §5: accuracy loss against the source below 1 % for fp16 and bf16.
ACCURACY_LOSS = 0.01
FEWEST_LABELLED = 100


def judge(
    names: Sequence[str],
    truths: Sequence[Sequence[np.ndarray]],
    outputs: Sequence[Sequence[np.ndarray]],
    noise: Mapping[str, Sequence[Noise]],
    precision: Precision,
    *,
    dtypes: Sequence[str],
    classifier: bool = False,
    tolerances: Mapping[str, Tolerance] | None = None,
    allowed: Mapping[str, Tolerance] | None = None,
) -> Verdict:
    """The verdict over all outputs: the worst one's.

    Outputs in ``tolerances`` are judged by these instead of the noise; those in ``allowed`` by the noise, and what is
    beyond it passes within the tolerance (inputs that nobody chose may make outputs larger than it was meant for).

    Shapes: ``truths`` and ``outputs`` are [feed][output]; ``noise`` maps a precision to one
    Noise per output. ``dtypes`` are the contract's, one per output.

    Raises: Undecidable where an output is complex.
    """
    for name, dtype in zip(names, dtypes, strict=False):  # where an output is missing, that is said below
        if dtype.startswith("complex"):
            raise Undecidable(f"output '{name}' is {dtype}: complex outputs are not judged; return its parts as reals")
    for got in outputs:
        if len(got) != len(names):
            sentence = f"{len(got)} outputs came back where the source has {len(names)} ({', '.join(names)})."
            return Verdict(Outcome.FAILED, FailureKind.CONTRACT, sentence)
    judged = []
    for index, name in enumerate(names):
        truth = [t[index] for t in truths]
        got = [o[index] for o in outputs]
        floors = {p: values[index] for p, values in noise.items()}
        tolerance = (tolerances or {}).get(name) or (tolerances or {}).get("*")
        one = _judge_output(name, truth, got, floors, precision, dtypes[index], classifier, tolerance)
        wide = None if one.outcome is Outcome.PASSED else (allowed or {}).get(name)
        if wide is not None:
            fixed = _judge_output(name, truth, got, floors, precision, dtypes[index], classifier, wide)
            one = fixed if fixed.outcome is Outcome.PASSED else one
        judged.append(one)
    return of_outputs(_without_exact_ones(judged, noise, precision))


def of_outputs(judged: Sequence[OutputParity]) -> Verdict:
    """The verdict over outputs that are judged: the worst one's."""
    worst = max(judged, key=_severity)
    return Verdict(worst.outcome, worst.failure_kind, worst.sentence, tuple(judged))


def _without_exact_ones(
    judged: Sequence[OutputParity], noise: Mapping[str, Sequence[Noise]], precision: Precision
) -> list[OutputParity]:
    """What fp32 holds exactly and came out exactly, as an input handed through, says nothing of what ran.

    It passes where another output was computed and passes at the precision; alone it stays as it is.
    """
    asked, finest = precision.yardstick, noise.get("fp32")
    shown = any(o.outcome is Outcome.PASSED and o.error_rms and o.effective_precision == asked for o in judged)
    if not shown or finest is None:
        return list(judged)
    return [
        replace(
            output,
            outcome=Outcome.PASSED,
            sentence=f"Output '{output.name}' is the source's in every element, which float32 holds exactly: it is "
            f"handed through, or rounding does not touch it, and it says nothing of whether {asked} is what ran.",
            effective_precision=asked,
        )
        if output.outcome is Outcome.FALLBACK and output.error_rms == 0 == floor.raw_rms
        else output
        for output, floor in zip(judged, finest, strict=True)
    ]


def _severity(output: OutputParity) -> tuple[int, float]:
    order = {Outcome.FAILED: 3, Outcome.FALLBACK: 2, Outcome.INCONCLUSIVE: 1}
    return order.get(output.outcome, 0), output.noise_ratio or 0.0


def _judge_output(
    name: str,
    truth: list[np.ndarray],
    got: list[np.ndarray],
    noise: Mapping[str, Noise],
    precision: Precision,
    dtype: str,
    classifier: bool,
    tolerance: Tolerance | None,
) -> OutputParity:
    import numpy as np

    refused = _contract(name, truth, got, dtype, precision)
    if refused is not None:
        return refused
    truth, got = matched(truth, got)
    if np.issubdtype(truth[0].dtype, np.floating):
        return judge_floating(name, truth, got, noise, precision, classifier, tolerance)
    return nothing_to_compare(name, truth, got) or judge_exact(name, truth, got, noise, precision)


def _contract(
    name: str, truth: list[np.ndarray], got: list[np.ndarray], dtype: str, precision: Precision
) -> OutputParity | None:
    """Shapes and dtypes are the source's; nothing broadcasts. A narrow cell may hand out its own float dtype."""
    own = {"fp16": "float16", "bf16": "bfloat16"}.get(precision.name)
    for t, y in zip(truth, got, strict=True):
        said = ""
        if t.shape != y.shape:
            said = f"shape {list(y.shape)} where the source gives {list(t.shape)}"
        elif y.dtype.name not in {dtype, own} and not (dtype == "bfloat16" and y.dtype.name == "float32"):
            said = f"dtype {y.dtype.name} where the source gives {dtype}"
        if said:
            return OutputParity(name, Outcome.FAILED, FailureKind.CONTRACT, f"Output '{name}' has {said}.")
    return None


def accuracy(labels: np.ndarray, outputs: Sequence[np.ndarray]) -> float:
    """The share of rows whose largest class is the label's; ``outputs`` are [rows, class] per feed."""
    import numpy as np

    decided = np.concatenate([o.argmax(-1).ravel() for o in outputs])
    return float(np.mean(decided == labels.ravel()[: decided.size]))


def with_accuracy(
    verdict: Verdict, labels: np.ndarray, truths: Sequence[np.ndarray], got: Sequence[np.ndarray]
) -> Verdict:
    """The verdict with the accuracy on labelled data in its statement; a loss above the limit fails.

    A loss is judged from ``FEWEST_LABELLED`` rows on: below that one changed row is already more.
    """
    before, after = accuracy(labels, truths), accuracy(labels, got)
    statement = {**verdict.statement, "accuracy_source": before, "accuracy": after, "labelled_rows": int(labels.size)}
    if verdict.passed and labels.size >= FEWEST_LABELLED and before - after > ACCURACY_LOSS:
        sentence = (
            f"Accuracy fell from {before:.2%} to {after:.2%} on {labels.size} labelled rows; "
            f"the limit is a loss of {ACCURACY_LOSS:.0%}."
        )
        return replace(
            verdict,
            outcome=Outcome.FAILED,
            failure_kind=FailureKind.ACCURACY,
            sentence=sentence,
            statement=statement,
        )
    return replace(verdict, statement=statement)


def _flips_of(own: float, limit: float) -> float:
    """The share of elements that ``limit`` times as much rounding changes as changes the share ``own``.

    In proportion where few change; never all of them: what each unit of rounding leaves is left by its multiples too.
    """
    return 1.0 - math.pow(1.0 - own, limit)


def allowed_flips(own: float, precision: Precision, size: int) -> int:
    """How many of ``size`` integers may differ where rounding at the precision changes the share ``own`` of them.

    Where the source itself flips, one element more is no evidence in a small batch.
    """
    return math.ceil(_flips_of(own, precision.limit) * size)


def judge_exact(
    name: str, truth: list[np.ndarray], got: list[np.ndarray], noise: Mapping[str, Noise], precision: Precision
) -> OutputParity:
    """Integers and booleans are exact, except as far as the source's own change at the asked precision."""
    size = size_of(got)
    changed = sum(int((t != y).sum()) for t, y in zip(truth, got, strict=True))
    flips = changed / size if size else 0.0
    floor = noise.get(precision.yardstick)
    allowed = allowed_flips(floor.flips, precision, size) if floor else 0
    if floor and floor.flips >= NOTHING_LEFT:
        sentence = (
            f"Output '{name}' ({got[0].dtype.name}) cannot be judged: the source itself gives other values in "
            f"{floor.flips:.2%} of its elements at {precision.yardstick} than in float64."
        )
        return OutputParity(name, Outcome.INCONCLUSIVE, None, sentence, flips=flips, elements=size)
    if changed <= allowed:
        sentence = f"Output '{name}' is equal in every element."
        if changed:
            sentence = (
                f"Output '{name}' differs in {flips:.2%} of its elements; the source itself does at {precision.name}."
            )
        return OutputParity(name, Outcome.PASSED, None, sentence, flips=flips, elements=size)
    sentence = (
        f"Output '{name}' ({got[0].dtype.name}) must be exact and differs in {changed} of {size} elements; "
        f"rounding at {precision.yardstick} explains {allowed or 'none'}."
    )
    return OutputParity(name, Outcome.FAILED, FailureKind.NUMERIC, sentence, flips=flips, elements=size)
