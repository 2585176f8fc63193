"""ONNX fp32 to fp16 inside, with the inputs and outputs kept as they are."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from pytest_modelformats.errors import ConvertError, Unsupported
from pytest_modelformats.systems.onnx import exporting
from pytest_modelformats.systems.onnx import graph as onnx_graph

if TYPE_CHECKING:
    from pytest_modelformats.schema.contract import ConversionJob


def convert(job: ConversionJob) -> dict[str, Any]:
    """Turn weights and operators to fp16; opset and IR version stay.

    Raises: Unsupported for a model that computes in fp16 in places already; ConvertError for all else that is refused.
    """
    import onnx
    from onnxconverter_common import float16

    model = onnx_graph.load_model(job.input)
    if float16.check_if_fp16_ready(model.graph):
        raise Unsupported(
            f"'{job.input.name}' computes in fp16 in places already, and onnxconverter-common only takes models that "
            "are fp32 throughout; export it to fp32 and let this tool make the fp16 of it"
        )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            half = float16.convert_float_to_float16(model, keep_io_types=True)
        except Exception as error:  # the library raises bare Exception and whatever its graph surgery meets
            reason = onnx_graph.first_line(error)
            msg = f"onnxconverter-common cannot turn '{job.input.name}' to fp16: {reason}"
            raise ConvertError(msg) from error
    large = half.ByteSize() > exporting.INLINE_LIMIT_BYTES
    onnx.save(half, str(job.output), save_as_external_data=large, location=f"{job.output.name}.data" if large else None)
    truncated = sum("truncated" in str(w.message) for w in caught)
    return {
        "opset": next(int(o.version) for o in half.opset_import if o.domain in ("", "ai.onnx")),
        "ir_version": int(half.ir_version),
        "exporter": "onnxconverter-common float16.convert_float_to_float16",
        "truncated_values": truncated,
    }
