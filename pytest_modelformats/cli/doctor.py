"""What this machine can run and what it lacks, as plain data; nothing is imported or started to find out."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_modelformats.schema import registry
from pytest_modelformats.settings import machine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from pytest_modelformats.schema import Backend, Converter, Format

# The instruction sets that decide at which precisions a CPU computes natively.
_VECTORS = ("avx2", "f16c", "avx512f", "avx512_bf16", "avx512_fp16", "avx512_vnni", "avx_vnni")
_X86 = (*_VECTORS, "amx_tile", "amx_bf16", "amx_fp16", "amx_int8")
_ARM = ("asimd", "asimdhp", "asimddp", "bf16", "i8mm", "sve", "sve2")
VERIFIED = "verified"
NOT_VERIFIED = "not verified on hardware"


@dataclass(frozen=True, slots=True)
class Part:
    """A registered format, converter or backend, and the modules that it lacks here."""

    kind: str
    name: str
    missing: tuple[str, ...]
    install: str


@dataclass(frozen=True, slots=True)
class Emulation:
    """A precision that this CPU has no instructions for, so that a backend emulates it."""

    backend: str
    precision: str
    needs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CacheFolder:
    """The cache folder; ``free_bytes`` of the disk that it is, or would be, on."""

    path: Path
    exists: bool
    writable: bool
    free_bytes: int


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Everything that ``modelformats doctor`` shows."""

    machine: Mapping[str, Any]
    devices: tuple[str, ...]
    versions: Mapping[str, str]
    instruction_sets: Mapping[str, bool]
    emulations: tuple[Emulation, ...]
    parts: tuple[Part, ...]
    cache: CacheFolder


def diagnose(cache: Path, is_installed: Callable[[str], bool] = machine.installed) -> Diagnosis:
    """Look at the machine, the registry and the cache folder."""
    facts = machine.machine()
    flags = set(facts["cpu_flags"])
    relevant = _ARM if facts["architecture"].lower() in {"arm64", "aarch64"} else _X86
    return Diagnosis(
        machine=facts,
        devices=machine.devices(),
        versions=machine.versions(distributions()),
        instruction_sets={name: name in flags for name in relevant},
        emulations=tuple(_emulations(flags)),
        parts=tuple(parts(is_installed)),
        cache=_cache_folder(cache),
    )


def distributions() -> tuple[str, ...]:
    """The distributions that the registered systems stand on, sorted."""
    systems: list[Converter | Backend] = [*registry.converters().values(), *registry.backends().values()]
    return tuple(sorted({name for system in systems for name in system.libraries} | {"numpy", "pytest"}))


def parts(is_installed: Callable[[str], bool] = machine.installed) -> Iterable[Part]:
    """Every registered system, with what it lacks."""
    registered: tuple[tuple[str, Iterable[Format | Converter | Backend]], ...] = (
        ("format", registry.formats().values()),
        ("converter", registry.converters().values()),
        ("backend", registry.backends().values()),
    )
    for kind, systems in registered:
        for system in systems:
            missing = tuple(module for module in system.requires if not is_installed(module))
            yield Part(kind, system.name, missing, system.install if missing else "")


def _emulations(flags: set[str]) -> Iterable[Emulation]:
    for backend in registry.backends().values():
        for precision, needs in backend.needs_cpu_flags.items():
            if not flags & set(needs):
                yield Emulation(backend.name, precision, needs)


def _cache_folder(path: Path) -> CacheFolder:
    existing = next(folder for folder in (path, *path.parents) if folder.is_dir())
    writable = os.access(existing, os.W_OK | os.X_OK)
    return CacheFolder(path, path.is_dir(), writable, shutil.disk_usage(existing).free)


def support_table() -> str:
    """Which precisions of which format every backend runs on which device, as a Markdown table."""
    backends = registry.backends().values()
    devices = tuple(dict.fromkeys(device for backend in backends for device in backend.devices))
    lines = [
        f"| format | backend | precisions | {' | '.join(devices)} |",
        f"|---|---|---|{'---|' * len(devices)}",
    ]
    for form in registry.formats().values():
        for backend in backends:
            pairs = ((held, runs) for (name, held), runs in backend.precisions.items() if name == form.name)
            precisions = tuple(dict.fromkeys(precision for _, runs in pairs for precision in runs))
            if precisions:
                cells = (_device_support(backend, device) for device in devices)
                listed = ", ".join(_named_with_devices(backend, precision) for precision in precisions)
                lines.append(f"| {form.title} | {backend.title} | {listed} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _named_with_devices(backend: Backend, precision: str) -> str:
    devices = backend.runs_on(precision)
    return precision if devices == tuple(backend.devices) else f"{precision} ({', '.join(devices)} only)"


def _device_support(backend: Backend, device: str) -> str:
    if device not in backend.devices:
        return "no"
    hardware = backend.verified.get(device)
    return f"{VERIFIED} ({hardware})" if hardware else NOT_VERIFIED
