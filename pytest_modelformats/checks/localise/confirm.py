"""What a search has found, and whether the part alone is wrong in the cell's backend."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_modelformats.checks.localise.nouns import INTERMEDIATES, Localised
from pytest_modelformats.errors import ConvertError, ModelFormatsError
from pytest_modelformats.schema import registry

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_modelformats.checks.localise.nouns import Search


def finished(search: Search, answer: Mapping[str, Any], method: str = INTERMEDIATES) -> Localised:
    """What a worker has found, and whether the part alone is wrong in the cell's backend."""
    found = answer["found"]
    told = {key: found[key] for key in ("operator", "node", "module", "output", "input_error", "output_error", "how")}
    result = Localised(
        method,
        **told,
        before=tuple(found["before"]),
        missing=tuple(found["missing"]),
        nodes_compared=answer.get("compared", 0),
        peak_bytes=answer.get("peak_bytes"),
    )
    if not found.get("submodel"):
        return result
    result = replace(
        result,
        submodel=Path(found["submodel"]),
        inputs=tuple((name, Path(path)) for name, path in found["inputs"].items()),
        expected=tuple((n, Path(p)) for n, p in zip(found["outputs"], found["expected"], strict=True)),
        noise=tuple((n, (rms, largest)) for n, (rms, largest) in zip(found["outputs"], found["noise"], strict=True)),
    )
    try:
        return replace(result, confirmed=_confirmed(search, found))
    except (ModelFormatsError, OSError):
        return result  # the backend cannot open so small a model, or the budget has ended


def _confirmed(search: Search, found: Mapping[str, Any]) -> bool | None:
    """Whether the part alone, on good inputs, gives something else than it should."""
    import numpy as np

    files = run_to_files(search, Path(found["submodel"]), found["inputs"], found["specs"], found["outputs"])
    got = {name: np.load(path, allow_pickle=False) for name, path in files.items()}
    error = found["output_error"] if found["output_error"] is not None else math.inf
    # A faint fault is wrong enough alone where it is half as wrong as in the whole.
    limit = min(search.limit, error / 2)
    for name, path, noise in zip(found["outputs"], found["expected"], found["noise"], strict=True):
        if name not in got:
            return None
        truth, value = np.load(path, allow_pickle=False), got[name]
        if truth.shape != value.shape:
            return True
        if truth.dtype.kind != "f":
            if not np.array_equal(truth, value):
                return True
            continue
        if not np.array_equal(np.isfinite(truth), np.isfinite(value)):
            return True
        finite = np.isfinite(truth)
        difference = np.abs(value.astype(np.float64)[finite] - truth[finite])
        rms = float(np.sqrt(np.mean(np.square(difference)))) if difference.size else 0.0
        if rms > limit * noise[0] or (difference.size and float(difference.max()) > 1.5 * limit * noise[1]):
            return True
    return False


def run_in_order(
    search: Search, path: Path, feed: Mapping[str, str], inputs: Sequence[Mapping[str, Any]] = ()
) -> tuple[list[str], list[str]]:
    """Run a model file once in the cell's backend, as the cell is run: its outputs' names, and their files in order."""
    planned = search.planned
    backend = registry.backends()[planned.cell.backend]
    worker = search.stages.cells.worker(planned)
    job = search.stages.cells.opening(planned, path)
    job |= {"inputs": list(inputs) or job["inputs"], "outputs": []}
    opened = worker.request("open", search.seconds, None, entry=backend.entry, job=job)
    try:
        out = str(path.parent / f"{path.stem}-out")
        answer = worker.request("run", search.seconds, None, session=opened["session"], feed=dict(feed), folder=out)
    finally:
        if not worker.dead:
            worker.request("close", max(search.ends - time.monotonic(), 1.0), None, session=opened["session"])
    return [spec["name"] for spec in opened["outputs"]], list(answer["outputs"])


def run_to_files(
    search: Search,
    path: Path,
    feed: Mapping[str, str],
    inputs: Sequence[Mapping[str, Any]] = (),
    unnamed: Sequence[str] = (),
) -> dict[str, str]:
    """As :func:`run_in_order`, the files by the names of the outputs.

    ``inputs`` are the file's own where they are not the cell's, ``unnamed`` names what the backend has no names for.
    """
    names, files = run_in_order(search, path, feed, inputs)
    names = [name for name in names if name] or list(unnamed)
    if len(names) != len(files):
        msg = f"{search.planned.cell.backend} gave {len(files)} results for {len(names)} outputs"
        raise ConvertError(msg)
    return dict(zip(names, files, strict=True))
