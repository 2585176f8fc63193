"""The search goes on until an input fails: one that decides nothing is counted and does not hide what is wrong."""

from __future__ import annotations

import time
from dataclasses import dataclass

import pytest

from pytest_modelformats.checks.fuzz.hypothesis_run import Effort, Search, smallest_wrong
from pytest_modelformats.schema import FailureKind, Outcome, Verdict

hypothesis = pytest.importorskip("hypothesis")

PASSED = Verdict(Outcome.PASSED, None, "It is the same.")
UNCLEAR = Verdict(Outcome.INCONCLUSIVE, None, "NaN in every element, in the source as here.")
FAILED = Verdict(Outcome.FAILED, FailureKind.NUMERIC, "It is another model.")


@dataclass(frozen=True)
class Drawn:
    """Stands for a generated input."""

    number: int

    @property
    def digest(self):
        return str(self.number)


def searched(folder, law, count=300):
    search = Search(time.monotonic() + 60)
    strategy = hypothesis.strategies.integers(0, 99).map(Drawn)
    wrong = smallest_wrong(strategy, lambda drawn: law(drawn.number), search, Effort(count, 0, folder, folder / "kept"))
    return search, wrong


def test_an_input_that_decides_nothing_does_not_end_the_search(tmp_path):
    """The smallest input gives NaN alone, and so do others; the one that is wrong is found, and is the smallest."""

    def law(number):
        return FAILED if number >= 60 and number % 2 else UNCLEAR if number % 3 == 0 else PASSED

    search, wrong = searched(tmp_path, law)
    assert wrong is not None
    assert (wrong.generated.number, wrong.verdict) == (61, FAILED)
    assert search.unclear > 0


def test_where_nothing_fails_what_decided_nothing_is_counted_apart(tmp_path):
    search, wrong = searched(tmp_path, lambda number: UNCLEAR if number < 10 else PASSED)
    assert wrong is None
    assert 0 < search.unclear <= 10
    assert search.judged + search.unclear == len(search.verdicts)


def test_where_nothing_decides_nothing_was_judged(tmp_path):
    search, wrong = searched(tmp_path, lambda _: UNCLEAR, count=20)
    assert wrong is None
    assert search.judged == 0
    assert search.unclear > 0
