"""One fault of many sizes, for the power of the verdict near the rounding: a weight moved by a share of itself.

The classes of the benchmark are mistakes that are made; nearly all of them are hundreds of times larger
than rounding. These are not made by anybody: they are the scale that shows where detection ends. They are
counted by size alone, and no target looks at them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.verdict.faults_weights import one_element
from benchmarks.verdict.graph_edits import Fault

if TYPE_CHECKING:
    import random

    from benchmarks.verdict.graph_edits import Graph

PREFIX = "graded: "
# From what rounds away to what every rule sees, evenly on a log scale.
EXPONENTS = tuple(range(6, 21))


def _moved(exponent: int) -> Fault:
    def inject(graph: Graph, random: random.Random) -> str:
        """One weight is larger by 2^-exponent of itself."""
        node, index, value = random.choice(graph.weights())
        graph.set_own_constant(node, index, one_element(value, random, lambda v: v * (1 + 2.0**-exponent)))
        return str(node.name)

    return Fault(f"{PREFIX}one weight moved by 2^-{exponent}", inject)


CLASSES: dict[str, Fault] = {fault.name: fault for fault in map(_moved, EXPONENTS)}
