"""The product under test: pytest with its plugin, in a process of its own, on candidates or on models."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

HERE = Path(__file__).resolve().parent
CHECKS = ("contract", "parity", "batch")
# Where nothing was judged, nothing was caught either.
NOT_JUDGED = frozenset({"unsupported", "missing-dependency", "no-device", "inconclusive", "not-measured"})
# What the runs do without, where the product has it: they would cost time and say nothing of detection.
SWITCHES = {"--mf-fuzz": "0"}
TIMEOUT_S = 1800


@dataclass(slots=True)
class Judged:
    """What the product said of one cell, and what the rules said of the same outputs."""

    cell: str
    outcomes: dict[str, str] = field(default_factory=dict)
    sentence: str = ""
    noise_ratio: float | None = None
    point_ratio: float | None = None
    effective_precision: str = ""
    localisation: dict[str, Any] | None = None
    rules: dict[str, bool] | None = None

    @property
    def caught(self) -> bool:
        """Whether any check did not pass."""
        return any(o != "passed" and o not in NOT_JUDGED for o in self.outcomes.values())

    @property
    def judged(self) -> bool:
        """Whether any check came to a judgement."""
        return any(o not in NOT_JUDGED for o in self.outcomes.values())


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run of the product."""

    header: Mapping[str, Any]
    cells: Mapping[str, Judged]
    seconds: float
    complete: bool


def run(folder: Path, name: str, options: Sequence[str], *, probe: bool = True) -> Run:
    """Run the product with ``options``; every cell's checks are read back from its record.

    Raises: RuntimeError, with the end of the output, where there is no record.
    """
    suites = [f"modelformats::{check}" for check in CHECKS] + ([str(HERE / "probe.py")] if probe else [])
    (folder / "probe.jsonl").unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-q", "--tb=no", "--no-header", "-p", "no:cacheprovider"]
    command += ["-p", "no:xdist", "-p", "no:benchmark", "-o", "addopts=", "--rootdir", str(folder)]
    command += ["--mf-cache", str(folder / "cache"), "--mf-report-dir", str(folder / f"reports-{name}")]
    command += [*_switches(), "--mf-devices", "cpu", *options, *suites]
    environment = {**os.environ, "BENCH_VERDICT_FOLDER": str(folder), "OMP_NUM_THREADS": "1", "CI": "1"}
    started = time.perf_counter()
    log = folder / f"{name}.log"
    with log.open("w", encoding="utf-8") as out:
        said: dict[str, Any] = {"stdout": out, "stderr": subprocess.STDOUT}
        subprocess.run(command, cwd=folder, env=environment, check=False, timeout=TIMEOUT_S, **said)
    record = folder / f"reports-{name}" / "latest" / "results.jsonl"
    if not record.exists():
        raise RuntimeError(f"{' '.join(command)}\nleft no record; it ended with\n{log.read_text('utf-8')[-3000:]}")
    lines = [json.loads(line) for line in record.read_text("utf-8").splitlines()]
    cells = _cells(lines, folder / "probe.jsonl")
    return Run(lines[0], cells, time.perf_counter() - started, bool(lines[-1].get("complete")))


def _switches() -> list[str]:
    from pytest_modelformats.settings.options import OPTIONS

    known = {f"--mf-{option.key.replace('_', '-')}" for option in OPTIONS}
    return [part for name, value in SWITCHES.items() if name in known for part in (name, value)]


def _cells(lines: Sequence[Mapping[str, Any]], probed: Path) -> dict[str, Judged]:
    cells: dict[str, Judged] = {}
    for line in lines:
        if line["kind"] == "check" and line["check"] in CHECKS:
            _note(cells.setdefault(line["cell"], Judged(line["cell"])), line)
    if probed.exists():
        for text in probed.read_text("utf-8").splitlines():
            answer = json.loads(text)
            if answer["cell"] in cells:
                cells[answer["cell"]].rules = answer["rules"]
    return cells


def _note(judged: Judged, line: Mapping[str, Any]) -> None:
    data = line.get("data") or {}
    judged.outcomes[line["check"]] = line["outcome"]
    if line["outcome"] != "passed" and not judged.sentence:
        judged.sentence = f"{line['check']}: {line.get('sentence', '')}"
    judged.localisation = judged.localisation or data.get("localisation")
    if line["check"] == "parity":
        outputs = data.get("outputs") or []
        judged.noise_ratio = data.get("noise_ratio")
        judged.point_ratio = max((o["point_ratio"] or 0.0 for o in outputs), default=None)
        judged.effective_precision = next((o["effective_precision"] for o in outputs), "")
