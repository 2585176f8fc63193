"""The contract: names, order, dtypes and number as they are stated, shapes as they come out.

Where a shape that the runtime states is not the source's, the cell is run on the samples and, for each dimension in
question, at a second size that the source takes. What behaves alike is a remark, what does not is a loss.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_modelformats.checks import training_mode
from pytest_modelformats.compare import interface
from pytest_modelformats.compare.interface import Behaviour, Difference, Trial
from pytest_modelformats.errors import ModelFormatsError, RunError
from pytest_modelformats.schema import FailureKind, Outcome, Verdict, registry
from pytest_modelformats.source.batch_axes import ANONYMOUS
from pytest_modelformats.source.samples import make_samples

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy as np

    from pytest_modelformats.compare.interface import Shape
    from pytest_modelformats.run.cells import Cells
    from pytest_modelformats.run.models import Models
    from pytest_modelformats.run.workers.asking import Asker
    from pytest_modelformats.schema import PlannedCell

    Feed = Mapping[str, np.ndarray]

# The key of a failed verdict's statement: the inputs and outputs whose dimensions are lost.
LOST = "lost_dimensions"
# The example that converters get has two rows: what is baked in is that.
SECOND, THIRD = 2, 3


def contract(models: Models, cells: Cells, asker: Asker, planned: PlannedCell, invented: tuple[str, ...]) -> Verdict:
    """Whether names, order, dtypes, ranks and dynamic dimensions survived.

    ``invented`` are the names of outputs that are no contract.
    """
    opened, description = cells.session(planned), models.description(planned.cell.model)
    form = registry.formats()[planned.cell.format]
    found = interface.differences(
        description.inputs, description.outputs, opened.inputs, opened.outputs, form, planned.cell.precision, invented
    )
    stated = [d for d in found if not d.side]
    if stated:
        return _changed("; ".join(d.text for d in stated))
    remark = ""
    if found:
        trials = _trials(models, cells, planned, found)
        seen = interface.behaviour(found, trials)
        if seen.lost:
            lost = sorted({d.label for d in seen.lost})
            verdict = _changed(f"{'; '.join(d.text for d in seen.lost)}; {seen.evidence}")
            return replace(verdict, statement={LOST: lost})
        remark = _remark(found, trials, seen)
    training = training_mode.verdict(
        asker, opened, planned, cells.artifact(planned).path, models.source(planned.cell.model)
    )
    if training is not None:
        return training
    said = (
        "The interface is the source's."
        if opened.inputs or opened.outputs
        else "The format states no interface; what comes out is compared in the parity check."
    )
    others = interface.by_position(description.outputs, opened.outputs, invented) if form.named_outputs else []
    if others:
        said += f" It does not name the outputs that are called {', '.join(others)} here: they go by position."
    return Verdict(Outcome.PASSED, None, f"{said}{remark}", (), opened.statement)


def _changed(what: str) -> Verdict:
    return Verdict(Outcome.FAILED, FailureKind.CONTRACT, f"The interface changed: {what}.")


def _remark(found: Sequence[Difference], trials: Sequence[Trial], seen: Behaviour) -> str:
    """What is declared otherwise and behaves alike, and of what no second size was run."""
    told = " and ".join(t.said for t in trials if t.got is not None and t.expected is not None)
    alike = f"It behaves as the source does {told}" if told else "The source could not be asked"
    remark = f" {alike}, {'though' if told else 'and'} it declares otherwise: {'; '.join(d.text for d in found)}."
    if seen.single:
        of = ", ".join(f"dimension {d.axis} of {d.label}" for d in seen.single)
        remark += f" No second size could be run of {of}."
    return remark


def _trials(models: Models, cells: Cells, planned: PlannedCell, found: Sequence[Difference]) -> list[Trial]:
    """The samples, and a second size of each dimension in question; up to the first feed that the cell refuses."""
    model = planned.cell.model
    trials = []
    for said, feed, expected in (_samples(models, model), *_others(models, model, _symbols(models, model, found))):
        given = tuple(feed[spec.name].shape for spec in models.description(model).inputs)
        try:
            got, refusal = tuple(a.shape for a in cells.run(planned, feed)), ""
        except RunError as error:
            got, refusal = None, str(error)
        trials.append(Trial(said, given, expected, got, refusal))
        if refusal:
            break
    return trials


def _samples(models: Models, model: str) -> tuple[str, Feed, tuple[Shape, ...] | None]:
    try:
        expected = tuple(t.shape for t in models.reference(model).truths[0])
    except ModelFormatsError:  # the parity check says why
        expected = None
    return "on the samples", models.samples(model).feeds[0], expected


def _symbols(models: Models, model: str, found: Sequence[Difference]) -> list[str]:
    """The inputs' symbols on which what differs may depend: its own, or all where it is another one."""
    own = dict.fromkeys(d for s in models.description(model).inputs for d in s.shape or () if isinstance(d, str))
    wanted = [d.wanted for d in found if isinstance(d.wanted, str) and d.axis is not None]
    return [symbol for symbol in own if symbol in wanted or any(w not in own for w in wanted)]


def _others(models: Models, model: str, symbols: Sequence[str]) -> Iterator[tuple[str, Feed, tuple[Shape, ...] | None]]:
    """For each symbol the first other size that the source takes; where it cannot be asked, the first one."""
    asked = not models.is_stored(model)
    for number, symbol in enumerate(symbols):
        for size, feed in _sized(models, model, symbol):
            said = f"with {symbol} = {size}" if symbol not in ANONYMOUS else f"at a size of {size}"
            try:
                expected = tuple(t.shape for t in models.further(model, f"size-{number}-{size}", [feed], ()).truths[0])
            except ModelFormatsError:  # what the source itself cannot do is asked of no cell
                if asked:
                    continue
                expected = None
            yield said, feed, expected
            break


def _sized(models: Models, model: str, symbol: str) -> Iterator[tuple[int, Feed]]:
    """Feeds in which a symbol has another size than in the samples, with that size; the others have theirs."""
    samples, specs = models.samples(model), models.description(model).inputs
    places = [(s.name, axis) for s in specs for axis, dim in enumerate(s.shape or ()) if dim == symbol]
    along = [place for place in places if place[1] in samples.batch_axes.get(place[0], ())]
    if samples.batch_symbol and len(along) == len(places):
        size = SECOND if samples.rows != SECOND else THIRD
        yield size, models.rows(model, 0, size)
        return
    name, axis = next(place for place in places if place not in along)
    usual = samples.feeds[0][name].shape[axis]
    for size in (2 * usual, usual + 1, usual // 2):
        if size < 1:
            continue
        try:
            dims = {**models.dims(model), symbol: size}
            yield size, make_samples(specs, SECOND, models.seed(model), dims).feeds[0]
        except ModelFormatsError:  # with samples of the user's own, ranges of values need not be known
            return
