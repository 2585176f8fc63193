"""From a pytest report to the one outcome of a check, and to the line that is recorded of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from pytest_modelformats.compare.next_step import with_step
from pytest_modelformats.errors import ModelFormatsError
from pytest_modelformats.record import write as record
from pytest_modelformats.schema import SKIPPED_OUTCOMES, FailureKind, Outcome
from pytest_modelformats.schema.plain import plain
from pytest_modelformats.session.expectations.read import find

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_modelformats.schema import PlannedCell, Verdict
    from pytest_modelformats.session.expectations.read import Expectation


@dataclass(slots=True)
class Note:
    """What the stage fixtures have learnt for the test at hand."""

    outcome: Outcome | None = None
    failure_kind: FailureKind | None = None
    sentence: str = ""
    data: dict[str, Any] = field(default_factory=dict)
    lines: list[dict[str, Any]] = field(default_factory=list)
    conversions: dict[str, int] = field(default_factory=dict)
    properties: dict[str, Any] = field(default_factory=dict)
    setup_s: float = 0.0

    def take(self, verdict: Verdict) -> None:
        """Keep a verdict as the test's."""
        self.outcome, self.failure_kind, self.sentence = verdict.outcome, verdict.failure_kind, verdict.sentence
        self.data.update(record.verdict_data(verdict))


NOTE = pytest.StashKey[Note]()


def note_of(node: pytest.Item) -> Note:
    """The note of a test, started when it is first asked for."""
    return node.stash.setdefault(NOTE, Note())


def check_name(item: pytest.Item) -> str:
    """``parity`` for the shipped ``test_parity.py``; the test function's name for the user's own tests."""
    module, _, rest = item.nodeid.partition("::")
    if module == "modelformats" and "::" in rest:
        return rest.split("::")[0]
    return getattr(item, "originalname", None) or item.name


def fail_required(item: pytest.Item, name: str, reason: str) -> NoReturn:
    """Fail the test of a cell that did not run although ``--mf-require`` names it."""
    note = note_of(item)
    note.outcome = Outcome.FAILED
    note.sentence = f"--mf-require {name}: the cell did not run: {reason}"
    pytest.fail(note.sentence, pytrace=False)


def _kind_of(error: ModelFormatsError) -> FailureKind | None:
    """A runtime that raises on what the source takes does not keep to the source's interface."""
    return FailureKind.CONTRACT if Outcome(error.outcome) is Outcome.FAILED else None


def end_stage(item: pytest.Item, error: ModelFormatsError, required: str = "", *, own: bool = False) -> NoReturn:
    """End the test as the error asks: skipped with its reason, or failed with its sentence and the next step.

    ``own``: what ran were the user's own inputs, and only they know what to do next.
    """
    note = note_of(item)
    note.outcome, note.failure_kind = Outcome(error.outcome), _kind_of(error)
    skipped = note.outcome in SKIPPED_OUTCOMES
    note.sentence = str(error) if skipped or own else with_step(str(error), note.outcome, None)
    trace = getattr(error, "trace", "")
    if note.outcome in {Outcome.MISSING_DEPENDENCY, Outcome.NO_DEVICE} and required:
        fail_required(item, required, note.sentence)
    if skipped:
        pytest.skip(f"{note.outcome.value}: {note.sentence}")
    detail = f"\n\nin the worker:\n{trace}" if trace and item.config.getoption("verbose") > 0 else ""
    pytest.fail(f"{note.outcome.value}: {note.sentence}{detail}", pytrace=False)


def conclude(
    item: pytest.Item,
    planned: PlannedCell,
    call: pytest.CallInfo[Any],
    report: pytest.TestReport,
    expectations: Sequence[Expectation],
    *,
    update: bool = False,
) -> None:
    """Attach the check's line to the report of its last phase, and apply the expectations.

    With ``update`` they are what this run finds: a new failure is expected from now on, and a pass is a pass.
    """
    if report.when == "setup" and report.passed:
        note_of(item).setup_s = call.duration  # the stages are fixtures: this is where the time goes
        return
    if report.when == "teardown" and not report.failed:
        return
    check = check_name(item)
    outcome, kind, sentence = _outcome(item, call, report)
    if report.failed and item.nodeid.startswith("modelformats::") and item.config.getoption("verbose") < 1:
        # The verdict's sentence says it all; a traceback of a shipped suite says nothing more.
        report.longrepr = f"{outcome.value}{f' ({kind.value})' if kind else ''}: {sentence}"
    note = note_of(item)
    line = {
        "kind": "check",
        "cell": planned.cell.id,
        "check": check,
        "test": item.nodeid,
        "outcome": outcome,
        "failure_kind": kind,
        "sentence": sentence,
        "duration_s": round(note.setup_s + call.duration, 6),
        "data": note.data,
        "conversions": note.conversions,
    }
    expected = find(expectations, planned.cell.id, check)
    if update:
        _update(item, call, report, line, expected)
    elif expected is not None and outcome not in SKIPPED_OUTCOMES:
        _expect(report, line, outcome, expected)
    properties = {"mf_cell": planned.cell.id, "mf_outcome": line["outcome"], **note.properties}
    found = [(k, plain(v)) for k, v in properties.items() if v is not None]
    report.user_properties.extend(found)
    item.user_properties.extend(found)  # JUnit's XML takes them from the report of the teardown, still to come
    # An attribute of the report is what pytest-xdist carries to the controller.
    report.__dict__["mf_lines"] = [record.dumps(x) for x in (*note.lines, line)]
    item.stash[NOTE] = Note()


