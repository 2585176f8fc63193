"""One model of the zoo: judged by the product in a process of its own, then by the second opinion in another."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.zoo.configured import INPUTS
from benchmarks.zoo.real import REAL, Entry

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PACKAGES = ROOT / ".zoo" / "packages"
SUITES = ("contract", "parity", "batch", "permutation", "determinism", "history", "fuzz")
PRODUCT_S, OPINION_S = 1500, 900
CONFIGURED = tuple(
    Entry(name, "architecture", "", f"benchmarks/zoo/configured.py:{name}", (spec,)) for name, spec in INPUTS.items()
)
ZOO: tuple[Entry, ...] = (*REAL, *CONFIGURED)


def location(entry: Entry) -> str:
    """The model as ``--mf-model`` and the second opinion take it."""
    return str((ROOT if ".py:" in entry.source else PACKAGES) / entry.source)


def judge(entry: Entry, folder: Path, options: Sequence[str]) -> dict[str, Any]:
    """What the product said of every cell of a model, what the second opinion said, and the seconds that each took."""
    folder.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    said = _product(entry, folder, options)
    middle = time.perf_counter()
    asked = {line["cell"]: line for line in _lines(folder / "artifacts.jsonl")}
    opinions = _opinions(entry, folder, list(asked.values()))
    return {
        "name": entry.name,
        "kind": entry.kind,
        "package": entry.package,
        "inputs": list(entry.inputs),
        **said,
        "opinions": opinions,
        "seconds": {"product": round(middle - started, 1), "opinion": round(time.perf_counter() - middle, 1)},
    }


def _environment() -> dict[str, str]:
    known = [str(PACKAGES), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {
        **os.environ, "OMP_NUM_THREADS": "1", "CI": "1", "ZOO_PACKAGES": str(PACKAGES), "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": os.pathsep.join(reversed(known)), "TRANSFORMERS_VERBOSITY": "error",
    }  # fmt: skip


def _finished(command: Sequence[str], log: Path, seconds: float, **more: str) -> int | None:
    """Run in a process group of its own, whatever it starts ends with it; ``None`` where it took too long."""
    with log.open("w", encoding="utf-8") as out:
        process = subprocess.Popen(
            command, cwd=ROOT, env={**_environment(), **more}, stdout=out, stderr=out, start_new_session=True
        )
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _product(entry: Entry, folder: Path, options: Sequence[str]) -> dict[str, Any]:
    command = [sys.executable, "-m", "pytest", "-q", "--tb=no", "--no-header", "-p", "no:cacheprovider"]
    command += ["-p", "no:xdist", "-p", "no:benchmark", "-o", "addopts=", "--rootdir", str(folder)]
    command += ["--mf-model", location(entry), "--mf-devices", "cpu", "--mf-slow", "--mf-history", "none"]
    command += [part for spec in entry.inputs for part in ("--mf-input", spec)]
    command += ["--mf-cache", str(folder / "cache"), "--mf-report-dir", str(folder / "reports"), "--mf-timeout", "300"]
    command += ["--mf-bundles", "0", "--mf-localise-budget", "5", "--mf-fuzz-budget", "10", *options]
    command += [*(f"modelformats::{suite}" for suite in SUITES), str(HERE / "artifacts.py")]
    said: dict[str, Any] = {"cells": {}, "ended": "", "truth": ""}
    (folder / "artifacts.jsonl").unlink(missing_ok=True)
    places = {"BENCH_ZOO_ARTIFACTS": str(folder / "artifacts.jsonl")}
    code = _finished(command, folder / "product.log", PRODUCT_S, **places)
    if code is None:
        said["ended"] = f"did not end within {PRODUCT_S} s"
    record = folder / "reports" / "latest" / "results.jsonl"
    if not record.exists():
        said["ended"] = said["ended"] or (folder / "product.log").read_text("utf-8").strip()[-400:]
        return said
    for line in _lines(record):
        _note(said, line)
    return said


def _note(said: dict[str, Any], line: Mapping[str, Any]) -> None:
    if line["kind"] == "header":
        said["header"] = {
            "machine": {k: line["machine"].get(k) for k in ("cpu", "cores", "os")},
            "versions": line.get("versions", {}),
        }
    elif line["kind"] == "cell" and line["decision"] == "run":
        said["cells"][line["cell"]] = {**{k: line[k] for k in ("format", "precision", "backend")}, "checks": {}}
    elif line["kind"] == "model":
        said["truth"] = line.get("truth_how", "")
        said["truth_method"] = line.get("truth_method", "")
    elif line["kind"] == "check" and line["cell"] in said["cells"]:
        data = line.get("data") or {}
        kept: dict[str, Any] = {"outcome": line["outcome"], "kind": line["failure_kind"], "sentence": line["sentence"]}
        if line["check"] == "parity":
            kept["noise_ratio"] = data.get("noise_ratio")
            kept["signal_db"] = _signal_db(data.get("outputs") or [])
        said["cells"][line["cell"]]["checks"][line["check"]] = kept
    elif line["kind"] == "footer":
        for cell, outcome in line["cells"].items():
            if cell in said["cells"]:
                said["cells"][cell]["outcome"] = outcome


def _signal_db(outputs: Sequence[Mapping[str, Any]]) -> float | None:
    """The signal over the error of the output that has least of it, as the product measured them; in dB."""
    pairs = [(o.get("signal_rms"), o.get("error_rms")) for o in outputs]
    found = [20 * math.log10(signal / error) for signal, error in pairs if signal and error]
    return round(min(found), 1) if found else None


def _opinions(entry: Entry, folder: Path, cells: list[dict[str, str]]) -> dict[str, Any]:
    """The second opinion on the cells; one whose artifact takes its process down is asked no more."""
    found: dict[str, Any] = {}
    places = {"source": location(entry), "inputs": list(entry.inputs), "search_path": [str(PACKAGES), str(HERE)]}
    left = list(cells)
    while left:
        request, answer = folder / "opinion.json", folder / "opinion-answer.json"
        request.write_text(json.dumps({**places, "cells": left}), "utf-8")
        answer.unlink(missing_ok=True)
        command = [sys.executable, str(HERE / "opinion.py"), str(request), str(answer)]
        code = _finished(command, folder / "opinion.log", OPINION_S)
        said = json.loads(answer.read_text("utf-8")) if answer.exists() else {}
        if "refused" in said:
            return {cell["cell"]: {"word": "none", "why": said["refused"], "ran": ""} for cell in cells}
        found |= said.get("cells", {})
        left = [cell for cell in left if cell["cell"] not in found]
        if left:
            why = "it did not end" if code is None else f"its process ended with {code}"
            found[left[0]["cell"]] = {"word": "none", "why": why, "ran": ""}
            left = left[1:]
    return found


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]
