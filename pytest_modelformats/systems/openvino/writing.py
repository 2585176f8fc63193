"""What every way to OpenVINO IR shares: names and shapes of the contract, saving, error classes."""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING, Any

from pytest_modelformats.errors import ConvertError, Unsupported
from pytest_modelformats.systems.openvino import ir as openvino_ir

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_modelformats.schema import TensorSpec
    from pytest_modelformats.schema.contract import ConversionJob

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
    """Give the inputs and outputs the contract's names.

    Raises: ConvertError where their number is another; Unsupported where OpenVINO cannot have these names.
    """
    for ports, specs, what in ((model.inputs, job.inputs, "inputs"), (model.outputs, job.outputs, "outputs")):
        if len(ports) != len(specs):
            wanted = ", ".join(s.name or "?" for s in specs)
            msg = f"OpenVINO's model of '{job.source.name}' has {len(ports)} {what}, the source {len(specs)} ({wanted})"
            raise ConvertError(msg)
    _set_apart(model, job)
    for port, spec in zip([*model.inputs, *model.outputs], [*job.inputs, *job.outputs], strict=True):
        port.get_tensor().set_names({spec.name} if spec.name else set())
    model.validate_nodes_and_infer_types()


def _set_apart(model: Any, job: ConversionJob) -> None:
    """Give every output that is an input, or another output, a tensor of its own.

    OpenVINO's names are those of tensors: two ports on one tensor have one name. A conversion to the type that the
    tensor has is an operator of every opset, for any rank; compiling removes it and keeps the name.

    Raises: Unsupported where two tensors are to have one name.
    """
    from openvino import opset1

    names = {port: spec.name for port, spec in zip(model.inputs, job.inputs, strict=True)}
    taken = set(names.values())
    for result, spec in zip(model.get_results(), job.outputs, strict=True):
        source = result.input(0).get_source_output()
        if spec.name and spec.name in taken and names.get(source) != spec.name:
            raise Unsupported(
                f"an input and another tensor, an output, of '{job.source.name}' are both called '{spec.name}', and "
                "OpenVINO keeps a name for one tensor only (it renames the other); call one of them otherwise"
            )
        if names.setdefault(source, spec.name) != spec.name:
            own = opset1.convert(source, source.get_element_type().to_string()).output(0)
            result.input(0).replace_source_output(own)


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
