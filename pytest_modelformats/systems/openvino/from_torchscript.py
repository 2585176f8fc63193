"""TorchScript to OpenVINO IR."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_modelformats.systems.onnx import exporting
from pytest_modelformats.systems.openvino import writing
from pytest_modelformats.systems.torch.loading.programs import load_scripted

if TYPE_CHECKING:
    from pytest_modelformats.schema.contract import ConversionJob


def convert(job: ConversionJob) -> dict[str, Any]:
    """Translate the graph of the script."""
    import openvino

    script = load_scripted(job.input, trust=job.source.trust or job.source.format != "torchscript").eval()

    def translate() -> Any:
        return openvino.convert_model(
            script,
            example_input=exporting.example_arguments(job),
            input=writing.partial_inputs(job),
        )

    return writing.write(job, translate)