def _outcome(
    item: pytest.Item, call: pytest.CallInfo[Any], report: pytest.TestReport
) -> tuple[Outcome, FailureKind | None, str]:
    note = note_of(item)
    if report.passed:
        return Outcome.PASSED, None, note.sentence
    if report.skipped and hasattr(report, "wasxfail"):
        return Outcome.EXPECTED_FAILURE, None, f"{note.sentence} Expected: {report.wasxfail or 'marked xfail'}".strip()
    if report.skipped:
        reason = report.longrepr[2].removeprefix("Skipped: ") if isinstance(report.longrepr, tuple) else ""
        skipped = note.outcome if note.outcome in SKIPPED_OUTCOMES else Outcome.NOT_MEASURED
        return skipped or Outcome.NOT_MEASURED, None, note.sentence or reason
    if note.outcome is not None and note.outcome not in {Outcome.PASSED, *SKIPPED_OUTCOMES}:
        return note.outcome, note.failure_kind, note.sentence
    error = call.excinfo.value if call.excinfo else None
    if isinstance(error, ModelFormatsError):
        return Outcome(error.outcome), _kind_of(error), str(error)
    text = str(error) or type(error).__name__
    return Outcome.FAILED, note.failure_kind, text.splitlines()[0][:600]


def _expect(report: pytest.TestReport, line: dict[str, Any], outcome: Outcome, expected: Expectation) -> None:
    """A known failure becomes an expected one; a pass that was expected to fail is a failure."""
    line["expectation"] = expected.place
    if outcome is Outcome.PASSED:
        sentence = f"Unexpected pass: {expected.place} expects this to fail ({expected.reason}); delete the line."
        line.update(outcome=Outcome.FAILED, sentence=sentence)
        report.outcome = "failed"
        report.longrepr = sentence
        return
    line.update(outcome=Outcome.EXPECTED_FAILURE, sentence=f"{line['sentence']} Expected: {expected.reason}")
    report.outcome = "skipped"
    report.wasxfail = expected.reason


def _update(
    item: pytest.Item,
    call: pytest.CallInfo[Any],
    report: pytest.TestReport,
    line: dict[str, Any],
    expected: Expectation | None,
) -> None:
    """Note how the check ended for the rewriting of the files; a failure is expected, now or from now on."""
    outcome, kind = Outcome(line["outcome"]), line["failure_kind"]
    broken = report.failed and _is_of_the_tool(item, call, report)
    state = "broken" if broken else "failed" if report.failed else "passed" if report.passed else "skipped"
    word = f"{outcome.value} ({kind.value})" if kind else outcome.value
    note = {"cell": line["cell"], "check": line["check"], "state": state, "word": word, "sentence": line["sentence"]}
    report.__dict__["mf_judged"] = {key: str(value) for key, value in note.items()}
    if state != "failed":
        return
    if expected is not None:
        _expect(report, line, outcome, expected)
        return
    line.update(outcome=Outcome.EXPECTED_FAILURE, sentence=f"{line['sentence']} Expected from now on.")
    report.outcome = "skipped"
    report.wasxfail = "expected from now on (--mf-update-expectations)"


def _is_of_the_tool(item: pytest.Item, call: pytest.CallInfo[Any], report: pytest.TestReport) -> bool:
    """Whether an exception comes from this package and not from a verdict, a cell or the user's own test."""
    error = call.excinfo.value if call.excinfo else None
    told = isinstance(error, (ModelFormatsError, AssertionError, pytest.fail.Exception))
    return not told and (report.when != "call" or item.nodeid.startswith("modelformats::"))
