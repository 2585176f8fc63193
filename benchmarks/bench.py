"""What the tool itself costs, as ratios against what one would do by hand, measured side by side in one run.

``python benchmarks/bench.py [--parts total,cells,latency,comparison] [--repetitions N] [--models digits_cnn,resnet50]``
prints one table and writes reports/bench-<date>.json.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from datetime import datetime, timezone
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import cells
import comparison
import latency

HERE = Path(__file__).resolve().parent
RECIPES = HERE.parent / "fixtures" / "models"
THREADS = 1
# A B B A rounds of the latency part for every repetition asked for.
ROUNDS = 8
REAL_ROWS, SEEDED_ROWS = 256, 8


# What handwritten.py does too: the same conversions, inferences and timed samples.
MIRRORED = ("--mf-suites", "contract,parity,batch,latency,determinism")


class Subject(NamedTuple):
    """A model, which of its lanes are run, and its input."""

    select: tuple[str, ...]
    lanes: str
    rows: int
    spec: str


SUBJECTS = {
    "digits_cnn": Subject(("--mf-slow",), "every lane", REAL_ROWS, "image:float32[N,1,8,8]"),
    "resnet50": Subject(
        ("-k", "fp32 or fp16-weights or onnx-fp16"),
        "the fp32 lanes, ONNX fp16, OpenVINO fp16 weights",
        SEEDED_ROWS,
        "input:float32[N,3,224,224]",
    ),
}


class Row(NamedTuple):
    """One line of the table; ``within`` is the range that the figure is to lie in."""

    what: str
    figure: float
    within: tuple[float, float]
    how: str


class Spent(NamedTuple):
    """What a process and everything it waited for took, in seconds."""

    wall_s: float
    cpu_s: float


def main() -> int:
    """Measure the asked parts and show them; the exit status says whether every target is met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--parts", default="total,cells,latency,comparison", help="total: cold and warm; cells; latency; comparison"
    )
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--models", default="digits_cnn,resnet50")
    parser.add_argument("--counts", default="1000,10000,100000", help="of cells")
    parser.add_argument("--keep", action="store_true", help="leave the working folder in place")
    chosen = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="modelformats-bench-"))
    found: dict[str, Any] = {"argv": sys.argv[1:], "load_before": os.getloadavg()}
    rows: list[Row] = []
    # Ended by a time limit, it shows what it has, as after an interruption from the keyboard.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        for part in chosen.parts.split(","):
            run = {"total": total_part, "cells": cells_part, "latency": latency_part, "comparison": comparison_part}
            tell(f"part {part}")
            rows += run[part](chosen, work, found)
    finally:
        if not chosen.keep:
            shutil.rmtree(work, ignore_errors=True)
        # Also where a later part failed or was interrupted: what was measured until then took minutes.
        found |= {"rows": [row._asdict() for row in rows], "load_after": os.getloadavg()}
        if rows:
            show(rows, found)
    return 0 if all(low <= row.figure <= high for row in rows for low, high in [row.within]) else 1


