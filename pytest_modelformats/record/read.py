"""A run's record, read back: ``results.jsonl`` in, frozen nouns that answer questions out.

The file is the whole input of every report: a header first, one line per model, planned
cell and check, a footer last. No footer means that the run was interrupted.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NoReturn

from pytest_modelformats.errors import ConfigurationError
from pytest_modelformats.record.decode import MalformedLineError, decode, decode_check
from pytest_modelformats.record.nouns import (
    INTERRUPTED,
    REMARKS,
    UNCHECKED,
    CellRecord,
    Check,
    Footer,
    Header,
    Model,
    NotRun,
)
from pytest_modelformats.schema import SCHEMA_VERSION, Outcome
from pytest_modelformats.schema.numbers import plural, seconds
from pytest_modelformats.schema.outcome import FAILURES, RUN, UNSEEN, cell_outcome

if TYPE_CHECKING:
    from pathlib import Path

_READING_ORDER = [
    *(o.value for o in (Outcome.PASSED, Outcome.FAILED, *FAILURES, *REMARKS, *UNSEEN, Outcome.NOT_MEASURED)),
    INTERRUPTED,
]

# So many reasons why parity could not be checked are told before the rest is counted: a screen holds them.
_REASONS = 5


@dataclass(frozen=True, slots=True)
class Run:
    """A whole run, as far as its record goes.

    ``cells`` are in matrix order. ``torn`` is true where the last line was cut off. ``folder`` is where its record is.
    """

    header: Header
    models: tuple[Model, ...]
    cells: tuple[CellRecord, ...]
    footer: Footer | None = None
    torn: bool = False
    folder: str = ""

    @property
    def complete(self) -> bool:
        """Whether every planned cell had its chance."""
        return self.footer is not None and self.footer.complete

    @property
    def totals(self) -> dict[str, int]:
        """How many cells ended in each outcome, in reading order; they add up to the plan."""
        counts = Counter(cell.word for cell in self.cells)
        return {word: counts[word] for word in dict.fromkeys(_READING_ORDER) if counts[word]}

    @property
    def summary(self) -> str:
        """The run in one line."""
        parts = ", ".join(f"{number:,} {word}" for word, number in self.totals.items())
        took = f" in {seconds(self.footer.duration_s)}" if self.footer and self.footer.duration_s is not None else ""
        state = "complete" if self.complete else "INCOMPLETE"
        return f"{plural(len(self.cells), 'cell')}: {parts or 'none planned'}; {state}{took}"

    @property
    def reused(self) -> str:
        """How many checks were not run but shown again from earlier runs, "" if none were."""
        checks = [check for cell in self.cells for check in cell.checks]
        times = sorted(check.reused for check in checks if check.reused)
        if not times:
            return ""
        between = times[0] if times[0] == times[-1] else f"{times[0]} to {times[-1]}"
        return (
            f"{len(times):,} of {plural(len(checks), 'check')} are shown again from earlier runs ({between}): nothing "
            "that they depend on has changed since. Run without --mf-reuse to run them."
        )

    @property
    def doubts(self) -> tuple[str, ...]:
        """What a reader has to know before believing the rest: interruption, and disagreement within the record."""
        found = []
        if self.footer is None:
            found.append(
                "The run was interrupted: its record has no footer. What follows was known by then; "
                "a cell that passed so far may have had more checks ahead of it."
            )
        elif not self.footer.complete:
            found.append(
                f"The run ended before all planned cells had their turn (exit status {self.footer.exitstatus})."
            )
        if self.torn:
            found.append("The last line of the record was cut off and has been left out.")
        stated = self.footer.cells if self.footer else {}
        ours = {cell.cell: cell.outcome.value for cell in self.cells}
        different = sorted(name for name, outcome in stated.items() if ours.get(name) != outcome)
        if different:
            found.append(
                f"The footer and the lines disagree about {plural(len(different), 'cell')}, "
                f"the first of them {different[0]}; the lines are shown."
            )
        found += self.header.notes
        return tuple(found)

    @property
    def model_names(self) -> tuple[str, ...]:
        """Every model that has a cell or was evaluated, sorted."""
        return tuple(sorted({m.model for m in self.models} | {c.model for c in self.cells}))

    @property
    def failures(self) -> tuple[CellRecord, ...]:
        """The cells that want somebody to do something."""
        return tuple(c for c in self.cells if c.outcome in FAILURES)

    @property
    def remarks(self) -> tuple[CellRecord, ...]:
        """The cells that could not be decided, or failed as was expected."""
        return tuple(c for c in self.cells if c.outcome in REMARKS or c.unchecked)

    @property
    def unchecked(self) -> tuple[str, ...]:
        """Why cells whose other checks ran are no passes, one sentence per outcome and reason, the most frequent first.

        The further reasons, beyond the first few, are counted.
        """
        groups = Counter((cell.word, cell.unchecked) for cell in self.cells if cell.unchecked)
        said = [f"{number:,} {word}: {UNCHECKED}: {why}" for (word, why), number in groups.most_common(_REASONS)]
        left = sum(groups.values()) - sum(number for _, number in groups.most_common(_REASONS))
        return (*said, *([f"{left:,} more: {UNCHECKED}, each for a reason of its own"] if left else []))

    @property
    def contradictions(self) -> tuple[CellRecord, ...]:
        """The cells whose runtime states what the measured error rules out."""
        return tuple(c for c in self.cells if c.parity and c.parity.contradiction)

    @property
    def not_run(self) -> tuple[NotRun, ...]:
        """What did not run, one entry per reason, the most frequent first."""
        groups: dict[tuple[str, str, str], list[CellRecord]] = defaultdict(list)
        for cell in self.cells:
            if not cell.ran:
                word = cell.word if cell.decision == RUN else cell.decision
                groups[word, cell.why_not, cell.install].append(cell)
        found = (NotRun(*key, tuple(cells)) for key, cells in groups.items())
        return tuple(sorted(found, key=lambda g: (-len(g.cells), g.word, g.reason)))


def read(path: Path) -> Run:
    """Read a record; a last line that was cut off in writing is left out and noted.

    Raises: ConfigurationError, naming the file, the line and what is wrong with it.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        msg = f"{path} cannot be read ({error.strerror}); give the results.jsonl of a run"
        raise ConfigurationError(msg) from error
    numbered = [(n, raw) for n, raw in enumerate(content.split(b"\n"), 1) if raw.strip()]
    if not numbered:
        msg = f"{path} is empty; the run ended before it wrote its header, so there is nothing to report"
        raise ConfigurationError(msg)
    record = _Record()
    torn = False
    for position, (number, raw) in enumerate(numbered, 1):
        cut = position == len(numbered) and not content.endswith(b"\n")
        try:
            data = json.loads(raw.decode("utf-8"), parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            if cut and position > 1:
                torn = True
                continue
            _refuse(path, number, f"is not a JSON object in UTF-8 ({type(error).__name__})")
        try:
            record.take(data)
        except MalformedLineError as error:
            _refuse(path, number, str(error))
    return replace(record.finish(torn=torn), folder=str(path.parent))


def _refuse(path: Path, number: int, problem: str) -> NoReturn:
    msg = f"{path}, line {number} {problem}; it is not a record of this tool, or was changed since"
    raise ConfigurationError(msg)


def _no_constant(name: str) -> NoReturn:
    msg = f"{name} is not JSON"
    raise ValueError(msg)


@dataclass(slots=True)
class _Record:
    """What the lines so far have said."""

    header: Header | None = None
    models: dict[str, Model] = field(default_factory=dict)
    cells: dict[str, CellRecord] = field(default_factory=dict)
    checks: dict[str, list[Check]] = field(default_factory=lambda: defaultdict(list))
    footer: Footer | None = None

    def take(self, data: Any) -> None:
        """Add one line."""
        if not isinstance(data, dict) or "kind" not in data:
            raise MalformedLineError("has no 'kind'")
        kind = data["kind"]
        if (self.header is None) != (kind == "header"):
            raise MalformedLineError("is a second header" if kind == "header" else "comes before the header")
        if self.footer is not None:
            raise MalformedLineError("comes after the footer")
        if kind == "header":
            if data.get("schema") != SCHEMA_VERSION:
                msg = f"says schema {data.get('schema')!r}, and only {SCHEMA_VERSION} can be read here"
                raise MalformedLineError(msg)
            self.header = decode(Header, data)
        elif kind == "model":
            model = decode(Model, data)
            self.models[model.model] = model
        elif kind == "cell":
            self._take_cell(decode(CellRecord, data))
        elif kind == "check":
            self._take_check(decode_check(data))
        elif kind == "footer":
            self.footer = decode(Footer, data)
        else:
            msg = f"is of the unknown kind {kind!r}"
            raise MalformedLineError(msg)

    def _take_cell(self, cell: CellRecord) -> None:
        if cell.cell in self.cells:
            msg = f"plans the cell {cell.cell!r} a second time"
            raise MalformedLineError(msg)
        self.cells[cell.cell] = cell

    def _take_check(self, check: Check) -> None:
        if check.cell not in self.cells:
            msg = f"checks the cell {check.cell!r}, which no line before it plans"
            raise MalformedLineError(msg)
        self.checks[check.cell].append(check)

    def finish(self, *, torn: bool) -> Run:
        """Everything put together, the cells in matrix order."""
        if self.header is None:
            raise MalformedLineError("has no header")
        complete = self.footer is not None and self.footer.complete
        cells = [_concluded(cell, tuple(self.checks.get(name, ())), complete) for name, cell in self.cells.items()]
        cells.sort(key=lambda cell: cell.sort_key)
        return Run(self.header, tuple(self.models.values()), tuple(cells), self.footer, torn)


def _concluded(cell: CellRecord, checks: tuple[Check, ...], complete: bool) -> CellRecord:
    return replace(
        cell,
        checks=checks,
        outcome=cell_outcome(cell.decision, ((c.check, c.outcome) for c in checks), parity_asked=cell.parity_asked),
        interrupted=not complete and not checks and cell.decision == RUN,
    )
