"""What the runtime itself states about what ran, beside what the error says of it.

A session may state, per operator, the precision and the device that ran it (``Node``). The
statement proves nothing by itself: it is set beside the measured error, and where the two
cannot both be true the contradiction is said in one sentence.

What is no contradiction: an fp16 artifact that the runtime computes in fp32 between casts
(its weights are rounded to fp16, and that is the error); a mixture of precisions, for an
error between the finest and the coarsest of them; an error of which the stated precision
explains all; quantised operators, whose error is not one of rounding.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pytest_modelformats.compare.floating import FAITHFUL_LOW
from pytest_modelformats.compare.verdict import of_outputs
from pytest_modelformats.schema import PRECISIONS, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pytest_modelformats.compare.noise import Noise
    from pytest_modelformats.schema import OutputParity, PlannedCell, Precision, Verdict

# How runtimes write their types, and the precision that each is.
TYPES = {
    **dict.fromkeys(("float", "float32", "f32"), "fp32"),
    **dict.fromkeys(("float16", "f16", "half"), "fp16"),
    **dict.fromkeys(("bfloat16", "bf16"), "bf16"),
    **dict.fromkeys(("double", "float64", "f64"), "fp64"),
    **dict.fromkeys(("int8", "uint8", "i8", "u8"), "int8"),
}
# They move or rename values: their dtype and place say nothing about the arithmetic.
MOVES = frozenset(
    {
        *("Cast", "Convert", "Reorder", "ReorderInput", "ReorderOutput", "MemcpyFromHost", "MemcpyToHost"),
        *("Const", "Constant", "ConstantOfShape", "Input", "Output", "Parameter", "Result", "Memory", "Identity"),
        *("Concat", "Expand", "Flatten", "Gather", "Pad", "Range", "Reshape", "Shape", "ShapeOf", "Slice", "Split"),
        *("Squeeze", "Tile", "Transpose", "Unsqueeze"),
    }
)
# How many operators of a device a sentence names.
_NAMED = 3


@dataclass(frozen=True, slots=True)
class Node:
    """One executed operator; ``precision`` is "" where it computes no floating-point or quantised values."""

    operator: str
    precision: str
    device: str


def tally(nodes: Iterable[Node], source: str) -> dict[str, Any]:
    """The statement: how many computing operators ran at which precision and on which device.

    ``precision`` is that of most of them; ``placement`` counts operators by device and kind.
    Operators that only move values, and integer arithmetic on shapes, are left out.
    """
    precisions: Counter[str] = Counter()
    placement: dict[str, Counter[str]] = {}
    for node in nodes:
        if node.precision and node.operator not in MOVES:
            precisions[node.precision] += 1
            placement.setdefault(node.device, Counter())[node.operator] += 1
    most = max(precisions, key=lambda p: (precisions[p], p), default="")
    return {
        "source": source,
        "counted": "operators",
        "precision": most,
        "precisions": dict(sorted(precisions.items())),
        "devices": {device: sum(kinds.values()) for device, kinds in sorted(placement.items())},
        "placement": {device: dict(kinds.most_common()) for device, kinds in sorted(placement.items())},
    }


def examined(
    verdict: Verdict, execution: Mapping[str, Any], planned: PlannedCell, noise: Mapping[str, Sequence[Noise]]
) -> Verdict:
    """The verdict with the runtime's statement beside it.

    Operators that ran on another device than the cell's make a pass a fallback. A fallback's
    sentence says whether the runtime admits it.
    """
    verdict = replace(
        verdict,
        execution=dict(execution),
        contradiction=contradiction(verdict.outputs, execution, planned.artifact_precision, noise),
    )
    elsewhere = misplaced(execution, planned.cell.device)
    if elsewhere and verdict.outcome in {Outcome.PASSED, Outcome.FALLBACK}:
        said = elsewhere if verdict.passed else _with(verdict.sentence, elsewhere.partition(" Next:")[0])
        return replace(verdict, outcome=Outcome.FALLBACK, sentence=said)
    if verdict.outcome is not Outcome.FALLBACK:
        return verdict
    ran = {o.effective_precision for o in verdict.outputs if o.outcome is Outcome.FALLBACK}
    if verdict.contradiction:
        return replace(verdict, sentence=_with(verdict.sentence, verdict.contradiction))
    if execution.get("precision") in ran and _stated(execution) not in verdict.sentence:
        return replace(verdict, sentence=_with(verdict.sentence, f"The runtime states {_stated(execution)} as well."))
    return verdict


def coarser(execution: Mapping[str, Any], asked: Precision, noise: Mapping[str, Sequence[Noise]]) -> str:
    """The precision that the runtime states for most of its operators where it is coarser than the asked one, else "".

    By it a cell is judged that fails at the asked one: a saturated output hides from the samples which of them ran.
    """
    most = str(execution.get("precision") or "")
    if most not in PRECISIONS or most not in noise or _bits(most) >= asked.mantissa_bits:
        return ""
    return most


def as_asked(verdict: Verdict, execution: Mapping[str, Any], ran: str, asked: Precision) -> Verdict:
    """What did not fail at the precision that ran by the runtime's own word, for the one asked for: it fell back."""
    said = f"asked for {asked.name}, and the runtime states {_stated(execution)}"

    def sentence(output: OutputParity) -> str:
        if output.outcome is Outcome.INCONCLUSIVE:
            what = output.sentence.partition(" Next: ")[0].partition(": ")[2]
            return f"Output '{output.name}': {said}; {what} Next: judge or ship it as {ran}."
        head = f"Output '{output.name}': {said}"
        if output.error_rms is not None and output.noise_ratio is not None and output.noise_rms is not None:
            head += (
                f"; the error {output.error_rms:.2g} rms is {output.noise_ratio:.2g} × what rounding at {ran} explains "
                f"({output.noise_rms:.2g})"
            )
        return f"{head}. Next: judge or ship it as {ran}, or ask a backend that has {asked.yardstick}."

    outputs = tuple(
        replace(o, outcome=Outcome.FALLBACK, sentence=sentence(o), effective_precision=ran)
        if o.noise_rms is not None
        else o
        for o in verdict.outputs
    )
    worst = max((o for o in outputs if o.outcome is Outcome.FALLBACK), key=lambda o: o.noise_ratio or 0.0, default=None)
    if worst is None:  # nothing but whole numbers and fixed tolerances: no precision is judged
        return verdict
    return replace(verdict, outcome=Outcome.FALLBACK, sentence=worst.sentence, outputs=outputs)


