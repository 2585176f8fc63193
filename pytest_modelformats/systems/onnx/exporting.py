"""What every way of exporting to ONNX shares: silence, error classes, the opset read back."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from typing import TYPE_CHECKING, Any

from pytest_modelformats.errors import ConvertError, Unsupported

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

    from pytest_modelformats.schema.contract import ConversionJob

INLINE_LIMIT_BYTES = 1_800_000_000  # protobuf ends at 2 GiB; the graph itself needs room beside the weights
LARGEST_WARNING_COUNT = 10
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_MISSING_OPERATOR = (
    re.compile(r"No ONNX function found for <OpOverload\(op='([^']+)'"),
    re.compile(r"Exporting the operator '([^']+)' to ONNX"),
    re.compile(r"ONNX export of operator ([^,]+)"),
)


@contextlib.contextmanager
def exporting(job: ConversionJob, exporter: str) -> Iterator[list[str]]:
    """Silence the exporter, collect its tracer's warnings, and turn what it raises into one sentence.

    Raises: Unsupported, naming the operator; ConvertError with the first line of the deepest cause.
    """
    heard: list[str] = []
    disabled = logging.root.manager.disable
    try:
        logging.disable(logging.CRITICAL)
        with warnings.catch_warnings(record=True) as caught, contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("always")
            yield heard
        heard.extend(_tracer_warnings(caught))
    except Exception as error:  # the exporters raise whatever the model's own code and torch raise
        raise _explained(error, job, exporter) from error
    finally:
        logging.disable(disabled)


def _tracer_warnings(caught: list[warnings.WarningMessage]) -> list[str]:
    """The warnings that say that tracing baked something in: the ones that explain a wrong result later."""
    texts = (str(w.message).splitlines()[0] for w in caught if w.category.__name__ == "TracerWarning")
    return list(dict.fromkeys(texts))[:LARGEST_WARNING_COUNT]


def _explained(error: Exception, job: ConversionJob, exporter: str) -> ConvertError | Unsupported:
    deepest: BaseException = error
    while deepest.__cause__ is not None:
        deepest = deepest.__cause__
    for pattern in _MISSING_OPERATOR:
        match = pattern.search(str(deepest)) or pattern.search(str(error))
        if match:
            return Unsupported(f"{exporter} has no ONNX translation for the operator '{match[1].strip()}'")
    lines = (line.strip() for line in _ANSI.sub("", str(deepest)).splitlines())
    reason = next((line for line in lines if line), type(deepest).__name__)
    return ConvertError(f"{exporter} cannot export '{job.source.name}': {reason}")


def dynamic_axes(job: ConversionJob) -> list[dict[int, str]]:
    """Per input, the axes that stay symbolic and their names; empty ones where the option ``dynamic`` is off."""
    if not job.options.get("dynamic", True):
        return [{} for _ in job.inputs]
    return [{i: d for i, d in enumerate(s.shape or ()) if isinstance(d, str)} for s in job.inputs]


def output_axes(job: ConversionJob) -> dict[str, dict[int, str]]:
    """Per output name, the axes that stay symbolic, for the exporter that has to be told."""
    if not job.options.get("dynamic", True):
        return {}
    axes = {s.name: {i: d for i, d in enumerate(s.shape or ()) if isinstance(d, str)} for s in job.outputs}
    return {name: named for name, named in axes.items() if named}


def example_arguments(job: ConversionJob) -> tuple[Any, ...]:
    """The example feed as torch tensors, in the order of the contract's inputs."""
    from pytest_modelformats.systems.torch.reference.calling import to_tensor

    return tuple(to_tensor(job.example[spec.name]) for spec in job.inputs)


def positional(job: ConversionJob, module: torch.nn.Module) -> torch.nn.Module:
    """The module called by position in the contract's order, returning a flat list of its tensors."""
    from pytest_modelformats.systems.torch.reference.calling import contract_module

    return contract_module(module, [spec.name for spec in job.inputs], flat=True)


def names(job: ConversionJob) -> dict[str, list[str]]:
    """The keywords that make the exporter use the contract's names."""
    return {"input_names": [s.name for s in job.inputs], "output_names": [s.name for s in job.outputs]}


def facts(job: ConversionJob, exporter: str, warned: list[str], advice: str) -> dict[str, Any]:
    """Plain facts about the file written.

    Raises: ConvertError where the opset in the file is not the one asked for.
    """
    import onnx

    model = onnx.load(job.output, load_external_data=False)
    got = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    asked = job.options.get("opset")
    if asked is not None and got != asked:
        msg = f"asked for opset {asked}, the exporter wrote {got}; {advice.format(got=got)}"
        raise ConvertError(msg)
    stated: dict[str, Any] = {"opset": int(got), "ir_version": int(model.ir_version), "exporter": exporter}
    return stated | ({"warnings": warned} if warned else {})
