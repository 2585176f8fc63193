"""ONNX Runtime, as the planner reads it."""

from __future__ import annotations

from pytest_modelformats.schema import Backend

ONNXRUNTIME = Backend(
    name="onnxruntime",
    title="ONNX Runtime",
    worker="onnxruntime",
    precisions={("onnx", "fp32"): ("fp32", "tf32"), ("onnx", "fp16"): ("fp16",)},
    devices=("cpu", "cuda"),
    entry="pytest_modelformats.systems.onnxruntime.backend:open_session",
    requires=("onnxruntime",),
    install="pip install 'pytest-modelformats[onnxruntime]'",
    libraries=("onnxruntime", "onnxruntime-gpu"),
    verified={"cpu": "x86-64 with AVX-512", "cuda": "NVIDIA H100, onnxruntime-gpu 1.31"},
    precision_devices={"tf32": ("cuda",)},
)

BACKENDS = (ONNXRUNTIME,)
