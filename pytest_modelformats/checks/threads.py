"""The law that the number of threads changes nothing but the speed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pytest_modelformats.checks.subject import PAIR, ROWS, together
from pytest_modelformats.errors import Unsupported

if TYPE_CHECKING:
    from pytest_modelformats.checks.subject import Subject
    from pytest_modelformats.schema import Verdict

MOST_THREADS = 4


def threads(subject: Subject, asked: int) -> Verdict:
    """Fresh sessions with one thread, and one with several, agree.

    Raises: Unsupported on a machine with one core.
    """
    several = several_threads(asked)
    if several < PAIR:
        raise Unsupported("this machine has one core, so a session with several threads has nothing to run them on")
    feed = subject.rows(0, ROWS)
    results = {}
    for what, count in (("one thread", 1), ("one thread, again", 1), (f"{several} threads", several)):
        subject.cells.session(subject.planned, what, threads=count)
        try:
            results[what] = subject.run(feed, what)
        finally:
            subject.cells.close(what)
    first, *rest = results
    verdicts = {f"a session with {what} against one with {first}": subject.agree(results[first], results[what])
                for what in rest}  # fmt: skip
    return together(verdicts, f"Fresh sessions with 1, 1 and {several} threads agree")


def several_threads(asked: int) -> int:
    """How many threads are compared with one, 1 on a machine with one core."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 1 if cores < PAIR else max(min(cores, MOST_THREADS), asked)
