"""Searching by the modules of a PyTorch source: ONNX graphs without a faithful reference, and other targets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_modelformats.checks.localise.confirm import finished, run_in_order
from pytest_modelformats.checks.localise.nouns import BISECTION, CHUNK_BYTES, CHUNK_TENSORS, INTERMEDIATES, Localised

if TYPE_CHECKING:
    from pytest_modelformats.checks.localise.nouns import Search

_TORCH = "pytest_modelformats.systems.torch.localise.scripted"
_PROGRAM = "pytest_modelformats.systems.torch.localise.exported"
_ONNX = "pytest_modelformats.systems.onnx.localise.requests"
_ONNX_MODULES = "pytest_modelformats.systems.onnx.localise.against_modules"
_OPENVINO = "pytest_modelformats.systems.openvino.localise"
_MODULES = ("torch", "onnx")


def against_modules(search: Search, artifact: Path) -> Localised | None:
    """The first operator of an ONNX graph after which a module's result is wrong; ``None`` where all are right."""
    source = search.stages.models.source(search.planned.cell.model)
    if source.format != "pytorch":
        return None
    answer = search.ask(
        f"{_ONNX_MODULES}:against_modules",
        modules=_MODULES,
        source=source.to_json(),
        artifact=str(artifact),
        feed=search.written(),
        precision=search.precision,
        truths=str(search.folder.parent / f"modules-{search.planned.cell.model}-{search.feed_key()}"),
        folder=str(search.folder),
        seconds=search.seconds,
        limit=search.limit,
    )
    if answer["found"] is not None:
        return finished(search, answer)
    if answer["reason"]:
        return Localised(INTERMEDIATES, reason=answer["reason"], nodes_compared=answer["compared"])
    return None


def bisect(search: Search) -> Localised:
    """The first part of the artifact that is wrong: on good inputs, or after parts that are right."""
    source = search.stages.models.source(search.planned.cell.model)
    form = search.planned.cell.format
    if form == "openvino" and source.format in ("pytorch", "onnx"):
        return in_ir(search, Path(source.location) if source.format == "onnx" else None)
    if source.format != "pytorch" or form not in _SEARCHED:
        reason = f"a model in {form} made from {source.format} has no parts that the source's could be compared with"
        return Localised(BISECTION, reason=reason)
    more = {"folder": str(search.folder)} if form == "torchscript" else {"truths": _modules_folder(search)}
    answer = search.ask(
        _SEARCHED[form],
        modules=_MODULES,
        source=source.to_json(),
        artifact=str(search.stages.cells.artifact(search.planned).path),
        feed=search.written(),
        precision=search.precision,
        seconds=search.seconds,
        limit=search.limit,
        **more,
    )
    if answer["found"] is None:
        return Localised(BISECTION, reason=answer["reason"], nodes_compared=answer["compared"])
    return finished(search, answer, BISECTION)


_SEARCHED = {"torchscript": f"{_TORCH}:torchscript", "pt2": f"{_PROGRAM}:exported_program"}


def _modules_folder(search: Search) -> str:
    """Where what the source's modules give is kept, for every artifact that is compared with them."""
    return str(search.folder.parent / f"modules-{search.planned.cell.model}-{search.feed_key()}")


def in_ir(search: Search, onnx: Path | None) -> Localised:
    """An IR whose results are handed out in chunks, compared with the tensors of the ONNX graph that it was made of.

    Without such a graph, with the source's modules.
    """
    source = search.stages.models.source(search.planned.cell.model)
    artifact = str(search.stages.cells.artifact(search.planned).path)
    truths = _modules_folder(search) if onnx is None else str(search.folder.parent / f"truths-{search.key(onnx)}")
    common: dict[str, Any] = {"feed": search.written(), "precision": search.precision, "truths": truths}
    if onnx is not None:
        told = search.ask(
            f"{_ONNX}:plan_exposure",
            **common,
            artifact=str(onnx),
            seconds=search.seconds,
            chunk_bytes=CHUNK_BYTES,
            chunk_tensors=CHUNK_TENSORS,
        )
    else:
        told = search.ask(f"{_PROGRAM}:record", **common, source=source.to_json(), seconds=search.seconds)
    if told["reason"]:
        return Localised(BISECTION, reason=told["reason"])
    operators = search.ask(f"{_OPENVINO}:plan_openvino", artifact=artifact, truths=truths)["operators"]
    apart = 0
    for start in range(0, len(operators), _AT_ONCE):
        part = operators[start : start + _AT_ONCE]
        path = search.folder / f"exposed-{start}" / "model.xml"
        search.ask(f"{_OPENVINO}:expose_openvino", artifact=artifact, names=[op[0] for op in part], path=str(path))
        files = run_in_order(search, path, search.written())[1]
        answer = search.ask(
            f"{_OPENVINO}:blame_openvino",
            modules=_MODULES,
            artifact=artifact,
            source=source.to_json(),
            truths=truths,
            operators=part,
            files=files,
            limit=search.limit,
        )
        apart += answer["apart"]
        if answer["found"] is not None:
            return finished(search, answer | {"compared": start + len(part)}, BISECTION)
    alike = len(operators) - apart
    reason = f"the {alike} operators of the IR that say what they come from give what the source gives"
    if apart:
        reason += f"; {apart} more are not comparable with the module's result that they are named by"
    if not operators:
        reason = "no operator of the IR says which module or tensor of the source it comes from"
    return Localised(BISECTION, reason=reason, nodes_compared=alike)


# So many results of an IR are asked for at once.
_AT_ONCE = 64
