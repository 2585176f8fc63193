"""An exported program (.pt2) to OpenVINO IR."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_modelformats.systems.openvino import writing
from pytest_modelformats.systems.torch.loading.programs import load_exported

if TYPE_CHECKING:
    from pytest_modelformats.schema.contract import ConversionJob


def convert(job: ConversionJob) -> dict[str, Any]:
    """Translate the exported program; dimensions are dynamic where it was exported so."""
    import openvino

    program, _module = load_exported(job.input, trust=job.source.trust or job.source.format != "pt2")
    _require_dynamic(program, job)
    return writing.write(job, lambda: openvino.convert_model(program))


def _require_dynamic(program: Any, job: ConversionJob) -> None:
    """OpenVINO makes every input dimension dynamic, also those that the program was exported with as numbers.

    Raises: ConvertError where one of them is symbolic in the contract.
    """
    values = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
    for name, spec in zip(program.graph_signature.user_inputs, job.inputs, strict=False):
        shape = getattr(values.get(name), "shape", ())
        for position, (dim, size) in enumerate(zip(spec.shape or (), shape, strict=False)):
            if isinstance(dim, str) and isinstance(size, int):
                raise writing.fixed_dimension(job, spec, position, size)
