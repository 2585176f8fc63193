"""What every way to OpenVINO IR shares: names and shapes of the contract, saving, error classes."""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING, Any

from pytest_modelformats.errors import ConvertError, Unsupported
from pytest_modelformats.formats import openvino_ir

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_modelformats.contract import ConversionJob
    from pytest_modelformats.schema import TensorSpec

_MISSING_OPERATOR = re.compile(r"No conversion rule found for operations?: (.+)")


def write(job: ConversionJob, convert: Callable[[], Any]) -> dict[str, Any]:
    """Run ``convert``, give the model the contract's names and shapes, and save it with its weights in fp32.

    Raises: Unsupported, naming the operators; ConvertError.
    """
    import openvino

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model = convert()
        except Exception as error:  # OpenVINO, torch and the model's own code raise anything here
            raise _explained(error, job) from error
    _name(model, job)
    _shape(model, job)
    openvino.save_model(model, str(job.output), compress_to_fp16=False)
    return {"openvino": str(openvino.__version__), "operators": len(model.get_ops())}


def partial_inputs(job: ConversionJob) -> list[tuple[list[int], Any]]:
    """Shape (-1 for a symbolic dimension) and element type per input, as ``convert_model(input=…)`` takes them."""
    import openvino

    return [
        (
            [-1 if isinstance(dim, str) else dim for dim in spec.shape or job.example[spec.name].shape],
            openvino.Type(job.example[spec.name].dtype),
        )
        for spec in job.inputs
    ]


def _explained(error: Exception, job: ConversionJob) -> ConvertError | Unsupported:
    match = _MISSING_OPERATOR.search(str(error))
    if match:
        return Unsupported(f"OpenVINO has no conversion rule for {match[1].strip()} in '{job.source.name}'")
    return ConvertError(f"OpenVINO cannot convert '{job.source.name}': {openvino_ir.reason(error)}")


def _name(model: Any, job: ConversionJob) -> None:
    for ports, specs, what in ((model.inputs, job.inputs, "inputs"), (model.outputs, job.outputs, "outputs")):
        if len(ports) != len(specs):
            wanted = ", ".join(s.name or "?" for s in specs)
            msg = f"OpenVINO's model of '{job.source.name}' has {len(ports)} {what}, the source {len(specs)} ({wanted})"
            raise ConvertError(msg)
        for port, spec in zip(ports, specs, strict=True):
            port.get_tensor().set_names({spec.name} if spec.name else set())
        for port, spec in zip(ports, specs, strict=True):
            if spec.name and spec.name not in port.get_names():  # two ports share one tensor
                port.get_tensor().add_names({spec.name})


def fixed_dimension(job: ConversionJob, spec: TensorSpec, position: int, size: int) -> ConvertError:
    """The error for a dimension that must stay symbolic and did not."""
    name = spec.shape[position] if spec.shape else "?"
    return ConvertError(
        f"dimension {position} ('{name}') of '{spec.name}' of '{job.source.name}' was fixed to {size} on the way; "
        "fix it in the input specification too, or take another route"
    )


def _shape(model: Any, job: ConversionJob) -> None:
    """Fix the dimensions that the contract fixes.

    Raises: ConvertError where a dimension that must stay symbolic was fixed by the conversion.
    """
    import openvino

    wanted = {}
    for index, spec in enumerate(job.inputs):
        port = model.inputs[index]
        if spec.shape is None or port.get_partial_shape().rank.is_dynamic:
            continue
        for position, (dim, got) in enumerate(zip(spec.shape, port.get_partial_shape(), strict=True)):
            if isinstance(dim, str) and got.is_static:
                raise fixed_dimension(job, spec, position, got.get_length())
        wanted[port] = openvino.PartialShape([-1 if isinstance(dim, str) else dim for dim in spec.shape])
    try:
        model.reshape(wanted)
    except RuntimeError as error:
        msg = f"OpenVINO cannot give its model of '{job.source.name}' the source's shapes: {openvino_ir.reason(error)}"
        raise ConvertError(msg) from error
