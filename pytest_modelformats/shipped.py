"""Where the suites and fixtures are that ship with the package."""

from __future__ import annotations

from pathlib import Path


def shipped(name: str) -> Path:
    """The folder ``suites`` or ``fixtures``: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent
    inside = package / name
    return inside if inside.is_dir() else package.parent / name


def suites() -> dict[str, Path]:
    """The shipped suites by name, in the order in which they run on a cell.

    Latency is measured in a session that has not run anything yet, so it comes before determinism uses that one.
    """
    order = ("availability", "contract", "parity", "batch", "latency", "determinism")
    found = {path.stem.removeprefix("test_"): path for path in sorted(shipped("suites").glob("test_*.py"))}
    return {name: found[name] for name in (*order, *(n for n in found if n not in order)) if name in found}
