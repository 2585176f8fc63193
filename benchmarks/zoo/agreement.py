"""Where the product's verdict and the second opinion agree, where they do not, and what was not judged."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.page import Target

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

REAL_MODELS, REAL_PACKAGES = 20, 12
HALVES = ("fp16", "bf16", "fp16-weights")
JUDGED = ("passed", "failed", "fallback")
# What stands in a sentence when something of ours broke.
INTERNAL = re.compile(
    r"\b(?:KeyError|AxisError|IndexError|AttributeError|TypeError|AssertionError|NotImplementedError|UnboundLocalError|"
    r"ZeroDivisionError|RecursionError|Traceback)\b|because (?:\w+\.)*\w*(?:Error|Exception):"
)
FULL = {
    "fp32": {"f32", "fp32", ""},
    "fp16": {"f16", ""},
    "bf16": {"bf16", ""},
    "fp16-weights": {"f32", ""},
    "default": {"f32", ""},
}


@dataclass(frozen=True, slots=True)
class Line:
    """One cell: model, lane, verdict, second opinion, and the word for the two together."""

    model: str
    lane: str
    outcome: str
    opinion: str
    word: str
    why: str
    ratio: float | None
    precision: str


def lines(found: Iterable[Mapping[str, Any]]) -> list[Line]:
    """Every cell of every model that was to run."""
    return [_line(model, cell, said) for model in found for cell, said in model["cells"].items()]


def _line(model: Mapping[str, Any], cell: str, said: Mapping[str, Any]) -> Line:
    opinion = model["opinions"].get(cell) or {"word": "none", "why": "no artifact", "ran": ""}
    outcome = said.get("outcome", "not-judged")
    parity = said["checks"].get("parity", {})
    checks = sorted(said["checks"].items(), key=lambda pair: pair[1]["outcome"] != outcome)  # what decided it first
    red = [f"{name}: {check['sentence']}" for name, check in checks if check["outcome"] != "passed"]
    word = _word(outcome, opinion, said["precision"], parity.get("outcome", ""))
    why = f"{opinion['why']}; {red[0] if red else ''}".strip("; ")
    lane = f"{said['format']}-{said['precision']}-{said['backend']}"
    return Line(model["name"], lane, outcome, opinion["word"], word, why, parity.get("noise_ratio"), said["precision"])


def _word(outcome: str, opinion: Mapping[str, Any], precision: str, parity: str) -> str:
    """``agree``, ``false pass``, ``unchecked`` (passed without parity), ``false alarm``, ``open`` or ``unjudged``."""
    able = opinion["word"] in {"same", "destroyed"}
    if outcome == "passed" and parity != "passed":
        return "unchecked"
    if not able or outcome not in JUDGED:
        return "unjudged" if able else "open"
    # a fallback is true where the runtime itself states another precision
    stated = outcome == "fallback" and opinion.get("ran", "") not in FULL[precision]
    if (outcome == "passed") == (opinion["word"] == "same") or stated:
        return "agree"
    return "false pass" if outcome == "passed" else "false alarm"


def targets(found: list[Mapping[str, Any]]) -> list[Target]:
    """The goals of the zoo."""
    every = lines(found)
    words = Counter(line.word for line in every)
    alarmed = {line.model for line in every if line.word == "false alarm"}
    able = [line for line in every if line.opinion in {"same", "destroyed"}]
    judged = sum(line.outcome in JUDGED for line in able)
    internal = [cell for model in found for cell in _internal(model)]
    real = [model for model in found if model.get("truth") in {"native", "lifted", "upcast"}]
    packages = {model["package"] for model in found if model["package"]}
    enough = sum(bool(m["package"]) for m in found) >= REAL_MODELS and len(packages) >= REAL_PACKAGES
    size = f"{sum(bool(m['package']) for m in found)} of {len(packages)}"
    destroyed, unchecked = words["false pass"], words["unchecked"]
    return [
        Target("cells passed that the second opinion calls destroyed: 0", str(destroyed), not destroyed),
        Target("cells passed without parity: 0", str(unchecked), not unchecked),
        _share("false alarms, of all cells: at most 1 %", words["false alarm"], len(every), 0.01),
        _share("models with a false alarm: at most 2 %", len(alarmed), len(found), 0.02),
        _share("judged, of what the second opinion can judge: at least 97 %", judged, len(able), 0.97, least=True),
        Target("sentences with an internal exception: 0", str(len(internal)), not internal),
        _share("models whose truth is real float64: at least 95 %", len(real), len(found), 0.95, least=True),
        Target("real models: at least 20 of 12 packages", size, enough),
    ]


def _share(what: str, part: int, whole: int, limit: float, *, least: bool = False) -> Target:
    share = part / whole if whole else 0.0
    met = bool(whole) and (share >= limit if least else share <= limit)
    return Target(what, f"{part} of {whole} ({share:.1%})", met)


def _internal(model: Mapping[str, Any]) -> Iterator[str]:
    for cell, said in model["cells"].items():
        if any(INTERNAL.search(check["sentence"] or "") for check in said["checks"].values()):
            yield cell


def causes(found: list[Mapping[str, Any]]) -> Counter[tuple[str, str]]:
    """The cells that were not judged, by outcome and by their sentence without names and numbers."""
    counted: Counter[tuple[str, str]] = Counter()
    for model in found:
        for said in model["cells"].values():
            outcome = said.get("outcome", "not-judged")
            if outcome in JUDGED:
                continue
            first = next((c["sentence"] for c in said["checks"].values() if c["outcome"] == outcome), "no sentence")
            plain = re.sub(r"'[^']*'", "'…'", (first or "no sentence").replace(model["name"], "…"))
            counted[outcome, re.sub(r"\d[\d.e+-]*", "…", plain)[:140]] += 1
    return counted


def usable(found: Iterable[Mapping[str, Any]]) -> list[tuple[str, str, int, int, int, int]]:
    """Which number of dB tells what is the same from what is destroyed, of the half precisions, by half and precision.

    Rows: half, precision, cells that are the same by the second opinion and those of them below ``USABLE_DB`` by the
    product's own measure, cells that are destroyed and those of them from there on.
    """
    from pytest_modelformats.compare.usability import USABLE_DB

    counts: Counter[tuple[str, str, str, bool]] = Counter()
    for model in found:
        for cell, said in model["cells"].items():
            kept = said["checks"].get("parity", {}).get("signal_db")
            word = (model["opinions"].get(cell) or {}).get("word")
            if kept is not None and word in {"same", "destroyed"} and said["precision"] in HALVES:
                counts[half(model["name"]), said["precision"], word, kept >= USABLE_DB] += 1
    keys = sorted({(h, p) for h, p, _, _ in counts})
    return [
        (
            *(h, p),
            *(counts[h, p, "same", True] + counts[h, p, "same", False], counts[h, p, "same", False]),
            *(counts[h, p, "destroyed", True] + counts[h, p, "destroyed", False], counts[h, p, "destroyed", True]),
        )
        for h, p in keys
    ]


def half(name: str) -> str:
    """The half that an architecture is in: rules are fitted on ``fit`` and reported on ``report``."""
    return "fit" if hashlib.sha256(name.encode()).digest()[0] % 2 == 0 else "report"
