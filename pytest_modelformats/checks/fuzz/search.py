"""Search the inputs that a model takes for one on which a cell is not the model, and shrink it.

Hypothesis generates, shrinks and remembers; the judging is ``single_input``'s. The source's own
results are shared by all cells of a model: with one seed they are asked the same inputs.
"""

from __future__ import annotations

import importlib.util
import math
import time
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pytest_modelformats.checks import near_ties
from pytest_modelformats.checks.fuzz.hypothesis_run import ENDS, Effort, Search, WrongResult, smallest_wrong
from pytest_modelformats.compare.single_input import Judgement, OverflowsItself, size, usual_noise
from pytest_modelformats.errors import (
    MissingDependency,
    ModelFormatsError,
    NotMeasured,
    RunError,
    Unsupported,
)
from pytest_modelformats.run.workers.calls import LAYOUTS
from pytest_modelformats.schema import FailureKind, Outcome, Verdict
from pytest_modelformats.source import sizes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import numpy as np

    from pytest_modelformats.checks.fuzz.inputs import Generated
    from pytest_modelformats.checks.subject import Subject
    from pytest_modelformats.compare.noise import Noise
    from pytest_modelformats.run.models import Models
    from pytest_modelformats.schema import PlannedCell
    from pytest_modelformats.settings.nouns import Settings

INSTALL = "pip install 'pytest-modelformats[fuzz]'"
# Where nobody has asked. On the digits CNN (18 cells) that is 2 to 3 s of a run, most of it the source's own
# evaluation, which all cells share; a model that takes seconds for one input is left after the first ones.
DEFAULT = 5
DEFAULT_SECONDS = 2.0
FOLDER = "failing-inputs"
# What the source gave is kept up to so much, so that the cells of a model share it.
KEPT_BYTES = 128 << 20


def budget(settings: Settings) -> int:
    """How many inputs are generated per cell."""
    if settings.fuzz is not None:
        return settings.fuzz
    return DEFAULT if importlib.util.find_spec("hypothesis") else 0


@dataclass(frozen=True)
class Shown:
    """A generated input on which a cell fails, and what its results are judged by; no truth where it ended a worker.

    ``limits`` are (rms, largest) per output, ``flushed`` is the truth with denormal inputs at zero.
    ``repeats`` says whether a session that has run nothing else is wrong on it too.
    """

    drawn: Generated
    repeats: bool = True
    truth: Sequence[np.ndarray] = ()
    noise: Sequence[Noise] = ()
    limits: Sequence[tuple[float, float]] = ()
    flushed: Sequence[np.ndarray] | None = None


