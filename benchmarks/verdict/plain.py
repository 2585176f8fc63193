"""What was found, as plain values: the lines of the benchmark's JSON, from which every table is made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.verdict.localised import located

if TYPE_CHECKING:
    from benchmarks.verdict.cases import Case
    from benchmarks.verdict.product import Judged

LOCALISATION = ("method", "node", "module", "operator", "seconds", "confirmed", "peak_bytes", "peak_ratio")
# OpenVINO's CPU plugin serves these as bf16 on processors that have its instructions.
BF16_INSTEAD = frozenset({"fp16", "default"})


def of_case(case: Case, judged: Judged) -> dict[str, Any]:
    """A candidate: the fault, its effect, what the product and the rules said, how near the place was named."""
    located_at = located(case, judged) if judged.caught and case.node else None
    said = judged.localisation or {}
    return {
        "stem": case.stem,
        "architecture": case.architecture,
        "form": case.form,
        "fault": case.fault,
        "faithful": case.faithful,
        "node": case.node,
        "effective": case.effect.effective,
        "relative": case.effect.relative,
        "size": case.effect.size,
        "what": case.effect.what,
        **_of(judged),
        "located": located_at,
        "localisation": {key: said[key] for key in LOCALISATION if key in said} or None,
    }


def of_cell(judged: Judged) -> dict[str, Any]:
    """A faithful cell: its precision and backend from its id, what was said of it, whether it is a true finding."""
    variant = judged.cell.rsplit("@", 1)[0].removesuffix("-torch-export") + (
        "+" if judged.cell.rsplit("@", 1)[0].endswith("-torch-export") else ""
    )
    backend = "torch-export" if variant.endswith("+") else variant.rsplit("-", 1)[1]
    rest = variant.rstrip("+") if backend == "torch-export" else variant.rsplit("-", 1)[0]
    precision = "fp16-weights" if rest.endswith("-fp16-weights") else rest.rsplit("-", 1)[1]
    cell = {"cell": judged.cell, "precision": precision, "backend": backend, **_of(judged)}
    return {**cell, "true_fallback": _true_fallback(cell)}


def _of(judged: Judged) -> dict[str, Any]:
    return {
        "caught": judged.caught,
        "judged": judged.judged,
        "outcomes": judged.outcomes,
        "sentence": judged.sentence,
        "noise_ratio": judged.noise_ratio,
        "point_ratio": judged.point_ratio,
        "effective_precision": judged.effective_precision,
        "rules": judged.rules,
    }


def _true_fallback(cell: dict[str, Any]) -> bool:
    """Whether the only finding is that OpenVINO served fp16 or its default as bf16, which it does on this CPU.

    Recognised by backend, asked precision, the one outcome ``fallback`` (of parity), and the precision that
    was measured: anything else about such a cell counts as a false alarm.
    """
    wrong = {check: outcome for check, outcome in cell["outcomes"].items() if outcome != "passed"}
    asked = cell["backend"] == "openvino" and cell["precision"] in BF16_INSTEAD
    return asked and wrong == {"parity": "fallback"} and cell["effective_precision"] == "bf16"
