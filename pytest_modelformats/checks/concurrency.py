"""The law that calls of one session from several threads give what each gives alone."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pytest_modelformats.checks.subject import PAIR, shuffled, together
from pytest_modelformats.errors import Unsupported
from pytest_modelformats.schema import Verdict, registry

if TYPE_CHECKING:
    import numpy as np

    from pytest_modelformats.checks.subject import Subject
    from pytest_modelformats.schema import PlannedCell

CALLERS = 4
ROUNDS = 3
# A model that takes longer than this for one call alone overlaps with the others in one round.
LONG_CALL_S = 0.1


def refuse_one_at_a_time(planned: PlannedCell) -> None:
    """Raises: Unsupported where the backend says that its sessions take one call at a time."""
    reason = registry.backends()[planned.cell.backend].one_call_at_a_time
    if reason:
        raise Unsupported(f"one session takes one call at a time: {reason}")


def concurrency(subject: Subject) -> Verdict:
    """Calls of one session from several threads at once give what each call gives alone."""
    feeds = callers(subject)
    started = time.monotonic()
    alone = [subject.run(feed) for feed in feeds]
    rounds = ROUNDS if time.monotonic() - started < CALLERS * LONG_CALL_S else 1
    beside = subject.cells.run_together(subject.planned, feeds, rounds)
    verdicts = {
        f"call {call + 1} of thread {caller + 1} of {CALLERS}, beside the others": subject.agree(alone[caller], got)
        for caller, calls in enumerate(beside)
        for call, got in enumerate(calls)
    }
    times = "once" if rounds == 1 else f"{rounds} times"
    return together(
        verdicts, f"{CALLERS} threads that call one session at once, {times} each, get what each call gives alone"
    )


def callers(subject: Subject) -> list[dict[str, np.ndarray]]:
    """What each thread hands in."""
    return [shuffled(subject.rows(0, PAIR), caller) for caller in range(CALLERS)]
