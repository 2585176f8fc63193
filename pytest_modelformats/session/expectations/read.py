"""Known failures that cannot go stale: ``cell-glob  check  # reason (issue link)``, one per line.

Strict by design (as protobuf's conformance failure lists): an unexpected pass, a line that
matches nothing and a glob that swallows more than ``MOST`` failures all fail the run.
"""

from __future__ import annotations

import fnmatch
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_modelformats.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

MOST = 20


@dataclass(frozen=True, slots=True)
class Expectation:
    """One line: which cells and check are known to fail, and why. ``place`` is ``file:line``."""

    glob: str
    check: str
    reason: str
    place: str
    path: Path | None = None
    line: int = 0

    def covers(self, cell: str, check: str) -> bool:
        """Whether a failure of this check in this cell is the known one."""
        return fnmatch.fnmatchcase(cell, self.glob) and fnmatch.fnmatchcase(check, self.check)


def read(paths: Iterable[Path]) -> tuple[Expectation, ...]:
    """Every expectation of the files; raises ConfigurationError, naming file and line."""
    found = []
    paths = tuple(dict.fromkeys(paths))
    names = Counter(path.name for path in paths)
    for path in paths:
        # Two files of one name are told apart by their folders: what a line has met is counted by its place.
        shown = path.name if names[path.name] == 1 else str(path)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            msg = f"the expectation file {path} cannot be read: {error}"
            raise ConfigurationError(msg) from None
        for number, line in enumerate(text.splitlines(), 1):
            rule, _, reason = line.partition("#")
            if not rule.strip():
                continue
            words = rule.split()
            if len(words) != 2 or not reason.strip():  # noqa: PLR2004 - glob and check
                msg = (
                    f"{path}:{number} is not an expectation; write 'cell-glob  check  # reason (issue link)', "
                    "for example '*-openvino-fp16-*  parity  # served as bf16 (openvino#123)'"
                )
                raise ConfigurationError(msg)
            found.append(Expectation(words[0], words[1], reason.strip(), f"{shown}:{number}", path, number))
    return tuple(found)


def find(expectations: Sequence[Expectation], cell: str, check: str) -> Expectation | None:
    """The first expectation that covers a check."""
    return next((e for e in expectations if e.covers(cell, check)), None)


def complaints(
    expectations: Sequence[Expectation],
    met: Mapping[str, int],
    *,
    partial: bool,
    unseen: Iterable[tuple[str, str]] = (),
) -> list[str]:
    """What is wrong with the lines after a run; unmatched ones are not judged after a partial run.

    ``unseen`` are the cells and checks that could not be looked at here (no such device, not
    measured under pytest-xdist), with the check "" for a whole cell: a line about them may be right.
    """
    unseen = list(unseen)
    found = []
    for expectation in expectations:
        count = met.get(expectation.place, 0)
        if count == 0 and not partial and not any(_about(expectation, *one) for one in unseen):
            found.append(
                f"{expectation.place} expects '{expectation.glob} {expectation.check}' to fail and nothing did; "
                "delete the line"
            )
        if count > MOST:
            found.append(f"{expectation.place} swallowed {count} failures, more than {MOST}; write narrower globs")
    return found


def _about(expectation: Expectation, cell: str, check: str) -> bool:
    return expectation.covers(cell, check) if check else fnmatch.fnmatchcase(cell, expectation.glob)
