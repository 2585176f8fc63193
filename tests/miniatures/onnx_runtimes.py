"""Runtimes for ONNX that compute one operator wrongly, and one that does not: ONNX Runtime on a graph that was altered.

Registered by ``test_localise.py`` alone; they need onnx and onnxruntime.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from pytest_modelformats.schema import Backend

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import onnx

    from pytest_modelformats.schema.contract import Feed, Session, SessionJob


def _backend(name: str, function: str) -> Backend:
    return Backend(
        name=name,
        title=name,
        worker="miniature-onnx",
        precisions={("onnx", "fp32"): ("fp32",)},
        devices=("cpu",),
        entry=f"miniatures.onnx_runtimes:{function}",
        requires=("onnx", "onnxruntime"),
    )


FAITHFUL = _backend("onnx-faithful", "faithful")
MISREADS = _backend("onnx-misreads-epsilon", "misreads_epsilon")
FUSES = _backend("onnx-fuses-wrongly", "fuses_wrongly")
ODD = _backend("onnx-wrong-for-odd-batches", "wrong_for_odd_batches")
HANGS = _backend("onnx-hangs-alone", "hangs_alone")


def _open(job: SessionJob, change: Callable[[onnx.ModelProto], None]) -> Session:
    import onnx

    from pytest_modelformats.systems.onnxruntime.backend import open_session

    model = onnx.load(str(job.artifact))
    change(model)
    with TemporaryDirectory() as folder:
        altered = Path(folder) / "altered.onnx"
        onnx.save(model, str(altered))
        return open_session(replace(job, artifact=altered))


def faithful(job: SessionJob) -> Session:
    """Every operator as the graph says."""
    return _open(job, lambda _: None)


def misreads_epsilon(job: SessionJob) -> Session:
    """Its kernel of LayerNormalization has an epsilon of its own."""
    return _open(job, _large_epsilon)


def fuses_wrongly(job: SessionJob) -> Session:
    """Its pass that fuses Conv and Relu forgets the clipping, where nobody asks for what lies between them."""
    return _open(job, _fused)


@dataclass
class _Odd:
    """Two sessions: the second one runs odd batches of more than one row."""

    usual: Session
    odd: Session

    def __getattr__(self, name: str) -> Any:
        return getattr(self.usual, name)

    def run(self, feed: Feed) -> list[np.ndarray]:
        """Run once."""
        rows = next(iter(feed.values())).shape[0]
        return (self.odd if rows % 2 and rows > 1 else self.usual).run(feed)


def wrong_for_odd_batches(job: SessionJob) -> _Odd:
    """Its kernel of LayerNormalization for odd batches has an epsilon of its own."""
    return _Odd(faithful(job), misreads_epsilon(job))


def hangs_alone(job: SessionJob) -> Session:
    """Wrong as ``misreads_epsilon``, and it never comes back where another model than the cell's is opened."""
    if "localised" in str(job.artifact):
        time.sleep(3600)
    return _open(job, _large_epsilon)


def _large_epsilon(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        if node.op_type == "LayerNormalization":
            for attribute in node.attribute:
                if attribute.name == "epsilon":
                    attribute.f = 0.01


def _fused(model: onnx.ModelProto) -> None:
    outputs = {v.name for v in model.graph.output}
    makers = {name: node for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        before = makers.get(node.input[0]) if node.op_type == "Relu" else None
        if before is not None and before.op_type == "Conv" and node.input[0] not in outputs:
            node.op_type = "Identity"