def total_part(chosen: argparse.Namespace, work: Path, found: dict[str, Any]) -> list[Row]:
    """(a) the tool over the hand-written script, both cold, and (b) the tool warm over cold."""
    rows = []
    found["total"] = {}
    warm_up_the_disk()
    for name in chosen.models.split(","):
        runs = [one_turn(name, work / f"{name}-{turn}", found) for turn in range(chosen.repetitions)]
        found["total"][name] = runs
        cold, hand, warm, reused = (
            {k: median(r[s][k] for r in runs) for k in Spent._fields} for s in ("cold", "hand", "warm", "reused")
        )
        subject = SUBJECTS[name]
        seconds = f"{cold['wall_s']:.1f} s / {hand['wall_s']:.1f} s"
        cpu = f"CPU {cold['cpu_s'] / hand['cpu_s']:.2f}"
        rows.append(
            Row(f"(a) {name}: tool / by hand, cold", cold["wall_s"] / hand["wall_s"], (0, 1.10), f"{seconds}, {cpu}")
        )
        share = runs[-1]["warm_checks_s"]
        parts = ", ".join(f"{k} {v:.1f}" for k, v in share.items())
        cpu = f"CPU {warm['cpu_s'] / cold['cpu_s']:.2f}"
        how = f"{warm['wall_s']:.1f} s / {cold['wall_s']:.1f} s, {cpu}; {subject.lanes}; warm checks in s: {parts}"
        anew = f"(b) {name}: warm / cold, everything run and timed again"
        rows.append(Row(anew, warm["wall_s"] / cold["wall_s"], (0, math.inf), how))
        seconds = f"{reused['wall_s']:.1f} s / {cold['wall_s']:.1f} s, {runs[-1]['reused_checks']} checks shown again"
        rows.append(
            Row(f"(b) {name}: warm / cold, with --mf-reuse", reused["wall_s"] / cold["wall_s"], (0, 0.15), seconds)
        )
    return rows


def one_turn(name: str, folder: Path, found: dict[str, Any]) -> dict[str, Any]:
    """One cold run of the tool, one of the script with as many samples, two warm runs of the tool."""
    folder.mkdir(parents=True)
    model = make_model(name, folder)
    select = (*SUBJECTS[name].select, *MIRRORED)
    cold, checks = run_tool(model, folder, "cold", select, found)
    lanes = [c for c in checks if c["check"] == "latency" and "samples" in c["data"]]
    hand = run_by_hand(name, model, folder, lanes, found)
    warm, again = run_tool(model, folder, "warm", select, found)
    reused, shown = run_tool(model, folder, "reused", (*select, "--mf-reuse"), found)
    spent = Counter[str]()
    for check in again:
        spent[check["check"]] += check["duration_s"]
    return {
        **{k: v._asdict() for k, v in (("cold", cold), ("hand", hand), ("warm", warm), ("reused", reused))},
        "reused_checks": sum("reused" in check["data"] for check in shown),
        "lanes": len(lanes),
        "samples": sum(c["data"]["samples"] for c in lanes),
        "warm_checks_s": {k: round(v, 2) for k, v in spent.items()},
        "cold_checks": [{k: c[k] for k in ("cell", "check", "outcome", "duration_s")} for c in checks],
    }


def make_model(name: str, folder: Path) -> Path:
    """The model's file, built by its recipe."""
    model = folder / f"{name}.pth"
    subprocess.run([sys.executable, str(RECIPES / f"{name}.py"), str(model)], check=True, stdout=subprocess.DEVNULL)
    return model


