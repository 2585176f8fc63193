"""A failure on stress rows once more: the rows, what is right there, and what each of them may be off by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_modelformats.compare import noise_profile, stress
from pytest_modelformats.schema import PRECISIONS, Outcome
from pytest_modelformats.source.samples import rows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

    from pytest_modelformats.checks.cell import Stages
    from pytest_modelformats.schema import PlannedCell, Verdict
    from pytest_modelformats.source.samples import Samples


@dataclass(frozen=True)
class Failure:
    """The stress rows of a model as a cell has failed on them.

    Shapes: ``truths`` and ``outputs`` are [feed][output]; ``limits`` [output], ``None`` of those that are not judged.
    """

    samples: Samples
    truths: Sequence[Sequence[np.ndarray]]
    outputs: Sequence[Sequence[np.ndarray]]
    limits: tuple[stress.RowLimits | None, ...]
    failed: tuple[bool, ...]


def failure(stages: Stages, planned: PlannedCell, verdict: Verdict) -> Failure | None:
    """The stress rows where it is they that a verdict failed on; nothing is run or evaluated that was not before."""
    if not stress.failed(verdict):
        return None
    model, precision = planned.cell.model, PRECISIONS[planned.cell.precision]
    samples, reference = stages.models.stress(model), stages.models.stress_reference(model, precision.yardstick)
    if samples is None or reference is None:
        return None
    feeds = samples.feeds
    outputs = stages.cells.once("stress", planned, lambda: [stages.cells.run(planned, feed) for feed in feeds])
    usual, limits = stages.models.reference(model), []
    fixed = stages._tolerances(planned)  # noqa: SLF001 - such an output is not judged by noise, on no rows
    for index, noise in enumerate(reference.noise[precision.yardstick]):
        own = 0.0 if verdict.outputs[index].name in fixed else usual.noise[precision.yardstick][index].rms
        ordinary = own, stress.truth_rms([t[index] for t in usual.truths])
        limits.append(stress.row_limits([t[index] for t in reference.truths], noise, ordinary, precision))
    failed = tuple(o.outcome is Outcome.FAILED for o in verdict.outputs)
    return Failure(samples, reference.truths, outputs, tuple(limits), failed)


def worst(found: Failure) -> tuple[Mapping[str, np.ndarray], tuple[np.ndarray, ...]]:
    """The row that is furthest off, and the source's float64 outputs for it: all rows of a batch that is fixed.

    No outputs are told where they cannot be cut to that row.
    """
    import numpy as np

    feed, row = _worst_row(found)
    truths = found.truths[feed]
    whole = all(isinstance(t, np.ndarray) for t in truths)
    if not found.samples.batch_symbol:
        return found.samples.feeds[feed], tuple(truths) if whole else ()
    count = found.samples.rows
    cut = whole and all(t.shape[:1] == (count,) for t in truths)
    return rows(found.samples, row, row + 1), tuple(t[row : row + 1] for t in truths) if cut else ()


def _worst_row(found: Failure) -> tuple[int, int]:
    """The numbers of a feed and of a row of the inputs in it."""
    import numpy as np

    furthest, place = -1.0, (0, 0)
    for index, limits in enumerate(found.limits):
        if limits is None or not found.failed[index]:
            continue
        truths, got = ([o[index] for o in outputs] for outputs in (found.truths, found.outputs))
        errors = np.array(noise_profile.by_row(truths, got))
        ratios = np.where(errors < 0, np.inf, errors / np.maximum(limits.noise, np.finfo(float).tiny))
        ratios = np.where(limits.judged, ratios, -1.0)
        if float(ratios.max()) > furthest:
            furthest, row = float(ratios.max()), int(ratios.argmax())
            # Of outputs with several rows to one of the inputs, these follow one another.
            inputs_row = row * found.samples.rows // ratios.size
            per_feed = max(found.samples.rows // len(found.samples.feeds), 1)
            place = inputs_row // per_feed, inputs_row % per_feed
    return place
