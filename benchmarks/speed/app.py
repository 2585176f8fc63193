"""OpenVINO's benchmark_app as a process that stays open: ``python -m benchmarks.speed.app JOB.json``.

It parses its arguments, compiles, fills the inputs and infers once as it always does. Then its own measuring loop
runs once for every line of standard input, for that many samples, and the median that it comes to is the answer, in
nanoseconds; it would print it rounded to 10 µs.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

PRECISIONS = {"float32": "f32", "int64": "i64"}


def main(job: dict[str, Any]) -> None:
    """Run benchmark_app until standard input ends."""
    # Before anything of the runtime has started a thread, so that all of them inherit it.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    # It reports its use to Intel, from a thread that forks beside the samples (as in run/workers/bootstrap.py).
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what it says goes where its errors go
    from openvino.tools.benchmark import main as app
    from openvino.tools.benchmark.benchmark import Benchmark

    measure = Benchmark.main_loop

    def serve(self: Any, *arguments: Any) -> Any:
        result = None
        for line in sys.stdin:
            self.duration_seconds = 0
            for samples in (max(5, int(line) // 4), int(line)):  # the first warms up
                self.niter = samples
                result = measure(self, *arguments)
            print(result[1] * 1e6, file=answers, flush=True)
        os._exit(0)

    Benchmark.main_loop = serve
    name, shape = job["name"], ",".join(str(size) for size in job["shape"])
    hints = "-d CPU -api sync -hint none -nthreads 1 -nstreams 1 -infer_precision f32 -inference_only True -niter 1"
    # It takes what looks like an image for 8-bit pixels unless it is told otherwise.
    data = ["-i", f"{name}:{job['input']}", "-data_shape", f"{name}[{shape}]", "-ip", PRECISIONS[job["dtype"]]]
    sys.argv = ["benchmark_app", "-m", job["artifact"], *hints.split(), *data]
    app.main()


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
