"""The order in which a failing cell is searched: its graph, its source's conversion, its runtime."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_modelformats.checks import stress_failure
from pytest_modelformats.checks.localise.confirm import finished
from pytest_modelformats.checks.localise.nouns import INTERMEDIATES, READING, SIGNAL, Localised, Search, digest
from pytest_modelformats.compare.usability import USABLE_DB
from pytest_modelformats.errors import ModelFormatsError
from pytest_modelformats.plan import graph
from pytest_modelformats.schema import PlannedCell, registry

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

    from pytest_modelformats.checks.cell import Stages
    from pytest_modelformats.schema import Verdict
    from pytest_modelformats.settings.nouns import Settings

# Rows looked at: all that the batch law takes where the file is small, one where a row alone is work enough.
ROWS = 8
SMALL_BYTES = 20_000_000
_ONNX = "pytest_modelformats.systems.onnx.localise.requests"


def failing_input(
    stages: Stages, planned: PlannedCell, name: str, verdict: Verdict
) -> tuple[Mapping[str, np.ndarray], Sequence[np.ndarray]] | None:
    """What a check failed on where that is no sample, and the source's float64 outputs for it (() if unknown)."""
    if name == "fuzz":
        shown = stages.fuzzer.shown.get(planned.cell.id)
        return None if shown is None else (shown.drawn.feed, shown.truth)
    at = stages.at_size.get(planned.cell.id) if name == "parity" else None
    if at is not None:
        return at.feeds[0], at.truths[0]
    found = stress_failure.failure(stages, planned, verdict) if name == "parity" else None
    return None if found is None else stress_failure.worst(found)


def locate(
    stages: Stages,
    settings: Settings,
    planned: PlannedCell,
    ends: float,
    rows: int | None = None,
    failing: tuple[Mapping[str, np.ndarray], Sequence[np.ndarray]] | None = None,
) -> Localised:
    """Search the cell, on so many rows or on one input where that is said.

    Raises: ModelFormatsError where a worker fails.
    """
    search = _search(stages, settings, planned, ends, rows)
    if failing is not None:
        search = replace(search, feed=failing[0], truths=failing[1])
    artifact = onnx_of(search)
    if artifact is None:
        from pytest_modelformats.checks.localise.by_module import bisect

        return bisect(search)
    source = stages.models.source(planned.cell.model)
    reference = _reference(search)
    reason = ""
    if reference is not None and reference != artifact:
        found = _in_graph(search, reference, artifact)
        if not found.reason:
            return found
        reason = "" if found.reason == _NOTHING else found.reason
    if source.format != "onnx" and not reason:
        from pytest_modelformats.checks.localise.by_module import against_modules

        by_module = against_modules(search, artifact)
        if by_module is not None:
            return by_module
    if reference is None and planned.candidate_path:
        reason = "there is no graph of the model itself to compare this file with"
    if reason:
        return Localised(INTERMEDIATES, reason=reason)
    if planned.cell.format == "openvino":
        from pytest_modelformats.checks.localise.by_module import in_ir

        return in_ir(search, artifact)
    from pytest_modelformats.checks.localise.by_runtime import in_runtime

    return in_runtime(search, artifact)


def where_signal_goes(stages: Stages, settings: Settings, planned: PlannedCell, ends: float) -> Localised:
    """The first operator of the source whose result is lost in the rounding at the cell's precision.

    Raises: ModelFormatsError where a worker fails.
    """
    search = _search(stages, settings, planned, ends, None)
    reference = _reference(search)
    if reference is None:
        return Localised(SIGNAL, reason="the model has no ONNX graph whose operators could be looked at")
    answer = search.ask(
        f"{_ONNX}:losing",
        artifact=str(reference),
        feed=search.written(),
        precision=search.precision,
        truths=str(search.folder.parent / f"truths-{search.key(reference)}"),
        seconds=search.seconds,
        usable_db=USABLE_DB,
    )
    if answer["found"] is None:
        return Localised(SIGNAL, reason=answer["reason"], nodes_compared=answer["compared"])
    return replace(finished(search, answer, SIGNAL), confirmed=None)


_NOTHING = "every tensor of the graph is right"


