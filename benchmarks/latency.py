"""The latency that the tool reports, against a bare loop in a process of its own.

Both processes stay open and take turns, A B B A in blocks of a fraction of a second, so that what else
the host is doing reaches both alike. Same artifact, threads, core, number of samples and span. The tool's
side is its own worker, asked what the latency suite asks it: ``open`` and ``measure``. The loop's own
process is this file: ``python benchmarks/latency.py JOB.json``, a block for every line it reads.
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
BLOCK_S = 0.5
THREADS = 1


def measure(spec: str, cache: Path, rounds: int, folder: Path) -> list[dict[str, Any]]:
    """Per backend the two medians and the median ratio of neighbouring blocks over A B B A rounds."""
    return [_backend(name, spec, cache, rounds, folder) for name in CONVERTERS]


def _backend(name: str, spec: str, cache: Path, rounds: int, folder: Path) -> dict[str, Any]:
    import numpy as np

    from pytest_modelformats.measure.sampling import statistics
    from pytest_modelformats.run.workers.pool import Pool
    from pytest_modelformats.schema import TensorSpec

    artifact = _artifact(cache, name)
    shape = [d if isinstance(d, int) else 1 for d in TensorSpec.parse(spec).shape or ()]
    array = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    np.save(folder / "input.npy", array)
    pool = Pool(memory_bytes=0, threads=THREADS, isolate="process")
    bare = _Bare({"backend": name, "artifact": str(artifact), "input": str(folder / "input.npy")}, folder)
    try:
        ours = _opened(pool, name, artifact, spec)
        tool_ns, bare_ns = [], []

        def tool() -> int:
            feed = {spec.split(":", maxsplit=1)[0]: str(folder / "input.npy")}
            measured = ours("measure", feed=feed, budget_s=BLOCK_S, max_samples=2000, threads=THREADS)["sampled"]
            tool_ns.append(statistics(measured["samples_ns"], 1, measured)["latency_p50_ns"])
            return len(measured["samples_ns"])

        for _ in range(rounds):
            count = tool()
            bare_ns.append(bare.block(count))
            bare_ns.append(bare.block(count))
            tool()
    finally:
        bare.close()
        pool.close()
    pairs = list(zip(tool_ns, bare_ns, strict=True))
    return {
        "backend": name,
        "tool_ns": median(tool_ns),
        "bare_ns": median(bare_ns),
        "ratio": median(ours / loop for ours, loop in pairs),
        "taken": {"tool": tool_ns, "bare": bare_ns},
    }


def _opened(pool: Any, name: str, artifact: Path, spec: str) -> Callable[..., dict[str, Any]]:
    """A session in the tool's own worker; the returned call asks it."""
    from pytest_modelformats.schema import Environment, Source, TensorSpec, registry

    backend = registry.backends()[name]
    form = next(f for f, held in backend.precisions if held == "fp32")
    worker = pool.get(Environment(), backend.worker, backend.requires)
    job = {
        "source": Source("model", str(artifact), form, form).to_json(),
        "artifact": str(artifact),
        "format": form,
        "artifact_precision": "fp32",
        "precision": "fp32",
        "device": "cpu",
        "threads": THREADS,
        "inputs": [TensorSpec.parse(spec).to_json()],
        "outputs": [],
        "options": {"optimization": "all"},
    }
    session = worker.request("open", 300, None, entry=backend.entry, job=job)["session"]
    return lambda op, **arguments: worker.request(op, 300, None, session=session, **arguments)


class _Bare:
    """The bare loop's process."""

    def __init__(self, job: dict[str, Any], folder: Path) -> None:
        path = folder / "job.json"
        path.write_text(json.dumps(job), encoding="utf-8")
        # CI=1 keeps OpenVINO from reporting home in a child process meanwhile; the tool's workers do not either.
        env = {**os.environ, "OMP_NUM_THREADS": str(THREADS), "CI": "1"}
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(path)], stdin=pipe, stdout=pipe, text=True, env=env
        )

    def block(self, samples: int) -> float:
        """The median of a block of samples, in nanoseconds."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{samples}\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()


def _artifact(cache: Path, backend: str) -> Path:
    converter, name = CONVERTERS[backend]
    for path in cache.glob("artifacts/*/*/metadata.json"):
        metadata = json.loads(path.read_text(encoding="utf-8"))
        if metadata.get("converter") == converter and metadata["precision"] == "fp32":
            return path.with_name(name)
    raise SystemExit(f"the cache {cache} holds no artifact of {converter}")


def bare_loop(job: dict[str, Any]) -> None:
    """For every line of standard input that many samples; prints their median, in nanoseconds."""
    import numpy as np

    # Before anything of the runtime has started a thread, so that all of them inherit it.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
    array = np.load(job["input"])
    opened = _onnxruntime if job["backend"] == "onnxruntime" else _openvino
    call = opened(job["artifact"], array)
    call()
    gc.collect()
    gc.disable()
    for line in sys.stdin:
        for _ in range(max(5, int(line) // 4)):
            call()
        taken = []
        for _ in range(int(line)):
            started = time.perf_counter_ns()
            call()
            ended = time.perf_counter_ns()
            taken.append(ended - started)
        print(median(taken), flush=True)


def _onnxruntime(artifact: str, array: Any) -> Callable[[], object]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = THREADS, 1
    session = onnxruntime.InferenceSession(artifact, options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    binding.bind_ortvalue_input(session.get_inputs()[0].name, onnxruntime.OrtValue.ortvalue_from_numpy(array, "cpu", 0))
    for output in session.get_outputs():
        binding.bind_output(output.name, "cpu")
    return lambda: session.run_with_iobinding(binding)


def _openvino(artifact: str, array: Any) -> Callable[[], object]:
    import openvino

    hints = {"INFERENCE_NUM_THREADS": THREADS, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"}
    compiled = openvino.Core().compile_model(artifact, "CPU", {**hints, "INFERENCE_PRECISION_HINT": "f32"})
    request = compiled.create_infer_request()
    request.set_input_tensor(0, openvino.Tensor(array))
    infer: Callable[[], object] = request.infer
    return infer


if __name__ == "__main__":
    bare_loop(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
