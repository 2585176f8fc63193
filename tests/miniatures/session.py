"""The faithful runtime: the miniature model in numpy, summed in the other order than the reference does."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from miniatures import mini, network
from pytest_modelformats.compare.stated_execution import Node, tally

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np

    from pytest_modelformats.schema import TensorSpec
    from pytest_modelformats.schema.contract import Feed, SessionJob

OPERATORS = ("Gemm", "Tanh", "Gemm", "Sigmoid")


@dataclass
class MiniatureSession:
    """An opened miniature; ``alter`` is what a fault does to the outputs."""

    model: dict[str, np.ndarray]
    precision: str
    inputs: tuple[TensorSpec, ...] = mini.INPUTS
    outputs: tuple[TensorSpec, ...] = mini.OUTPUTS
    statement: Mapping[str, Any] = field(default_factory=dict)
    alter: Callable[[list, Feed], list] = lambda outputs, feed: outputs
    # What it says it ran, where that is not the truth.
    stated_precision: str = ""
    stated_devices: tuple[str, ...] = ("cpu",)

    def run(self, feed: Feed) -> list[np.ndarray]:
        """Run once."""
        return self.alter(network.forward(self.model, feed["x"], self.precision, backwards=True), feed)

    def bind(self, feed: Feed) -> Callable[[], object]:
        """Hand the inputs over."""
        return lambda: self.run(feed)

    def execution(self, feed: Feed) -> dict[str, Any]:
        """State the four operators that compute, as they ran unless it is to lie."""
        precision = self.stated_precision or self.precision
        places = itertools.cycle(self.stated_devices)
        return tally([Node(kind, precision, next(places)) for kind in OPERATORS], "its own word")

    def close(self) -> None:
        """Let go of the weights."""
        self.model.clear()


def faithful(job: SessionJob) -> MiniatureSession:
    """Open the artifact and run it as asked."""
    return MiniatureSession(network.load(job.artifact), job.precision, statement={"precision": job.precision})
