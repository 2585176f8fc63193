"""What asks for TF32 on a GPU, and what forbids it to fp32: options and flags, as far as they show without a GPU."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import onnxruntime
import pytest
import torch

from pytest_modelformats.schema import Source
from pytest_modelformats.schema.contract import SessionJob
from pytest_modelformats.systems.onnxruntime import backend as ort_backend
from pytest_modelformats.systems.torch import session as torch_session


def job(precision, device="cuda", source=None):
    source = source or Source("net", "/nowhere/net.onnx", "onnx", "onnx")
    return SessionJob(source, Path("/nowhere/net.onnx"), "onnx", "fp32", precision, device, 1, (), ())


@pytest.fixture
def opened(monkeypatch):
    """What ONNX Runtime is asked for, where it had a CUDA execution provider."""
    asked = []
    names = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    session = SimpleNamespace(get_providers=lambda: names, get_inputs=list, get_outputs=list)

    def open_fake(path, options, providers):
        fallback = options.get_session_config_entry("session.disable_cpu_ep_fallback")
        # As ONNX Runtime has it (1.31.1 on an H100): "Conflicting session configuration".
        assert fallback != "1" or "CPUExecutionProvider" not in providers
        asked.append((dict(p for p in providers if not isinstance(p, str)), fallback))
        return session

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: names)
    monkeypatch.setattr(onnxruntime, "InferenceSession", open_fake)
    return asked


def test_onnx_runtime_gets_the_cuda_libraries_that_pip_installed(opened, monkeypatch):
    """Its CUDA execution provider finds cuBLAS and cuDNN of the nvidia-* packages only where they are loaded before."""
    sessions_before = []
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: sessions_before.append(len(opened)), raising=False)
    ort_backend._providers("cpu", "fp32", ["CPUExecutionProvider"])
    assert sessions_before == []
    ort_backend.open_session(job("fp32"))
    assert sessions_before == [0]


@pytest.mark.parametrize(("precision", "use_tf32"), [("fp32", "0"), ("tf32", "1"), ("fp16", "0")])
def test_onnx_runtime_gets_tf32_where_it_was_asked_for_alone(opened, precision, use_tf32):
    """The CUDA execution provider would use TF32 by itself; the option says whether it may."""
    ort_backend.open_session(job(precision))
    ((providers, fallback),) = opened
    assert providers["CUDAExecutionProvider"]["use_tf32"] == use_tf32
    assert fallback == "1"


@pytest.fixture
def flags(monkeypatch):
    """Torch's flags as they are after a session was prepared on a GPU that torch believes in; put back afterwards."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32, torch.get_num_threads()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")

    def prepared(precision):
        statement = torch_session.prepare(job(precision))
        return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32, statement

    yield prepared
    torch.set_float32_matmul_precision(before[0])
    torch.backends.cudnn.allow_tf32 = before[1]
    torch.set_num_threads(before[2])


def test_torch_gets_tf32_where_it_was_asked_for_alone(flags):
    """Products and convolutions both, and an fp32 session after a tf32 one is strict again."""
    for precision, allowed in (("fp32", False), ("tf32", True), ("fp32", False), ("tf32", True), ("fp16", False)):
        products, convolutions, statement = flags(precision)
        assert (products, convolutions, statement["tf32"]) == (allowed, allowed, allowed)
        assert statement["precision"] == precision
    assert flags("tf32")[2]["dtype"] == "float32"


def test_a_module_keeps_its_float32_weights_for_tf32(tmp_path):
    """TF32 is what the units do with them: nothing is cast."""
    (tmp_path / "net.py").write_text("import torch\n\n\ndef build():\n    return torch.nn.Linear(4, 3)\n")
    source = Source("net", f"{tmp_path / 'net.py'}:build", "factory", "pytorch")
    module = torch_session.eager_module(job("tf32", "cpu", source))
    assert {p.dtype for p in module.parameters()} == {torch.float32}
