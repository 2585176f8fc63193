"""The cells that are compared with themselves: four runtimes over a very small model and one of milliseconds."""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_modelformats.run.sides import Opening
    from pytest_modelformats.run.workers.pool import Pool

ROOT = Path(__file__).resolve().parents[2]
MODELS = ROOT / "fixtures" / "models"
# Rows per call: digits_cnn takes 0.03 to 0.2 ms, the text encoder 1 to 5 ms.
ROWS = {"digits_cnn": 1, "text_encoder": 16}
FORMATS = {"pytorch": "torch", "torchscript": "torchscript", "onnx": "onnxruntime", "openvino": "openvino"}


@dataclass(frozen=True, slots=True)
class Ready:
    """The pool that the sides are started by, and what is opened for every cell."""

    pool: Pool
    openings: dict[str, Opening]


@contextlib.contextmanager
def ready(folder: Path) -> Iterator[Ready]:
    """Every model is made and converted; the pool is closed afterwards."""
    from pytest_modelformats.plan import build as plan
    from pytest_modelformats.session.campaign import stages_of
    from pytest_modelformats.settings import load as configuration
    from pytest_modelformats.settings import machine
    from pytest_modelformats.source import identify as source

    models = [str(_made(name, folder)) for name in ROWS]
    settings = configuration.load(
        folder,
        {
            "model": models,
            "samples": str(max(ROWS.values())),
            "formats": ",".join(FORMATS),
            "backends": ",".join(FORMATS.values()),
            "precisions": "fp32",
            "cache": str(folder / "cache"),
        },
    )
    sources = source.find_sources(settings)
    cells = plan.build_plan(settings, sources, source.find_candidates(settings), machine.machine()).cells
    stages = stages_of(settings, sources, lambda _: None)
    try:
        openings = {}
        for planned in cells:
            if planned.decision.runs and planned.cell.device == "cpu":
                openings[planned.cell.id] = _opening(stages, planned, settings.timeout_s)
                print(f"ready: {planned.cell.id}", flush=True)
        stages.leave()
        for worker in list(stages.pool._workers.values()):  # noqa: SLF001 - nothing of ours runs while it is measured
            worker.close()
        yield Ready(stages.pool, openings)
    finally:
        stages.pool.close()


def slowed(opening: Opening, share: float) -> Opening:
    """The same cell, opened so that every call spins for a share of its own time (``slow.py``)."""
    job = copy.deepcopy(opening.job)
    job["options"] = {**job["options"], "planted": {"entry": opening.entry, "share": share}}
    what = f"{opening.what}, {share:.0%} slower"
    return replace(opening, entry="benchmarks.speed.slow:open_session", job=job, what=what)


def _opening(stages: Any, planned: Any, timeout_s: float) -> Opening:
    from pytest_modelformats.run.sides import Opening
    from pytest_modelformats.schema import Environment, registry

    cell = planned.cell
    backend = registry.backends()[cell.backend]
    job = stages.cells.opening(planned, stages.artifact(planned).path)
    feed = stages.models.rows(cell.model, 0, ROWS[cell.model])
    paths = stages.models.written(cell.model, "compared", feed)
    return Opening(Environment(), backend.worker, backend.entry, job, paths, 1, timeout_s, cell.id)


def _made(name: str, folder: Path) -> Path:
    path = folder / f"{name}.pth"
    if not path.exists():
        spec = importlib.util.spec_from_file_location(name, MODELS / f"{name}.py")
        if spec is None or spec.loader is None:
            sys.exit(f"{MODELS / name}.py cannot be read")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        (module.train if hasattr(module, "train") else module.save)(str(path))
    return path
