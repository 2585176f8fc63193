"""Converters from PyTorch to ONNX, and from there to OpenVINO, that change one thing on the way."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pytest_modelformats.systems.onnx.declared import FROM_PYTORCH
from pytest_modelformats.systems.onnx.from_pytorch import convert_dynamo, convert_legacy
from pytest_modelformats.systems.openvino.declared import FROM_ONNX
from pytest_modelformats.systems.openvino.from_onnx import convert as convert_ir

if TYPE_CHECKING:
    from pytest_modelformats.schema.contract import ConversionJob

# The default conversion itself is wrong: nothing that came through ONNX can be the reference.
WRONG_DEFAULT = replace(FROM_PYTORCH, entry="miniatures.onnx_converters:careless", version=1001)
CARELESS = replace(
    FROM_PYTORCH,
    name="onnx_careless_from_pytorch",
    entry="miniatures.onnx_converters:careless",
    route="careless",
    default=False,
    version=1001,
)
CARELESS_LEGACY = replace(
    CARELESS,
    name="onnx_careless_legacy_from_pytorch",
    entry="miniatures.onnx_converters:careless_legacy",
    route="careless-legacy",
)

CARELESS_IR = replace(
    FROM_ONNX,
    name="openvino_careless_from_onnx",
    entry="miniatures.onnx_converters:careless_ir",
    route="careless",
    default=False,
)


def careless(job: ConversionJob) -> dict[str, Any]:
    """The second convolution's weights are 1 % too large."""
    return _scaled(job, convert_dynamo(job))


def careless_legacy(job: ConversionJob) -> dict[str, Any]:
    """The same by the legacy exporter."""
    return _scaled(job, convert_legacy(job))


def careless_ir(job: ConversionJob) -> dict[str, Any]:
    """A sigmoid is taken for the approximation that is cheaper."""
    import onnx

    model = onnx.load(str(job.input))
    for node in model.graph.node:
        if node.op_type == "Sigmoid":
            node.op_type = "HardSigmoid"
    altered = job.output.parent / "altered.onnx"
    onnx.save(model, str(altered))
    facts = convert_ir(replace(job, input=altered))
    altered.unlink()
    return facts


def _scaled(job: ConversionJob, facts: dict[str, Any]) -> dict[str, Any]:
    import numpy as np
    import onnx
    from onnx import numpy_helper

    model = onnx.load(str(job.output))
    name = [node for node in model.graph.node if node.op_type == "Conv"][1].input[1]
    tensor = next(t for t in model.graph.initializer if t.name == name)
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1.01), name))
    onnx.save(model, str(job.output))
    return facts
