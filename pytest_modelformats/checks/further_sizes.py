"""Parity at other sizes than those of the samples, where nothing states which sizes count.

A conversion that has baked in the size it was made at is right there and nowhere else. A few rows at each further size
show it; like a batch, they are judged by the noise of their own, and not below what is usual for results of their size.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pytest_modelformats.checks.batch import near, settled
from pytest_modelformats.checks.subject import REFUSED
from pytest_modelformats.compare import between_runs, row_noise
from pytest_modelformats.compare.verdict import judge
from pytest_modelformats.errors import ModelFormatsError, WorkerTimeout
from pytest_modelformats.schema import Outcome, Verdict
from pytest_modelformats.schema.sizes import by_name, written

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

    from pytest_modelformats.checks.subject import Subject
    from pytest_modelformats.compare.noise import Noise
    from pytest_modelformats.compare.reference import Reference

    Feed = Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class AtSize:
    """A few rows at a further size: the feeds, and the source's truth and noise of them at the cell's precision.

    ``outputs`` are the cell's, once it was run.

    Shapes: ``truths`` and ``outputs`` [feed][output], ``noise`` [output].
    """

    sizes: Mapping[str, int]
    feeds: Sequence[Feed]
    truths: Sequence[Sequence[np.ndarray]]
    noise: Sequence[Noise]
    outputs: Sequence[Sequence[np.ndarray]] = ()

    @property
    def where(self) -> str:
        """The sizes in words."""
        return written(self.sizes)


def judged(subject: Subject, verdict: Verdict, failing: dict[str, AtSize]) -> Verdict:
    """A verdict that passed, failed where the cell is another model at a further size; ``failing`` then holds that.

    Raises: what running the cell there does, with the size in its message.
    """
    if not verdict.passed:
        return verdict
    first = written(by_name(subject.models.sizes(subject.model).dimensions))
    seen, unseen = [], []
    for number, (sizes, feeds) in enumerate(subject.models.further_sizes(subject.model)):
        reference = _reference(subject, number, feeds)
        if reference is None:
            unseen.append(written(sizes))
            continue
        at = AtSize(sizes, feeds, reference.truths, _noise(subject, reference))
        at = replace(at, outputs=_run(subject, at, first, failing))
        found = _verdict(subject, number, at)
        if found.outcome in {Outcome.FAILED, Outcome.FALLBACK}:
            failing[subject.planned.cell.id] = at
            sentence = f"At {at.where} it is not the model that it is at {first}: {found.sentence}"
            return replace(found, sentence=sentence, statement=verdict.statement)
        seen.append(at.where)
    said = f" The same holds at {' and at '.join(seen)}." if seen else ""
    said += f" At {' and at '.join(unseen)} the source has no results to compare with." if unseen else ""
    return replace(verdict, sentence=f"{verdict.sentence}{said}") if said else verdict


def _reference(subject: Subject, number: int, feeds: Sequence[Feed]) -> Reference | None:
    """The truth and the noise at a further size; ``None`` where the source has none at this precision."""
    yardstick = subject.precision.yardstick
    try:
        found = subject.models.further(subject.model, f"size-{number}", feeds, (yardstick,))
    except REFUSED:
        return None
    return found if yardstick in found.noise else None


def _noise(subject: Subject, reference: Reference) -> list[Noise]:
    yardstick = subject.precision.yardstick
    usual = row_noise.usual(subject.models.reference(subject.model), yardstick)
    return [
        row_noise.larger(own, row_noise.for_size(known, truth))
        for own, known, truth in zip(reference.noise[yardstick], usual, reference.truths[0], strict=True)
    ]


def _run(subject: Subject, at: AtSize, first: str, failing: dict[str, AtSize]) -> list[list[np.ndarray]]:
    try:
        return [subject.run(feed) for feed in at.feeds]
    except WorkerTimeout:
        raise
    except ModelFormatsError as error:
        failing[subject.planned.cell.id] = at
        raise type(error)(f"{error}; this happened at {at.where}, and not at {first}") from error


def _verdict(subject: Subject, number: int, at: AtSize) -> Verdict:
    specs = subject.models.description(subject.model).outputs

    def check(noise: Mapping[str, Sequence[Noise]]) -> Verdict:
        names, dtypes = [spec.name for spec in specs], [spec.dtype for spec in specs]
        found = judge(names, at.truths, at.outputs, noise, subject.precision, dtypes=dtypes, allowed=subject.tolerances)
        return between_runs.by_size(found, subject.precision)

    def around() -> Sequence[Noise] | None:
        return near(subject, f"size-{number}", at.feeds[0])

    return settled(subject, around, {subject.precision.yardstick: at.noise}, check)
