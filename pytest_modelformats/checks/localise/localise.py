"""The first operator where a failing conversion leaves the reference.

Runs after a verdict in the pytest process; graphs are read and evaluated in a worker of its
own, parts are run alone in the cell's backend. It never changes an outcome: what goes wrong
here becomes a sentence.
"""

from __future__ import annotations

import re
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_modelformats.checks.localise.nouns import INTERMEDIATES, NONE_WRONG, READING, SIGNAL, Localised
from pytest_modelformats.errors import ModelFormatsError, WorkerTimeout
from pytest_modelformats.schema import PRECISIONS, FailureKind, Outcome

if TYPE_CHECKING:
    from pytest_modelformats.checks.bundle.nouns import Submodel
    from pytest_modelformats.checks.cell import Stages
    from pytest_modelformats.schema import PlannedCell, Verdict
    from pytest_modelformats.settings.nouns import Settings

# The verdicts that say that numbers are wrong; a changed interface is its own explanation. Of a precision that loses
# the model no operator is wrong: the one is named where the signal goes.
KINDS = frozenset({FailureKind.NUMERIC, FailureKind.NAN, FailureKind.DEGENERATE, FailureKind.PRECISION})
# How the batch law says which size of batch it is about: that many rows are looked at.
_BATCH = re.compile(r"^(?:rows of )?batch (\d+) against")
# The checks that compare with the source, and so have something to search against.
SEARCHED = frozenset({"parity", "batch", "fuzz"})
# How the message of an error begins that no function of ours raised on purpose.
_UNFORESEEN = re.compile(r"^(?:the runtime raised )?(?:\w+\.)*\w*(?:Error|Exception|NotImplemented|Fail)\b\s*:")
_OWN_ERROR = "the search ended in an error of its own, which the record holds (localisation.unforeseen)"
_NO_REFERENCE = {
    "permutation": "the rows of a batch in another order",
    "determinism": "the same input again and in a fresh session",
    "history": "the same input before and after others",
    "concurrency": "calls alone and beside others",
    "threads": "sessions with one thread and with several",
}


def due(settings: Settings, name: str, verdict: Verdict) -> bool:
    """Whether a verdict asks for it."""
    if settings.localise_budget_s <= 0 or name not in {*SEARCHED, *_NO_REFERENCE}:
        return False
    return verdict.outcome is Outcome.FAILED and verdict.failure_kind in KINDS


def localise(
    stages: Stages, settings: Settings, planned: PlannedCell, verdict: Verdict, name: str = "parity"
) -> Localised:
    """Where the cell goes wrong, within the budget; asked again for a cell and the same inputs, the same answer.

    ``name`` is the check's. What compares the cell with itself alone has nothing to search against, and says so.
    """
    if name in _NO_REFERENCE:
        reason = (
            f"the {name} check compares the cell with itself ({_NO_REFERENCE[name]}), where no reference says "
            "which operator's result is the right one"
        )
        told = Localised(INTERMEDIATES, reason=reason)
        return replace(told, sentence=sentence(told, planned.cell.backend))
    named = _BATCH.search(verdict.sentence)
    rows = int(named[1]) if named else None
    asked = "fuzz" if name == "fuzz" else "samples"
    return stages.cells.once(
        f"localised-{asked}", planned, lambda: _within(stages, settings, planned, rows, name, verdict)
    )


def _within(
    stages: Stages, settings: Settings, planned: PlannedCell, rows: int | None, name: str, verdict: Verdict
) -> Localised:
    from pytest_modelformats.checks.localise.order import failing_input, locate, where_signal_goes

    started = time.monotonic()
    ends = started + settings.localise_budget_s
    try:
        if verdict.failure_kind is FailureKind.PRECISION:
            found = where_signal_goes(stages, settings, planned, ends)
        else:
            found = locate(stages, settings, planned, ends, rows, failing_input(stages, planned, name, verdict))
    except WorkerTimeout as error:
        # A worker says that it was killed, and to allow more with --mf-timeout: here it is the budget that ended.
        found = Localised(INTERMEDIATES, reason=f"the time budget ended: {str(error).partition(' and was killed')[0]}")
    except ModelFormatsError as error:
        found = Localised(INTERMEDIATES, reason=str(error))
    except Exception as error:  # noqa: BLE001 - an error of ours here must not become the cell's outcome
        found = Localised(INTERMEDIATES, reason=f"{type(error).__name__}: {error}")
    if _UNFORESEEN.match(found.reason):  # a class name tells the reader of a verdict nothing
        found = replace(found, reason=_OWN_ERROR, unforeseen=found.reason)
    seconds = time.monotonic() - started
    if found.reason and seconds >= settings.localise_budget_s:
        reason = f"{found.reason.rstrip('.')}; allow more than {settings.localise_budget_s:g} s with "
        found = replace(found, reason=f"{reason}--mf-localise-budget")
    return replace(found, seconds=round(seconds, 3), sentence=sentence(found, planned.cell.backend))


def submodel(found: Localised, planned: PlannedCell) -> Submodel | None:
    """The part as a reproduction bundle takes it, where alone it is further off than rounding may be."""
    from pytest_modelformats.checks.bundle.nouns import Submodel

    faint = found.output_error is not None and found.output_error <= PRECISIONS[planned.cell.precision].limit
    if found.submodel is None or not found.confirmed or faint:
        return None
    return Submodel(found.submodel, found.inputs, found.expected, found.sentence, dict(found.noise))


def sentence(found: Localised, backend: str) -> str:
    """What was found, in words."""
    if found.reason.startswith(NONE_WRONG):
        return f"{found.reason[0].upper()}{found.reason[1:].rstrip('.')}."
    if found.method == SIGNAL:
        return _of_signal(found)
    if found.reason:
        return f"The first wrong operator could not be located because {found.reason.rstrip('.')}."
    place = f" ({found.module})" if found.module and found.module != found.node else ""
    if found.method == READING:
        read = f"First operator that is another one than the source's: {found.operator} '{found.node}'{place}"
        return f"{read}: {found.how}. The graphs were read and not run: {found.unevaluated.rstrip('.')}."
    unit = "its rounding noise" if found.method == INTERMEDIATES else "what rounding explains"
    error = f"output error {_times(found.output_error)} {unit}, inputs {_times(found.input_error)}"
    text = f"First wrong operator: {found.operator} '{found.node}'{place}: {error}"
    text += f"; {found.how}." if found.how else "."
    if found.confirmed is not None:
        text += f" Alone, on good inputs, it is {'wrong' if found.confirmed else 'right'} in {backend}"
        text += "." if found.confirmed else ": it goes wrong only among its neighbours."
    return text


def _of_signal(found: Localised) -> str:
    if found.reason:
        return f"Which operator loses the signal could not be told because {found.reason.rstrip('.')}."
    place = f" ({found.module})" if found.module and found.module != found.node else ""
    return f"The first operator that loses the signal: {found.operator} '{found.node}'{place}: {found.how}."


def _times(ratio: float | None) -> str:
    if ratio is None:
        return "beyond"
    return f"{ratio:.2g} ×"
