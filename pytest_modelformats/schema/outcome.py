"""The one word that a cell ends in, and the order in which they count."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

RUN = "run"


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


def cell_outcome(decision: str, outcomes: Iterable[Outcome | str]) -> Outcome:
    """The one outcome of a cell, from the plan's decision and the outcomes of its checks.

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
