"""Prove the GPU lanes on the machine at hand and leave a record of it under ``reports/verified/``.

Needs pytest, execnet, numpy, torch built for CUDA, and this package's own light
dependencies; it installs nothing. Usage: ``make gpu-check PYTHON=python3``.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from datetime import datetime, timezone
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NEEDED = ("torch", "numpy", "pytest", "execnet", "filelock", "platformdirs", "psutil", "jinja2", "rich", "archspec")


def main() -> int:
    """Run the suites on every CUDA lane; returns the exit status."""
    import importlib.util

    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        print(f"gpu-check: {sys.executable} lacks {', '.join(missing)}; install them there first", file=sys.stderr)
        return 2
    driver = Path("/proc/driver/nvidia/version")
    if not driver.exists():
        print("gpu-check: no NVIDIA driver on this machine; run it on one with a GPU", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        status = _run(work)
        results = work / "reports" / "latest" / "results.jsonl"
        if not results.exists():
            print("gpu-check: the run left no record; its output is above", file=sys.stderr)
            return status or 1
        _keep(results)
    return status


def _run(work: Path) -> int:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path[1:]])}
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    recipe = ROOT / "fixtures" / "models" / "resnet50.py"
    subprocess.run([sys.executable, str(recipe), str(work / "resnet50.pth")], check=True, env=environment)
    command = [sys.executable, "-m", "pytest", "-p", "pytest_modelformats.plugin", "--mf-model", "resnet50.pth"]
    command += ["--mf-devices", "cuda", "--mf-require", "cuda", "--mf-cache", "cache", "--tb=short", "-ra"]
    command += ["--mf-backends", ",".join(_lanes())]
    return subprocess.run(command, cwd=work, env=environment, check=False).returncode


def _lanes() -> list[str]:
    """The backends that can use a GPU with what is installed; ONNX Runtime's plain package cannot."""
    from importlib.metadata import PackageNotFoundError, version

    lanes = ["torch", "torch-compile", "torch-export", "torchscript"]
    try:
        version("onnxruntime-gpu")
    except PackageNotFoundError:
        print("gpu-check: onnxruntime-gpu is not installed, so its lane is left out")
        return lanes
    return [*lanes, "onnxruntime"]


def _keep(results: Path) -> None:
    """Copy the record, named by date and GPU."""
    header = json.loads(results.read_text(encoding="utf-8").splitlines()[0])
    gpus = header["machine"].get("gpu") or ["unknown-gpu"]
    name = "".join(c if c.isalnum() else "-" for c in str(gpus[0])).strip("-").lower()
    target = ROOT / "reports" / "verified" / f"{datetime.now(timezone.utc).date().isoformat()}-{name}.jsonl"
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(results, target)
    print(f"gpu-check: the record is {target.relative_to(ROOT)}")


if __name__ == "__main__":
    sys.exit(main())
