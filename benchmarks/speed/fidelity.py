"""The latency that the tool reports, against OpenVINO's own benchmark_app and a bare loop.

``python -m benchmarks.speed.fidelity`` prints the figures; ``rows`` returns them. Three processes stay open and take
turns on one core: the tool's worker, asked what the latency suite asks it; benchmark_app; and a loop over preset
tensors (benchmarks/latency.py). A round is tool, app, loop, loop, app, tool, so that what else the host is doing
reaches all alike. Same artifact, batch, threads, streams and precision.

benchmark_app takes its samples inside OpenVINO; the loop and the tool call it from Python, which is how anybody uses
it from Python. What that costs is nothing to a model of a millisecond, and for a smaller one a figure of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np

ROOT = Path(__file__).resolve().parents[2]
ROUNDS = 6
BLOCK_S = 0.5
MOST_SAMPLES = 2000
# What the figures are to lie in where a call takes at least a millisecond.
WITHIN = [0.98, 1.02]
A_MILLISECOND = 1e6
SIDES = ("tool", "app", "loop")


class Subject(NamedTuple):
    """A recipe, its input, and the rows that are timed."""

    recipe: str
    spec: str
    rows: int


SUBJECTS = (
    Subject("resnet50", "input:float32[N,3,224,224]", 1),
    Subject("text_encoder", "input_ids:int64[N,32]{0..999}", 32),  # one row takes less than a millisecond
    Subject("digits_cnn", "image:float32[N,1,8,8]", 1),
)


def rows(args: argparse.Namespace) -> list[dict[str, Any]]:
    """What was found, a row per figure: ``what``, ``figure``, ``within`` (None: no target) and ``how``.

    Looks at ``args.rounds`` and ``args.subjects`` where they are there. Raises: SystemExit where a side cannot run.
    """
    rounds, chosen = getattr(args, "rounds", None) or ROUNDS, getattr(args, "subjects", None)
    found: list[dict[str, Any]] = []
    for subject in SUBJECTS:
        if chosen and subject.recipe not in chosen.split(","):
            continue
        with tempfile.TemporaryDirectory(prefix="fidelity-") as folder:
            found += _subject(subject, rounds, Path(folder))
    return found


def table(found: Sequence[Mapping[str, Any]]) -> str:
    """The figures as Markdown."""
    from benchmarks.speed.table import markdown

    lines = [
        (row["what"], f"{row['figure']:.3f}" if row["within"] else f"{row['figure']:.3g}", row["how"]) for row in found
    ]
    note = (
        "The latency that the tool reports over that of OpenVINO's own benchmark_app and of a bare loop over preset\n"
        "tensors, by turns in one run: one thread, one stream, fp32. Below a millisecond there is no target, since\n"
        "benchmark_app takes its samples inside OpenVINO, and what calling it from Python costs is its own figure.\n"
    )
    return f"## The reported latency beside others' of the same artifact\n\n{note}\n" + markdown(
        ("what", "figure", "how"), lines
    )


def _subject(subject: Subject, rounds: int, folder: Path) -> list[dict[str, Any]]:
    _convert(subject, folder)
    feed = _input(subject)
    found = []
    for backend in ("openvino", "onnxruntime"):
        taken = _measured(backend, subject, feed, rounds, folder)
        found += _figures(backend, subject, taken)
    return found


def _convert(subject: Subject, folder: Path) -> None:
    """Fill the cache with the artifacts of both cells, as a run of the tool makes them."""
    weights = folder / f"{subject.recipe}.pth"
    recipe = ROOT / "fixtures" / "models" / f"{subject.recipe}.py"
    subprocess.run([sys.executable, str(recipe), str(weights)], check=True, stdout=subprocess.DEVNULL)
    select = ("--mf-backends", "onnxruntime,openvino", "--mf-formats", "onnx,openvino", "--mf-precisions", "fp32")
    places = ("--mf-cache", str(folder / "cache"), "--mf-report-dir", str(folder / "reports"))
    options = ("-q", "-p", "no:cacheprovider", "--mf-devices", "cpu", *select, *places, "modelformats::contract")
    command = [sys.executable, "-m", "pytest", "--mf-model", str(weights), *options]
    done = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"the conversions ended with status {done.returncode}:\n{done.stdout[-3000:]}")


def _input(subject: Subject) -> np.ndarray:
    import numpy as np

    from pytest_modelformats.schema import TensorSpec

    spec = TensorSpec.parse(subject.spec)
    shape = [d if isinstance(d, int) else subject.rows for d in spec.shape or ()]
    random = np.random.default_rng(0)
    if spec.is_float:
        return random.standard_normal(shape).astype(spec.dtype)
    return random.integers(int(spec.low or 0), int(spec.high or 1), shape, spec.dtype, endpoint=True)


def _measured(backend: str, subject: Subject, feed: np.ndarray, rounds: int, folder: Path) -> dict[str, list[float]]:
    """The medians of every block in nanoseconds, by side; benchmark_app runs OpenVINO alone."""
    import numpy as np

    from benchmarks import latency
    from benchmarks.latency import _artifact, _opened
    from pytest_modelformats.run.workers.pool import Pool

    name = subject.spec.partition(":")[0]
    file = folder / f"{name}.npy"
    np.save(file, feed)
    artifact = _artifact(folder / "cache", backend)
    job = {"backend": backend, "artifact": str(artifact), "input": str(file)}
    job |= {"name": name, "shape": list(feed.shape), "dtype": feed.dtype.name}
    pool = Pool(memory_bytes=0, threads=1, isolate="process")
    servers = {"loop": _Server([sys.executable, latency.__file__], job, folder / "loop.json")}
    if backend == "openvino":
        servers["app"] = _Server([sys.executable, "-m", "benchmarks.speed.app"], job, folder / "app.json")
    try:
        ask = _opened(pool, backend, artifact, subject.spec)
        taken: dict[str, list[float]] = {side: [] for side in SIDES}
        for _ in range(rounds):
            samples = _tool_block(ask, {name: str(file)}, taken["tool"])
            for side in ("app", "loop", "loop", "app"):
                if side in servers:
                    taken[side].append(servers[side].block(samples))
            _tool_block(ask, {name: str(file)}, taken["tool"])
    finally:
        for server in servers.values():
            server.close()
        pool.close()
    return taken


def _tool_block(ask: Callable[..., dict[str, Any]], feed: dict[str, str], taken: list[float]) -> int:
    """Ask the worker what the latency suite asks it and take down its median; how many samples that was."""
    from pytest_modelformats.measure.sampling import statistics

    measured = ask("measure", feed=feed, budget_s=BLOCK_S, max_samples=MOST_SAMPLES, threads=1)["sampled"]
    taken.append(statistics(measured["samples_ns"], 1, measured)["latency_p50_ns"])
    return len(measured["samples_ns"])


class _Server:
    """A process that times a block of samples for every line it reads, and answers with their median."""

    def __init__(self, command: list[str], job: dict[str, Any], file: Path) -> None:
        file.write_text(json.dumps(job), encoding="utf-8")
        self._log = file.with_suffix(".log")
        # CI=1 keeps OpenVINO from reporting home in a child process meanwhile; the tool's workers do not either.
        env = {**os.environ, "OMP_NUM_THREADS": "1", "CI": "1", "PYTHONPATH": str(ROOT)}
        pipe = subprocess.PIPE
        with self._log.open("w", encoding="utf-8") as log:
            self._process = subprocess.Popen(
                [*command, str(file)], stdin=pipe, stdout=pipe, stderr=log, text=True, env=env
            )

    def block(self, samples: int) -> float:
        """The median of a block of samples, in nanoseconds. Raises: SystemExit where the process has ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(f"{samples}\n")
            self._process.stdin.flush()
            return float(self._process.stdout.readline())
        except (BrokenPipeError, ValueError) as error:
            msg = f"{self._process.args} has ended:\n{self._log.read_text('utf-8')[-3000:]}"
            raise SystemExit(msg) from error

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()


