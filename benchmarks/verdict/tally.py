"""The counts of the benchmark, made from its plain lines; nothing is rounded and nothing printed here."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.page import Target
from benchmarks.verdict.graded import PREFIX
from benchmarks.verdict.rules import RULES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    Line = dict[str, Any]

OURS = "pytest-modelformats"
RATIO, SHIPPED = "dynamo's ratio, k = 2", "dynamo same(), as shipped"
SIZES = ((0.0, 1.0), (1.0, 2.0), (2.0, 4.0), (4.0, 8.0), (8.0, 16.0), (16.0, 256.0), (256.0, math.inf))
CAUGHT, ACCUSED, CELLS, FIRST = 0.99, 0.001, 1000, 0.90


@dataclass(frozen=True, slots=True)
class Share:
    """So many of so many."""

    part: int
    whole: int

    @property
    def value(self) -> float:
        """The share; 0 of nothing is 0."""
        return self.part / self.whole if self.whole else 0.0

    def __str__(self) -> str:
        """Write ``part of whole (per cent)``."""
        return f"{self.part} of {self.whole} ({self.value:.2%})" if self.whole else "none"


def graded(found: Line) -> list[Line]:
    """The faults that are there for their size; no target counts them."""
    return [line for line in found["cases"] if line["fault"].startswith(PREFIX)]


def of_classes(found: Line) -> list[Line]:
    """The faults of the benchmark's classes."""
    return [line for line in found["cases"] if not line["faithful"] and not line["fault"].startswith(PREFIX)]


def effective(found: Line) -> list[Line]:
    """The faults that change the function in float64 by more than one fp32 rounding unit of the output's scale."""
    return [line for line in of_classes(found) if line["effective"]]


def beyond_noise(line: Line) -> bool:
    """Whether the change is at least as large as what fp32 rounding costs, or no matter of size: integers, shapes."""
    return line["size"] is None or bool(line["what"]) or line["size"] >= 1


def faithful(found: Line) -> list[Line]:
    """The faithful cells: conversions, and edits that change nothing; without the true fallbacks."""
    edits = [{**line, "precision": "fp32", "cell": line["stem"]} for line in found["cases"] if line["faithful"]]
    return [*[line for line in found["faithful"] if line["judged"] and not line["true_fallback"]], *edits]


def fallbacks(found: Line) -> list[Line]:
    """The faithful cells at which another precision than the asked one ran, and the product said so."""
    return [line for line in found["faithful"] if line["true_fallback"]]


def accused_without_effect(found: Line) -> list[Line]:
    """Faults that were caught and have no effect on the benchmark's own inputs: the inputs of one side were too few."""
    return [line for line in of_classes(found) if not line["effective"] and line["caught"]]


def rejects(rule: str) -> Callable[[Line], bool]:
    """Whether a rule rejects a line's outputs; where there are no outputs, every rule notices."""

    def rejected(line: Line) -> bool:
        if rule == OURS:
            return bool(line["caught"])
        return line["rules"] is None or not line["rules"][rule]

    return rejected


def share(lines: Iterable[Line], test: Callable[[Line], bool]) -> Share:
    """How many of the lines pass the test."""
    kept = list(lines)
    return Share(sum(test(line) for line in kept), len(kept))


def by_rule(found: Line) -> dict[str, tuple[Share, Share, Share, Share | None]]:
    """Per rule: caught beyond noise, caught of all effective, falsely accused at fp32, at every precision."""
    faults, cells = effective(found), faithful(found)
    large = [line for line in faults if beyond_noise(line)]
    # Without an output nothing can be said of a rule; a faithful cell without one is the product's own failure.
    fp32 = [line for line in cells if line["precision"] == "fp32"]
    return {
        rule: (
            share(large, rejects(rule)),
            share(faults, rejects(rule)),
            share(_with_rules(fp32, rule), rejects(rule)),
            _everywhere(cells, rule),
        )
        for rule in (OURS, *RULES)
    }


def _everywhere(cells: Sequence[Line], rule: str) -> Share | None:
    """False alarms over all precisions; dynamo's ratio is taken at each cell's own, as its users do."""
    if rule == SHIPPED:
        return None
    if rule == RATIO:
        return share((c for c in cells if c["noise_ratio"] is not None), lambda c: c["noise_ratio"] > 2)  # noqa: PLR2004 - its k
    return share(_with_rules(cells, rule), rejects(rule))


def _with_rules(lines: Sequence[Line], rule: str) -> list[Line]:
    return [line for line in lines if rule == OURS or line["rules"] is not None]


def by_size(lines: Iterable[Line], rule: str = OURS) -> dict[tuple[float, float], Share]:
    """Detection by the size of the change, in units of fp32 rounding noise; what has no size is left out."""
    sized = [line for line in lines if line["size"] is not None and not line["what"]]
    return {(low, high): share((f for f in sized if low <= f["size"] < high), rejects(rule)) for low, high in SIZES}


def by_class(found: Line) -> dict[str, dict[str, Any]]:
    """Per fault class: cases, effective and caught ones per form, and the smallest size that was caught."""
    classes: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(line["fault"] for line in of_classes(found)):
        lines = [line for line in found["cases"] if line["fault"] == name]
        row: dict[str, Any] = {"cases": len(lines), "architectures": len({line["architecture"] for line in lines})}
        for form in ("onnx", "torchscript"):
            row[form] = share((e for e in lines if e["form"] == form and e["effective"]), lambda e: e["caught"])
        row["smallest"] = min((e["size"] for e in lines if e["effective"] and e["caught"] and e["size"]), default=None)
        classes[name] = row
    return classes


def missed(found: Line) -> list[Line]:
    """The effective faults that were not caught, the largest first."""
    return sorted(
        (line for line in effective(found) if not line["caught"]),
        key=lambda line: -math.inf if line["size"] is None else -line["size"],
    )


def localisation(found: Line) -> dict[str, Any]:
    """Of the caught faults with a place: how near the named node was, in edges; and what it took."""
    lines = [line for line in effective(found) if line["caught"] and line["node"]]
    at = [line["located"] for line in lines]
    named = [place for place in at if place not in ("not located", None)]
    distances = sorted({place for place in named if isinstance(place, int)})
    taken = [line["localisation"] for line in lines if line["localisation"]]
    return {
        "first": Share(named.count(0), len(named)),
        "named": Share(len(named), len(at)),
        "distances": {distance: named.count(distance) for distance in distances},
        "elsewhere": named.count("elsewhere"),
        "seconds": max((t["seconds"] for t in taken if t.get("seconds") is not None), default=None),
        "peak_ratio": max((t["peak_ratio"] for t in taken if t.get("peak_ratio") is not None), default=None),
    }


def targets(found: Line) -> list[Target]:
    """The targets, each with what was found; a part that was not run has none."""
    made = []
    if found["cases"]:
        caught = share((line for line in effective(found) if beyond_noise(line)), lambda line: line["caught"])
        made.append(Target(f"at least {CAUGHT:.0%} of effective faults caught", str(caught), caught.value >= CAUGHT))
        place = localisation(found)
        said = str(place["first"]) if place["first"].whole else "the product names no places"
        met = place["first"].value >= FIRST
        made.append(Target(f"the faulty operator named first in at least {FIRST:.0%} of the located ones", said, met))
    accused = share(faithful(found), lambda line: line["caught"])
    made.append(Target(f"at most {ACCUSED:.1%} false alarms", str(accused), accused.value <= ACCUSED))
    made.append(Target(f"at least {CELLS} faithful cells", str(accused.whole), accused.whole >= CELLS))
    return made
