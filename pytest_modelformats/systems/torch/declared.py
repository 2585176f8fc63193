"""PyTorch: its formats, converters and backends, as the planner reads them."""

from __future__ import annotations

from dataclasses import replace

from pytest_modelformats.schema import Backend, Converter, Format

# fp16 arithmetic of these CPUs is native; on others torch computes it at a fraction of fp32's speed.
_FP16_CPU_FLAGS = {"fp16": ("avx512_fp16", "amx_fp16", "fphp", "asimdhp")}
_INSTALL = "pip install 'pytest-modelformats[torch]'"
_VERIFIED = {"cpu": "x86-64 with AVX-512", "cuda": "NVIDIA H100, torch 2.11"}
# TF32 is an arithmetic of NVIDIA's tensor cores.
_PRECISION_DEVICES = {"tf32": ("cuda",)}

PYTORCH = Format(
    name="pytorch",
    title="PyTorch module",
    module="pytest_modelformats.systems.torch.pytorch",
    suffix="",
    precisions=("fp32", "fp16", "bf16"),
    requires=("torch",),
    install="pip install 'pytest-modelformats[torch]'",
)
PT2 = Format(
    name="pt2",
    title="PyTorch exported program",
    module="pytest_modelformats.systems.torch.pt2",
    suffix=".pt2",
    precisions=("fp32", "fp16", "bf16"),
    requires=("torch",),
    install="pip install 'pytest-modelformats[torch]'",
    named_inputs=True,
)
TORCHSCRIPT = Format(
    name="torchscript",
    title="TorchScript",
    module="pytest_modelformats.systems.torch.torchscript",
    suffix=".ts.pt",
    precisions=("fp32", "fp16", "bf16"),
    requires=("torch",),
    install="pip install 'pytest-modelformats[torch]'",
    named_inputs=True,
)
PT2_FROM_PYTORCH = Converter(
    name="pt2_from_pytorch",
    source="pytorch",
    target="pt2",
    precisions={"fp32": ("fp32", "fp16", "bf16")},
    entry="pytest_modelformats.systems.torch.pt2_from_pytorch:convert",
    route="export",
    requires=("torch",),
    install="pip install 'pytest-modelformats[torch]'",
    libraries=("torch",),
    options=("dynamic",),
)
TRACED = Converter(
    name="torchscript_from_pytorch",
    source="pytorch",
    target="torchscript",
    precisions={"fp32": ("fp32", "fp16", "bf16")},
    entry="pytest_modelformats.systems.torch.torchscript_from_pytorch:trace",
    route="trace",
    requires=("torch",),
    install="pip install 'pytest-modelformats[torch]'",
    libraries=("torch",),
)
SCRIPTED = replace(
    TRACED,
    name="torchscript_from_pytorch_script",
    entry="pytest_modelformats.systems.torch.torchscript_from_pytorch:script",
    route="script",
    default=False,
)
EAGER = Backend(
    name="torch",
    title="PyTorch eager",
    worker="torch",
    precisions={("pytorch", "fp32"): ("fp32", "tf32", "fp16", "bf16")},
    devices=("cpu", "cuda"),
    entry="pytest_modelformats.systems.torch.eager:open_session",
    requires=("torch",),
    install=_INSTALL,
    libraries=("torch",),
    needs_cpu_flags=_FP16_CPU_FLAGS,
    verified=_VERIFIED,
    precision_devices=_PRECISION_DEVICES,
)
COMPILED = replace(
    EAGER,
    name="torch-compile",
    title="torch.compile",
    entry="pytest_modelformats.systems.torch.compiled:open_session",
    # Its maintainers, pytorch/pytorch#136833 and #118260: neither dynamo nor inductor is thread-safe.
    one_call_at_a_time="torch.compile states no support for calls from several threads (pytorch issue 118260)",
)
EXPORTED_PROGRAM = Backend(
    name="torch-export",
    title="PyTorch exported program",
    worker="torch",
    precisions={("pt2", "fp32"): ("fp32", "tf32"), ("pt2", "fp16"): ("fp16",), ("pt2", "bf16"): ("bf16",)},
    devices=("cpu", "cuda"),
    entry="pytest_modelformats.systems.torch.exported:open_session",
    requires=("torch",),
    install=_INSTALL,
    libraries=("torch",),
    needs_cpu_flags=_FP16_CPU_FLAGS,
    verified=_VERIFIED,
    precision_devices=_PRECISION_DEVICES,
)
TORCHSCRIPT_BACKEND = Backend(
    name="torchscript",
    title="TorchScript",
    worker="torch",
    precisions={
        ("torchscript", "fp32"): ("fp32", "tf32"),
        ("torchscript", "fp16"): ("fp16",),
        ("torchscript", "bf16"): ("bf16",),
    },
    devices=("cpu", "cuda"),
    entry="pytest_modelformats.systems.torch.scripted:open_session",
    requires=("torch",),
    install=_INSTALL,
    libraries=("torch",),
    needs_cpu_flags=_FP16_CPU_FLAGS,
    verified=_VERIFIED,
    precision_devices=_PRECISION_DEVICES,
)

FORMATS = (
    PYTORCH,
    PT2,
    TORCHSCRIPT,
)
CONVERTERS = (
    PT2_FROM_PYTORCH,
    TRACED,
    SCRIPTED,
)
BACKENDS = (
    EAGER,
    COMPILED,
    EXPORTED_PROGRAM,
    TORCHSCRIPT_BACKEND,
)
