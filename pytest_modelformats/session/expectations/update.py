"""``--mf-update-expectations``: the files of known failures, rewritten from what a whole run has found.

A line that still holds stays as it is, with its comment and its place. One of which only a
part still fails becomes one line per failure, with its reason. One of which nothing fails any
more goes. What fails and stood nowhere is added to the last file. What this run could not
judge (another machine's device, a check that it does not have) stays.
"""

from __future__ import annotations

import fnmatch
import os
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_modelformats.session.expectations.read import find

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from pytest_modelformats.session.expectations.read import Expectation

LINK = "(issue link: add)"
_REASON = 140


@dataclass(frozen=True, slots=True)
class Judged:
    """How one check of one cell ended, before any expectation was applied.

    ``state`` is ``failed``, ``passed``, ``skipped``, or ``broken`` where the tool itself failed.
    """

    cell: str
    check: str
    state: str
    word: str = ""
    sentence: str = ""


@dataclass(frozen=True, slots=True)
class Update:
    """The new text of every file that changes, what to say of it, and what stands against a green run."""

    texts: Mapping[Path, str] = field(default_factory=dict)
    said: tuple[str, ...] = ()
    complaints: tuple[str, ...] = ()


@dataclass(slots=True)
class _Ends:
    """The cells and checks that one line is responsible for, by how they ended."""

    failed: dict[tuple[str, str], Judged] = field(default_factory=dict)
    passed: set[tuple[str, str]] = field(default_factory=set)


def revise(
    files: Sequence[Path],
    expectations: Sequence[Expectation],
    judged: Iterable[Judged],
    planned: Collection[str],
) -> Update:
    """What the files become; ``planned`` are the cells of the plan, in its order. Nothing is written.

    Raises: OSError, UnicodeDecodeError where a file cannot be read.
    """
    judged = list(judged)
    ends = {expectation.place: _Ends() for expectation in expectations}
    new = _Ends()
    for one in judged:
        expectation = find(expectations, one.cell, one.check)
        its = ends[expectation.place] if expectation else new
        if one.state == "failed":
            its.failed.setdefault((one.cell, one.check), one)
        elif one.state == "passed":
            its.passed.add((one.cell, one.check))
    replaced, said = {}, []
    for expectation in expectations:
        lines, remark = _revised(expectation, ends[expectation.place], judged, planned)
        if lines is not None:
            replaced[expectation.place] = lines
        if remark:
            said.append(f"{expectation.place} {remark}")
    found = _sorted((one for key, one in new.failed.items() if key not in new.passed), planned)
    texts = _texts(files, expectations, replaced, [_line(one) for one in found])
    if found:
        said.append(f"{files[-1].name}: {len(found)} new line{'s' if len(found) > 1 else ''} (write the issue's link)")
    mixed = sorted({f"{cell} {check}" for its in (new, *ends.values()) for cell, check in {*its.failed} & its.passed})
    complaints = tuple(
        f"{one} fails for some parameters only, which no line can say; fix or mark the test" for one in mixed
    )
    return Update(texts, tuple(said), complaints)


def _revised(
    expectation: Expectation, its: _Ends, judged: Sequence[Judged], planned: Iterable[str]
) -> tuple[list[str] | None, str]:
    """The lines that take the place of one (``None``: it stays), and what to say of it."""
    if its.failed and not its.passed:
        return None, ""
    if its.failed:
        still = _sorted((one for key, one in its.failed.items() if key not in its.passed), planned)
        lines = [f"{one.cell}  {one.check}  # {expectation.reason}" for one in still]
        return lines, f"narrowed: {len(its.failed)} of its checks still fail, {len(its.passed)} do not"
    if its.passed:
        return [], "removed: nothing of it fails any more"
    if not _known(expectation, planned):
        return [], "removed: it matches no cell of the plan"
    if any(one.state != "skipped" and expectation.covers(one.cell, one.check) for one in judged):
        return [], "removed: earlier lines cover all that it does"
    return None, "kept: nothing that it covers could be judged in this run"


def _sorted(found: Iterable[Judged], planned: Iterable[str]) -> list[Judged]:
    """In the plan's order, whichever process of pytest-xdist was first."""
    order = {cell: number for number, cell in enumerate(planned)}
    return sorted(found, key=lambda one: (order.get(one.cell, len(order)), one.check))


def _known(expectation: Expectation, planned: Iterable[str]) -> bool:
    """Whether the glob matches a planned cell."""
    return any(fnmatch.fnmatchcase(cell, expectation.glob) for cell in planned)


def matches_no_cell(expectations: Iterable[Expectation], planned: Collection[str]) -> list[Expectation]:
    """The lines whose glob matches no planned cell: stale, or about what another plan has."""
    return [expectation for expectation in expectations if not _known(expectation, planned)]


def _line(one: Judged) -> str:
    reason = " ".join(one.sentence.split())
    if len(reason) > _REASON:
        reason = reason[:_REASON].rsplit(" ", 1)[0].rstrip(".,;:") + " …"
    return f"{one.cell}  {one.check}  # {one.word}: {reason} {LINK}"


def _texts(
    files: Sequence[Path],
    expectations: Sequence[Expectation],
    replaced: Mapping[str, Sequence[str]],
    added: Sequence[str],
) -> dict[Path, str]:
    """The files whose text changes; comments, empty lines, order and line ends are kept."""
    changed = {}
    for path in dict.fromkeys(files):
        before = path.read_bytes().decode("utf-8") if path.exists() else None
        old = (before or "").splitlines(keepends=True)
        end = "\r\n" if old and old[0].endswith("\r\n") else "\n"
        places = {e.line: e.place for e in expectations if e.path == path}
        text = ""
        for number, line in enumerate(old, 1):
            lines = replaced.get(places.get(number, ""))
            text += line if lines is None else "".join(f"{one}{end}" for one in lines)
        if path == files[-1] and added:
            text += "" if not text or text.endswith(("\n", "\r")) else end
            text += "".join(f"{one}{end}" for one in added)
        if text != before and (text or before is not None):
            changed[path] = text
    return changed


def write(texts: Mapping[Path, str]) -> None:
    """Write each file aside and move it into place; its mode and, for a link, the link stay. Raises: OSError."""
    for path, text in texts.items():
        target = path.resolve()
        handle, aside = tempfile.mkstemp(prefix=f".{target.name}-", dir=target.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8", newline="") as stream:
                stream.write(text)
            Path(aside).chmod(target.stat().st_mode & 0o777 if target.exists() else 0o644)
            Path(aside).replace(target)
        except OSError:
            with suppress(OSError):
                Path(aside).unlink()
            raise
