"""Plan and collection of many cells, against bare pytest parametrisation of as many items.

The tool's side is a folder of small state_dicts, each with all of its cells on the CPU: reading what each
file is, planning, and collecting one item per cell. The bare side is a test file that parametrises one
test with the same ids. Both are ``pytest --collect-only -q`` with the output discarded.
"""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
import time
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

COMMON = ["-p", "no:cacheprovider", "--collect-only", "-q"]
SAVE = "import sys, torch; torch.save(torch.nn.Linear(4, 2).state_dict(), sys.argv[1])"


def measure(counts: list[int], repetitions: int, folder: Path) -> list[dict[str, float]]:
    """Per count the medians of both sides, taken in alternation: seconds by the clock and of CPU."""
    seed = folder / "net.pth"
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, "-c", SAVE, str(seed)], check=True)
    lanes = _lanes(seed, folder)
    results = []
    for count in counts:
        models = -(-count // len(lanes))
        tool, bare = _tool(seed, models, folder), _bare(lanes, models, folder)
        taken: dict[str, list[tuple[float, float]]] = {"tool": [], "bare": []}
        for turn in range(repetitions):
            order = [("tool", tool), ("bare", bare)]
            for name, command in order if turn % 2 == 0 else order[::-1]:
                taken[name].append(_collect(command, models * len(lanes), folder))
        result: dict[str, float] = {"items": models * len(lanes), "models": models}
        for name, pairs in taken.items():
            result[f"{name}_s"], result[f"{name}_cpu_s"] = (median(values) for values in zip(*pairs, strict=True))
        results.append(result)
    return results


def linearity(results: list[dict[str, float]], side: str) -> float:
    """The cost of one more item at the largest counts over that at the smallest; the start-up does not enter."""
    small, middle, large = results[0], results[-2], results[-1]
    late = (large[side] - middle[side]) / (large["items"] - middle["items"])
    return late / ((middle[side] - small[side]) / (middle["items"] - small["items"]))


def _tool(seed: Path, models: int, folder: Path) -> list[str]:
    many = folder / f"models-{models}"
    many.mkdir()
    for index in range(models):
        shutil.copyfile(seed, many / f"net_{index:05d}.pth")
    return [*_with_model(many), "modelformats::parity"]


def _with_model(path: Path) -> list[str]:
    return [sys.executable, "-m", "pytest", *COMMON, "--mf-devices", "cpu", "--mf-slow", "--mf-model", str(path)]


def _bare(lanes: list[str], models: int, folder: Path) -> list[str]:
    ids = [f"net_{index:05d}-{lane}" for index in range(models) for lane in lanes]
    path = folder / f"test_bare_{models}.py"
    path.write_text(
        f"import pytest\n\nIDS = {ids!r}\n\n\n"
        '@pytest.mark.parametrize("cell", range(len(IDS)), ids=IDS)\ndef test_bare(cell):\n    pass\n',
        encoding="utf-8",
    )
    # Writing the bytecode of a list of 100,000 ids is no part of parametrisation.
    subprocess.run([sys.executable, "-m", "pytest", *COMMON, str(path)], check=True, stdout=subprocess.DEVNULL)
    return [sys.executable, "-m", "pytest", *COMMON, "-p", "no:modelformats", str(path)]


def _lanes(seed: Path, folder: Path) -> list[str]:
    """The cells of one model, as the tool names them."""
    command = [*_with_model(seed), "modelformats::parity"]
    shown = subprocess.run(command, check=True, capture_output=True, text=True, cwd=folder).stdout
    return [line.split("[net-", 1)[1].rstrip("]") for line in shown.splitlines() if "[net-" in line]


def children_cpu_s() -> float:
    """The CPU seconds of every process that this one has waited for."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def _collect(command: list[str], expected: int, folder: Path) -> tuple[float, float]:
    """The seconds of a collection, by the clock and of CPU; the number of items is verified by its last line."""
    log = folder / "collected.txt"
    with log.open("w", encoding="utf-8") as stream:
        before, started = children_cpu_s(), time.perf_counter()
        done = subprocess.run(command, stdout=stream, stderr=subprocess.STDOUT, check=False, cwd=folder)
        elapsed, cpu = time.perf_counter() - started, children_cpu_s() - before
    last = log.read_text(encoding="utf-8").strip().splitlines()[-1]
    if done.returncode or f"{expected} test" not in last:
        raise SystemExit(f"{' '.join(command)}: expected {expected} items, and pytest said: {last}")
    return elapsed, cpu