class Fuzzer:
    """Searches cells, one after the other."""

    def __init__(self, settings: Settings, models: Models, cache: Path) -> None:
        """Generate nothing yet; ``cache`` is the folder that keeps failing inputs for the next run."""
        self._settings = settings
        self._models = models
        self._cache = cache
        self._kept: OrderedDict[tuple[str, str, str], list[list[np.ndarray]]] = OrderedDict()
        self.failing: dict[str, Generated] = {}
        self.shown: dict[str, Shown] = {}

    def need_source(self, model: str) -> None:
        """There is a source to evaluate; raises Unsupported where a file holds the results of some inputs instead."""
        if self._models.is_stored(model):
            raise Unsupported(
                f"generated inputs are judged by the model's own results on them, and '{model}' is a golden bundle, "
                "which holds those of its samples only; this check needs the model itself (--mf-model)"
            )

    def search(self, subject: Subject) -> Verdict:
        """The verdict over so many generated inputs, the one that failed before first.

        Raises: MissingDependency, NotMeasured where there was nothing to judge; Unsupported.
        """
        if self._settings.fuzz == 0:
            raise NotMeasured("no input was generated; say how many with --mf-fuzz N")
        if importlib.util.find_spec("hypothesis") is None:
            raise MissingDependency(f"generated inputs need hypothesis, which is not installed: {INSTALL}")
        self.shown.clear()
        count = budget(self._settings)
        self._models.need_noise(subject.model, subject.precision.yardstick)
        importlib.import_module("hypothesis")  # takes a moment, and is no part of the search
        started = time.monotonic()
        unasked = self._settings.fuzz is None
        spend = min(self._settings.fuzz_budget_s, DEFAULT_SECONDS if unasked else math.inf)
        search = Search(started + spend)
        wrong = self._smallest(subject, search, count)
        if search.ended is not None:
            raise search.ended
        facts = {
            "generated": count,
            "judged": search.judged,
            "refused_by_source": search.refused,
            "overflowing_source": search.overflown,
            "without_numbers": search.unclear,
            "largest_noise_ratio": search.largest_ratio,
            "largest_point_ratio": search.largest_point,
            "out_of_time": search.out_of_time,
            "seconds": round(time.monotonic() - started, 3),
        }
        if wrong is not None:
            return self._told(subject, wrong, facts)
        if not search.judged:
            why = f"; the first time: {search.refusal}" if search.refusal else ""
            spent = "the time for it was spent, " if search.out_of_time else ""
            raise NotMeasured(
                f"none of the generated inputs could be judged: {spent}the source refused {search.refused}, "
                f"overflows on {search.overflown} itself, and an output is NaN or Inf alone on {search.unclear}{why}"
            )
        more = "--mf-fuzz N asks for more" if unasked else "--mf-fuzz-budget"
        spent = f" The time for it was spent ({more})." if search.out_of_time else ""
        unclear = (
            f" On {search.unclear} more, an output is NaN or Inf in every element, in the source as here: "
            "there was nothing to compare."
            if search.unclear
            else ""
        )
        sentence = f"On {search.judged} generated inputs every output is the source's.{unclear}{spent}"
        return Verdict(Outcome.PASSED, None, sentence, (), facts)

    def _smallest(self, subject: Subject, search: Search, count: int) -> WrongResult | None:
        from pytest_modelformats.checks.fuzz import inputs as generated

        judgement = self._judgement(subject)
        # torch.compile traces anew for other strides: 2 to 4 s on the digits CNN, for whoever asked for inputs.
        layouts = LAYOUTS[:1] if self._settings.fuzz is None else LAYOUTS
        of_images = sizes.of_images(subject.specs, self._models.sizes(subject.model))
        strategy = generated.strategy(subject.specs, self._models.samples(subject.model), layouts, of_images)
        home = self._cache / "fuzz"
        return smallest_wrong(
            strategy,
            lambda drawn: self._look(subject, judgement, search, drawn),
            search,
            Effort(count, self._settings.seed, home, home / self._memory(subject.planned)),
        )

    def _look(self, subject: Subject, judgement: Judgement, search: Search, drawn: Generated) -> Verdict | None:
        try:
            truth, rounded = judgement.expected(drawn.feed)
            got = self._run(subject, search, drawn)
            if got is None or isinstance(got, Verdict):
                return got
            return self._settled(subject, judgement, drawn, (truth, rounded), got)
        except OverflowsItself:
            search.overflown += 1
            return None
        except ENDS:
            raise
        except ModelFormatsError as error:
            search.refused += 1
            search.refusal = search.refusal or str(error)
            return None

    def _settled(
        self,
        subject: Subject,
        judgement: Judgement,
        drawn: Generated,
        expected: tuple[Sequence[np.ndarray], Sequence[np.ndarray]],
        got: Sequence[np.ndarray],
    ) -> Verdict:
        """The verdict on one result; where integers fail it, once more without those that rounding decides."""
        truth, rounded = expected
        verdict = judgement.settled(drawn.feed, truth, rounded, got)
        if not near_ties.among(verdict, subject.names, truth):
            return verdict
        noise = self._models.reference(subject.model).noise[subject.precision.yardstick]
        clear = near_ties.left_by_rounding(subject, drawn.feed, truth, got, noise)
        return judgement.settled(drawn.feed, truth, rounded, clear)

    def _run(self, subject: Subject, search: Search, drawn: Generated) -> list[np.ndarray] | Verdict | None:
        """The cell's outputs; what the runtime refuses although the source takes it is a verdict."""
        try:
            return subject.cells.run(subject.planned, drawn.feed, "first", drawn.layouts)
        except ENDS:
            self.failing[subject.planned.cell.id] = drawn
            self.shown[subject.planned.cell.id] = Shown(drawn)
            raise
        except Unsupported as error:
            search.refused += 1
            search.refusal = search.refusal or str(error)
            return None
        except ModelFormatsError as error:
            sentence = f"The source takes this input and the runtime does not: {error}"
            return Verdict(Outcome.FAILED, FailureKind.CONTRACT, sentence)

    def _judgement(self, subject: Subject) -> Judgement:
        reference = self._models.reference(subject.model)
        usual = usual_noise(reference.truths, reference.noise[subject.precision.yardstick])

        def evaluate(feeds: Sequence[Mapping[str, np.ndarray]], precision: str) -> list[list[np.ndarray]]:
            key = (subject.model, _digest(feeds), precision)
            return self._once(key, lambda: self._models.evaluate(subject.model, feeds, precision))

        outputs = self._models.description(subject.model).outputs
        observed = self._models.samples(subject.model).feeds[0]
        scales = {name: size(array)[0] for name, array in observed.items()}
        return Judgement(outputs, subject.precision, usual, scales, evaluate, subject.tolerances)

    def _once(self, key: Any, make: Callable[[], list[list[np.ndarray]]]) -> list[list[np.ndarray]]:
        """The source's results, kept while there is room."""
        if key not in self._kept:
            self._kept[key] = make()
            while len(self._kept) > 1 and _bytes(self._kept.values()) > KEPT_BYTES:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]

    def _memory(self, planned: PlannedCell) -> str:
        """The name of the folder in which Hypothesis keeps what failed in a cell, wherever the model's file lies."""
        import hashlib

        specs = " ".join(str(s) for s in self._models.description(planned.cell.model).inputs)
        return hashlib.sha256(f"{planned.cell.id} {specs}".encode()).hexdigest()[:32]

    def _told(self, subject: Subject, wrong: WrongResult, facts: dict[str, Any]) -> Verdict:
        """The failing verdict in words, confirmed in a session that has run nothing else."""
        drawn, cell = wrong.generated, subject.planned
        self.failing[cell.cell.id] = drawn
        self.shown[cell.cell.id] = Shown(drawn)
        said = f"{_sentence(wrong.verdict.sentence)} Seen on a generated input, the smallest found: {drawn}."
        judgement = self._judgement(subject)
        again = wrong.verdict
        try:
            truth, rounded = judgement.expected(drawn.feed)
            got = subject.cells.run(cell, drawn.feed, "confirming", drawn.layouts)
            again = self._settled(subject, judgement, drawn, (truth, rounded), got)
        except RunError:
            again = wrong.verdict
        finally:
            subject.cells.close("confirming")
        facts["confirmed"] = not again.passed
        self.shown[cell.cell.id] = _shown(judgement, drawn, repeats=not again.passed)
        if again.passed:
            said += (
                " In a fresh session the same input is right: the result depends on what was run before or does not "
                "repeat, so the input may not be the smallest; see the checks history and determinism."
            )
        facts["input"] = dict(drawn.said)
        return replace(wrong.verdict, sentence=said, statement=facts)


