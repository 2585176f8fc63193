"""What this machine is, and what is installed on it, without importing any of it."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
import os
import platform
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# A process above the limit of its control group is killed, however much the machine has.
_CGROUP_LIMITS = ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes")


def _read(path: Path) -> str:
    """The text of a file of the kernel's, "" where there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _cpuinfo(root: Path) -> dict[str, str]:
    """The first processor of /proc/cpuinfo, by key."""
    lines = _read(root / "proc/cpuinfo").split("\n\n", 1)[0].splitlines()
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}


def cpu_flags(root: Path = Path("/")) -> tuple[str, ...]:
    """The instruction sets of the processor, sorted, by the names that Linux gives them."""
    info = _cpuinfo(root)
    flags = info.get("flags") or info.get("Features")
    if flags is not None:
        return tuple(sorted(flags.split()))
    import archspec.cpu

    return tuple(sorted(archspec.cpu.host().features))


def cpu_name(root: Path = Path("/")) -> str:
    """The processor's name and its microarchitecture, such as ``AMD EPYC (zen4)``."""
    import archspec.cpu

    brand = _cpuinfo(root).get("model name") or platform.processor() or platform.machine()
    return f"{brand} ({archspec.cpu.host().name})"


def memory_bytes(root: Path = Path("/")) -> int:
    """The memory that processes here may use: the machine's, or less in a container."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for name in _CGROUP_LIMITS:
        text = _read(root / name).strip()
        if text.isdigit():
            limits.append(int(text))
    return min(limits)


def cores() -> int:
    """The processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def gpus(root: Path = Path("/")) -> tuple[str, ...]:
    """The names of the NVIDIA GPUs that the driver shows; empty without a driver."""
    if not (root / "proc/driver/nvidia/version").exists():
        return ()
    nodes = sorted(p for p in (root / "dev").glob("nvidia[0-9]*") if p.name.removeprefix("nvidia").isdigit())
    models = []
    for information in sorted((root / "proc/driver/nvidia/gpus").glob("*/information")):
        facts = dict(line.partition(":")[::2] for line in _read(information).splitlines())
        models.append(facts.get("Model", "").strip() or "NVIDIA GPU")
    # A container may list every GPU of its host but be given only some: the device nodes are what can be opened.
    if len(models) == len(nodes):
        return tuple(models)
    return tuple(f"NVIDIA GPU {node.name.removeprefix('nvidia')}" for node in nodes)


def gpu_driver(root: Path = Path("/")) -> str:
    """The version of the NVIDIA kernel driver, "" where there is none."""
    first = _read(root / "proc/driver/nvidia/version").partition("\n")[0]
    return next((word for word in first.split() if word[0].isdigit() and "." in word), "")


def identity(facts: Mapping[str, Any]) -> str:
    """A short hash of what a machine is; two of one kind have the same, and a kernel or affinity changes nothing.

    Of ``machine()``: processor with its microarchitecture, physical cores, memory, architecture and GPU models. Memory
    is rounded up to a quarter of a power of two (…, 16, 20, 24, 28, 32, 40 … GiB): what a kernel reserves of
    it (1 to 7 % was seen) must not make another machine.
    """
    gibibytes = (facts.get("memory_bytes") or 0) / 2**30
    step = 2.0 ** (math.frexp(gibibytes)[1] - 3)
    parts = [
        facts.get("cpu", ""),
        facts.get("physical_cores") or facts.get("cores"),
        math.ceil(gibibytes / step) * step,
        facts.get("architecture", ""),
        # Without the number of the device: a container may be given any one of several.
        sorted(re.sub(r"^NVIDIA GPU \d+$", "NVIDIA GPU", str(gpu)) for gpu in facts.get("gpu") or ()),
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


@cache
def machine() -> dict[str, Any]:
    """The machine in plain values: what decides which cells run here, and what a record says it ran on."""
    import psutil

    facts = {
        "cpu": cpu_name(),
        "cpu_flags": cpu_flags(),
        "cores": cores(),
        "physical_cores": psutil.cpu_count(logical=False) or cores(),
        "memory_bytes": memory_bytes(),
        "os": f"{platform.system()} {platform.release()}",
        "architecture": platform.machine(),
        "gpu": gpus(),
        "gpu_driver": gpu_driver(),
        "python": platform.python_version(),
    }
    return facts | {"identity": identity(facts)}


def devices() -> tuple[str, ...]:
    """The devices that a cell may ask for on this machine."""
    return ("cpu", "cuda") if gpus() else ("cpu",)


@cache
def installed(module: str) -> bool:
    """Whether the top-level package of ``module`` is installed; nothing is imported."""
    try:
        return importlib.util.find_spec(module.partition(".")[0]) is not None
    except ValueError:  # in sys.modules without a spec, as a stub that a test put there has it
        return True


def versions(distributions: Iterable[str]) -> dict[str, str]:
    """The installed version of each distribution; one that is not installed is left out."""
    found = {name: _version(name) for name in distributions}
    return {name: version for name, version in found.items() if version}


def _version(distribution: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""
