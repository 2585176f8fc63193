"""The subject of the laws that need no reference: a cell, its inputs and whom to ask."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_modelformats.compare import between_runs, row_noise
from pytest_modelformats.errors import ConvertError, RunError, Unsupported
from pytest_modelformats.schema import Outcome, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

    from pytest_modelformats.compare.floating import Tolerance
    from pytest_modelformats.run.cells import Cells
    from pytest_modelformats.run.models import Models
    from pytest_modelformats.schema import PlannedCell, Precision, TensorSpec

    Feed = Mapping[str, np.ndarray]

ROWS = max(between_runs.BATCHES)
# Batches that the batch check has run before: a runtime that compiles per shape compiles nothing anew.
PAIR = 2
TRIPLE = 3

BIT_EQUAL = "the same bits"

# What the source itself cannot do with a batch is asked of no cell.
REFUSED = (Unsupported, ConvertError, RunError)


@dataclass(frozen=True, slots=True)
class Subject:
    """A cell whose runs are compared with one another, at the precision that runs in it."""

    planned: PlannedCell
    models: Models
    cells: Cells
    precision: Precision
    tolerances: Mapping[str, Tolerance] = field(default_factory=dict)

    @property
    def model(self) -> str:
        """The model's name."""
        return self.planned.cell.model

    @property
    def names(self) -> list[str]:
        """The outputs' names."""
        return [spec.name for spec in self.models.description(self.model).outputs]

    @property
    def batched(self) -> list[int]:
        """The outputs whose first dimension is the batch, by number."""
        symbol = self.models.samples(self.model).batch_symbol
        outputs = self.models.description(self.model).outputs
        return [i for i, spec in enumerate(outputs) if spec.shape is not None and symbol in spec.shape[:1]]

    @property
    def specs(self) -> tuple[TensorSpec, ...]:
        """The inputs."""
        return self.models.description(self.model).inputs

    def rows(self, start: int, stop: int) -> Feed:
        """Rows of the samples, as a feed."""
        return self.models.rows(self.model, start, stop)

    def run(self, feed: Feed, which: str = "first") -> list[np.ndarray]:
        """The cell's outputs for one feed."""
        return self.cells.run(self.planned, feed, which)

    def agree(
        self, one: Sequence[np.ndarray], other: Sequence[np.ndarray], outputs: Sequence[int] | None = None
    ) -> Verdict:
        """Whether two results are the same bits, or no more than rounding apart; ``outputs`` limits it to some."""
        if between_runs.bit_equal(one, other):
            return Verdict(Outcome.PASSED, None, BIT_EQUAL)
        chosen = range(len(self.names)) if outputs is None else outputs
        floors = row_noise.of_results(self.models.reference(self.model), one, chosen, self.precision.yardstick)
        names = [self.names[i] for i in chosen]
        return between_runs.between_runs(names, [one], [other], floors, self.precision, self.tolerances)


def together(verdicts: Mapping[str, Verdict], agreed: str) -> Verdict:
    """The first that did not pass; otherwise ``agreed``, and whether to the bit."""
    exact = all(v.sentence == BIT_EQUAL for v in verdicts.values())
    return between_runs.worst(verdicts, f"{agreed}, {'bit for bit' if exact else 'within what rounding explains'}.")


def shuffled(feed: Feed, seed: int) -> dict[str, np.ndarray]:
    """The same values in other places: other inputs of the same shape, range and size; seed 0 leaves them."""
    import numpy as np

    if not seed:
        return dict(feed)
    random = np.random.default_rng(seed)
    return {name: random.permutation(a.ravel()).reshape(a.shape) for name, a in feed.items()}