def _figures(backend: str, subject: Subject, taken: dict[str, list[float]]) -> list[dict[str, Any]]:
    """The rows of one backend: ratios of the sides, and what Python costs where a call is short."""
    medians = {side: median(blocks) for side, blocks in taken.items() if blocks}
    rounds = {side: [(a + b) / 2 for a, b in _pairs(blocks)] for side, blocks in taken.items() if blocks}
    short = medians["loop"] < A_MILLISECOND
    shown = ", ".join(f"{side} {value / 1e6:.4f} ms" for side, value in medians.items())
    what = f"{subject.recipe} × {subject.rows} on {backend}"
    how = f"{shown}; medians of {2 * len(rounds['tool'])} blocks a side"
    found = []
    for other, called in (("app", "benchmark_app"), ("loop", "bare loop")):
        if other in rounds:
            ratio = median(ours / theirs for ours, theirs in zip(rounds["tool"], rounds[other], strict=True))
            within = None if short else WITHIN
            found.append({"what": f"{what}: reported / {called}", "figure": ratio, "within": within, "how": how})
    if short and "app" in rounds:
        cost = median(loop - app for loop, app in zip(rounds["loop"], rounds["app"], strict=True)) / 1e3
        found.append(
            {
                "what": f"{what}: the Python binding, µs per call",
                "figure": cost,
                "within": None,
                "how": "bare loop - app",
            }
        )
    return found


def _pairs(blocks: list[float]) -> list[tuple[float, float]]:
    """The two blocks of each round."""
    return list(zip(blocks[::2], blocks[1::2], strict=True))


def main() -> int:
    """Measure and print the rows; the exit status says whether every target is met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--subjects", help=f"some of {','.join(subject.recipe for subject in SUBJECTS)}")
    started = time.perf_counter()
    found = rows(parser.parse_args())
    met = True
    for row in found:
        target = "" if row["within"] is None else f"{row['within'][0]:g} to {row['within'][1]:g}"
        good = row["within"] is None or row["within"][0] <= row["figure"] <= row["within"][1]
        met = met and good
        print(f"{row['what']:<62} {row['figure']:8.3f}  {target:<12} {'' if good else 'NOT MET'}  {row['how']}")
    print(f"{time.perf_counter() - started:.0f} s, load {os.getloadavg()[0]:.1f}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
