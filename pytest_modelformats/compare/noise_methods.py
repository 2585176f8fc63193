"""The one word for how a floor was evaluated, from the line that a format says it with."""

from __future__ import annotations

# How a truth or a floor can come about, the most particular first; a line says its own word.
WORDS = ("perturbed", "rounded", "upcast", "native", "lifted")


def word(line: str) -> str:
    """``native``: the framework's own kernels ran; ``rounded``: at each operator inside an fp32 run.

    ``upcast`` and ``lifted``: in float64 (or fp32, of a narrower file); ``perturbed``: estimated
    by moving inputs and weights by one unit of rounding; ``estimated``: an fp32 run stands for
    the truth; ``stated``: the line of an outside format that says none of these words.
    """
    said, _, _reason = line.partition(" (")
    found = next((w for w in WORDS if w in said), "")
    return found or ("estimated" if said.startswith("estimated") else "stated")
