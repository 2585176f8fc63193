"""What it costs to compare two stored runs with a million samples together: seconds, and peak memory.

``rows(args)`` generates two records, compares them with ``modelformats compare`` in a process of its own, and returns
a row per shape: few cells with many samples, and many cells with few.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pytest_modelformats.measure.sampling import statistics
from pytest_modelformats.record import write as record
from pytest_modelformats.schema import Cell, Decision, PlannedCell, Timing
from pytest_modelformats.settings import machine

# Of both runs together.
MEASUREMENTS = 1_000_000
SAMPLES = (1000, 100, 10)
COMMAND = "import sys; from pytest_modelformats.cli.main import main; main(sys.argv[1:])"
# One cell in so many became slower by a fifth.
SLOWER_EVERY = 100
_OPTIONS = ("threads", "samples", "seed", "time_budget_s", "timeout_s", "isolate", "ort_optimization", "static")


def rows(args: Any = None) -> list[dict[str, Any]]:
    """One row per shape; ``args.rows`` is how many samples both runs hold together."""
    total = int(getattr(args, "rows", 0) or MEASUREMENTS)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        idle = _compare(Path(folder), *_pair(Path(folder), 1, 10))
        for samples in SAMPLES:
            cells = max(1, total // (2 * samples))
            started = time.perf_counter()
            pair = _pair(Path(folder), cells, samples)
            generated = time.perf_counter() - started
            seconds, peak, status = _compare(Path(folder), *pair)
            found.append(
                {
                    "what": f"comparing two stored runs: {cells:,} cells, {samples:,} samples each",
                    "cells": cells,
                    "samples_per_cell": samples,
                    "measurements": 2 * cells * samples,
                    "seconds": round(seconds, 2),
                    "peak_rss_bytes": peak,
                    "peak_above_idle_bytes": max(0, peak - idle[1]),
                    "bytes": sum(path.stat().st_size for path in pair),
                    "generated_s": round(generated, 2),
                    "exit_code": status,
                }
            )
    return found


def _pair(folder: Path, cells: int, samples: int) -> tuple[Path, Path]:
    return tuple(_write(folder / f"{which}.jsonl", cells, samples, which) for which in ("before", "after"))  # type: ignore[return-value]


def _write(path: Path, cells: int, samples: int, which: str) -> Path:
    """A record as a run writes it, of noise around a median per cell; in the later one some cells are slower."""
    draw = random.Random(f"{which}-{cells}-{samples}")
    options = dict.fromkeys(_OPTIONS, 1)
    settings = SimpleNamespace(**options, opset=None, memory_bytes=0)
    timing = _timing([100_000] * samples)
    with path.open("w", encoding="utf-8") as handle:
        header = record.header_line(which, ["pytest"], machine.machine(), {}, settings)  # type: ignore[arg-type]
        handle.write(record.dumps(header) + "\n")
        for index in range(cells):
            planned = PlannedCell(Cell(f"net{index}", "onnx", "fp32", "onnxruntime", "cpu"), (), "fp32", Decision())
            slower = 1.2 if which == "after" and index % SLOWER_EVERY == 0 else 1.0
            middle = 100_000 * slower
            taken = tuple(round(draw.gauss(middle, 0.01 * middle)) for _ in range(samples))
            data = record.timing_data(replace(timing, samples_ns=taken, latency_p50_ns=middle))
            line = {
                "kind": "check",
                "cell": planned.cell.id,
                "check": "latency",
                "test": "modelformats::latency",
                "outcome": "passed",
                "failure_kind": None,
                "sentence": "",
                "duration_s": 1.0,
                "data": data,
            }
            handle.write(record.dumps(record.cell_line(planned, parity_asked=False)) + "\n" + record.dumps(line) + "\n")
    return path


def _timing(samples: list[int]) -> Timing:
    readings: dict[str, Any] = {"threads": 1, "warmup_runs": 10, "load_ns": 10**6, "first_inference_ns": 10**6}
    sizes: dict[str, Any] = {
        "convert_ns": 10**9,
        "size_bytes": 10**6,
        "idle_rss_bytes": 10**8,
        "peak_rss_bytes": 2 * 10**8,
    }
    return Timing(**statistics(samples, 1, {}), **readings, **sizes, pinned=(0,))


def _compare(folder: Path, before: Path, after: Path) -> tuple[float, int, int]:
    """Seconds, peak resident bytes, and exit code of the command."""
    command = [sys.executable, "-c", COMMAND, "compare", str(before), str(after), "--mf-cache", str(folder / "cache")]
    started = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return time.perf_counter() - started, used.ru_maxrss * 1024, process.returncode


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=MEASUREMENTS)
    for row in rows(parser.parse_args()):
        print(row)
