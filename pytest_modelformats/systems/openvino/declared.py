"""OpenVINO: its format, converters and backend, as the planner reads them."""

from __future__ import annotations

from pytest_modelformats.schema import Backend, Converter, Format

IR = Format(
    name="openvino",
    title="OpenVINO IR",
    module="pytest_modelformats.systems.openvino.format",
    suffix=".xml",
    precisions=("fp32", "fp16-weights"),
    requires=("openvino",),
    install="pip install 'pytest-modelformats[openvino]'",
    named_inputs=True,
    named_outputs=True,
)
FROM_PYTORCH = Converter(
    name="openvino_from_pytorch",
    source="pytorch",
    target="openvino",
    precisions={"fp32": ("fp32",)},
    entry="pytest_modelformats.systems.openvino.from_pytorch:convert",
    route="torch",
    requires=("torch", "openvino"),
    install="pip install 'pytest-modelformats[torch,openvino]'",
    libraries=("torch", "openvino"),
    version=2,
)
FROM_PT2 = Converter(
    name="openvino_from_pt2",
    source="pt2",
    target="openvino",
    precisions={"fp32": ("fp32",)},
    entry="pytest_modelformats.systems.openvino.from_pt2:convert",
    route="pt2",
    requires=("torch", "openvino"),
    install="pip install 'pytest-modelformats[torch,openvino]'",
    libraries=("torch", "openvino"),
    version=2,
)
FROM_TORCHSCRIPT = Converter(
    name="openvino_from_torchscript",
    source="torchscript",
    target="openvino",
    precisions={"fp32": ("fp32",)},
    entry="pytest_modelformats.systems.openvino.from_torchscript:convert",
    route="torchscript",
    requires=("torch", "openvino"),
    install="pip install 'pytest-modelformats[torch,openvino]'",
    libraries=("torch", "openvino"),
    version=2,
)
FROM_ONNX = Converter(
    name="openvino_from_onnx",
    source="onnx",
    target="openvino",
    precisions={"fp32": ("fp32",)},
    entry="pytest_modelformats.systems.openvino.from_onnx:convert",
    route="onnx",
    requires=("openvino",),
    install="pip install 'pytest-modelformats[openvino]'",
    libraries=("openvino",),
    version=2,
)
FP16_WEIGHTS = Converter(
    name="openvino_fp16_weights_from_openvino",
    source="openvino",
    target="openvino",
    precisions={"fp32": ("fp16-weights",)},
    entry="pytest_modelformats.systems.openvino.fp16_weights_from_openvino:convert",
    route="fp16-weights",
    requires=("openvino",),
    install="pip install 'pytest-modelformats[openvino]'",
    libraries=("openvino",),
)
OPENVINO = Backend(
    name="openvino",
    title="OpenVINO",
    worker="openvino",
    precisions={
        ("openvino", "fp32"): ("fp32", "fp16", "bf16", "default"),
        ("openvino", "fp16-weights"): ("fp16-weights",),
    },
    devices=("cpu",),
    entry="pytest_modelformats.systems.openvino.backend:open_session",
    requires=("openvino",),
    install="pip install 'pytest-modelformats[openvino]'",
    libraries=("openvino",),
    verified={"cpu": "x86-64 with AVX-512"},
    opt_in_precisions=("default",),
)

FORMATS = (IR,)
CONVERTERS = (
    FROM_PYTORCH,
    FROM_PT2,
    FROM_TORCHSCRIPT,
    FROM_ONNX,
    FP16_WEIGHTS,
)
BACKENDS = (OPENVINO,)
