"""The latency that the tool reports, against a bare loop in a process of its own.

Same artifact, threads, core, warm-up runs, number of samples and span; A B B A, several times. The loop's
own process is this file: ``python benchmarks/latency.py JOB.json`` prints the median in nanoseconds.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

# The converter whose artifact a cell of the backend runs.
CONVERTERS = {"onnxruntime": ("onnx_from_pytorch", "model.onnx"), "openvino": ("openvino_from_pytorch", "model.xml")}


def measure(
    run_tool: Callable[[], list[dict[str, Any]]], shape: list[int], cache: Path, rounds: int, folder: Path
) -> list[dict[str, Any]]:
    """Per backend the two medians and the median ratio of neighbours over A B B A rounds; ``run_tool`` runs the latency suite, returns check lines."""
    taken: dict[str, dict[str, list[float]]] = {name: {"tool": [], "bare": []} for name in CONVERTERS}
    heard: dict[str, dict[str, Any]] = {}

    def tool() -> None:
        for line in run_tool():
            backend = line["cell"].split("@")[0].rpartition("-")[2]
            heard[backend] = line["data"]
            taken[backend]["tool"].append(line["data"]["latency_p50_ns"])

    def bare() -> None:
        for backend, data in heard.items():
            job = {"backend": backend, "artifact": str(_artifact(cache, backend)), "shape": shape}
            job |= {"threads": data["threads"], "warmup": data["warmup_runs"], "samples": data["samples"]}
            path = folder / "job.json"
            path.write_text(json.dumps(job), encoding="utf-8")
            # CI=1 keeps OpenVINO from reporting home in a child process meanwhile; the tool's workers do not either.
            env = {**os.environ, "OMP_NUM_THREADS": str(data["threads"]), "CI": "1"}
            done = subprocess.run([sys.executable, __file__, str(path)], check=True, capture_output=True, env=env)
            taken[backend]["bare"].append(float(done.stdout))

    for _ in range(rounds):
        for step in (tool, bare, bare, tool):
            step()
    return [
        {
            "backend": b,
            "tool_ns": median(t["tool"]),
            "bare_ns": median(t["bare"]),
            # Neighbours in time share what else the host is doing; medians over minutes do not.
            "ratio": median(ours / bare for ours, bare in zip(t["tool"], t["bare"], strict=True)),
            "taken": t,
        }
        for b, t in taken.items()
    ]


def _artifact(cache: Path, backend: str) -> Path:
    converter, name = CONVERTERS[backend]
    for path in cache.glob("artifacts/*/*/metadata.json"):
        metadata = json.loads(path.read_text(encoding="utf-8"))
        if metadata.get("converter") == converter and metadata["precision"] == "fp32":
            return path.with_name(name)
    raise SystemExit(f"the cache {cache} holds no artifact of {converter}")


def bare_loop(job: dict[str, Any]) -> float:
    """The median of the samples, in nanoseconds."""
    import numpy as np

    # Before anything of the runtime has started a thread, so that all of them inherit it.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: job["threads"]])
    array = np.random.default_rng(0).standard_normal(job["shape"]).astype(np.float32)
    opened = _onnxruntime if job["backend"] == "onnxruntime" else _openvino
    call = opened(job["artifact"], job["threads"], array)
    call()
    gc.collect()
    gc.disable()
    for _ in range(job["warmup"]):
        call()
    taken = []
    for _ in range(job["samples"]):
        started = time.perf_counter_ns()
        call()
        ended = time.perf_counter_ns()
        taken.append(ended - started)
    return median(taken)


def _onnxruntime(artifact: str, threads: int, array: Any) -> Callable[[], object]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(artifact, options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    binding.bind_ortvalue_input(session.get_inputs()[0].name, onnxruntime.OrtValue.ortvalue_from_numpy(array, "cpu", 0))
    binding.bind_output(session.get_outputs()[0].name, "cpu")
    return lambda: session.run_with_iobinding(binding)


def _openvino(artifact: str, threads: int, array: Any) -> Callable[[], object]:
    import openvino

    hints = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"}
    compiled = openvino.Core().compile_model(artifact, "CPU", {**hints, "INFERENCE_PRECISION_HINT": "f32"})
    request = compiled.create_infer_request()
    request.set_input_tensor(0, openvino.Tensor(array))
    infer: Callable[[], object] = request.infer
    return infer


if __name__ == "__main__":
    print(bare_loop(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
