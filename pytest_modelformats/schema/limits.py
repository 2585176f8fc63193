"""Limits that a user chose for cells: fixed tolerances, and what a cell may cost."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tolerance:
    """A fixed tolerance that the user chose for the cells that ``glob`` matches; no ``outputs``: for all of them."""

    glob: str
    atol: float = 0.0
    rtol: float = 0.0
    outputs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Budget:
    """What the cells that ``glob`` matches may cost; ``None`` where it is not limited."""

    glob: str
    latency_p50_ms: float | None = None
    size_mb: float | None = None
    peak_memory_mb: float | None = None
