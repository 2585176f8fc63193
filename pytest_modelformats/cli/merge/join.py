"""Several records joined into one: the shards of one plan, or the runs of several machines.

A cell that ran on one kind of machine in two records is one cell, with the checks of both. A cell that ran on two
kinds of machine would be two cells of one name: it gets the label of its record behind it, or the merge is refused.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_modelformats.cli.merge.header import footer_of, header_of, notes_of
from pytest_modelformats.cli.merge.nouns import Line, Merged, Part
from pytest_modelformats.convert.cache import sha256_of
from pytest_modelformats.errors import ConfigurationError
from pytest_modelformats.record import read as lines
from pytest_modelformats.settings import machine

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

RECORD = "results.jsonl"
RUN = "run"
# What decides a cell; its decision may be another where other things are installed.
_PLAN = ("model", "format", "route", "precision", "backend", "device", "environment", "candidate", "chain")


@dataclass(slots=True)
class _Joined:
    """What the parts come to."""

    cells: dict[str, Line] = field(default_factory=dict)
    checks: dict[str, list[Line]] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)


def records_in(path: Path) -> list[Path]:
    """The record itself, or every record in a folder, each once; raises ConfigurationError where there is none."""
    if not path.is_dir():
        return [path]
    own = path / RECORD
    found = [own] if own.is_file() else sorted({file.resolve() for file in path.rglob(RECORD)})
    if not found:
        msg = f"the folder {path} holds no {RECORD}; give the folder of a run, or its {RECORD}"
        raise ConfigurationError(msg)
    return found


def parts_of(records: Sequence[Path], labels: Sequence[str]) -> list[Part]:
    """The records, oldest first; ``labels`` are one per argument, or none.

    Raises: ConfigurationError for a record that cannot be read, and for labels that do not fit.
    """
    if labels and len(labels) != len(records):
        msg = f"{len(labels)} labels were given for {len(records)} records; give one --label per record, in their order"
        raise ConfigurationError(msg)
    for label in labels:
        if not label or not all(c.isalnum() or c in "._" for c in label):
            msg = f"the label '{label}' would be no part of a cell's id; make it of letters, digits, '.' and '_'"
            raise ConfigurationError(msg)
    given = labels or [""] * len(records)
    found: dict[str, tuple[Path, str]] = {}
    for path, label in zip(records, given, strict=True):
        for file in records_in(path):
            # The same record twice is one. Its run's name would not do: shards start in the same second.
            digest = sha256_of(file) if file.is_file() else str(file)
            found.setdefault(digest, (file.resolve(), label))
    parts = [_part(file, label) for file, label in found.values()]
    return sorted(parts, key=lambda part: (part.header["started"], part.header["run"]))


def _part(path: Path, label: str) -> Part:
    run = lines.read(path)  # refuses what is no record, in a sentence
    texts = path.read_text(encoding="utf-8").splitlines()
    found = [json.loads(text) for text in (texts[:-1] if run.torn else texts) if text.strip()]
    of = {kind: [line for line in found if line["kind"] == kind] for kind in ("model", "cell", "check", "footer")}
    checks: dict[str, tuple[Line, ...]] = {}
    for line in of["check"]:
        checks[line["cell"]] = (*checks.get(line["cell"], ()), line)
    header = found[0]
    return Part(
        path=path,
        label=label,
        identity=str(header["machine"].get("identity") or machine.identity(header["machine"])),
        header=header,
        footer=of["footer"][0] if of["footer"] else None,
        torn=run.torn,
        models=tuple(of["model"]),
        cells={line["cell"]: line for line in of["cell"]},
        checks=checks,
    )


def join(parts: Sequence[Part], run: str, command: Sequence[str]) -> Merged:
    """One record of all of them.

    Raises: ConfigurationError where two models have one name, a cell has two plans, or cells of two kinds of
    machine have one name and no labels.
    """
    joined = _Joined()
    models = _models(parts)
    shared = _shared(parts)
    for part in parts:
        for cell, line in part.cells.items():
            if cell not in shared:
                _take(joined, part, cell, line)
            elif part.label:
                _take(joined, part, f"{cell}+{part.label}", line)
    if joined.twice:
        count, first = len(joined.twice), joined.twice[0]
        what = "check was" if count == 1 else "checks were"
        joined.notes.append(f"{count:,} {what} in two records; the newer is shown (first of them: {first}).")
    checks = [line for cell in joined.cells for line in joined.checks.get(cell, ())]
    header = header_of(parts, run, command, [*notes_of(parts), *joined.notes])
    body = [*models, *joined.cells.values(), *checks]
    found = (header, *body, footer_of(parts, joined.cells, joined.checks))
    return Merged(found, tuple((path, name) for name, path in joined.files.items()), tuple(header["notes"]))


def _models(parts: Iterable[Part]) -> list[Line]:
    """One line per model, the newest; two files under one name are refused."""
    found: dict[str, tuple[Part, Line]] = {}
    for part in parts:
        for line in part.models:
            before = found.get(line["model"])
            if before and before[1]["sha256"] != line["sha256"]:
                msg = (
                    f"'{line['model']}' is not the same file in {before[0].name} ({before[1]['sha256'][:12]}…) and "
                    f"{part.name} ({line['sha256'][:12]}…); merge the records of one model only"
                )
                raise ConfigurationError(msg)
            found[line["model"]] = (part, line)
    return [line for _, line in found.values()]


def _shared(parts: Sequence[Part]) -> set[str]:
    """The cells that ran on several kinds of machine; each needs the label of its record."""
    kinds: dict[str, dict[str, Part]] = {}
    for part in parts:
        for cell, line in part.cells.items():
            if line["decision"] == RUN:
                kinds.setdefault(cell, {}).setdefault(part.kind, part)
    shared = {cell: of for cell, of in kinds.items() if len(of) > 1}
    unlabelled = [cell for cell, of in shared.items() if not all(part.label for part in of.values())]
    if unlabelled:
        first = unlabelled[0]
        of = list(shared[first].values())
        more = f" and {len(unlabelled) - 1:,} more" if len(unlabelled) > 1 else ""
        where = " and ".join(f"{part.header['machine'].get('cpu', '?')} ({part.name})" for part in of)
        msg = (
            f"{first}{more} ran on several kinds of machine: {where}; give each record a name with --label, in their "
            f"order (--label laptop --label server), and such cells become {first}+laptop and so on"
        )
        raise ConfigurationError(msg)
    return set(shared)


def _take(joined: _Joined, part: Part, name: str, line: Line) -> None:
    """Add a part's cell and its checks under a name."""
    own = line["cell"]
    environment = "+".join(word for word in (line["environment"], name.removeprefix(own).lstrip("+")) if word)
    line = {**line, "cell": name, "environment": environment}
    before = joined.cells.get(name)
    if before is not None:
        different = [key for key in _PLAN if before[key] != line[key]]
        if different:
            key = different[0]
            msg = (
                f"{name} was planned in two ways: its {key} is {before[key]!r} in one record and {line[key]!r} in "
                f"{part.name}; merge runs of one plan"
            )
            raise ConfigurationError(msg)
        if before["decision"] == RUN != line["decision"]:
            return  # it ran elsewhere: what was lacking here does not matter
        if before["decision"] != RUN:
            joined.checks.pop(name, None)
        if before.get("parity_asked"):  # a shard that has other checks of the cell does not take that back
            line["parity_asked"] = True
    joined.cells[name] = line
    _unite(joined, name, [_moved(joined, part, {**check, "cell": name}) for check in part.checks.get(own, ())])