def _search(stages: Stages, settings: Settings, planned: PlannedCell, ends: float, wanted: int | None) -> Search:
    model = planned.cell.model
    samples = stages.models.samples(model)
    path = stages.cells.artifact(planned).path
    size = path.stat().st_size if path.is_file() else 0
    rows = min(wanted or (ROWS if size <= SMALL_BYTES else 1), samples.rows)
    feed = stages.models.rows(model, 0, rows) if samples.batch_symbol else samples.feeds[0]
    base = stages.pool.folder / "localised"
    base.mkdir(exist_ok=True)
    folder = base / f"{len(list(base.iterdir()))}-{hashlib.sha256(planned.cell.id.encode()).hexdigest()[:8]}"
    return Search(stages, settings, planned, ends, feed, rows, folder)


def onnx_of(search: Search) -> Path | None:
    """The ONNX file that the cell's artifact is or was made of, ``None`` where there is none."""
    planned = search.planned
    source = search.stages.models.source(planned.cell.model)
    if planned.candidate_path:
        return Path(planned.candidate_path) if planned.cell.format == "onnx" else None
    known = registry.converters()
    steps = [i for i, step in enumerate(planned.chain) if known[step.converter].target == "onnx"]
    if steps:
        part = replace(planned, chain=planned.chain[: steps[-1] + 1])
        return search.stages.cells.converted(part, search.asker()).path
    return Path(source.location) if source.format == "onnx" else None


def _reference(search: Search) -> Path | None:
    """The source as an ONNX graph in fp32: its own file, or the product's default conversion of it."""
    source = search.stages.models.source(search.planned.cell.model)
    if source.format == "onnx":
        return Path(source.location)
    paths = [p for p in graph.artifacts(source.format) if p.node == ("onnx", "fp32") and not p.route]
    if not paths:
        return None
    cell = replace(search.planned.cell, format="onnx", precision="fp32", route="", candidate="")
    wanted = PlannedCell(cell, paths[0].steps, "fp32", search.planned.decision)
    try:
        return search.stages.cells.converted(wanted, search.asker()).path
    except (ModelFormatsError, OSError):
        return None  # a source that cannot be exported is searched by its modules


def _true_outputs(search: Search) -> list[str]:
    """The source's float64 outputs for the search's rows as files, none where they cannot be cut to rows."""
    import numpy as np

    truths = _known_truths(search) if search.truths is None else search.truths
    paths = []
    folder = search.folder.parent / f"true-{digest(search.feed)}"
    folder.mkdir(exist_ok=True)
    for index, truth in enumerate(truths):
        path = folder / f"{index}.npy"
        if not path.is_file():
            np.save(path, truth, allow_pickle=False)
        paths.append(str(path))
    return paths


def _known_truths(search: Search) -> Sequence[np.ndarray]:
    model = search.planned.cell.model
    samples, description = search.stages.models.samples(model), search.stages.models.description(model)
    truths = search.stages.models.reference(model).truths[0]
    batched = [s.shape is not None and samples.batch_symbol in s.shape[:1] for s in description.outputs]
    if not samples.batch_symbol:
        return truths
    return [truth[: search.rows] for truth in truths] if all(batched) else []


def _in_graph(search: Search, reference: Path, artifact: Path) -> Localised:
    """The first operator of the artifact's graph that is another one than the reference's, confirmed alone."""
    source = search.stages.models.source(search.planned.cell.model)
    answer = search.ask(
        f"{_ONNX}:compare",
        reference=str(reference),
        artifact=str(artifact),
        feed=search.written(),
        precision=search.precision,
        truths=str(search.folder.parent / f"truths-{search.key(reference)}"),
        folder=str(search.folder),
        seconds=search.seconds,
        limit=search.limit,
        expected=[] if source.format == "onnx" else _true_outputs(search),
    )
    if answer["found"] is None:
        return Localised(INTERMEDIATES, reason=answer["reason"] or _NOTHING, nodes_compared=answer["compared"])
    if answer.get("unevaluated"):
        return replace(finished(search, answer, READING), unevaluated=answer["unevaluated"])
    return finished(search, answer)