def with_wider_sums(verdict: Verdict, execution: Mapping[str, Any], asked: Precision) -> Verdict:
    """A fallback passed, where errors are smaller than the asked precision's and the runtime states that it ran.

    A small error is no proof of another precision: runtimes keep sums in fp32, fuse operators and round once. What most
    operators ran counts: a softmax that is kept in fp32 is no other precision.
    """
    most = str(execution.get("precision") or "")
    fell = [o for o in verdict.outputs if o.outcome is Outcome.FALLBACK]
    finer = fell and all(_bits(o.effective_precision) > asked.mantissa_bits for o in fell)
    if not finer or most not in PRECISIONS or _bits(most) > asked.mantissa_bits:
        return verdict

    def sentence(output: OutputParity) -> str:
        return (
            f"Output '{output.name}': error {output.error_rms:.2g} rms is {output.noise_ratio:.2g} × what rounding at "
            f"{asked.yardstick} explains ({output.noise_rms:.2g}), and the runtime states {_stated(execution)}: it "
            "rounds less often than the source does. It is the same model."
        )

    outputs = tuple(
        replace(o, outcome=Outcome.PASSED, sentence=sentence(o), effective_precision=asked.yardstick)
        if o in fell
        else o
        for o in verdict.outputs
    )
    return replace(of_outputs(outputs), statement=verdict.statement)


def _with(sentence: str, more: str) -> str:
    """The sentence with one more before its next step."""
    said, head, step = sentence.partition(" Next: ")
    return f"{said} {more}{head}{step}"


