"""The first and the last line of a record that was joined from several, and what its reader has to know."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_modelformats import __version__
from pytest_modelformats.record import write as record
from pytest_modelformats.schema import SCHEMA_VERSION
from pytest_modelformats.schema.outcome import FAILURES, awaits_parity, cell_outcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pytest_modelformats.cli.merge.nouns import Line, Part

_OWN = frozenset({"kind", "schema", "run", "started", "tool", "command", "machine", "versions", "options", "notes"})
_DIFFERENT = " / "
# What differs between any two runs and means nothing.
_UNIMPORTANT = frozenset({"memory_bytes", "timeout_s"})


def header_of(parts: Sequence[Part], run: str, command: Sequence[str], notes: Sequence[str]) -> Line:
    """What all parts agree on stands where it stands in any header; the rest is in ``merged``, by part."""
    headers = [part.header for part in parts]
    header: Line = {
        "kind": "header",
        "schema": SCHEMA_VERSION,
        "run": run,
        "started": headers[0]["started"],
        "tool": __version__,
        "command": list(command),
        "machine": _machine(headers),
        "versions": _versions(headers),
        "options": _agreed([h["options"] for h in headers]),
    }
    others = dict.fromkeys(key for h in headers for key in h if key not in {*_OWN, "merged"})
    for key in others:
        values = [h[key] for h in headers if key in h]
        if key == "environments":
            header[key] = {name: value for of in values for name, value in of.items()}
        elif all(value == values[0] for value in values):
            header[key] = values[0]
    merged: Line = {}
    for part in parts:
        merged |= part.header.get("merged") or {_free(part.label or part.header["run"], merged): _about(part)}
    earlier = [note for h in headers for note in h.get("notes", ())]
    return {**header, "merged": merged, "notes": list(dict.fromkeys([*earlier, *notes]))}


def _free(name: str, taken: Mapping[str, Any]) -> str:
    number = 2
    found = name
    while found in taken:
        found, number = f"{name} ({number})", number + 1
    return found


def _about(part: Part) -> Line:
    header = part.header
    facts = {k: v for k, v in header["machine"].items() if k != "cpu_flags"}
    return {
        "run": header["run"],
        "started": header["started"],
        "tool": header["tool"],
        "command": header["command"],
        "machine": facts | {"identity": part.identity},
        "versions": header["versions"],
        "options": header["options"],
        "cells": len(part.cells),
        "complete": bool(part.footer and part.footer["complete"]),
    }


def _machine(headers: Sequence[Line]) -> Line:
    """The machine where it is one; of several, texts side by side and no number that is only one's."""
    machines = [h["machine"] for h in headers]
    found: Line = {}
    for key in dict.fromkeys(key for m in machines for key in m):
        values = [m[key] for m in machines if key in m]
        if all(value == values[0] for value in values):
            found[key] = values[0]
        elif all(isinstance(value, str) for value in values):
            found[key] = _DIFFERENT.join(dict.fromkeys(str(value) for value in values))
        elif all(isinstance(value, list) for value in values):
            common = set.intersection(*(set(value) for value in values))
            every = dict.fromkeys(item for value in values for item in value)
            found[key] = [item for item in every if item in common] if key == "cpu_flags" else list(every)
        else:
            found[key] = None
    return found


def _versions(headers: Sequence[Line]) -> dict[str, str]:
    names = sorted({name for h in headers for name in h["versions"]})
    of = {name: dict.fromkeys(h["versions"][name] for h in headers if name in h["versions"]) for name in names}
    return {name: _DIFFERENT.join(values) for name, values in of.items()}


def _agreed(options: Sequence[Mapping[str, Any]]) -> Line:
    first = options[0]
    return {key: value for key, value in first.items() if all(key in o and o[key] == value for o in options)}


