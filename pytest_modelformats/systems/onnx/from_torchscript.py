"""TorchScript to ONNX by torch's legacy exporter, the only one that takes a ScriptModule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_modelformats.systems.onnx import exporting
from pytest_modelformats.systems.torch.loading.programs import load_scripted
from pytest_modelformats.systems.torch.reference.calling import plain_kernels

if TYPE_CHECKING:
    from pytest_modelformats.schema.contract import ConversionJob


def convert(job: ConversionJob) -> dict[str, Any]:
    """Translate the script's graph."""
    import torch

    script = load_scripted(job.input, trust=job.source.trust or job.source.format != "torchscript").eval()
    exporter = f"torch.onnx.export(ScriptModule) of torch {torch.__version__}"
    axes = {s.name: a for s, a in zip(job.inputs, exporting.dynamic_axes(job), strict=True) if a}
    with plain_kernels(), exporting.exporting(job, exporter) as heard:
        torch.onnx.export(
            script,
            exporting.example_arguments(job),
            str(job.output),
            **exporting.names(job),
            dynamic_axes=axes | exporting.output_axes(job),
            opset_version=job.options.get("opset"),
            dynamo=False,
            verbose=False,
        )
    return exporting.facts(job, exporter, heard, "write --mf-opset {got}")
