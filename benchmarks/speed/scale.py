"""What a history of 10⁶ measurements costs: building it, appending one run, one cell's trend, the list of cells.

``python -m benchmarks.speed.scale`` from the checkout. Each action is a process of its own, so that its peak memory
is its own; its seconds are those of the action with opening the database, without importing Python's modules. The
measurements are synthetic, with the names and spread of real ones. PostgreSQL is measured where its server is
installed (fsync is off there, and on in SQLite).
"""

from __future__ import annotations

import argparse
import importlib
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from pytest_modelformats.history.database.rows import Entry

ROOT = Path(__file__).resolve().parent.parent.parent
CELLS = 1000
METRICS = {
    "latency_p50_ns": "ns", "latency_p90_ns": "ns", "latency_mean_ns": "ns", "load_ns": "ns",
    "first_inference_ns": "ns", "items_per_s": "/s", "size_bytes": "bytes", "peak_rss_bytes": "bytes",
    "noise_ratio": "", "outcome": "",
}  # fmt: skip
ROWS = 1_000_000
HOUR_S = 3600
REPEATS = 3
MACHINE = "0123456789ab"


def cell(number: int) -> str:
    """A cell's id."""
    return f"model{number // 4:03}-onnx-fp{(32, 16)[number % 2]}-onnxruntime@{('cpu', 'cuda')[number // 2 % 2]}"


def entry(number: int, cells: int = CELLS) -> Entry:
    """A run of so many cells; from the 60th on its runtime is another version, and slower."""
    from pytest_modelformats.history.database.rows import Entry, Measurement, Versions

    rng = random.Random(number)
    version = "1.26.0" if number < 60 else "1.32.0"  # noqa: PLR2004 - where the planted step is
    versions = Versions({"onnxruntime": version}, {"torch": "2.13.0", "Python": "3.11.7"}).to_text()
    level = 1.0 if number < 60 else 1.1  # noqa: PLR2004 - likewise

    def measured(name: str, metric: str, at: int) -> Measurement:
        if metric == "outcome":
            return Measurement(name, "", metric, "", "passed", versions)
        value = (1e6 + at) * level * (1 + 0.01 * rng.gauss(0, 1))
        bounds = (value * 0.99, value * 1.01) if metric == "latency_p50_ns" else (None, None)
        disturbed = "foreign load" if rng.random() < 0.05 else ""  # noqa: PLR2004 - one in twenty
        return Measurement(name, "latency", metric, METRICS[metric], "passed", versions, value, *bounds, disturbed, 200)

    return Entry(
        key=f"run{number}",
        run=f"20260101-{number:06}",
        started=1_767_225_600 + number * HOUR_S,
        tool="0.1.0",
        command=("pytest",),
        identity=MACHINE,
        facts={"cpu": "synthetic", "cores": 2},
        versions={"onnxruntime": version},
        complete=True,
        checks=cells,
        measurements=tuple(measured(cell(i), metric, i) for i in range(cells) for metric in METRICS),
    )


def build(where: str, runs: int) -> float:
    """Append so many runs, each in a transaction of its own as the plugin does."""
    return sum(append(where, number) for number in range(runs))


def append(where: str, number: int) -> float:
    """Append one run; returns the seconds without those of making it up."""
    from pytest_modelformats.history.database import append as history_append
    from pytest_modelformats.history.database import store as history

    made = entry(number)
    start = time.perf_counter()
    with history.opened(where, Path(), write=True) as connection:
        if connection is None or not history_append.append(connection, made):
            raise SystemExit(f"run {number} was not appended")
    return time.perf_counter() - start


