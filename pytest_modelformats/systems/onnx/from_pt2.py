"""An exported program (.pt2) to ONNX by torch's exporter; its dynamic dimensions are those it was exported with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_modelformats.systems.onnx import exporting
from pytest_modelformats.systems.torch.loading.programs import load_exported

if TYPE_CHECKING:
    from pytest_modelformats.schema.contract import ConversionJob


def convert(job: ConversionJob) -> dict[str, Any]:
    """Translate the exported program."""
    import torch

    program, _module = load_exported(job.input, trust=job.source.trust or job.source.format != "pt2")
    exporter = f"torch.onnx.export(ExportedProgram) of torch {torch.__version__}"
    with exporting.exporting(job, exporter) as heard:
        torch.onnx.export(
            program,
            (),
            str(job.output),
            **exporting.names(job),
            opset_version=job.options.get("opset"),
            external_data=job.input.stat().st_size > exporting.INLINE_LIMIT_BYTES,
            verbose=False,
        )
    return exporting.facts(job, exporter, heard, "write --mf-opset {got}")
