"""Which operator a runtime computes wrongly: the graph is right, its intermediate results are looked at in chunks."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pytest_modelformats.checks.localise.confirm import finished, run_to_files
from pytest_modelformats.checks.localise.nouns import CHUNK_BYTES, CHUNK_TENSORS, INTERMEDIATES, NONE_WRONG, Localised
from pytest_modelformats.errors import ModelFormatsError

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_modelformats.checks.localise.nouns import Search

_ONNX = "pytest_modelformats.systems.onnx.localise.requests"
_VANISHES = "it goes wrong only while intermediate results are not asked for: an operator that is fused or rewritten"


def in_runtime(search: Search, artifact: Path) -> Localised:
    """The first operator whose result in the cell's backend is not explained by its inputs, confirmed alone."""
    truths = search.folder.parent / f"truths-{search.key(artifact)}"
    common: dict[str, Any] = {"artifact": str(artifact), "truths": str(truths)}
    plan = search.ask(
        f"{_ONNX}:plan_exposure",
        **common,
        feed=search.written(),
        precision=search.precision,
        seconds=search.seconds,
        chunk_bytes=CHUNK_BYTES,
        chunk_tensors=CHUNK_TENSORS,
    )
    if not plan["chunks"]:
        return Localised(INTERMEDIATES, reason=plan["reason"] or "the graph has no floating-point results to look at")
    ratios: dict[str, float | None] = {}
    overflowing: set[str] = set()
    for number, names in enumerate(plan["chunks"]):
        told = _exposed(search, artifact, truths, names, number)
        ratios |= told["ratios"]
        overflowing.update(told["overflows"])
        answer = _blame(search, common, ratios)
        if answer["found"] is not None:
            return finished(search, answer | {"compared": len(ratios)})
    everything = [name for names in plan["chunks"] for name in names]
    overflowed = next((name for name in everything if name in overflowing), "")
    if overflowed:
        operator, node = plan["makers"][overflowed]
        reason = (
            f"{NONE_WRONG}: {operator} '{node}' is the first whose results are not finite where the float64 ones are, "
            f"and at {search.precision} the graph itself has the same ones there without {search.planned.cell.backend}"
        )
        return Localised(INTERMEDIATES, reason=reason, nodes_compared=len(ratios))
    first = _first_wrong_prefix(search, artifact, truths, everything)
    if first is None:
        reason = (
            f"the ONNX graph is right and {search.planned.cell.backend} computes it right when it is given that graph "
            "and these inputs: what was made of it afterwards, or other inputs, are at fault"
        )
        return Localised(INTERMEDIATES, reason=reason, nodes_compared=len(ratios))
    answer = _blame(search, common, {first[0]: first[1]})
    found = finished(search, answer | {"compared": len(ratios)})
    return replace(found, how="; ".join(part for part in (found.how, _VANISHES) if part))


def _blame(search: Search, common: dict[str, Any], ratios: dict[str, float | None]) -> dict[str, Any]:
    return search.ask(f"{_ONNX}:blame", **common, ratios=ratios, limit=search.limit, folder=str(search.folder / "part"))


def _exposed(search: Search, artifact: Path, truths: Path, names: list[str], number: int) -> dict[str, Any]:
    """The errors of some tensors in the backend, in units of their noise, and which of them may overflow."""
    path = search.folder / f"exposed-{number}" / "model.onnx"
    search.ask(f"{_ONNX}:expose", artifact=str(artifact), names=names, path=str(path))
    files = run_to_files(search, path, search.written())
    path.unlink()
    return search.ask(f"{_ONNX}:distances", truths=str(truths), tensors={n: f for n, f in files.items() if n in names})


def _first_wrong_prefix(
    search: Search, artifact: Path, truths: Path, names: list[str]
) -> tuple[str, float | None] | None:
    """By halving: the first tensor that comes out wrong as the only output, so that what leads to it may be fused."""

    def error(place: int) -> float | None:
        path = search.folder / f"prefix-{place}" / "model.onnx"
        name = names[place]
        answer = search.ask(f"{_ONNX}:prefix", artifact=str(artifact), output=name, path=str(path))
        feed = {n: f for n, f in search.written().items() if n in answer["inputs"]}
        files = run_to_files(search, path, feed)
        path.unlink()
        ratios = search.ask(f"{_ONNX}:distances", truths=str(truths), tensors={name: files[name]})["ratios"]
        found: float | None = ratios[name]
        return found

    def wrong(ratio: float | None) -> bool:
        return ratio is None or ratio > search.limit

    low, high = 0, len(names) - 1
    last = error(high)
    if not wrong(last):
        return None
    while low < high:
        middle = (low + high) // 2
        try:
            ratio = error(middle)
        except ModelFormatsError:
            if search.seconds < 0.1:  # noqa: PLR2004 - not enough for another run
                raise
            ratio = 0.0  # what cannot be run alone is not blamed
        if wrong(ratio):
            high, last = middle, ratio
        else:
            low = middle + 1
    return names[high], last
