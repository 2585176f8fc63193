"""PyTorch to ONNX by torch's own two exporters: through torch.export (default), and by tracing (legacy)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_modelformats.converters import onnx_export
from pytest_modelformats.schema import Converter
from pytest_modelformats.systems.torch.loading.load import load_module
from pytest_modelformats.systems.torch.reference.calling import plain_kernels

if TYPE_CHECKING:
    from pytest_modelformats.schema.contract import ConversionJob

DYNAMO = Converter(
    name="onnx_from_pytorch",
    source="pytorch",
    target="onnx",
    precisions={"fp32": ("fp32",)},
    entry="pytest_modelformats.converters.onnx_from_pytorch:convert_dynamo",
    route="dynamo",
    requires=("torch", "onnx", "onnxscript"),
    install="pip install 'pytest-modelformats[torch,onnx]'",
    libraries=("torch", "onnx", "onnxscript", "onnx-ir"),
    options=("opset", "dynamic"),
)
LEGACY = Converter(
    name="onnx_from_pytorch_legacy",
    source="pytorch",
    target="onnx",
    precisions={"fp32": ("fp32",)},
    entry="pytest_modelformats.converters.onnx_from_pytorch:convert_legacy",
    route="legacy",
    default=False,
    requires=("torch", "onnx"),
    install="pip install 'pytest-modelformats[torch,onnx]'",
    libraries=("torch", "onnx"),
    options=("opset", "dynamic"),
)


def convert_dynamo(job: ConversionJob) -> dict[str, Any]:
    """Export by torch.export; symbolic dimensions carry the contract's names."""
    import torch

    module = load_module(job.source)
    weights = [*module.parameters(), *module.buffers()]
    size = sum(t.numel() * t.element_size() for t in weights)
    exporter = f"torch.onnx.export(dynamo=True) of torch {torch.__version__}"
    with plain_kernels(), onnx_export.exporting(job, exporter) as heard:
        torch.onnx.export(
            onnx_export.positional(job, module),
            onnx_export.example_arguments(job),
            str(job.output),
            **onnx_export.names(job),
            dynamic_shapes=tuple(onnx_export.dynamic_axes(job)),
            opset_version=job.options.get("opset"),
            external_data=size > onnx_export.INLINE_LIMIT_BYTES,
            dynamo=True,
            verbose=False,
        )
    advice = "write --mf-opset {got}, or take the route onnx.legacy for an older opset"
    return onnx_export.facts(job, exporter, heard, advice)


def convert_legacy(job: ConversionJob) -> dict[str, Any]:
    """Export by tracing; what depends on the data is baked in, which the tracer's warnings say."""
    import torch

    module = load_module(job.source)
    exporter = f"torch.onnx.export(dynamo=False) of torch {torch.__version__}"
    axes = {s.name: a for s, a in zip(job.inputs, onnx_export.dynamic_axes(job), strict=True) if a}
    with plain_kernels(), onnx_export.exporting(job, exporter) as heard:
        torch.onnx.export(
            onnx_export.positional(job, module),
            onnx_export.example_arguments(job),
            str(job.output),
            **onnx_export.names(job),
            dynamic_axes=axes | onnx_export.output_axes(job),
            opset_version=job.options.get("opset"),
            dynamo=False,
            verbose=False,
        )
    return onnx_export.facts(job, exporter, heard, "write --mf-opset {got}")