def run_tool(
    model: Path, folder: Path, turn: str, select: tuple[str, ...], found: dict[str, Any]
) -> tuple[Spent, list[dict[str, Any]]]:
    """Run the tool with the cache of ``folder``; returns what it took and the check lines of its record."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:benchmark", "-p", "no:xdist"]
    command += ["--mf-model", str(model), "--mf-devices", "cpu", "--mf-threads", str(THREADS)]
    command += ["--mf-cache", str(folder / "cache"), "--mf-report-dir", str(folder / turn), *select]
    spent = timed(command, folder, f"tool-{turn}", {"TMPDIR": str(folder / "tool-tmp")})
    lines = [json.loads(t) for t in (folder / turn / "latest" / "results.jsonl").read_text("utf-8").splitlines()]
    if lines[-1]["kind"] != "footer" or not lines[-1]["complete"]:
        raise SystemExit(f"the tool's run in {folder / turn} is incomplete")
    found.setdefault("machine", lines[0]["machine"])
    found.setdefault("versions", lines[0]["versions"])
    planned = {c["cell"]: c for c in lines if c["kind"] == "cell"}
    facts = ("format", "precision", "backend")
    return spent, [{**c, **{k: planned[c["cell"]][k] for k in facts}} for c in lines if c["kind"] == "check"]


def run_by_hand(name: str, model: Path, folder: Path, lanes: list[dict[str, Any]], found: dict[str, Any]) -> Spent:
    """Run the script with as many warm-up runs and samples per lane as the tool took."""
    timing = [{k: c[k] for k in ("cell", "format", "precision", "backend")} for c in lanes]
    for lane, check in zip(timing, lanes, strict=True):
        lane |= {"samples": check["data"]["samples"], "warmup": check["data"]["warmup_runs"]}
    entry = {"name": name, "file": str(model), "recipe": str(RECIPES / f"{name}.py"), "rows": SUBJECTS[name].rows}
    job = {"folder": str(folder / "hand"), "threads": THREADS, "models": [{**entry, "cells": timing}]}
    path = folder / "work.json"
    path.write_text(json.dumps(job), encoding="utf-8")
    # CI=1 keeps OpenVINO from reporting home, as the tool's workers do.
    fresh = {"CI": "1", "TMPDIR": str(folder / "hand-tmp"), "TORCHINDUCTOR_CACHE_DIR": str(folder / "hand-compiled")}
    command = [sys.executable, str(HERE / "handwritten.py"), str(path)]
    spent = timed(command, folder, "hand", {**fresh, "OMP_NUM_THREADS": str(THREADS)})
    found.setdefault("by_hand", {})[name] = json.loads((folder / "hand" / f"{name}.json").read_text("utf-8"))
    return spent


def timed(command: list[str], folder: Path, what: str, extra: dict[str, str]) -> Spent:
    """Run a command with a temporary folder of its own and none of this shell's compiler caches."""
    Path(extra["TMPDIR"]).mkdir(exist_ok=True)
    env = {k: v for k, v in os.environ.items() if k != "TORCHINDUCTOR_CACHE_DIR"} | extra
    log = folder / f"{what}.log"
    tell(f"{folder.name}: {what}")
    before, started = cells.children_cpu_s(), time.perf_counter()
    with log.open("w", encoding="utf-8") as stream:
        done = subprocess.run(command, stdout=stream, stderr=subprocess.STDOUT, env=env, cwd=folder, check=False)
    elapsed = time.perf_counter() - started
    cpu = cells.children_cpu_s() - before
    # pytest ends with 1 when a cell fails, as OpenVINO's fp16 does on processors that run it as bf16.
    if done.returncode not in {0, 1} or (what == "hand" and done.returncode):
        raise SystemExit(f"{what} ended with status {done.returncode}:\n{log.read_text('utf-8')[-3000:]}")
    return Spent(elapsed, cpu)


def tell(what: str) -> None:
    """Say on stderr what is being measured: the whole takes more than half an hour with ResNet-50."""
    print(f"{time.strftime('%H:%M:%S')}  {what}", file=sys.stderr, flush=True)


