"""PyTorch to OpenVINO IR by OpenVINO's own frontend, which traces the module."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_modelformats.systems.onnx import exporting
from pytest_modelformats.systems.openvino import writing
from pytest_modelformats.systems.torch.loading.load import load_module
from pytest_modelformats.systems.torch.reference.calling import plain_kernels

if TYPE_CHECKING:
    from pytest_modelformats.schema.contract import ConversionJob


def convert(job: ConversionJob) -> dict[str, Any]:
    """Trace the module on the example; symbolic dimensions stay dynamic."""
    import openvino

    module = exporting.positional(job, load_module(job.source))

    def trace() -> Any:
        with plain_kernels():
            return openvino.convert_model(
                module,
                example_input=exporting.example_arguments(job),
                input=writing.partial_inputs(job),
            )

    return writing.write(job, trace)