def _shown(judgement: Judgement, drawn: Generated, *, repeats: bool) -> Shown:
    """The input with its truth, noise and limits: what the second look had, kept or evaluated once more."""
    try:
        truth, rounded = judgement.expected(drawn.feed)
        noise = judgement.neighbourhood(drawn.feed, truth, rounded)
        return Shown(drawn, repeats, truth, noise, judgement.limits(noise), judgement.flushed(drawn.feed))
    except (OverflowsItself, ModelFormatsError):
        return Shown(drawn, repeats=False)


def save(generated: Generated, folder: Path, cell: str) -> Path:
    """Write a failing input where ``--mf-data`` reads it; returns the file."""
    import numpy as np

    target = folder / FOLDER
    target.mkdir(parents=True, exist_ok=True)
    path = target / f"{cell.replace('/', '_')}-fuzz.npz"
    arrays: dict[str, Any] = dict(generated.feed)
    np.savez(path, **arrays)
    return path


def _sentence(text: str) -> str:
    """The text with a full stop."""
    return text if text.endswith(".") else f"{text}."


def _digest(feeds: Sequence[Mapping[str, np.ndarray]]) -> str:
    import hashlib

    found = hashlib.sha256()
    for feed in feeds:
        for name, array in feed.items():
            found.update(f"{name}:{array.dtype}:{array.shape}".encode())
            found.update(array.tobytes())
    return found.hexdigest()


def _bytes(kept: Any) -> int:
    return sum(a.nbytes for results in kept for outputs in results for a in outputs)
