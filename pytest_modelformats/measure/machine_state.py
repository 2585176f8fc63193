"""The state of the machine while something is timed: clocks, temperature, pressure, energy, as far as it is readable.

Runs inside a worker, also under a foreign interpreter: standard library only. What the system does not offer is not
in the answer; nothing is ever given as 0 for want of a reading. An accelerator is asked for its peak memory and energy
where a library is there that can tell: written after the documentation of PyTorch and NVML, seen working on an NVIDIA
H100.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CUDA = "cuda"

ROOT = Path("/")
# Package zones only: "psys" holds them again, and sub-zones (core, dram) are parts of a package.
_PACKAGE = re.compile(r"intel-rapl:\d+")
_MILLI = 1000


def state(pinned: Sequence[int], root: Path = ROOT) -> dict[str, Any]:
    """Governor and frequency of the pinned cores, the highest temperature, and who waits for processor or memory.

    Units: frequencies in Hz, temperature in degrees Celsius, pressure in percent of the last 10 s in which at least
    one task waited.
    Source: Linux, Documentation/admin-guide/pm/cpufreq.rst, Documentation/accounting/psi.rst.
    """
    found = {
        "governor": _governor(pinned, root),
        **_frequency(pinned, root),
        "temperature_c": _temperature(root),
        "cpu_pressure_percent": _pressure("cpu", root),
        "memory_pressure_percent": _pressure("memory", root),
    }
    return {name: value for name, value in found.items() if value is not None}


def _governor(pinned: Sequence[int], root: Path) -> str | None:
    names = {_read(root / f"sys/devices/system/cpu/cpu{core}/cpufreq/scaling_governor") for core in pinned}
    return ", ".join(sorted(names - {""})) or None


def _frequency(pinned: Sequence[int], root: Path) -> dict[str, Any]:
    """By cpufreq; else what /proc/cpuinfo says, which on a virtual machine may be the nominal one."""
    current = [_read(root / f"sys/devices/system/cpu/cpu{core}/cpufreq/scaling_cur_freq") for core in pinned]
    if current and all(text.isdigit() for text in current):
        return {"frequency_hz": [int(text) * _MILLI for text in current], "frequency_source": "cpufreq"}
    blocks = [dict(_facts(block)) for block in _read(root / "proc/cpuinfo").split("\n\n")]
    by_core = {block.get("processor", ""): block.get("cpu MHz", "") for block in blocks}
    try:
        hertz = [round(float(by_core[str(core)]) * 1e6) for core in pinned]
    except (KeyError, ValueError):
        return {}
    return {"frequency_hz": hertz, "frequency_source": "cpuinfo"} if hertz else {}


def _facts(block: str) -> list[tuple[str, str]]:
    pairs = (line.partition(":") for line in block.splitlines())
    return [(name.strip(), value.strip()) for name, _, value in pairs]


def _temperature(root: Path) -> float | None:
    """The highest of the processor's; of everything, where no sensor says that it is the processor's."""
    sensors: dict[str, list[float]] = {}
    for zone in _children(root / "sys/class/thermal", "thermal_zone"):
        _note(sensors, _read(zone / "type"), _read(zone / "temp"))
    for chip in _children(root / "sys/class/hwmon", "hwmon"):
        for reading in _children(chip, "temp"):
            if reading.name.endswith("_input"):
                _note(sensors, _read(chip / "name"), _read(reading))
    of_processor = [t for name, found in sensors.items() for t in found if _PROCESSOR.search(name)]
    return max(of_processor or [t for found in sensors.values() for t in found], default=None)


_PROCESSOR = re.compile(r"pkg_temp|coretemp|k10temp|zenpower|cpu", re.IGNORECASE)


def _note(sensors: dict[str, list[float]], name: str, text: str) -> None:
    if re.fullmatch(r"-?\d+", text):
        sensors.setdefault(name, []).append(int(text) / _MILLI)


def _pressure(resource: str, root: Path) -> float | None:
    match = re.search(r"^some avg10=([\d.]+)", _read(root / f"proc/pressure/{resource}"), re.MULTILINE)
    return float(match[1]) if match else None


def energy(root: Path = ROOT) -> dict[str, tuple[int, int]]:
    """(Counter, where it wraps) of every processor package by zone; empty where the system has none or hides them.

    Units: microjoules. Source: Linux, Documentation/power/powercap/powercap.rst.
    """
    found = {}
    for zone in _children(root / "sys/class/powercap", "intel-rapl:"):
        if not _PACKAGE.fullmatch(zone.name) or _read(zone / "name") == "psys":
            continue
        counter, limit = _read(zone / "energy_uj"), _read(zone / "max_energy_range_uj")
        if counter.isdigit() and limit.isdigit():
            found[zone.name] = (int(counter), int(limit))
    return found


def energy_between(before: Mapping[str, tuple[int, int]], after: Mapping[str, tuple[int, int]]) -> float | None:
    """The energy that all packages took between two readings of :func:`energy`, in joules; ``None`` without them.

    A counter that is smaller than before has wrapped once: at 200 W the usual range of 262 kJ lasts 20 minutes.
    """
    zones = before.keys() & after.keys()
    if not zones:
        return None
    spent = 0
    for zone in zones:
        change = after[zone][0] - before[zone][0]
        spent += change if change >= 0 else change + after[zone][1]
    return spent / 1e6


def _children(folder: Path, prefix: str) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.name.startswith(prefix))
    except OSError:
        return []


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


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
