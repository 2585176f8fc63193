"""ONNX to OpenVINO IR."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_modelformats.systems.openvino import writing

if TYPE_CHECKING:
    from pytest_modelformats.schema.contract import ConversionJob


def convert(job: ConversionJob) -> dict[str, Any]:
    """Translate the ONNX graph; names and symbolic dimensions are those of the graph."""
    import openvino

    return writing.write(job, lambda: openvino.convert_model(str(job.input)))
