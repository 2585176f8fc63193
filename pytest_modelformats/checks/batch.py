"""The batch law: what a cell gives for batches of several sizes is what the source gives for them.

The source itself is evaluated in float64 on every batch that a cell is run on, and on every row alone. That tells
which outputs go row by row; the others (a state [layers, batch, features], a mean over the batch, rows that are
normalised together) are compared with the source at that size only.

A batch is judged by the noise of its own rows (``row_noise.py``). Where few elements are off by more than that
explains, the noise is measured again over the same rows moved by one unit of rounding, as for generated inputs
(``single_input.py``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pytest_modelformats.checks import near_ties
from pytest_modelformats.checks.subject import REFUSED
from pytest_modelformats.compare import between_runs, row_noise
from pytest_modelformats.compare.noise_profile import FEWEST
from pytest_modelformats.compare.single_input import MOVES, neighbour, size
from pytest_modelformats.compare.verdict import judge
from pytest_modelformats.errors import Unsupported
from pytest_modelformats.schema import FailureKind, Outcome, Verdict
from pytest_modelformats.source.samples import why_fixed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np

    from pytest_modelformats.checks.subject import Subject
    from pytest_modelformats.compare.noise import Noise
    from pytest_modelformats.run.models import Models
    from pytest_modelformats.schema import OutputParity

    Span = tuple[int, int]
    Floors = Mapping[str, Sequence[Noise]]
    Results = Mapping[Span, Sequence[np.ndarray]]

# An error of few elements this many times the noise is no chance: of two normal numbers one is 1000 times the other
# once in 1600.
HOPELESS = 1000.0


@dataclass(frozen=True, slots=True)
class Batches:
    """What the source gives for the rows ``start`` to ``stop`` of its samples.

    ``truths`` has the spans that it takes, ``refused`` why it takes no batch of a size. Where it cannot be asked (an
    older golden bundle), ``cut`` is true, and the truths are rows of those of all samples; ``left_out`` are the outputs
    that cannot be cut. ``by_rows`` says of each output whether its rows depend on nothing but their own row.
    """

    truths: Mapping[Span, Sequence[Any]]
    refused: Mapping[int, str]
    by_rows: tuple[bool, ...]
    cut: bool
    left_out: tuple[int, ...]

    @property
    def said(self) -> str:
        """What the truths are, in words."""
        return "the source's rows" if self.cut else "the source"

    @property
    def rowwise(self) -> list[int]:
        """The outputs that go by rows, by number."""
        return [i for i, goes in enumerate(self.by_rows) if goes]

    @property
    def sizes(self) -> list[int]:
        """The sizes of batches that there is a truth for."""
        return sorted(stop for start, stop in self.truths if not start)


def spans(rows: int) -> list[Span]:
    """The batches that are run: each of the first rows alone, then the larger ones."""
    alone = min(max(between_runs.BATCHES), rows)
    return [(i, i + 1) for i in range(alone)] + [(0, b) for b in between_runs.BATCHES if 1 < b <= rows]


def of_source(models: Models, model: str, yardstick: str) -> Batches:
    """The source's own results for every batch; by rows goes what differs by no more than the noise at a precision."""
    samples, reference = models.samples(model), models.reference(model)
    truths, refused = _evaluated(models, model)
    whole = reference.truths[0]
    if not truths:
        symbol, outputs = samples.batch_symbol, models.description(model).outputs
        cuttable = [i for i, spec in enumerate(outputs) if spec.shape is not None and symbol in spec.shape[:1]]
        cut = {
            span: [t[slice(*span)] if i in cuttable else t for i, t in enumerate(whole)] for span in spans(samples.rows)
        }
        by_rows = tuple(i in cuttable for i in range(len(whole)))
        return Batches(cut, {}, by_rows, cut=True, left_out=tuple(i for i in range(len(whole)) if i not in cuttable))
    noise = reference.noise[yardstick]

    def goes_by_rows(index: int) -> bool:
        rows = whole[index]
        if not rows.shape or rows.shape[0] != samples.rows:
            return False
        return all(
            row_noise.same(
                truth[index], rows[slice(*span)], row_noise.of_rows(noise[index], span, truth[index], yardstick)
            )
            for span, truth in truths.items()
        )

    by_rows = tuple(goes_by_rows(i) for i in range(len(whole)))
    return Batches(truths, refused, by_rows, cut=False, left_out=())


def _evaluated(models: Models, model: str) -> tuple[dict[Span, Sequence[Any]], dict[int, str]]:
    """The truth of every span that the source takes, all at once where it takes all, and why it takes no others."""
    wanted = spans(models.samples(model).rows)
    try:
        found = models.further(model, "batches", [models.rows(model, *span) for span in wanted], ()).truths
    except REFUSED:
        one_by_one = {span: _truth(models, model, span) for span in wanted}
        refused = {stop - start: found for (start, stop), found in one_by_one.items() if isinstance(found, str)}
        return {span: found for span, found in one_by_one.items() if not isinstance(found, str)}, refused
    return dict(zip(wanted, found, strict=True)), {}


