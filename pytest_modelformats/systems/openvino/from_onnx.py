"""ONNX to OpenVINO IR."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_modelformats.systems.openvino import writing

if TYPE_CHECKING:
    from pytest_modelformats.schema.contract import ConversionJob


def convert(job: ConversionJob) -> dict[str, Any]:
    """Translate the ONNX graph; names and symbolic dimensions are those of the graph.

    Where the graph alone does not say the rank of every tensor, OpenVINO refuses what the contract's shapes make clear
    (a convolution behind a Squeeze without axes): then these are given to it.
    """
    import openvino

    def translated() -> Any:
        try:
            return openvino.convert_model(str(job.input))
        except Exception:  # noqa: BLE001 - whatever it is, the second attempt raises it again unless shapes mend it
            shapes = {
                spec.name: openvino.PartialShape([-1 if isinstance(dim, str) else dim for dim in spec.shape])
                for spec in job.inputs
                if spec.shape is not None
            }
            return openvino.convert_model(str(job.input), input=shapes)

    return writing.write(job, translated)
