"""ONNX: the format and the converters that make it, as the planner reads them."""

from __future__ import annotations

from pytest_modelformats.schema import Converter, Format

ONNX = Format(
    name="onnx",
    title="ONNX",
    module="pytest_modelformats.systems.onnx.format",
    suffix=".onnx",
    precisions=("fp32", "fp16"),
    requires=("onnx",),
    install="pip install 'pytest-modelformats[onnx]'",
    named_inputs=True,
    named_outputs=True,
    as_written=True,
)
FROM_PYTORCH = Converter(
    name="onnx_from_pytorch",
    source="pytorch",
    target="onnx",
    precisions={"fp32": ("fp32",)},
    entry="pytest_modelformats.systems.onnx.from_pytorch:convert_dynamo",
    route="dynamo",
    requires=("torch", "onnx", "onnxscript"),
    install="pip install 'pytest-modelformats[torch,onnx]'",
    libraries=("torch", "onnx", "onnxscript", "onnx-ir"),
    options=("opset", "dynamic"),
)
FROM_PYTORCH_LEGACY = Converter(
    name="onnx_from_pytorch_legacy",
    source="pytorch",
    target="onnx",
    precisions={"fp32": ("fp32",)},
    entry="pytest_modelformats.systems.onnx.from_pytorch:convert_legacy",
    route="legacy",
    default=False,
    requires=("torch", "onnx"),
    install="pip install 'pytest-modelformats[torch,onnx]'",
    libraries=("torch", "onnx"),
    options=("opset", "dynamic"),
)
FROM_PT2 = Converter(
    name="onnx_from_pt2",
    source="pt2",
    target="onnx",
    precisions={"fp32": ("fp32",)},
    entry="pytest_modelformats.systems.onnx.from_pt2:convert",
    route="pt2",
    requires=("torch", "onnx", "onnxscript"),
    install="pip install 'pytest-modelformats[torch,onnx]'",
    libraries=("torch", "onnx", "onnxscript", "onnx-ir"),
    options=("opset",),
)
FROM_TORCHSCRIPT = Converter(
    name="onnx_from_torchscript",
    source="torchscript",
    target="onnx",
    precisions={"fp32": ("fp32",)},
    entry="pytest_modelformats.systems.onnx.from_torchscript:convert",
    route="torchscript",
    requires=("torch", "onnx"),
    install="pip install 'pytest-modelformats[torch,onnx]'",
    libraries=("torch", "onnx"),
    options=("opset", "dynamic"),
)
FP16_FROM_ONNX = Converter(
    name="onnx_fp16_from_onnx",
    source="onnx",
    target="onnx",
    precisions={"fp32": ("fp16",)},
    entry="pytest_modelformats.systems.onnx.fp16_from_onnx:convert",
    route="fp16",
    requires=("onnx", "onnxconverter_common"),
    install="pip install 'pytest-modelformats[onnx]'",
    libraries=("onnx", "onnxconverter-common", "onnxruntime"),
)

FORMATS = (ONNX,)
CONVERTERS = (
    FROM_PYTORCH,
    FROM_PYTORCH_LEGACY,
    FROM_PT2,
    FROM_TORCHSCRIPT,
    FP16_FROM_ONNX,
)