def contradiction(
    outputs: Sequence[OutputParity],
    execution: Mapping[str, Any],
    artifact_precision: str,
    noise: Mapping[str, Sequence[Noise]],
) -> str:
    """One sentence where the statement and the error cannot both be true, "" where they can.

    They cannot where the error is of a precision coarser than every stated one and more than
    the coarsest of these explains, or of a finer one and a small part of what the finest makes.
    Judged for outputs whose error is rounding (passed, fallback); a wrong model has no precision.
    """
    stated_ones = _stated_precisions(execution)
    if not stated_ones:
        return ""
    # Rounded weights make an error of their own, whatever the arithmetic.
    artifact = PRECISIONS.get(artifact_precision, PRECISIONS["fp32"]).yardstick
    coarsest, finest = min({*stated_ones, artifact}, key=_bits), max(stated_ones, key=_bits)
    for index, output in enumerate(outputs):
        measured = output.effective_precision
        rounding = output.outcome in {Outcome.PASSED, Outcome.FALLBACK}
        # Rounded weights are the file's: whatever the arithmetic is, it computes with them.
        if not rounding or measured not in PRECISIONS or output.error_rms is None or _of_weights(measured):
            continue
        error, floor = output.error_rms, {p: values[index].rms for p, values in noise.items()}
        too_large = (
            coarsest in floor
            and _bits(measured) < _bits(coarsest)
            and error > PRECISIONS[coarsest].limit * floor[coarsest]
        )
        too_small = finest in floor and _bits(measured) > _bits(finest) and error < FAITHFUL_LOW * floor[finest]
        if too_large or too_small:
            stated = coarsest if too_large else finest
            ratios = " and ".join(f"{_times(error, floor[p])} {p}'s" for p in (stated, measured) if p in floor)
            return (
                f"The runtime states {_stated(execution)}, yet the error of output '{output.name}' is {ratios} "
                "rounding: the two contradict each other. Believe the error; the statement is one to report."
            )
    return ""


def misplaced(execution: Mapping[str, Any], device: str) -> str:
    """One sentence where operators ran on another device than the asked one, "" where none did."""
    devices = dict(execution.get("devices") or {})
    others = {name: count for name, count in devices.items() if name != device and count}
    if not others:
        return ""
    total = sum(devices.values())
    parts = []
    for name, count in others.items():
        kinds = dict((execution.get("placement") or {}).get(name, {}))
        shown = ", ".join(list(kinds)[:_NAMED]) + (", …" if len(kinds) > _NAMED else "")
        parts.append(
            f"{count} of {total} {execution.get('counted', 'operators')} are on {name}"
            + (f" ({shown})" if shown else "")
        )
    return (
        f"Asked for {device}, and the runtime states that {' and '.join(parts)}. Next: replace the operators that "
        f"{device} lacks, or ask for {' or '.join(others)}."
    )


def _stated_precisions(execution: Mapping[str, Any]) -> set[str]:
    """The stated precisions whose rounding is known; none where one of them is not."""
    counts = execution.get("precisions") or {}
    stated = {"fp32" if name == "fp64" else name for name, count in counts.items() if count}
    return stated if stated <= set(PRECISIONS) else set()


def _of_weights(precision: str) -> bool:
    return PRECISIONS[precision].weights_only


def _bits(precision: str) -> int:
    return PRECISIONS[precision].mantissa_bits


def _stated(execution: Mapping[str, Any]) -> str:
    """``fp32 for all of its 12 operators (profile)``, or how many of them have which precision."""
    counts = execution.get("precisions") or {}
    unit = f"{execution.get('counted', 'operators')} ({execution.get('source') or 'its own word'})"
    if len(counts) == 1:
        return "".join(f"{name} for all of its {count} {unit}" for name, count in counts.items())
    return f"{' and '.join(f'{name} for {count}' for name, count in counts.items())} of its {unit}"


def _times(error: float, floor: float) -> str:
    ratio = error / floor if floor else math.inf
    return f"{ratio:.3g} ×" if math.isfinite(ratio) else "infinitely many times"