def _truth(models: Models, model: str, span: Span) -> Sequence[Any] | str:
    """The truth of one span, or why the source does not take it."""
    try:
        return models.further(model, f"rows-{span[0]}-{span[1]}", [models.rows(model, *span)], ()).truths[0]
    except REFUSED as error:
        return str(error)


def floors(models: Models, model: str, source: Batches, batch: int, yardstick: str) -> dict[str, list[Noise]]:
    """The noise of every output for the first ``batch`` rows, at every precision."""
    reference, span = models.reference(model), (0, batch)
    truth = source.truths[span]
    mixed = [i for i, goes in enumerate(source.by_rows) if not goes and i not in source.left_out]
    own: Sequence[Noise] = ()
    if mixed:
        try:
            feeds = [models.rows(model, *span)]
            own = models.further(model, f"batch-{batch}", feeds, (yardstick,)).noise.get(yardstick, ())
        except REFUSED:
            own = ()
    found = {}
    for precision, values in reference.noise.items():
        usual = row_noise.usual(reference, precision)
        found[precision] = [row_noise.of_rows(n, span, t, precision) for n, t in zip(values, truth, strict=True)]
        for i in mixed:
            known = row_noise.for_size(usual[i], truth[i])
            found[precision][i] = row_noise.larger(own[i], known) if own and precision == yardstick else known
    return found


def law(subject: Subject) -> Verdict:
    """Batches of 1, 2, 3 and 7 agree with the source, and each row with itself alone.

    Raises: Unsupported where the batch is fixed.
    """
    models, model, yardstick = subject.models, subject.model, subject.precision.yardstick
    if not models.samples(model).batch_symbol:
        fixed = why_fixed(model, models.description(model).inputs)
        raise Unsupported(f"{fixed}, so there is only one batch size to run")
    source = of_source(models, model, yardstick)
    if not source.sizes:
        raise Unsupported(f"the source itself runs no batch of {model}: {next(iter(source.refused.values()))}")
    by_rows = source.rowwise
    singles = [
        span
        for span in spans(models.samples(model).rows)
        if span in source.truths and span[1] - span[0] == 1 and (by_rows or span == (0, 1))
    ]
    alone = {span: subject.run(subject.rows(*span)) for span in singles}
    verdicts: dict[str, Verdict] = {}
    for batch in source.sizes:
        got = {(0, batch): alone[0, 1] if batch == 1 else subject.run(subject.rows(0, batch))}
        noise = floors(models, model, source, batch, yardstick)
        around = _around(subject, batch)

        def against(got: Results, batch: int = batch) -> Callable[[Floors], Verdict]:
            return _against_source(subject, source, batch, got[0, batch])

        verdicts[f"batch {batch} against {source.said}"] = _but_for_ties(subject, source, noise, around, against, got)
        if batch > 1 and by_rows and len(alone) >= batch:

            def itself(got: Results, batch: int = batch) -> Callable[[Floors], Verdict]:
                return _against_rows(subject, by_rows, [got[span] for span in singles[:batch]], got[0, batch])

            what = f"rows of batch {batch} against themselves alone"
            verdicts[what] = _but_for_ties(subject, source, noise, around, itself, {**alone, **got})
    return between_runs.worst(verdicts, _agreed(subject.names, source, rows_compared=bool(by_rows and len(alone) > 1)))


def _but_for_ties(
    subject: Subject,
    source: Batches,
    noise: Floors,
    around: Callable[[], Sequence[Noise] | None],
    check: Callable[[Results], Callable[[Floors], Verdict]],
    got: Results,
) -> Verdict:
    """The verdict of a check on results; where integers fail it, once more without those that rounding decides."""
    verdict = settled(subject, around, noise, check(got))
    if not near_ties.among(verdict, subject.names, next(iter(source.truths.values()))):
        return verdict
    floor = noise[subject.precision.yardstick]
    clear = {
        span: near_ties.left_by_rounding(subject, subject.rows(*span), source.truths[span], one, floor)
        for span, one in got.items()
    }
    return settled(subject, around, noise, check(clear))


def _against_source(
    subject: Subject, source: Batches, batch: int, got: Sequence[np.ndarray]
) -> Callable[[Floors], Verdict]:
    specs, truth = subject.models.description(subject.model).outputs, source.truths[0, batch]
    chosen = [i for i in range(len(specs)) if i not in source.left_out]
    if len(got) != len(specs):
        chosen = list(range(len(specs)))  # the number of outputs is what is said

    def check(noise: Floors) -> Verdict:
        few = {precision: [values[i] for i in chosen] for precision, values in noise.items()}
        verdict = judge(
            [specs[i].name for i in chosen],
            [[truth[i] for i in chosen]],
            [got if len(got) != len(specs) else [got[i] for i in chosen]],
            few,
            subject.precision,
            dtypes=[specs[i].dtype for i in chosen],
            allowed=subject.tolerances,
        )
        return between_runs.by_size(verdict, subject.precision)

    return check


