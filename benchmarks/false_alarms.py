"""False alarms on faithful cells: conversions of seeded random networks, on real runtimes.

``python -m benchmarks.false_alarms [--seeds 5]`` (``make bench-false-alarms``) runs parity on every network in
every lane and the other laws on one network of each family, and prints how the noise and point ratios
are distributed: the constants of ``compare/floating.py`` and the k(p) of ``schema.PRECISIONS`` rest on it. The exit
status is 1 where a faithful cell is accused. ``tests/compare/test_false_alarms.py`` runs a small part of it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_modelformats.compare.floating import POINT_LIMIT
from pytest_modelformats.schema import PRECISIONS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    Ratios = Mapping[str, Sequence[tuple[float, float, str]]]

NETWORKS = Path(__file__).resolve().parent.parent / "fixtures" / "random_networks.py"
FAMILIES = ("cnn", "depthwise", "residual", "groupnorm", "mlp", "mlpnorm", "attention", "lstm", "gru")
# In cnn_6 ONNX Runtime and TorchScript sum 256 nearly equal activations naively: r = 5, which a second look finds to be
# rounding.
SATURATED = "cnn_6"
# The last three run PyTorch's own kernels, so their ratio is mostly 1: of 45 networks the first five alone are more
# than 200 cells.
LANES = (
    "onnx.legacy-fp32-onnxruntime@cpu",
    "onnx.legacy-fp16-onnxruntime@cpu",
    "openvino-fp32-openvino@cpu",
    "openvino-bf16-openvino@cpu",
    "openvino-fp16-weights-openvino@cpu",
    "torchscript-fp32-torchscript@cpu",
    "pt2-fp32-torch-export@cpu",
    "pytorch-bf16-torch@cpu",
)
LAWS = ("contract", "batch", "permutation", "unmodified", "concurrency", "history", "determinism", "fuzz")
MORE_RATIOS = ("stress_ratio", "systematic_ratio", "slice_ratio", "local_point_ratio")
SEEDS = 5
FUZZ = 20  # generated inputs of a cell
TIMEOUT_S = 1800


@dataclass(frozen=True, slots=True)
class Found:
    """How a run of the product ended: its exit status, what it printed last, and the lines of its record."""

    status: int
    text: str
    lines: Sequence[Mapping[str, Any]]

    def checks(self, laws: Iterable[str]) -> list[Mapping[str, Any]]:
        """The lines of those checks."""
        wanted = set(laws)
        return [line for line in self.lines if line["kind"] == "check" and line["check"] in wanted]

    @property
    def accused(self) -> dict[tuple[str, str], str]:
        """(cell, check) -> the sentence of every check that did not pass."""
        checks = [line for line in self.lines if line["kind"] == "check"]
        return {(line["cell"], line["check"]): line["sentence"] for line in checks if line["outcome"] != "passed"}

    @property
    def ratios(self) -> Ratios:
        """Precision -> [(noise ratio, point ratio, cell)] of every output that parity judged."""
        found = defaultdict(list)
        for precision, cell, output in self._outputs():
            found[precision].append((output["noise_ratio"], output["point_ratio"], cell))
        return found

    def _outputs(self) -> Iterable[tuple[str, str, Mapping[str, Any]]]:
        for line in self.checks(["parity"]):
            precision = next(p for p in sorted(PRECISIONS, key=len, reverse=True) if f"-{p}-" in line["cell"])
            for output in line["data"]["outputs"]:
                yield precision, line["cell"], output

    def table(self) -> str:
        """The distribution as text, one line per precision and ratio; then the ratios that not every cell has."""
        heads = "".join(f"{name:>8}" for name in ("min", "median", "p95", "max"))
        rows = [f"{'precision':14} {'ratio':6} {'cells':>5}{heads} {'limit':>6}  worst"]
        for precision, values in sorted(self.ratios.items()):
            limits = PRECISIONS[precision].limit, POINT_LIMIT[PRECISIONS[precision].yardstick]
            for index, what in enumerate(("noise", "point")):
                numbers = np.array([v[index] for v in values])
                worst = max(values, key=lambda v, i=index: v[i])[2]
                low, middle, high, top = np.quantile(numbers, [0, 0.5, 0.95, 1])
                rows.append(
                    f"{precision:14} {what:6} {numbers.size:5} {low:7.3f} {middle:7.3f} {high:7.3f} {top:7.3f}"
                    f" {limits[index]:6.1f}  {worst}"
                )
        return "\n".join([*rows, *self._more()])

    def _more(self) -> Iterable[str]:
        found = defaultdict(list)
        for precision, cell, output in self._outputs():
            for what in MORE_RATIOS:
                if output.get(what) is not None:
                    found[precision, what].append((output[what], cell))
        for (precision, what), values in sorted(found.items()):
            middle, (top, worst) = np.median([v for v, _ in values]), max(values)
            yield f"{precision:14} {what:18} {len(values):5} {middle:8.3f} {top:8.3f}  {worst}"


def networks(seeds: int) -> tuple[str, ...]:
    """The names of so many networks of each family, and of the one whose sums saturate."""
    return tuple(dict.fromkeys((*(f"{family}_{seed}" for family in FAMILIES for seed in range(seeds)), SATURATED)))


def cells(models: Iterable[str]) -> list[str]:
    """The cells of those networks in every lane."""
    return [f"{model}-{lane}" for model in models for lane in LANES]


def run(folder: Path, chosen: Sequence[str], laws: Sequence[str], *, fuzz: int = FUZZ) -> Found:
    """Run those laws on the chosen cells of random networks; ``fuzz`` is the number of generated inputs."""
    models = dict.fromkeys(cell.partition("-")[0] for cell in chosen)
    named = [part for model in models for part in ("--mf-model", f"{NETWORKS}:{model}")]
    command = [
        sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider", "-p", "no:xdist", *named,
        "--mf-cells", ",".join(chosen), "--mf-formats", "onnx.legacy,openvino,torchscript,pt2,pytorch",
        "--mf-suites", ",".join(laws), "--mf-fuzz", str(fuzz), "--mf-cache", str(folder.parent / "cache"),
    ]  # fmt: skip
    folder.mkdir(exist_ok=True)
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    text = ended.stdout[-4000:] + ended.stderr[-2000:]
    record = folder / "reports" / "latest" / "results.jsonl"
    lines = [json.loads(line) for line in record.read_text().splitlines()] if record.exists() else []
    return Found(ended.returncode, text, lines)


def main() -> int:
    """Run the benchmark; the exit status says whether no faithful cell is accused."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=SEEDS, help="networks of each family")
    every, lawful = cells(networks(parser.parse_args().seeds)), cells(networks(1))
    with tempfile.TemporaryDirectory(prefix="bench-false-alarms-") as folder:
        parity = run(Path(folder) / "parity", every, ["parity"])
        laws = run(Path(folder) / "laws", lawful, LAWS)
    if parity.lines:
        print(parity.table())
    good = True
    for found, of, per_cell in ((parity, every, 1), (laws, lawful, len(LAWS))):
        checks = [line for line in found.lines if line["kind"] == "check"]
        print(f"\n{len(found.accused)} of {len(checks)} checks of {len(of)} faithful cells accuse one")
        for (cell, check), sentence in found.accused.items():
            print(f"  {cell} {check}: {sentence}")
        complete = len(checks) == per_cell * len(of)
        if found.status or not complete:
            print(found.text)
        good = good and complete and not found.accused and not found.status
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