def notes_of(parts: Sequence[Part]) -> list[str]:
    """What differs between the parts, and which of them did not come to their end."""
    notes = []
    versions = _differing({part.name: part.header["versions"] for part in parts})
    tools = {part.name: part.header["tool"] for part in parts}
    if len(set(tools.values())) > 1:
        versions.append(_listing("pytest-modelformats", tools))
    for name in sorted({name for part in parts for name in part.header.get("environments", {})}):
        of = {part.name: part.header.get("environments", {}).get(name, {}).get("versions", {}) for part in parts}
        versions += [f"in the environment {name}: {said}" for said in _differing(of)]
    if versions:
        notes.append(f"Versions differ between the records: {'; '.join(versions)}.")
    options = _differing({part.name: part.header["options"] for part in parts})
    if options:
        notes.append(f"The records were made with different options: {'; '.join(options)}.")
    kinds = {part.identity: part.header["machine"].get("cpu", "?") for part in parts}
    if len(kinds) > 1:
        machines = ", ".join(f"{cpu} [{identity}]" for identity, cpu in kinds.items())
        notes.append(f"The records are of {len(kinds)} kinds of machine: {machines}; their latencies do not compare.")
    for part in parts:
        if part.footer is None:
            cut = "; its last line was cut off and has been left out" if part.torn else ""
            notes.append(f"{part.name} was interrupted: its record has no footer{cut}.")
        elif not part.footer["complete"]:
            notes.append(f"{part.name} ended before all of its cells had their turn.")
    return notes


def _differing(facts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The names whose values differ where several parts have them, with who has which; ``facts`` are by part."""
    found = []
    for name in sorted({name for known in facts.values() for name in known} - _UNIMPORTANT):
        of = {part: known[name] for part, known in facts.items() if name in known}
        if len({str(value) for value in of.values()}) > 1:
            found.append(_listing(name, of))
    return found


def _listing(name: str, of: Mapping[str, Any]) -> str:
    by_value: dict[str, list[str]] = {}
    for part, value in of.items():
        by_value.setdefault(str(value), []).append(part)
    return f"{name} {', '.join(f'{value} ({_few(who)})' for value, who in by_value.items())}"


def _few(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def footer_of(parts: Sequence[Part], cells: Mapping[str, Line], checks: Mapping[str, Iterable[Line]]) -> Line:
    """Totals and completeness, computed from the joined lines."""
    outcomes: dict[str, str] = {}
    whole = all(part.footer is not None and part.footer["complete"] for part in parts)
    for name, line in cells.items():
        heard = [(check["check"], check["outcome"]) for check in checks.get(name, ())]
        if line["decision"] == "run" and not heard:
            whole = False
            continue
        asked = bool(line.get("parity_asked"))
        outcome = cell_outcome(line["decision"], heard, parity_asked=asked)
        whole = whole and (outcome in FAILURES or not awaits_parity(heard, asked=asked))
        outcomes[name] = outcome.value
    footers = [part.footer for part in parts if part.footer is not None]
    made = Counter[str]()
    for footer in footers:
        made.update({key: footer["conversions"].get(key, 0) for key in ("made", "cached")})
    return {
        "kind": "footer",
        "finished": max((footer["finished"] for footer in footers), default=record.now()),
        "duration_s": round(sum(footer["duration_s"] for footer in footers), 3),
        "complete": whole,
        "totals": dict(Counter(outcomes.values())),
        "cells": outcomes,
        "conversions": {"made": made["made"], "cached": made["cached"]},
        "exitstatus": max((footer["exitstatus"] for footer in footers), default=2),
    }


def write(folder: Path, lines: Iterable[Line], files: Iterable[tuple[Path, str]]) -> Path:
    """The record with the files it names in a new folder, there as a whole or not at all; returns the record.

    Raises: OSError.
    """
    import shutil
    import tempfile

    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        for source, name in files:
            target = aside / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)
            for file in (source, source.with_name(f"{source.name}.zip")):
                if file.is_file():
                    shutil.copy2(file, target.with_name(file.name))
        text = "".join(record.dumps(line) + "\n" for line in lines)
        (aside / "results.jsonl").write_text(text, encoding="utf-8")
        aside.chmod(0o755)
        if folder.exists():
            folder.rmdir()  # it is empty
        aside.replace(folder)
    except OSError:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    return folder / "results.jsonl"
