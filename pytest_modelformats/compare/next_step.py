"""The next step behind every verdict that is not a pass: what a person who got a red cell does first.

A verdict's sentence says what was measured and what rounding explains; here it gets its last
part. One table, so that the page docs/verdict.md and the sentences cannot part.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_modelformats.schema import FailureKind, Outcome

if TYPE_CHECKING:
    from pytest_modelformats.schema import Verdict

_FAILED = Outcome.FAILED
# By outcome, kind and check; the check "" is any other.
STEPS: dict[tuple[Outcome, FailureKind | None, str], str] = {
    (_FAILED, FailureKind.CONTRACT, ""): (
        "export with the source's names, dtypes and dynamic dimensions, or correct --mf-input where it is the source "
        "that is described wrongly."
    ),
    (_FAILED, FailureKind.NUMERIC, ""): (
        "find the operator or weight that changed (the report names it where it can), and convert again without the "
        "optimisation or option behind it."
    ),
    (_FAILED, FailureKind.NUMERIC, "batch"): (
        "look for the example's batch size baked into the graph, and export with dynamic shapes."
    ),
    (_FAILED, FailureKind.NUMERIC, "determinism"): (
        "look for state kept between calls, memory that is read before it is written, or an autotuner; repeat with "
        "--mf-threads 1."
    ),
    (_FAILED, FailureKind.NAN, ""): (
        "look for overflow (fp16 ends at 65504), a division by zero or the logarithm of zero in the converted model, "
        "and keep that operator in fp32."
    ),
    (_FAILED, FailureKind.DEGENERATE, ""): (
        "look for an input that is not connected, or a result that was folded into a constant from the example input."
    ),
    (_FAILED, FailureKind.PRECISION, ""): "keep the operators that lose it in fp32, or ship a finer precision.",
    (_FAILED, FailureKind.ACCURACY, ""): "ship a finer precision, or calibrate again on more and typical data.",
    (_FAILED, FailureKind.BUDGET, ""): (
        "measure longer (--mf-time-budget) on a quiet machine; if it stays, choose a faster cell or raise the budget."
    ),
    (_FAILED, FailureKind.REGRESSION, ""): "compare the versions of both runs, and repeat on a quiet machine.",
    (_FAILED, None, ""): (
        "open and run the artifact in the runtime alone; if it fails there too, report it to the runtime or converter."
    ),
    (Outcome.FALLBACK, None, ""): (
        "judge or ship it as what ran, or ask a backend or device that has what was asked for."
    ),
    (Outcome.CONVERT_ERROR, None, ""): (
        "convert by another route (--mf-all-routes) or opset (--mf-opset), or report the trace (-v) to the converter."
    ),
    (Outcome.CRASHED, None, ""): (
        "repeat this cell alone (-k with its id) and report the crash to the runtime or converter; --mf-isolate none "
        "brings it under a debugger."
    ),
    (Outcome.TIMEOUT, None, ""): "allow more with --mf-timeout, or repeat this cell alone to see where it hangs.",
    (Outcome.OUT_OF_MEMORY, None, ""): "allow more with --mf-memory, or judge fewer samples (--mf-samples).",
    (Outcome.INCONCLUSIVE, None, ""): (
        "give inputs for which the model answers (--mf-data), or bounds of them (--mf-input)."
    ),
    **{
        (Outcome.INCONCLUSIVE, None, check): "measure longer (--mf-time-budget) on a quiet machine."
        for check in ("latency", "throughput", "comparison")
    },
}
_HEAD = " Next: "


def step(outcome: Outcome, kind: FailureKind | None, check: str = "") -> str:
    """What to do after this outcome of this check, "" after a pass and after what did not run."""
    keys = ((outcome, kind, check), (outcome, kind, ""), (outcome, None, ""))
    return next((STEPS[key] for key in keys if key in STEPS), "")


def with_step(sentence: str, outcome: Outcome, kind: FailureKind | None, check: str = "") -> str:
    """The sentence, ending in its next step; one that has it already stays as it is."""
    todo = step(outcome, kind, check)
    if not todo or _HEAD in sentence:
        return sentence
    # What a sentence says of it in its own last words is not said twice.
    sentence = sentence.removesuffix(f"{todo[0].upper()}{todo[1:]}")
    return f"{sentence.rstrip()}{'' if sentence.rstrip().endswith(('.', '!', '?')) else '.'}{_HEAD}{todo}"


def advised(verdict: Verdict, check: str) -> Verdict:
    """The verdict of a check, its sentence ending in the next step where it is not a pass."""
    return replace(verdict, sentence=with_step(verdict.sentence, verdict.outcome, verdict.failure_kind, check))
