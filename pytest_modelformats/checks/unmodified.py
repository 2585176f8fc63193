"""The law that a call leaves its inputs alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_modelformats.checks.subject import PAIR
from pytest_modelformats.schema import FailureKind, Outcome, Verdict

if TYPE_CHECKING:
    from pytest_modelformats.checks.subject import Subject


def unmodified(subject: Subject) -> Verdict:
    """The arrays that are handed in hold the same bits after the call."""
    names = subject.cells.changed_inputs(subject.planned, subject.rows(0, PAIR))
    if names:
        said = ", ".join(f"'{name}'" for name in names)
        sentence = (
            f"The call changes its input {said}: what the caller holds afterwards is not what was handed in. "
            "Hand over copies, or report it to the runtime."
        )
        return Verdict(Outcome.FAILED, FailureKind.CONTRACT, sentence)
    return Verdict(Outcome.PASSED, None, "The inputs hold the same bits after a call as before it.")