def trend(where: str, runs: int) -> float:
    """One cell's latency over all runs with its steps; the fastest of a few."""
    from pytest_modelformats.history import trend as trends
    from pytest_modelformats.history.database import store as history

    def once() -> int:
        with history.opened(where, Path()) as connection:
            if connection is None:
                raise SystemExit("no history")
            (found,) = trends.trends(connection, cell(CELLS // 2), "latency_p50_ns", "all", 10_000)
            return len(found.points)

    once()  # imports ruptures
    return _fastest(once, runs)


def listed(where: str, runs: int) -> float:
    """Every cell with its number of runs and its last values; the fastest of a few."""
    from pytest_modelformats.history import trend as trends
    from pytest_modelformats.history.database import store as history

    def once() -> int:
        with history.opened(where, Path()) as connection:
            if connection is None:
                raise SystemExit("no history")
            found = trends.known_cells(connection, "all")
            return found[0].runs if len(found) == CELLS else -1

    return _fastest(once, runs)


def _fastest(once: Callable[[], int], expected: int) -> float:
    took = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        found = once()
        took.append(time.perf_counter() - start)
        if found != expected:
            raise SystemExit(f"{found} in place of {expected}")
    return min(took)


ACTIONS = {"build": build, "append": append, "trend": trend, "cells": listed}
WORDS = {
    "build": "building a history of {rows:,} measurements, {runs} runs",
    "append": "appending a run of 1,000 cells × 10 metrics to it",
    "trend": "one cell's trend over {runs} runs, with steps",
    "cells": "the list of 1,000 cells with counts and last values",
}


def rows(args: argparse.Namespace) -> list[dict[str, Any]]:
    """A line per database and action: ``what``, ``database``, ``seconds``, ``peak_rss_bytes``, ``bytes``; notes.

    ``args.rows``: how many measurements (10⁶ unless given).
    """
    count = getattr(args, "rows", None) or ROWS
    runs = max(1, count // (CELLS * len(METRICS)))
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="mf-scale-") as folder:
        path = Path(folder, "history.sqlite")
        found += _measured("SQLite", str(path), runs, lambda: path.stat().st_size)
    found += list(_postgresql(runs))
    return [*found, *_compared(args)]


def _measured(database: str, where: str, runs: int, size: Callable[[], int]) -> Iterator[dict[str, Any]]:
    for action, words in WORDS.items():
        # The run that is appended is the one after those that are there; then it is there too.
        number = runs if action in {"build", "append"} else runs + 1
        command = [sys.executable, "-m", "benchmarks.speed.scale", "--child", action, where, str(number)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{database}, {action}: {done.stderr[-2000:]}")
        what = words.format(rows=runs * CELLS * len(METRICS), runs=number)
        yield {"what": what, "database": database, **json.loads(done.stdout), "bytes": size()}


def _postgresql(runs: int) -> Iterator[dict[str, Any]]:
    sys.path.insert(0, str(ROOT))
    servers = importlib.import_module("tests.test_history.servers")
    binaries = servers.programs()
    if binaries is None:
        yield {"what": "PostgreSQL", "note": f"not measured: no server; {servers.INSTALL}"}
        return
    server, stop = servers.start(binaries)
    try:
        where = server.database()
        name = f"history{server.made}"

        def size() -> int:
            return int(server.sql(f"SELECT pg_database_size('{name}')").fetchone()[0])

        yield from _measured(f"PostgreSQL {binaries.parent.name}", where, runs, size)
    finally:
        stop()


def _compared(args: argparse.Namespace) -> list[dict[str, Any]]:
    """What comparing two stored runs costs, where that benchmark is there."""
    try:
        compare = importlib.import_module("benchmarks.speed.scale_compare")
    except ModuleNotFoundError as error:
        if error.name != "benchmarks.speed.scale_compare":
            raise
        return [
            {"what": "comparing two stored runs", "note": "not measured: benchmarks/speed/scale_compare.py is absent"}
        ]
    return list(compare.rows(args))


def table(found: Sequence[Mapping[str, Any]]) -> str:
    """The rows as a section of Markdown."""
    lines = [
        "## What many measurements cost",
        "",
        "| what | database | seconds | peak memory | size on disk |",
        "|---|---|--:|--:|--:|",
    ]
    for row in found:
        sizes = [f"{row[key] / 1e6:.0f} MB" if row.get(key) else "" for key in ("peak_rss_bytes", "bytes")]
        seconds = f"{row['seconds']:.3g}" if row.get("seconds") is not None else ""
        where = row.get("database") or row.get("note") or ""
        lines.append(f"| {row.get('what', '')} | {where} | {seconds} | {' | '.join(sizes)} |")
    for samples in sorted({row["measurements"] for row in found if row.get("measurements")}):
        lines += ["", f"Two stored runs that are compared hold {samples:,} samples together, half of them each."]
    return "\n".join(lines) + "\n"


def child(action: str, where: str, number: int) -> None:
    """One action in this process; prints its seconds and the peak memory as JSON."""
    seconds = ACTIONS[action](where, number)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    sys.stdout.write(json.dumps({"seconds": round(seconds, 4), "peak_rss_bytes": peak}))


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=ROWS, help="how many measurements")
    parser.add_argument("--child", nargs=3, metavar=("ACTION", "WHERE", "NUMBER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.child[0], args.child[1], int(args.child[2]))
        return
    print(table(rows(args)))


if __name__ == "__main__":
    main()
