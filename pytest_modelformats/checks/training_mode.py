"""Nodes of an artifact that run in training mode where the source, which is evaluated, has none.

A runtime may remove them (ONNX Runtime does with a Dropout), so that its results are right and those of other
runtimes are not. What a file holds is for its format's module to say, asked in the worker that has opened it.
"""

from __future__ import annotations

import importlib
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_modelformats.schema import FailureKind, Outcome, Verdict, registry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_modelformats.run.cells import Opened
    from pytest_modelformats.run.workers.asking import Asker
    from pytest_modelformats.run.workers.pool import Asked
    from pytest_modelformats.schema import PlannedCell, Source

    Node = Sequence[str]

SHOWN = 3
# The key of a verdict's statement.
STATED = "training_nodes"
NEXT = (
    "Next: export in evaluation mode: model.eval() before, and training=torch.onnx.TrainingMode.EVAL where the "
    "exporter has it."
)


def verdict(asker: Asker, opened: Opened, planned: PlannedCell, artifact: Path, source: Source) -> Verdict | None:
    """The failing verdict on an artifact with nodes in training mode that the source does not have, if it has any."""
    nodes = _asked(asker, opened.worker, planned, planned.cell.format, artifact)
    if not nodes or source.location == str(artifact):
        return None
    added = without(nodes, _asked(asker, opened.worker, planned, source.format, Path(source.location)))
    if not added:
        return None
    said = {"nodes": added, "of_source": len(nodes) - len(added)}
    statement = {**opened.statement, STATED: said}
    return Verdict(Outcome.FAILED, FailureKind.CONTRACT, sentence(added), (), statement)


def without(nodes: Sequence[Node], of_source: Sequence[Node]) -> list[Node]:
    """The nodes beyond the source's own: a converter may rename them, so as many of a kind may be here as there."""
    spare = Counter(kind for kind, _ in of_source)
    named = {tuple(node) for node in of_source}
    left = []
    for node in sorted(nodes, key=lambda node: tuple(node) not in named):
        if spare[node[0]]:
            spare[node[0]] -= 1
        else:
            left.append(node)
    return left


def sentence(nodes: Sequence[Node]) -> str:
    """What is said of them, with the next step."""
    named = ", ".join(f"{kind} '{name}'" for kind, name in nodes[:SHOWN])
    more = f" and {len(nodes) - SHOWN} more" if len(nodes) > SHOWN else ""
    what = "1 node" if len(nodes) == 1 else f"{len(nodes)} nodes"
    return (
        f"The file holds {what} in training mode ({named}{more}), which the source has not: a runtime that does not "
        f"remove such nodes drops values at random or normalises by the batch at hand: its results are others. {NEXT}"
    )


def stated(module: str, path: str) -> dict[str, Any]:
    """What the module of a format says of a file; runs in a worker."""
    return {"nodes": importlib.import_module(module).training_nodes(Path(path))}


def _asked(asker: Asker, worker: Asked, planned: PlannedCell, form: str, path: Path) -> list[Node]:
    """The nodes of a file, none where its format does not say."""
    module = registry.formats()[form].module
    if not hasattr(importlib.import_module(module), "training_nodes") or not path.is_file():
        return []
    what, entry = f"reading {planned.cell.id}", "pytest_modelformats.checks.training_mode:stated"
    arguments = {"module": module, "path": str(path)}
    answer = asker.worker(worker, what, "call", entry=entry, arguments=arguments)
    return [tuple(node) for node in answer["nodes"]]