def _unite(joined: _Joined, name: str, checks: list[Line]) -> None:
    """The checks of a cell with those that another part brings; of the same one twice, the newer stays."""
    again = {(check["check"], check["test"]) for check in checks}
    kept = joined.checks.get(name, [])
    stay = [check for check in kept if (check["check"], check["test"]) not in again]
    joined.twice += [f"{name}, {check['check']}" for check in kept if (check["check"], check["test"]) in again]
    joined.checks[name] = [*stay, *checks]


def _moved(joined: _Joined, part: Part, check: Line) -> Line:
    """The check with the files that it names at their place in the joined record."""
    data = dict(check.get("data") or {})
    for key in ("bundle", "failing_input"):
        named = data.get(key)
        if not isinstance(named, str) or not named:
            continue
        source = (part.path.parent / named).resolve()
        inside = source.is_relative_to(part.path.parent.resolve())
        if not inside or not source.exists():
            del data[key]
            why = "is not there" if inside else "lies outside of its record's folder"
            joined.notes.append(f"{named}, which {part.name} names, {why} and was not taken along.")
            continue
        place = Path(named).as_posix()
        while joined.files.get(place, source) != source:
            place = f"{part.header['run']}/{place}"
        joined.files[place] = source
        data[key] = place
    return {**check, "data": data}
