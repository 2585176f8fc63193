"""ONNX graphs held against the modules of the PyTorch source that they came from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pytest_modelformats.compare.truths import OutOfTimeError, Truths, complete, read, timer
from pytest_modelformats.errors import Unsupported
from pytest_modelformats.schema import Source
from pytest_modelformats.systems.onnx.localise import requests as onnx_localise
from pytest_modelformats.systems.torch.localise import intermediates


def against_modules(
    *,
    source: dict[str, Any],
    artifact: str,
    feed: dict[str, str],
    precision: str,
    truths: str,
    folder: str,
    seconds: float,
    limit: float,
) -> dict[str, Any]:
    """The first operator of an ONNX graph after which a module's result is not the module's any more."""
    from pytest_modelformats.systems.onnx.localise.compare import Comparison
    from pytest_modelformats.systems.onnx.localise.modules import ModuleMatch
    from pytest_modelformats.systems.onnx.reference.lazy import LazyModel
    from pytest_modelformats.systems.torch.loading.load import load_module

    check, arrays = timer(seconds), read(feed)
    module = load_module(Source.from_json(source))
    try:
        intermediates.modules_of(module)
        if not complete(Path(truths)):
            intermediates.record(module, arrays, precision, Path(truths), check)
        known = Truths(Path(truths))
        model = LazyModel(Path(artifact))
        comparison = Comparison(
            model, ModuleMatch(model, known, module.state_dict()), known, limit, onnx_localise.in_steps(precision)
        )
        found = comparison.run(arrays, check)
    except OutOfTimeError as error:
        return {"found": None, "reason": str(error), "compared": 0}
    except Unsupported:
        return {"found": None, "reason": "", "compared": 0}
    if found is None:
        return {"found": None, "reason": "", "compared": comparison.compared}
    told = onnx_localise.described(comparison, found, Path(folder))
    return {"found": told, "reason": "", "compared": comparison.compared}
