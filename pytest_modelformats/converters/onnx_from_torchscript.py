"""TorchScript to ONNX by torch's legacy exporter, the only one that takes a ScriptModule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_modelformats.converters import onnx_export
from pytest_modelformats.schema import Converter
from pytest_modelformats.systems.torch.loading.programs import load_scripted
from pytest_modelformats.systems.torch.reference.calling import plain_kernels

if TYPE_CHECKING:
    from pytest_modelformats.schema.contract import ConversionJob

CONVERTER = Converter(
    name="onnx_from_torchscript",
    source="torchscript",
    target="onnx",
    precisions={"fp32": ("fp32",)},
    entry="pytest_modelformats.converters.onnx_from_torchscript:convert",
    route="torchscript",
    requires=("torch", "onnx"),
    install="pip install 'pytest-modelformats[torch,onnx]'",
    libraries=("torch", "onnx"),
    options=("opset", "dynamic"),
)


def convert(job: ConversionJob) -> dict[str, Any]:
    """Translate the script's graph."""
    import torch

    script = load_scripted(job.input, trust=job.source.trust or job.source.format != "torchscript").eval()
    exporter = f"torch.onnx.export(ScriptModule) of torch {torch.__version__}"
    axes = {s.name: a for s, a in zip(job.inputs, onnx_export.dynamic_axes(job), strict=True) if a}
    with plain_kernels(), onnx_export.exporting(job, exporter) as heard:
        torch.onnx.export(
            script,
            onnx_export.example_arguments(job),
            str(job.output),
            **onnx_export.names(job),
            dynamic_axes=axes | onnx_export.output_axes(job),
            opset_version=job.options.get("opset"),
            dynamo=False,
            verbose=False,
        )
    return onnx_export.facts(job, exporter, heard, "write --mf-opset {got}")
