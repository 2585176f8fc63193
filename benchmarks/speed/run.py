"""Prove the comparing of latencies: what it raises over nothing, what it finds, and what others' rules say of the same.

``python -m benchmarks.speed.run`` (``make bench-speed``) runs the parts named by ``--parts`` and keeps every row in
reports/speed.json as soon as it is there: a run that was cut off goes on where it ended (``--fresh`` starts anew).
``--write`` also writes docs/speed.md. The exit status is 1 where a target is missed.

A part is a row of ``PARTS``: a function that is given the parsed arguments and returns its rows, a list of plain
dicts. ``arguments.kept(part)`` gives the rows of an earlier run, ``arguments.keep(part, row)`` saves one more.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "reports" / "speed.json"

PARTS: dict[str, str] = {
    "aa": "benchmarks.speed.aa:rows",
    "power": "benchmarks.speed.power:rows",
    "power_under_load": "benchmarks.speed.power:rows_under_load",
    "fidelity": "benchmarks.speed.fidelity:rows",
    "scale": "benchmarks.speed.scale:rows",
}
# What a part looks at of the arguments: kept with its rows, for the page to state.
TAKES: dict[str, tuple[str, ...]] = {
    "aa": ("count", "budget", "seed", "no_load"),
    "power": ("count", "budget", "seed"),
    "power_under_load": ("count", "budget", "seed", "no_load"),
}


class Kept(argparse.Namespace):
    """The arguments, and the file in which every row is kept."""

    found: dict[str, Any]
    results: Path

    def kept(self, part: str) -> list[dict[str, Any]]:
        """The rows of a part so far."""
        return list(self.found["rows"].get(part, []))

    def keep(self, part: str, row: dict[str, Any]) -> None:
        """Add a row and write the file again, whole or not at all."""
        arguments = self.found.setdefault("arguments", {})
        # Rows that a file of before has without arguments were made with unknown ones.
        known = arguments.setdefault(part, [{}] if self.kept(part) else [])
        own = {name: getattr(self, name) for name in TAKES.get(part, ())}
        if own not in known:
            known.append(own)
        self.found["rows"].setdefault(part, []).append(row)
        self.save()

    def save(self) -> None:
        """Write the file aside and move it into place."""
        self.results.parent.mkdir(exist_ok=True)
        aside = self.results.with_suffix(".partial")
        aside.write_text(json.dumps(self.found, allow_nan=False), encoding="utf-8")
        aside.replace(self.results)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts; the exit status says whether every target is met."""
    from benchmarks.speed import table

    chosen = parsed(arguments)
    chosen.found = _earlier(chosen)
    for name in chosen.parts.split(","):
        part = _part(name)
        if part is None:
            continue
        started = time.perf_counter()
        rows = part(chosen)
        chosen.found["rows"][name] = rows
        took = chosen.found["seconds"]
        took[name] = took.get(name, 0.0) + time.perf_counter() - started
        chosen.found["date"] = datetime.now(timezone.utc).date().isoformat()
        chosen.save()
        print(f"{name}: {len(rows)} rows in {took[name]:.0f} s", flush=True)
    return table.show(chosen.found, write=chosen.write)


def parsed(arguments: Sequence[str] | None) -> Kept:
    """The arguments; unknown parts are refused."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--count", type=int, default=200, help="comparisons of identical cells; half as many per plant")
    parser.add_argument("--budget", type=float, default=8.0, help="seconds that one comparison may take")
    parser.add_argument("--seed", type=int, default=0, help="of the order of things and of the background load")
    parser.add_argument("--no-load", action="store_true", help="without the background load")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the file that rows are kept in")
    parser.add_argument("--fresh", action="store_true", help="forget what an earlier run has measured of these parts")
    parser.add_argument("--write", action="store_true", help="write docs/speed.md")
    chosen = parser.parse_args(arguments, namespace=Kept())
    unknown = [name for name in chosen.parts.split(",") if name not in PARTS]
    if unknown:
        parser.error(f"unknown part {unknown[0]}; there are {', '.join(PARTS)}")
    return chosen


def _earlier(chosen: Kept) -> dict[str, Any]:
    found: dict[str, Any] = {"rows": {}, "arguments": {}, "seconds": {}, "date": "", "machine": _machine()}
    if chosen.results.exists():
        found = json.loads(chosen.results.read_text(encoding="utf-8"))
    for name in chosen.parts.split(",") if chosen.fresh else ():
        found["rows"].pop(name, None)
        found["seconds"].pop(name, None)
        found.get("arguments", {}).pop(name, None)
    return found


def _machine() -> dict[str, Any]:
    from importlib import metadata

    from pytest_modelformats.schema.plain import plain
    from pytest_modelformats.settings import machine

    wanted = {"torch", "onnxruntime", "openvino", "numpy"}
    versions = {d.name: d.version for d in metadata.distributions() if d.name in wanted}
    return {"facts": plain(machine.machine()), "versions": versions}


def _part(name: str) -> Any:
    module, _, function = PARTS[name].partition(":")
    try:
        return getattr(importlib.import_module(module), function)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        print(f"{name}: skipped, there is no {module}", flush=True)
        return None


if __name__ == "__main__":
    sys.exit(main())
