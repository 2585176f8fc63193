"""Prove the GPU lanes on the machine at hand and leave a record of it under ``reports/verified/``.

Needs pytest, execnet, numpy, torch built for CUDA, and this package's own light dependencies; it installs nothing.
Usage: ``make gpu-check PYTHON=python3``; ``ARGS='--models digits_cnn'`` for one model only, and what follows ``--`` in
them goes to pytest.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NEEDED = (
    *("torch", "numpy", "pytest", "execnet", "filelock", "platformdirs", "psutil"),
    *("jinja2", "rich", "archspec", "packaging", "click", "sqlalchemy"),
)
TORCH_LANES = ("torch", "torch-compile", "torch-export", "torchscript")
INTERRUPTED = 2  # pytest.ExitCode.INTERRUPTED, also where pytest had not got so far as to say it
INTERRUPTED_S = 20.0
# Every suite on a network of milliseconds; on one of real size those that a larger one can fail in other ways.
SUITES = {
    "digits_cnn": "",
    "resnet50": "availability,contract,parity,latency",
}
# Compiling ResNet-50 took about 80 s a precision on an H100, and the small network covers it.
LEFT_OUT = {"resnet50": ("torch-compile",)}


def main(arguments: list[str] | None = None) -> int:
    """Run the suites on every CUDA lane; returns the worst exit status."""
    parser = argparse.ArgumentParser(prog="gpu_check.py", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", default=",".join(SUITES), help="recipes of fixtures/models (default: %(default)s)")
    parser.add_argument("--keep", type=Path, help="folder that the whole reports are copied to")
    parser.add_argument("pytest_arguments", nargs="*", metavar="ARGUMENT", help="after '--': handed to pytest")
    options = parser.parse_args(arguments)
    models = options.models.split(",")
    if unknown := [name for name in models if not (ROOT / "fixtures" / "models" / f"{name}.py").exists()]:
        parser.error(f"no recipe {', '.join(unknown)} in fixtures/models")
    if refusal := _refusal():
        print(f"gpu-check: {refusal}", file=sys.stderr)
        return 2
    worst = 0
    with tempfile.TemporaryDirectory() as folder:
        for name in models:
            status = _check(name, Path(folder), options.keep, options.pytest_arguments)
            worst = max(worst, status)
            if status == INTERRUPTED:
                break
    return worst


def _refusal() -> str:
    """What keeps the check from running here, "" where nothing does."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        return f"{sys.executable} lacks {', '.join(missing)}; install them there first"
    if not Path("/proc/driver/nvidia/version").exists():
        return "no NVIDIA driver on this machine; run it on one with a GPU"
    return ""


def _check(model: str, work: Path, keep: Path | None, more: list[str]) -> int:
    """Run one model's suites in a folder of its own and keep the record; returns pytest's exit status."""
    print(f"gpu-check: {model}", flush=True)
    reports = Path(f"reports-{model}")
    status = _run(model, work, reports, more)
    results = work / reports / "latest" / "results.jsonl"
    if not results.exists():
        print("gpu-check: the run left no record; its output is above", file=sys.stderr)
        return status or 1
    _keep(model, results)
    if keep is not None:
        shutil.copytree(results.parent.resolve(), keep / model, dirs_exist_ok=True)
    return status


def _run(model: str, work: Path, reports: Path, more: list[str]) -> int:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path[1:]])}
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    recipe = ROOT / "fixtures" / "models" / f"{model}.py"
    subprocess.run([sys.executable, str(recipe), str(work / f"{model}.pth")], check=True, env=environment)
    command = [sys.executable, "-m", "pytest", "-p", "pytest_modelformats.plugin", "--mf-model", f"{model}.pth"]
    command += ["--mf-devices", "cuda", "--mf-require", "cuda", "--mf-cache", "cache", "--mf-history", "none"]
    command += ["--mf-report-dir", str(reports), "--tb=short", "-ra"]
    command += ["--mf-backends", ",".join(lane for lane in _lanes() if lane not in LEFT_OUT.get(model, ()))]
    if SUITES.get(model):
        command += ["--mf-suites", SUITES[model]]
    running = subprocess.Popen([*command, *more], cwd=work, env=environment)
    try:
        return running.wait()
    except KeyboardInterrupt:
        # pytest was interrupted as well, by the terminal or here: it still writes what it has, and says "incomplete".
        with contextlib.suppress(subprocess.TimeoutExpired):
            running.wait(INTERRUPTED_S)
        if running.poll() is None:
            running.send_signal(signal.SIGINT)
            running.wait()
        return INTERRUPTED


def _lanes() -> list[str]:
    """The backends that can use a GPU with what is installed; ONNX Runtime's plain package cannot."""
    try:
        version("onnxruntime-gpu")
    except PackageNotFoundError:
        print("gpu-check: onnxruntime-gpu is not installed, so its lane is left out", flush=True)
        return [*TORCH_LANES]
    return [*TORCH_LANES, "onnxruntime"]


def _keep(model: str, results: Path) -> None:
    """Copy the record, named by date, GPU and model."""
    header = json.loads(results.read_text(encoding="utf-8").splitlines()[0])
    gpus = header["machine"].get("gpu") or ["unknown-gpu"]
    name = "".join(c if c.isalnum() else "-" for c in f"{gpus[0]}-{model}").strip("-").lower()
    target = ROOT / "reports" / "verified" / f"{datetime.now(timezone.utc).date().isoformat()}-{name}.jsonl"
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(results, target)
    print(f"gpu-check: the record is {target.relative_to(ROOT)}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
