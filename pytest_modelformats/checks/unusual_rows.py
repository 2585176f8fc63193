"""What fails on unusual rows alone: is it the graph that differs there, or a row on which rounding costs more?

A row of equal numbers in front of a normalisation divides the rounding of a mean by the square root of epsilon. The
source's own run may round nothing there (the mean of equal numbers is exact in one order of summing) and another
runtime's does, so the row's noise is no measure of it. Two questions, in this order:

1. Does the artifact's graph, evaluated in float64, give what the source gives? If not, it is another function, and the
   verdict stays. Of a graph that nobody evaluates in float64 (OpenVINO's) the runtime is asked beside the row instead:
   moved by 2^-12, equal numbers are equal no longer, and another epsilon shows.
2. If it does, what remains is the runtime's rounding. It is judged by the row's own conditioning: by what the source
   gives for copies of the row that are moved by one unit of rounding, in float64 (another order of summing is an error
   of few units in what goes in) and at the precision; and by what rounding costs the source beside the row, moved by
   2^-12. A sum of equal numbers rounds the same way at every step, in one order of summing not at all and in another
   by up to half a unit for each of them; beside the row no order is so lucky.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_modelformats.checks.subject import REFUSED
from pytest_modelformats.compare import noise_profile, second_look
from pytest_modelformats.compare.sampled import alike
from pytest_modelformats.compare.stress import failed, judge_stress

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

    from pytest_modelformats.compare.noise import Noise
    from pytest_modelformats.run.cells import Cells
    from pytest_modelformats.run.models import Models
    from pytest_modelformats.schema import PlannedCell, Precision, Verdict

    Feed = Mapping[str, np.ndarray]
    Outputs = Sequence[Sequence[np.ndarray]]

MOVES = 8


def settled(
    cells: Cells,
    models: Models,
    planned: PlannedCell,
    verdict: Verdict,
    judged: Verdict,
    pair: tuple[Outputs, Outputs],
    noise: Sequence[Noise],
    ordinary: Sequence[tuple[float, float]],
    precision: Precision,
) -> Verdict:
    """The verdict on the unusual rows, passed where the graph is the source there and rounding explains the rest.

    ``verdict`` is that of the ordinary rows, ``judged`` that of these. Shapes: ``pair`` are the truths and the
    outputs, [feed][output]; ``noise`` and ``ordinary`` are as ``judge_stress`` has them.
    """
    samples = models.stress(planned.cell.model)
    if not failed(judged) or samples is None:
        return judged
    truths, outputs = pair

    def passes(right: Outputs, got: Outputs, floors: Sequence[Noise]) -> bool:
        return judge_stress(verdict, *alike(right, got), floors, ordinary, precision).passed

    try:
        try:
            graph = _of_graph(cells, planned, samples.feeds)
            same = graph is None or passes(truths, graph, noise)
        except REFUSED:
            same = passes(*_beside(cells, models, planned, samples.feeds, noise, precision))
        if not same:
            return judged
        wider = _conditioning(models, planned.cell.model, samples.feeds, truths, noise, precision)
    except REFUSED:  # what cannot be asked explains nothing
        return judged
    again = judge_stress(verdict, truths, outputs, wider, ordinary, precision)
    return again if again.passed else judged


def _of_graph(cells: Cells, planned: PlannedCell, feeds: Sequence[Feed]) -> Outputs | None:
    """What the artifact's graph gives in float64, ``None`` where the source itself is what runs.

    Raises: one of REFUSED where it cannot be evaluated.
    """
    if not planned.chain and not planned.candidate_path:
        return None
    return cells.graph_in_float64(planned, feeds)


def _beside(
    cells: Cells,
    models: Models,
    planned: PlannedCell,
    feeds: Sequence[Feed],
    noise: Sequence[Noise],
    precision: Precision,
) -> tuple[Outputs, Outputs, list[Noise]]:
    """The truths, the runtime's outputs and the noise on the rows moved by 2^-12 of their size."""
    model = planned.cell.model
    usual, axes = models.samples(model).feeds[0], models.samples(model).batch_axes
    moved = [_moved(feed, usual, axes, second_look.MOVE, models.seed(model)) for feed in feeds]
    exact = models.evaluate(model, moved, "float64")
    rounded = models.evaluate(model, moved, precision.yardstick)
    outputs = [cells.run(planned, feed) for feed in moved]
    floors = [
        replace(own, rows=noise_profile.by_row([t[i] for t in exact], [r[i] for r in rounded])) if own.rows else own
        for i, own in enumerate(noise)
    ]
    return exact, outputs, floors


def _conditioning(
    models: Models,
    model: str,
    feeds: Sequence[Feed],
    truths: Outputs,
    noise: Sequence[Noise],
    precision: Precision,
) -> list[Noise]:
    """The noise of the rows, not below what moving them by one unit changes and costs, and by 2^-12 costs."""
    import numpy as np

    usual, axes = models.samples(model).feeds[0], models.samples(model).batch_axes
    unit = 2.0 ** -(precision.mantissa_bits + 1)
    moved = [_moved(feed, usual, axes, unit, seed) for feed in feeds for seed in range(MOVES)]
    exact = models.evaluate(model, moved, "float64")
    rounded = models.evaluate(model, moved, precision.yardstick)
    near = [_moved(feed, usual, axes, second_look.MOVE, models.seed(model)) for feed in feeds]
    beside = (models.evaluate(model, near, "float64"), models.evaluate(model, near, precision.yardstick))
    found = []
    for index, own in enumerate(noise):
        if truths[0][index].dtype.kind != "f" or not own.rows:
            found.append(own)
            continue
        rows = np.array(own.rows)
        total = np.zeros(rows.shape)
        for copy in range(MOVES):
            there = [exact[f * MOVES + copy][index] for f in range(len(feeds))]
            here = [rounded[f * MOVES + copy][index] for f in range(len(feeds))]
            change = np.array(noise_profile.by_row([t[index] for t in truths], there))
            cost = np.array(noise_profile.by_row(there, here))
            total += np.maximum(np.maximum(change, cost), 0.0) ** 2
        luckless = np.array(noise_profile.by_row(*([o[index] for o in outputs] for outputs in beside)))
        wide = np.where(rows < 0, rows, np.maximum(np.maximum(rows, luckless), np.sqrt(total / MOVES)))
        found.append(replace(own, rows=tuple(float(v) for v in wide)))
    return found


def _moved(feed: Feed, usual: Feed, axes: Mapping[str, Sequence[int]], unit: float, seed: int) -> dict[str, np.ndarray]:
    """The feed with every float moved by ``unit`` of its row's size, of rows of zeros of the usual size."""
    import numpy as np

    random = np.random.default_rng(seed)

    def move(name: str, array: np.ndarray) -> np.ndarray:
        if not np.issubdtype(array.dtype, np.floating) or not array.ndim:
            return array
        axis = next(iter(axes.get(name, ())), 0)
        rest = tuple(i for i in range(array.ndim) if i != axis)
        wide = array.astype(np.float64)
        size = np.sqrt(np.mean(np.square(wide), axis=rest, keepdims=True))
        size = np.where(size > 0, size, np.sqrt(np.mean(np.square(usual[name].astype(np.float64)))))
        other: np.ndarray = (wide + unit * size * random.choice([-1.0, 1.0], array.shape)).astype(array.dtype)
        return other

    return {name: move(name, a) for name, a in feed.items()}
