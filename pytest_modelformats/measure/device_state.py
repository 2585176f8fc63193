"""What an accelerator is asked about a measurement: peak memory and energy, where a library is there that can tell.

Runs inside a worker. Written after the documentation of PyTorch and NVML; seen working on an NVIDIA H100.
"""

from __future__ import annotations

import os
import sys
from typing import Any

CUDA = "cuda"


def reset_device_peak(device: str) -> None:
    """The peak of device memory counts from here, where it can."""
    cuda = _torch_cuda(device)
    if cuda is not None:
        cuda.reset_peak_memory_stats()


def device_memory(device: str) -> dict[str, Any]:
    """Device memory with its source: torch's peak since the reset, else what NVML counts for this process now.

    Units: bytes. Empty where neither can be asked.
    """
    cuda = _torch_cuda(device)
    if cuda is not None:
        return {"device_memory_bytes": int(cuda.max_memory_allocated()), "device_memory_source": "torch, peak"}
    library, handle = _nvml(device)
    if library is None:
        return {}
    try:
        processes = library.nvmlDeviceGetComputeRunningProcesses(handle)
    except library.NVMLError:
        return {}
    used = [p.usedGpuMemory for p in processes if p.pid == os.getpid() and p.usedGpuMemory is not None]
    return {"device_memory_bytes": sum(used), "device_memory_source": "NVML, at the end"} if used else {}


def device_energy_mj(device: str) -> int | None:
    """The device's energy counter in millijoules; ``None`` where there is none."""
    library, handle = _nvml(device)
    if library is None:
        return None
    try:
        return int(library.nvmlDeviceGetTotalEnergyConsumption(handle))
    except library.NVMLError:
        return None  # before Volta there is no such counter


def _torch_cuda(device: str) -> Any:
    """torch.cuda where this worker runs torch on a GPU: a runtime of another kind is not asked through it."""
    torch = sys.modules.get("torch") if device == CUDA else None
    cuda = getattr(torch, "cuda", None)
    return cuda if cuda is not None and cuda.is_available() and cuda.is_initialized() else None


def _nvml(device: str) -> tuple[Any, Any]:
    """NVML and the handle of the first device that this process sees; (None, None) without either."""
    if device != CUDA:
        return None, None
    try:
        import pynvml
    except ImportError:
        return None, None
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").partition(",")[0].strip()
    try:
        pynvml.nvmlInit()
        if visible and not visible.isdigit():
            return pynvml, pynvml.nvmlDeviceGetHandleByUUID(visible)
        return pynvml, pynvml.nvmlDeviceGetHandleByIndex(int(visible or 0))
    except pynvml.NVMLError:
        return None, None
