"""Localisation's requests about ONNX graphs, as a worker answers them: plain values and paths in and out."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_modelformats.compare.truths import OutOfTimeError, Truths, complete, read, timer
from pytest_modelformats.compare.usability import signal_db
from pytest_modelformats.measure.conditions import memory, reset_peak
from pytest_modelformats.schema import PRECISIONS, TensorSpec
from pytest_modelformats.schema.contract import AS_WRITTEN
from pytest_modelformats.systems.onnx import graph as onnx_graph
from pytest_modelformats.systems.onnx.localise import scopes as onnx_scopes
from pytest_modelformats.systems.onnx.localise import submodel as onnx_submodel
from pytest_modelformats.systems.onnx.localise import truths as onnx_truths
from pytest_modelformats.systems.onnx.localise.compare import Comparison, Found, first_difference, title
from pytest_modelformats.systems.onnx.localise.match import Match
from pytest_modelformats.systems.onnx.reference import steps as onnx_steps
from pytest_modelformats.systems.onnx.reference.lazy import LazyModel

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np


def _number(value: float) -> float | None:
    """JSON has no infinity: what cannot be compared has no number."""
    return value if math.isfinite(value) else None


def compare(
    *,
    reference: str,
    artifact: str,
    feed: dict[str, str],
    precision: str,
    truths: str,
    folder: str,
    seconds: float,
    limit: float,
    expected: list[str],
) -> dict[str, Any]:
    """The first operator of ``artifact`` that computes something else than ``reference`` does, and it alone as a model.

    ``found`` is ``None`` where every tensor of the graph is right, or the reference is not the source's function
    (``expected`` are the source's own outputs); ``reason`` says why it could not be told. ``unevaluated`` says what the
    evaluator lacks, where the two graphs could only be read.
    """
    reset_peak()
    check = timer(seconds)
    arrays = read(feed)
    source, model = LazyModel(Path(reference)), LazyModel(Path(artifact))
    try:
        known = _truths(source, arrays, precision, Path(truths), check)
        if not _faithful(source, known, expected, limit):
            return {"found": None, "reason": "", "compared": 0}
        comparison = Comparison(model, Match(model, source), known, limit, in_steps(precision))
        found = comparison.run(arrays, check)
    except OutOfTimeError as error:
        return {"found": None, "reason": str(error), "compared": 0}
    except NotImplementedError as error:
        return _read(model, source, onnx_graph.first_line(error))
    if found is None:
        return {"found": None, "reason": "", "compared": comparison.compared}
    told = described(comparison, found, Path(folder))
    peak = memory()["peak_bytes"]
    return {"found": told, "reason": "", "compared": comparison.compared, "peak_bytes": peak}


def _read(model: LazyModel, source: LazyModel, lacking: str) -> dict[str, Any]:
    """What two graphs that cannot be evaluated say of themselves."""
    match = Match(model, source)
    found = first_difference(model, match) if match.named else None
    if found is None:
        reason = f"the evaluator of ONNX graphs lacks an operator of it ({lacking.rstrip('.')})"
        if match.named:
            reason += ", and read node by node it is the graph of the model itself"
        return {"found": None, "reason": reason, "compared": 0}
    return {"found": _told(model, found, []), "reason": "", "compared": 0, "unevaluated": lacking}


def in_steps(precision: str) -> str:
    """What a graph is run in that is asked for a precision: at fp32 every cast to a narrower type is the file's own."""
    return AS_WRITTEN if PRECISIONS[precision].result_bits == PRECISIONS["fp32"].mantissa_bits else "float64"


def _truths(
    model: LazyModel, feed: dict[str, np.ndarray], precision: str, folder: Path, check: Callable[[int, int], None]
) -> Truths:
    if complete(folder):
        return Truths(folder)
    return onnx_truths.make(model, feed, precision, folder, check)


def _faithful(model: LazyModel, known: Truths, expected: list[str], limit: float) -> bool:
    import numpy as np

    names = [name for name in model.outputs if name in known]
    pairs = zip(names, expected, strict=False)
    return all(known.distance(name, np.load(path, allow_pickle=False)).ratio <= limit for name, path in pairs)


def described(comparison: Comparison, found: Found, folder: Path) -> dict[str, Any]:
    """What is found, in plain values, and the part alone as a model in ``folder``."""
    told = _told(comparison.model, found, comparison.path(found.index))
    return told | _part(comparison, found, folder)


def _told(model: LazyModel, found: Found, before: list[str]) -> dict[str, Any]:
    node = model.nodes[found.index]
    return {
        "operator": node.op_type,
        "node": title(node),
        "module": onnx_scopes.module_of(node),
        "output": found.output,
        "input_error": _number(found.input_error),
        "output_error": _number(found.output_error),
        "how": found.how,
        "missing": found.missing,
        "before": before,
    }


def _part(comparison: Comparison, found: Found, folder: Path) -> dict[str, Any]:
    """The faulty part as a model, its good inputs and what should come out; nothing where that cannot be had."""
    import numpy as np

    model, truths = comparison.model, comparison.truths
    last = model.nodes[found.part[-1]]
    made = {name for place in found.part for name in model.nodes[place].output}
    taken = dict.fromkeys(
        name
        for place in found.part
        for name in onnx_steps.takes(model.nodes[place])
        if name in comparison.dependent and name not in made
    )
    outputs = [n for n in last.output if comparison.match.tensors.get(n, "") in truths]
    equal, sizes = comparison.equal, comparison.sizes
    if not outputs or not all(name in equal or name in sizes for name in taken):
        return {"submodel": None}
    given = {name: truths.load(equal[name]) if name in equal else sizes[name] for name in taken}
    folder.mkdir(parents=True, exist_ok=True)
    dtypes = onnx_submodel.cut(model, found.part, given, outputs, folder / "model.onnx")
    expected, noise = [], []
    for index, name in enumerate(outputs):
        entry = truths.known[comparison.match.tensors[name]]
        np.save(folder / f"expected_{index}.npy", truths.load(entry.name), allow_pickle=False)
        expected.append(str(folder / f"expected_{index}.npy"))
        noise.append([entry.noise_rms, entry.noise_max])
    inputs = {name: str(folder / f"in_{i}.npy") for i, name in enumerate(given)}
    return {
        "submodel": str(folder / "model.onnx"),
        "inputs": inputs,
        "specs": [TensorSpec(n, dtypes[n], tuple(array.shape)).to_json() for n, array in given.items()],
        "outputs": outputs,
        "expected": expected,
        "noise": noise,
    }


def losing(
    *, artifact: str, feed: dict[str, str], precision: str, truths: str, seconds: float, usable_db: float
) -> dict[str, Any]:
    """The first operator whose inputs stand out from what rounding at the precision makes of them, and its result not.

    ``reason`` says why there is none. Units: dB, signal over rounding, rms over rms.
    """
    model = LazyModel(Path(artifact))
    try:
        known = _truths(model, read(feed), precision, Path(truths), timer(seconds))
    except OutOfTimeError as error:
        return {"found": None, "reason": str(error), "compared": 0}
    except NotImplementedError as error:
        return {"found": None, "reason": f"a graph of it cannot be evaluated: {error}", "compared": 0}
    left = {name: signal_db(e.rms, e.noise_rms) for name, e in known.known.items() if e.floating and e.rms}
    for index, node in enumerate(model.nodes):
        before = min((left[n] for n in onnx_steps.takes(node) if n in left), default=math.inf)
        name = min((n for n in node.output if n in left), key=left.__getitem__, default="")
        if name and left[name] < usable_db <= before:
            how = f"its inputs stand {min(before, 150):.0f} dB above their rounding at {precision}, "
            how += f"its result {left[name]:.0f} dB"
            found = Found(index, name, math.inf, math.inf, [index], how)
            return {"found": _told(model, found, []), "reason": "", "compared": len(left)}
    reason = f"every operator of its graph alone keeps {usable_db:g} dB: the loss adds up slowly, or is in the inputs"
    return {"found": None, "reason": reason, "compared": len(left)}


def plan_exposure(
    *,
    artifact: str,
    feed: dict[str, str],
    precision: str,
    truths: str,
    seconds: float,
    chunk_bytes: int,
    chunk_tensors: int,
) -> dict[str, Any]:
    """Make the truths of a graph itself, and group its tensors into chunks that are exposed together.

    ``makers`` has the operator and the name of the node of each.
    """
    model = LazyModel(Path(artifact))
    try:
        known = _truths(model, read(feed), precision, Path(truths), timer(seconds))
    except OutOfTimeError as error:
        return {"chunks": [], "reason": str(error), "makers": {}}
    chunks: list[list[str]] = []
    makers: dict[str, list[str]] = {}
    size = 0
    for node in model.nodes:
        for name in node.output:
            if name not in known or not known.known[name].floating:
                continue
            needed = 4 * math.prod(known.known[name].shape)
            if not chunks or size + needed > chunk_bytes or len(chunks[-1]) >= chunk_tensors:
                chunks.append([])
                size = 0
            chunks[-1].append(name)
            makers[name] = [node.op_type, title(node)]
            size += needed
    return {"chunks": chunks, "reason": "", "makers": makers}


def expose(*, artifact: str, names: list[str], path: str) -> dict[str, Any]:
    """Write the model with these tensors as outputs; names that are outputs already stay as they are."""
    model = LazyModel(Path(artifact))
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    onnx_submodel.expose(model, [n for n in names if n not in model.outputs], Path(path))
    return {}


def prefix(*, artifact: str, output: str, path: str) -> dict[str, Any]:
    """Write what leads to one tensor as a model of its own."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    return {"inputs": onnx_submodel.prefix(LazyModel(Path(artifact)), output, Path(path))}


def distances(*, truths: str, tensors: dict[str, str]) -> dict[str, Any]:
    """How far tensors in files are from what they should hold, in units of their noise; ``None`` is beyond number.

    ``overflows`` are those that are not finite where their precision itself is not.
    """
    import numpy as np

    known = Truths(Path(truths))
    found = {name: known.distance(name, np.load(path, allow_pickle=False)) for name, path in tensors.items()}
    return {
        "ratios": {name: _number(distance.ratio) for name, distance in found.items()},
        "overflows": [name for name, distance in found.items() if distance.overflows],
    }


def blame(*, artifact: str, truths: str, ratios: dict[str, float | None], limit: float, folder: str) -> dict[str, Any]:
    """The first operator that the runtime gets wrong by the errors of all its tensors, and it alone as a model."""
    model, known = LazyModel(Path(artifact)), Truths(Path(truths))
    errors = {name: math.inf if ratio is None else ratio for name, ratio in ratios.items()}
    comparison = Comparison(model, Match(model, model), known, limit)
    comparison.errors |= errors
    comparison.equal |= {name: name for name in comparison.dependent if name in known}
    for index, node in enumerate(model.nodes):
        mine = [errors[n] for n in node.output if n in errors]
        before = max((errors.get(n, 0.0) for n in onnx_steps.takes(node)), default=0.0)
        if mine and max(mine) > limit and before <= max(limit, max(mine) / limit):
            output = next(n for n in node.output if errors.get(n) == max(mine))
            found = Found(index, output, before, max(mine), [index])
            return {"found": described(comparison, found, Path(folder))}
    return {"found": None}