def _against_rows(
    subject: Subject, by_rows: Sequence[int], alone: Sequence[Sequence[np.ndarray]], got: Sequence[np.ndarray]
) -> Callable[[Floors], Verdict]:
    names = subject.names
    odd = next((len(one) for one in (*alone, got) if len(one) != len(names)), None)

    def check(noise: Floors) -> Verdict:
        if odd is not None:
            sentence = f"{odd} outputs came back where the source has {len(names)} ({', '.join(names)})."
            return Verdict(Outcome.FAILED, FailureKind.CONTRACT, sentence)
        few = {precision: [values[i] for i in by_rows] for precision, values in noise.items()}
        first = [[one[i] for i in by_rows] for one in alone]
        # An array without rows has no row of another one's shape.
        rows = [[got[i][r : r + 1] if got[i].ndim else got[i] for i in by_rows] for r in range(len(alone))]
        named = [names[i] for i in by_rows]
        return between_runs.between_runs(named, first, rows, few, subject.precision, subject.tolerances)

    return check


def _around(subject: Subject, batch: int) -> Callable[[], Sequence[Noise] | None]:
    return lambda: near(subject, str(batch), subject.rows(0, batch))


def settled(
    subject: Subject, around: Callable[[], Sequence[Noise] | None], noise: Floors, check: Callable[[Floors], Verdict]
) -> Verdict:
    """The verdict; few elements that are off by a little more than their noise get a second look.

    ``around`` measures the noise of each output near the rows, as ``near`` does.
    """
    verdict = check(noise)
    if not any(_is_doubtful(o) for o in verdict.outputs):
        return verdict
    found = around()
    if found is None:
        return verdict
    few = {o.name: o.elements for o in verdict.outputs if 0 < o.elements < FEWEST}
    yardstick = subject.precision.yardstick
    settled = [
        row_noise.larger(known, _scattered(wide, few[name])) if name in few else known
        for name, known, wide in zip(subject.names, noise[yardstick], found, strict=True)
    ]
    wider = {**noise, yardstick: settled}
    return check(wider)


def _scattered(noise: Noise, elements: int) -> Noise:
    """The noise of so few elements: the mean of n squares is off by √(2/n) of itself, of which twice is allowed for."""
    return replace(noise, rms=noise.rms * math.sqrt(1 + 2 * math.sqrt(2 / elements)))


def _is_doubtful(output: OutputParity) -> bool:
    """Failed by the size of its error alone, of few elements, and by no more than chance may do."""
    if output.outcome is not Outcome.FAILED or output.failure_kind is not FailureKind.NUMERIC:
        return False
    ratio = output.noise_ratio
    return ratio is not None and output.elements < FEWEST and ratio < HOPELESS


def near(subject: Subject, name: str, feed: Mapping[str, np.ndarray]) -> Sequence[Noise] | None:
    """The noise of each output around a feed, which ``name`` stands for; ``None`` where the source cannot be asked."""
    models, model, precision = subject.models, subject.model, subject.precision
    scales = {name: size(array)[0] for name, array in feed.items()}
    moved = [neighbour(feed, precision.mantissa_bits, scales, seed) for seed in range(MOVES)]
    try:
        return models.further(model, f"near-{name}", [feed, *moved], (precision.yardstick,)).noise.get(
            precision.yardstick
        )
    except REFUSED:
        return None


def _agreed(names: Sequence[str], source: Batches, *, rows_compared: bool) -> str:
    """What is said where nothing was wrong: what was compared, what was not, and why."""
    sizes = ", ".join(str(b) for b in source.sizes)
    said = [f"Batches of {sizes} agree with {source.said}{', and each row with itself alone' * rows_compared}."]
    mixed = [f"'{n}'" for i, n in enumerate(names) if not source.by_rows[i] and i not in source.left_out]
    if mixed:
        does, it_was, its = ("do", "they were", "their") if len(mixed) > 1 else ("does", "it was", "its")
        said.append(
            f"In the source itself {', '.join(mixed)} {does} not go row by row: {it_was} compared at each batch size, "
            f"{its} rows not with themselves alone."
        )
    if source.left_out:
        left = ", ".join(f"'{names[i]}'" for i in source.left_out)
        said.append(f"Not compared: {left}, whose first dimension is not the batch; this needs the model itself.")
    said += [f"The source itself runs no batch of {b}: {why}" for b, why in source.refused.items()]
    return " ".join(said)
