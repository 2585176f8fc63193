"""The worker's side of measuring one call: latency, memory, and what the device and the session can tell beside it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from pytest_modelformats.measure.conditions import give_back, pinned_to_cores
from pytest_modelformats.measure.machine_state import device_energy_mj, device_memory, reset_device_peak
from pytest_modelformats.measure.sampling import memory, reset_peak, sample

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pytest_modelformats.schema.contract import Feed, Session

# Resident memory comes in steps: glibc gives its arenas 128 KiB and more at a time. A MiB is several of them.
GROWTH = 1 << 20
GROWTH_SHARE = 0.25
FEWEST_CALLS = 6
PHASES = ("host_to_device_ns", "compute_ns", "device_to_host_ns")


def measure(
    session: Session, feed: Feed, *, budget_s: float, max_samples: int, threads: int, device: str
) -> dict[str, Any]:
    """Sample a session that is open; nothing else runs meanwhile."""
    # What opening has freed is the system's again: how much of it an allocator keeps differs from time to time.
    give_back()
    reset_peak()
    reset_device_peak(device)
    # Pinned before the first call: a runtime that looks at its cores then (OpenVINO) keeps what it found.
    with pinned_to_cores(threads):
        call = session.bind(feed)
        started = time.perf_counter_ns()
        call()
        first_ns = time.perf_counter_ns() - started
        # Read at both ends here and not between the samples: NVML takes longer than a file of /proc.
        before = device_energy_mj(device)
        began = [before, 0]
        counted = _counted(call, began) if before is not None else call
        sampled = sample(counted, budget_s=budget_s, max_samples=max_samples, threads=threads)
        after = device_energy_mj(device) if before is not None else None
        growth = memory_growth(call, sampled, budget_s)
    return {
        "sampled": sampled,
        "memory": memory(),
        "first_run_ns": first_ns,
        "growth": growth,
        "device": device_memory(device),
        "phases": phases(session, feed),
        "energy": _energy(sampled, before, after, began[1] or 0),
    }


def memory_growth(call: Callable[[], object], sampled: Mapping[str, Any], budget_s: float) -> dict[str, float]:
    """By how much every call makes resident memory grow; empty where it does not, or stops.

    Looked into only where the samples have left ``GROWTH`` behind: an allocator that takes memory once and keeps it
    gives no more when the calls go on, and something that is never freed gives as much again.
    """
    grown, calls = sampled.get("rss_growth_bytes"), sampled["calls"]
    if not calls or (grown or 0) < GROWTH:
        return {}
    middle = sorted(sampled["samples_ns"])[len(sampled["samples_ns"]) // 2]
    more = max(FEWEST_CALLS, min(calls, int(GROWTH_SHARE * budget_s * 1e9 / max(middle, 1))))
    before = memory()["rss_bytes"]
    for _ in range(more):
        call()
    after = memory()["rss_bytes"]
    if before is None or after is None or (after - before) / more < grown / calls / 2:
        return {}
    return {"memory_growth_bytes": (after - before) / more}


def _counted(call: Callable[[], object], counter: list[int | None]) -> Callable[[], object]:
    """The call, counting itself: the device's energy is read around all calls, those of the warm-up too."""

    def counted() -> object:
        counter[1] = (counter[1] or 0) + 1
        return call()

    return counted


def _energy(sampled: Mapping[str, Any], before: int | None, after: int | None, calls: int) -> dict[str, Any]:
    """Energy per inference in joules: of the device where it counts, else of the processor's packages."""
    if before is not None and after is not None and calls:
        return {"energy_j": (after - before) / 1000 / calls, "energy_source": "NVML, the device, idle share included"}
    if sampled.get("energy_j") is not None and sampled["calls"]:
        per_call = sampled["energy_j"] / sampled["calls"]
        return {"energy_j": per_call, "energy_source": "RAPL, all processor packages, idle share included"}
    return {}


def phases(session: Session, feed: Feed) -> dict[str, float]:
    """What a session says of copying to the device, computing, and copying back; empty where it says nothing."""
    split = getattr(session, "phases", None)
    found = dict(split(feed)) if split is not None else {}
    return {name: float(found[name]) for name in PHASES if found.get(name) is not None}