def warm_up_the_disk() -> None:
    """Read every library once, so that whoever comes first does not pay for the disk."""
    code = (
        "import torch._dynamo, torch._inductor.compile_fx, torch.onnx, onnx, onnxscript, onnxruntime, openvino, sklearn"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


def cells_part(chosen: argparse.Namespace, work: Path, found: dict[str, Any]) -> list[Row]:
    """(c) plan and collection against bare parametrisation, and whether their cost is linear."""
    counts = [int(count) for count in chosen.counts.split(",")]
    results = found["cells"] = cells.measure(counts, chosen.repetitions, work / "cells")
    rows = [
        Row(
            f"(c) {r['items']:,} cells: plan and collection / bare",
            r["tool_s"] / r["bare_s"],
            (0, 2),
            f"{r['tool_s']:.2f} s / {r['bare_s']:.2f} s, CPU {r['tool_cpu_s'] / r['bare_cpu_s']:.2f}; "
            f"{r['models']:,} models",
        )
        for r in results
    ]
    if len(results) > 2:  # noqa: PLR2004 - a slope at either end takes three
        rows.append(
            Row(
                "(c) cost of one more cell, many over few",
                cells.linearity(results, "tool_cpu_s"),
                (0, 1.5),
                f"in CPU seconds; 1 is linear, bare pytest has {cells.linearity(results, 'bare_cpu_s'):.2f}",
            )
        )
    return rows


def latency_part(chosen: argparse.Namespace, work: Path, found: dict[str, Any]) -> list[Row]:
    """(d) the reported latency over that of a bare loop in its own process."""
    rows = []
    found["latency"] = {}
    select = ("--mf-backends", "onnxruntime,openvino", "--mf-precisions", "fp32", "modelformats::latency")
    for name in chosen.models.split(","):
        folder = work / f"latency-{name}"
        folder.mkdir(parents=True)
        model = make_model(name, folder)
        run_tool(model, folder, "run", select, found)  # fills the cache
        rounds = ROUNDS * chosen.repetitions
        results = latency.measure(SUBJECTS[name].spec, folder / "cache", rounds, folder)
        found["latency"][name] = results
        rows += [
            Row(
                f"(d) {name} on {r['backend']}: reported / bare loop",
                r["ratio"],
                (0.97, 1.03),
                f"{r['tool_ns'] / 1e6:.4f} ms / {r['bare_ns'] / 1e6:.4f} ms, "
                f"{len(r['taken']['tool'])} + {len(r['taken']['bare'])} blocks",
            )
            for r in results
        ]
    return rows


def comparison_part(chosen: argparse.Namespace, work: Path, found: dict[str, Any]) -> list[Row]:
    """(e) the time of the comparison over that of the inferences that it judges, on ResNet-50."""
    name = "resnet50"
    if name not in chosen.models.split(","):
        return []
    folder = work / f"comparison-{name}"
    folder.mkdir(parents=True)
    model = make_model(name, folder)
    select = ("--mf-backends", "onnxruntime", "--mf-precisions", "fp32", "modelformats::parity")
    run_tool(model, folder, "run", select, found)  # fills the cache with artifact and reference
    result = found["comparison"] = comparison.measure(SUBJECTS[name].spec, folder / "cache", folder)
    how = (
        f"{result['comparison_s'] * 1e3:.2f} ms / {result['inferences_s'] * 1e3:.0f} ms for {result['rows']} rows; "
        f"the proof of execution takes {result['proof_s'] * 1e3:.0f} ms, once per cell"
    )
    figure = result["comparison_s"] / result["inferences_s"]
    return [Row(f"(e) {name}: comparison / inferences it judges", figure, (0, 0.05), how)]


def show(rows: list[Row], found: dict[str, Any]) -> None:
    """Print the table and write the JSON."""
    width = max(len(row.what) for row in rows)
    print(f"{'':{width}}  figure  target       met  how")
    for row in rows:
        low, high = row.within
        target = f"{low:g} to {high:g}" if low else f"at most {high:g}"
        met = "yes" if low <= row.figure <= high else "NO"
        if high == math.inf:
            target, met = "none", ""
        print(f"{row.what:{width}}  {row.figure:6.3f}  {target:<11}  {met:<3}  {row.how}")
    machine = found.get("machine", {})
    if machine:
        print(f"\n{machine['cpu']}, {machine['cores']} cores, {THREADS} thread, {machine['os']}")
    versions = {"Python": platform.python_version(), **found.get("versions", {})}
    print(", ".join(f"{name} {version}" for name, version in versions.items()))
    print(f"load of the machine before and after: {found['load_before'][0]:.1f}, {found['load_after'][0]:.1f}")
    folder = HERE.parent / "reports"
    folder.mkdir(exist_ok=True)
    path = folder / f"bench-{datetime.now(timezone.utc):%Y%m%d-%H%M%S}.json"
    path.write_text(json.dumps(found, indent=1), encoding="utf-8")
    print(f"written to {path.relative_to(HERE.parent)}")


if __name__ == "__main__":
    sys.exit(main())
