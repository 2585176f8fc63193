"""The one word that a cell ends in, and the order in which they count."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

RUN = "run"
# The check without which nothing says that a converted model still is the model.
PARITY = "parity"


class Outcome(str, Enum):
    """The one word that a planned cell, or one check of it, ends in."""

    PASSED = "passed"
    FAILED = "failed"
    UNSUPPORTED = "unsupported"
    MISSING_DEPENDENCY = "missing-dependency"
    NO_DEVICE = "no-device"
    CONVERT_ERROR = "convert-error"
    CRASHED = "crashed"
    TIMEOUT = "timeout"
    OUT_OF_MEMORY = "out-of-memory"
    FALLBACK = "fallback"
    INCONCLUSIVE = "inconclusive"
    NOT_MEASURED = "not-measured"
    EXPECTED_FAILURE = "expected-failure"


FAILURES = (
    Outcome.CRASHED,
    Outcome.OUT_OF_MEMORY,
    Outcome.TIMEOUT,
    Outcome.CONVERT_ERROR,
    Outcome.FAILED,
    Outcome.FALLBACK,
)
UNSEEN = (Outcome.MISSING_DEPENDENCY, Outcome.NO_DEVICE, Outcome.UNSUPPORTED)
SKIPPED_OUTCOMES = frozenset(
    {Outcome.UNSUPPORTED, Outcome.MISSING_DEPENDENCY, Outcome.NO_DEVICE, Outcome.INCONCLUSIVE, Outcome.NOT_MEASURED}
)


class FailureKind(str, Enum):
    """What a ``failed`` check failed on.

    ``precision`` is for checks of outside packages: of ours, what ran at another precision ends as ``fallback``.
    """

    CONTRACT = "contract"
    NUMERIC = "numeric"
    NAN = "nan"
    DEGENERATE = "degenerate"
    PRECISION = "precision"
    ACCURACY = "accuracy"
    BUDGET = "budget"
    REGRESSION = "regression"


def worst(decision: str, outcomes: Iterable[Outcome | str]) -> Outcome:
    """The one outcome of several, from the plan's decision and the outcomes of the checks.

    The worst decides. What a check could not look at (unsupported, not measured) does not
    take a pass away from what the others saw. A decision other than "run" counts as one
    more check: a cell that did not run stays so, unless it was required and that failed.
    """
    seen = {Outcome(outcome) for outcome in outcomes}
    if decision != RUN:
        seen.add(Outcome(decision))
    unseen = () if Outcome.PASSED in seen else UNSEEN
    order = (*FAILURES, Outcome.INCONCLUSIVE, *unseen, Outcome.EXPECTED_FAILURE, Outcome.PASSED)
    return next((outcome for outcome in order if outcome in seen), Outcome.NOT_MEASURED)


def awaits_parity(checks: Iterable[tuple[str, Outcome | str]], *, asked: bool) -> bool:
    """Whether checks of a cell were heard of and parity, which was asked for, is not among them: the run ended."""
    names = {name for name, _ in checks}
    return asked and bool(names) and PARITY not in names


def cell_outcome(decision: str, checks: Iterable[tuple[str, Outcome | str]], *, parity_asked: bool = False) -> Outcome:
    """The one outcome of a cell, from the plan's decision and its checks, each a name and an outcome.

    The worst decides, and without parity nothing says that the converted model still is the model: where that check
    was asked for and could not be made, its outcome is the cell's, whatever passed beside it. A cell of which nobody
    asked parity is judged by what was asked.
    """
    heard = [(name, Outcome(outcome)) for name, outcome in checks]
    found = worst(decision, (outcome for _, outcome in heard))
    if decision != RUN or found in FAILURES:
        return found
    if awaits_parity(heard, asked=parity_asked):
        return found if found in SKIPPED_OUTCOMES else Outcome.NOT_MEASURED
    parity = [outcome for name, outcome in heard if name == PARITY]
    of_parity = worst(RUN, parity)
    return of_parity if parity and of_parity in SKIPPED_OUTCOMES else found
