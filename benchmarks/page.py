"""What the pages of the benchmarks share: targets, tables, and where a page is written."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class Target:
    """A goal of a benchmark, what was found, and whether it is met."""

    what: str
    found: str
    met: bool


def publish(page: str, found: Any, name: str, document: Path | None, targets: Iterable[Target]) -> int:
    """Print a page, write it and what was found into reports/, and into ``document``; 1 where a target is missed."""
    print(page)
    folder = ROOT / "reports"
    folder.mkdir(exist_ok=True)
    stem = folder / f"{name}-{datetime.now(timezone.utc):%Y%m%d-%H%M%S}"
    stem.with_suffix(".json").write_text(json.dumps(found, indent=1), encoding="utf-8")
    stem.with_suffix(".md").write_text(page, encoding="utf-8")
    print(f"written to {stem.relative_to(ROOT)}.json and .md")
    if document is not None:
        document.write_text(page, encoding="utf-8")
        print(f"written to {document.relative_to(ROOT)}")
    return 0 if all(target.met for target in targets) else 1


def markdown_table(head: Sequence[str], lines: Iterable[Sequence[Any]]) -> Iterator[str]:
    """A Markdown table, line by line."""
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for line in lines:
        yield f"| {' | '.join(str(cell) for cell in line)} |"


def of_targets(targets: Iterable[Target]) -> Iterator[str]:
    """The table of targets."""
    yield from markdown_table(
        ("target", "found", "met"), ((t.what, t.found, "yes" if t.met else "**no**") for t in targets)
    )
