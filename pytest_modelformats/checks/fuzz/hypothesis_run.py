"""Drive Hypothesis: draw inputs, stop when time is up, shrink what is wrong, remember it for the next run.

Verdicts are kept by input, so Hypothesis never sees one input end in two ways: whether a result
repeats is asked once, of the smallest input, by whoever reports it.
"""

from __future__ import annotations

import contextlib
import time
import unittest
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_modelformats.errors import ModelFormatsError, OutOfMemory, RunError, WorkerCrashed, WorkerTimeout
from pytest_modelformats.schema import Outcome, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from hypothesis.strategies import SearchStrategy

    from pytest_modelformats.checks.fuzz.inputs import Generated
    from pytest_modelformats.schema import OutputParity

# What leaves no worker to go on with.
ENDS = (WorkerCrashed, WorkerTimeout, OutOfMemory)


@dataclass(frozen=True, slots=True)
class Effort:
    """How many inputs, from which seed; ``home`` and ``memory`` are where Hypothesis may write."""

    count: int
    seed: int
    home: Path
    memory: Path


class WrongResult(Exception):
    """What stops and steers Hypothesis: a generated input on which the cell is wrong."""

    def __init__(self, generated: Generated, verdict: Verdict) -> None:
        """Keep both."""
        super().__init__(verdict.sentence)
        self.generated = generated
        self.verdict = verdict


@dataclass(slots=True)
class Search:
    """One search: what was judged so far, by digest, until when it may go on, and what ended its worker."""

    until: float
    verdicts: dict[str, Verdict | None] = field(default_factory=dict)
    refused: int = 0
    overflown: int = 0
    unclear: int = 0
    out_of_time: bool = False
    wrong: bool = False
    refusal: str = ""
    ended: ModelFormatsError | None = None

    @property
    def judged(self) -> int:
        """How many different inputs were judged."""
        return sum(v is not None for v in self.verdicts.values())

    @property
    def largest_ratio(self) -> float:
        """The largest noise ratio that was seen."""
        return max((o.noise_ratio or 0.0 for o in self._outputs()), default=0.0)

    @property
    def largest_point(self) -> float:
        """The largest ratio of a worst element."""
        return max((o.point_ratio or 0.0 for o in self._outputs()), default=0.0)

    def _outputs(self) -> Iterator[OutputParity]:
        return (o for v in self.verdicts.values() if v is not None for o in v.outputs)


def smallest_wrong(
    strategy: SearchStrategy[Generated],
    look: Callable[[Generated], Verdict | None],
    search: Search,
    effort: Effort,
) -> WrongResult | None:
    """The smallest input found on which the verdict is failed, or ``None``; ``search`` then holds the counts.

    ``look`` gives the verdict on one input, and ``None`` where there is nothing to judge by. One that decides
    nothing (a result of NaN alone, in the source as here) is counted, and the search goes on.
    Raises: RunError where Hypothesis sees its own drawing change.
    """
    import hypothesis
    from hypothesis import HealthCheck, Phase, Verbosity
    from hypothesis.database import DirectoryBasedExampleDatabase
    from hypothesis.errors import Flaky, Unsatisfiable

    # A profile of the user's own (those for CI keep no database) is not meant for this search.
    @hypothesis.settings(
        max_examples=effort.count,
        deadline=None,
        derandomize=False,
        database=DirectoryBasedExampleDatabase(effort.memory),
        phases=(Phase.reuse, Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        verbosity=Verbosity.quiet,
        report_multiple_bugs=False,
        print_blob=False,
    )
    @hypothesis.seed(effort.seed)
    @hypothesis.given(strategy)
    def every_output_is_the_sources(drawn: Generated) -> None:
        verdict = _verdict(look, search, drawn)
        if verdict is None:
            hypothesis.reject()
        elif not verdict.passed:
            raise WrongResult(drawn, verdict)

    try:
        with _home(effort.home):
            every_output_is_the_sources()
    except WrongResult as wrong:
        return wrong
    except (Unsatisfiable, unittest.SkipTest):
        return None
    except Flaky as error:
        raise RunError(f"generating inputs went one way and then another ({error}); run it again") from error
    return None


def _verdict(look: Callable[[Generated], Verdict | None], search: Search, drawn: Generated) -> Verdict | None:
    """The verdict on one input, each looked at once; past the end nothing new is."""
    digest = drawn.digest
    if digest in search.verdicts:
        return search.verdicts[digest]
    if time.monotonic() > search.until:
        search.out_of_time = True
        if not search.wrong:
            # Hypothesis lets this one through; otherwise it would draw all the others.
            raise unittest.SkipTest("the time is spent")
        return Verdict(Outcome.PASSED, None, "not looked at: the time was spent")
    if search.ended is not None:
        return Verdict(Outcome.PASSED, None, "not looked at: the worker has ended")
    try:
        verdict = look(drawn)
    except ENDS as error:
        # Not shrunk, each try would cost a worker; but kept, so that the next run begins with it.
        search.ended = error
        verdict = Verdict(Outcome.FAILED, None, str(error))
    if verdict is not None and verdict.outcome not in {Outcome.PASSED, Outcome.FAILED}:
        search.unclear += 1
        verdict = None
    search.wrong = search.wrong or (verdict is not None and not verdict.passed)
    search.verdicts[digest] = verdict
    return verdict


@contextlib.contextmanager
def _home(folder: Path) -> Iterator[None]:
    """What Hypothesis writes goes into a folder of ours, not into ``.hypothesis`` where the user happens to be."""
    from hypothesis import configuration

    before = vars(configuration).get("__hypothesis_home_directory")
    configuration.set_hypothesis_home_dir(folder)
    try:
        yield
    finally:
        configuration.set_hypothesis_home_dir(before)
