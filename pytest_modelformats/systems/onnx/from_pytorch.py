"""PyTorch to ONNX by torch's own two exporters: through torch.export (default), and by tracing (legacy)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_modelformats.systems.onnx import exporting
from pytest_modelformats.systems.torch.loading.load import load_module
from pytest_modelformats.systems.torch.reference.calling import plain_kernels

if TYPE_CHECKING:
    from pytest_modelformats.schema.contract import ConversionJob


def convert_dynamo(job: ConversionJob) -> dict[str, Any]:
    """Export by torch.export; symbolic dimensions carry the contract's names."""
    import torch

    module = load_module(job.source)
    weights = [*module.parameters(), *module.buffers()]
    size = sum(t.numel() * t.element_size() for t in weights)
    exporter = f"torch.onnx.export(dynamo=True) of torch {torch.__version__}"
    with plain_kernels(), exporting.exporting(job, exporter) as heard:
        torch.onnx.export(
            exporting.positional(job, module),
            exporting.example_arguments(job),
            str(job.output),
            **exporting.names(job),
            dynamic_shapes=tuple(exporting.dynamic_axes(job)),
            opset_version=job.options.get("opset"),
            external_data=size > exporting.INLINE_LIMIT_BYTES,
            dynamo=True,
            verbose=False,
        )
    advice = "write --mf-opset {got}, or take the route onnx.legacy for an older opset"
    return exporting.facts(job, exporter, heard, advice)


def convert_legacy(job: ConversionJob) -> dict[str, Any]:
    """Export by tracing; what depends on the data is baked in, which the tracer's warnings say."""
    import torch

    module = load_module(job.source)
    exporter = f"torch.onnx.export(dynamo=False) of torch {torch.__version__}"
    axes = {s.name: a for s, a in zip(job.inputs, exporting.dynamic_axes(job), strict=True) if a}
    with plain_kernels(), exporting.exporting(job, exporter) as heard:
        torch.onnx.export(
            exporting.positional(job, module),
            exporting.example_arguments(job),
            str(job.output),
            **exporting.names(job),
            dynamic_axes=axes | exporting.output_axes(job),
            opset_version=job.options.get("opset"),
            dynamo=False,
            verbose=False,
        )
    return exporting.facts(job, exporter, heard, "write --mf-opset {got}")
