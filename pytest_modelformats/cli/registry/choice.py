"""Which artifacts go into a model registry: of the cells that a run has seen pass, or of those in the cache."""

from __future__ import annotations

import fnmatch
import json
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pytest_modelformats.cli.registry.artifact import of_cell, stated
from pytest_modelformats.errors import ConfigurationError
from pytest_modelformats.schema import Outcome
from pytest_modelformats.schema.names import suggest
from pytest_modelformats.schema.numbers import plural
from pytest_modelformats.schema.plain import plain
from pytest_modelformats.session.suites import suites

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from pytest_modelformats.cli.registry.artifact import Chosen
    from pytest_modelformats.convert.cache import Cache
    from pytest_modelformats.record.nouns import CellRecord
    from pytest_modelformats.record.read import Run


@dataclass(frozen=True, slots=True)
class Choice:
    """What is exported; ``run`` says where the verdicts come from, ``sources`` what the models were.

    ``notes`` tell what was left out.
    """

    artifacts: tuple[Chosen, ...]
    run: Mapping[str, Any] | None = None
    sources: Mapping[str, Mapping[str, Any]] | None = None
    notes: tuple[str, ...] = ()


def from_record(run: Run, globs: Sequence[str], cache: Cache, root: Path, *, force: bool) -> Choice:
    """The artifacts of the cells that passed, of those that a glob matches; with ``force`` also of those that did not.

    Raises: ConfigurationError where a cell that is named did not pass, a glob matches nothing, nothing is left, or an
    artifact is not there any more as the run had it.
    """
    wanted, notes = _wanted(run, globs, force=force)
    sharing: dict[str, list[CellRecord]] = defaultdict(list)
    for cell in run.cells:
        sharing[_identity(cell)].append(cell)
    found: dict[tuple[str, str, str], Chosen] = {}
    for cell in wanted:
        one = of_cell(cell, cache, root)
        place = (one.model, one.folder, one.name)
        if place in found and found[place].sha256 != one.sha256:
            other = found[place].cells[0]["cell"]
            msg = f"{other} and {cell.cell} have different artifacts, and both would be {one.folder}/{one.name}"
            raise ConfigurationError(f"{msg}; choose one of them by its id")
        if place not in found:
            found[place] = replace(one, cells=tuple(_facts(c) for c in sharing[_identity(cell)]))
    header = run.header
    told = {
        "run": header.run,
        "started": header.started,
        "complete": run.complete,
        **{name: getattr(header, name) for name in ("tool", "command", "machine", "versions", "options")},
    }
    models = {
        model.model: {k: v for k, v in plain(model).items() if k not in {"model", "noise"}} for model in run.models
    }
    return Choice(tuple(found.values()), plain(told), models, tuple(notes))


def _wanted(run: Run, globs: Sequence[str], *, force: bool) -> tuple[list[CellRecord], list[str]]:
    cells = {cell.cell: cell for cell in run.cells}
    names = matched(cells, globs, f"the run {run.header.run} has")
    wanted: list[CellRecord] = []
    left_out: dict[str, str] = {}
    for name in names:
        cell = cells[name]
        why = _not_exportable(cell)
        doubt = why or ("" if force else _not_passed(cell, run))
        if not doubt:
            wanted.append(cell)
        elif name in globs:
            hint = "" if why else "; --force exports it all the same"
            raise ConfigurationError(f"{name} is not exported: {doubt}{hint}")
        else:
            left_out[name] = doubt
    if not wanted:
        what = next((f"{name}: {why}" for name, why in left_out.items()), "the plan was empty")
        more = f" (and {len(left_out) - 1} more)" if len(left_out) > 1 else ""
        raise ConfigurationError(
            f"no cell of the run {run.header.run} that was asked for can be exported: {what}{more}"
        )
    return wanted, _told_left_out(cells, left_out)


def _told_left_out(cells: Mapping[str, CellRecord], left_out: Mapping[str, str]) -> list[str]:
    """A line for each cell that ran, and one for all that did not."""
    ran = [f"{name}: {why}" for name, why in left_out.items() if cells[name].ran]
    others = Counter(cells[name].word for name in left_out if not cells[name].ran)
    words = ", ".join(f"{count} {word}" for word, count in others.items())
    return [*ran, f"{plural(others.total(), 'cell')} that did not run ({words})"] if others else ran


def matched(known: Iterable[str], globs: Sequence[str], whose: str) -> list[str]:
    """The ids that one of the globs matches, all where there is none; raises ConfigurationError for one in vain."""
    ids = list(known)
    hit = set() if globs else set(ids)
    for glob in globs:
        found = {glob} if glob in ids else set(fnmatch.filter(ids, glob))
        if not found:
            near = suggest(glob, ids)
            hint = near if "did you mean" in near else "; 'modelformats report' shows their ids"
            raise ConfigurationError(f"'{glob}' matches none of the {len(ids)} cells that {whose}{hint}")
        hit |= found
    return [name for name in ids if name in hit]


def _not_passed(cell: CellRecord, run: Run) -> str:
    """Why a cell does not count as passed, "" where it does."""
    if cell.outcome is not Outcome.PASSED:
        return _ended(cell)
    if run.footer is None:
        return f"the run {run.header.run} was interrupted, and checks of it may be missing"
    judged = (c for c in cell.checks if c.check == "parity" or c.check not in suites())
    if not any(c.outcome is Outcome.PASSED and c.parity and c.parity.outputs for c in judged):
        return "its outputs were not compared with the model's (no parity check in this run)"
    return ""


def _ended(cell: CellRecord) -> str:
    """How a cell ended and why, without the advice that the report gives."""
    told = ((word, why) for word, _, why in cell.sentences() if word.startswith(cell.outcome.value))
    word, why = next(told, (cell.word, cell.why_not))
    return f"it ended as '{word}' ({why.partition(' Next: ')[0].rstrip('.')})"


def _not_exportable(cell: CellRecord) -> str:
    """Why there is nothing that could be copied, "" where there is."""
    where = stated(cell).get("where")
    if where == "code":
        return "its model is built by code, so there is no file to copy"
    if where in {"cache", "file"}:
        return ""
    if cell.outcome is Outcome.PASSED and any(check.reused for check in cell.checks):
        return "its checks were shown again by --mf-reuse, which does not say of which artifact; run without it"
    if cell.outcome is Outcome.PASSED:
        return "its record does not say which artifact it ran; run the parity suite"
    return f"it has no artifact: {_ended(cell)}"


def _identity(cell: CellRecord) -> str:
    """The same text for all cells that ran one artifact."""
    return json.dumps([cell.model, stated(cell)], sort_keys=True)


def _facts(cell: CellRecord) -> dict[str, Any]:
    """What the registry says of a cell that ran an artifact."""
    parity, latency = cell.parity, cell.latency
    return {
        "cell": cell.cell,
        "outcome": cell.outcome.value,
        "checks": {check.check: check.word for check in cell.checks},
        "noise_ratio": plain(parity.noise_ratio) if parity else None,
        "effective_precision": parity.effective_precision if parity else "",
        "latency_p50_ns": plain(latency.latency_p50_ns) if latency else None,
        "sentences": [sentence for _, _, sentence in cell.sentences()],
    }
