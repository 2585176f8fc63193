"""OpenVINO IR with its weights rounded to fp16, computed in fp32: what ``save_model`` does unless told otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_modelformats.errors import ConvertError
from pytest_modelformats.systems.openvino import ir as openvino_ir

if TYPE_CHECKING:
    from pytest_modelformats.schema.contract import ConversionJob


def convert(job: ConversionJob) -> dict[str, Any]:
    """Save the model again with compressed weights."""
    import openvino

    try:
        model = openvino.Core().read_model(str(job.input))
        openvino.save_model(model, str(job.output), compress_to_fp16=True)
    except RuntimeError as error:
        msg = f"OpenVINO cannot compress the weights of '{job.input.name}': {openvino_ir.reason(error)}"
        raise ConvertError(msg) from error
    return {"openvino": str(openvino.__version__), "operators": len(model.get_ops())}
