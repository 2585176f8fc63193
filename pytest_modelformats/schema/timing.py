"""A measurement of a cell."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Timing:
    """What was measured of one cell in its worker; every duration in nanoseconds, sizes in bytes.

    Percentiles are ``None`` until enough samples stand behind them (design §7).
    """

    samples_ns: tuple[int, ...]
    batch: int
    threads: int
    warmup_runs: int
    latency_p50_ns: float
    latency_p50_low_ns: float
    latency_p50_high_ns: float
    latency_mean_ns: float
    latency_std_ns: float
    variation: float
    latency_p90_ns: float | None
    latency_p95_ns: float | None
    latency_p99_ns: float | None
    items_per_s: float
    load_ns: int
    first_inference_ns: int
    convert_ns: int | None
    size_bytes: int | None
    idle_rss_bytes: int | None
    peak_rss_bytes: int | None
    disturbed: str = ""
    pinned: tuple[int, ...] = ()
    # Why the median is not to be used, "" where it is; how far it may be off; far-out samples; the second half's
    # median over the first's, less one (measure/uncertainty.py).
    unusable: str = ""
    median_uncertainty: float | None = None
    outliers: float | None = None
    drift: float | None = None
    remeasured: int = 0
    machine_state: Mapping[str, Any] = field(default_factory=dict)
    # By every call, where resident memory keeps growing.
    memory_growth_bytes: float | None = None
    # Where there is a device, and where it can be asked.
    device_memory_bytes: int | None = None
    device_memory_source: str = ""
    host_to_device_ns: float | None = None
    compute_ns: float | None = None
    device_to_host_ns: float | None = None
    # Whether no session was opened in its process before: the first one pays for what the runtime keeps.
    first_session: bool | None = None
    # Per inference; what the machine takes when idle is not subtracted.
    energy_j: float | None = None
    energy_source: str = ""
    # Of the free dimensions of the inputs, by name: a latency is one at these.
    sizes: Mapping[str, int] = field(default_factory=dict)
