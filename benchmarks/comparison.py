"""What the verdict itself costs: the comparison's time over that of the inferences that it judges.

The truth, the noise and the samples are those of a real run, taken from its cache; the outputs are what the tool's own
ONNX Runtime worker gives for them. The inferences are timed in that worker without what carries their outputs here,
so the ratio is the less favourable one. Beside it stands what the proof of execution costs.
"""

from __future__ import annotations

import json
import time
from statistics import median
from typing import TYPE_CHECKING, Any

from latency import THREADS, _artifact, _opened

if TYPE_CHECKING:
    from pathlib import Path

BACKEND = "onnxruntime"
REPEATS = 15
BUDGET_S = 2.0
SAMPLES, SEED = 8, 0


def measure(spec: str, cache: Path, folder: Path) -> dict[str, Any]:
    """Seconds of the comparison, of the inferences it judges and of the proof of execution; medians.

    Raises: SystemExit where the comparison does not come to the verdict of the run.
    """
    import numpy as np

    from pytest_modelformats.compare.verdict import judge
    from pytest_modelformats.run.models import digest
    from pytest_modelformats.run.workers.pool import Pool
    from pytest_modelformats.schema import PRECISIONS, Outcome, TensorSpec
    from pytest_modelformats.source.samples import make_samples

    samples = make_samples([TensorSpec.parse(spec)], SAMPLES, SEED)
    (feed,) = samples.feeds
    paths = {name: str(folder / f"{name}.npy") for name in feed}
    for name, array in feed.items():
        np.save(paths[name], array)
        np.save(folder / f"one-{name}.npy", array[:1])
    truths, noise = _reference(cache, digest(samples))
    pool = Pool(memory_bytes=0, threads=THREADS, isolate="process")
    try:
        ask = _opened(pool, BACKEND, _artifact(cache, BACKEND), spec)
        outputs = [np.load(path) for path in ask("run", feed=paths, folder=str(folder / "out"))["outputs"]]
        timed = ask("measure", feed=paths, budget_s=BUDGET_S, max_samples=2000, threads=THREADS)["sampled"]
        one = {name: str(folder / f"one-{name}.npy") for name in feed}
        proof_s = _median_s(lambda: ask("execution", feed=one), 3)
    finally:
        pool.close()
    names = [f"output_{index}" for index in range(len(outputs))]
    dtypes = [array.dtype.name for array in outputs]

    def compare() -> Any:
        return judge(names, [truths], [outputs], noise, PRECISIONS["fp32"], dtypes=dtypes, classifier=True)

    verdict = compare()
    if verdict.outcome is not Outcome.PASSED:
        raise SystemExit(f"the comparison that was to be timed says: {verdict.sentence}")
    return {
        "comparison_s": _median_s(compare, REPEATS),
        "inferences_s": median(timed["samples_ns"]) / 1e9,
        "proof_s": proof_s,
        "rows": SAMPLES,
        "elements": sum(array.size for array in outputs),
        "noise_ratio": verdict.noise_ratio,
    }


def _reference(cache: Path, samples: str) -> tuple[list[Any], dict[str, list[Any]]]:
    """The truth and the noise that the run has kept for these samples, by their digest: it keeps others for others."""
    import numpy as np

    from pytest_modelformats.compare.reference import kept_noise

    for path in cache.rglob("metadata.json"):
        metadata = json.loads(path.read_text(encoding="utf-8"))
        facts = metadata.get("facts", {})
        if "noise" in facts and metadata["inputs"]["samples"] == samples:
            files = sorted((path.parent / "float64" / "0").glob("*.npy"), key=lambda p: int(p.stem))
            return [np.load(p) for p in files], {p: [kept_noise(n) for n in v] for p, v in facts["noise"].items()}
    raise SystemExit(f"no reference in {cache}: the run before has kept none")


def _median_s(call: Any, times: int) -> float:
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        call()
        taken.append(time.perf_counter() - started)
    return median(taken)
