"""A measurement too disturbed to use is made once more, then inconclusive; budgets are not failed by disturbances."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest

from pytest_modelformats.checks import latency as timing
from pytest_modelformats.measure.budget import within
from pytest_modelformats.measure.machine_state import device_memory, reset_device_peak
from pytest_modelformats.record.write import timing_data
from pytest_modelformats.run.workers import latency
from pytest_modelformats.schema import FailureKind, Outcome
from pytest_modelformats.schema.limits import Budget
from pytest_modelformats.systems.torch.phases import split

MS = 1_000_000
QUIET = [10 * MS + n % 7 * 1000 for n in range(80)]
# The frequency doubles half-way.
STEP = [20 * MS + n % 7 * 1000 for n in range(40)] + QUIET[:40]
OPENED = SimpleNamespace(load_ns=1, idle_rss_bytes=1000, number=1)
ARTIFACT = SimpleNamespace(convert_ns=None, size_bytes=5_000_000)


def answer(samples, **more):
    sampled = {"samples_ns": samples, "calls": len(samples), "warmup_runs": 5, "threads": 1, "pinned": [0]}
    return {"sampled": sampled, "memory": {"peak_bytes": 9_000_000}, "first_run_ns": 7, **more}


def measured(*answers):
    left = [answer(samples) for samples in answers]
    return timing.measure(lambda: left.pop(0), OPENED, ARTIFACT, 1), left


def test_a_quiet_measurement_is_made_once():
    found, left = measured(QUIET, STEP)
    assert (found.unusable, found.remeasured, len(left)) == ("", 0, 1)


def test_a_disturbed_measurement_is_made_again():
    found, left = measured(STEP, QUIET)
    assert (found.unusable, found.remeasured, left) == ("", 1, [])
    assert found.samples_ns == tuple(QUIET)


def test_a_measurement_that_stays_disturbed_is_inconclusive():
    found, left = measured(STEP, STEP, QUIET)
    assert (found.remeasured, len(left)) == (1, 1)
    verdict = within("cell", found, [])
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "it moved while it was measured" in verdict.sentence
    assert "and so it was when measured again" in verdict.sentence


QUICK = Budget("*", latency_p50_ms=5)


def test_a_budget_is_failed_by_a_quiet_measurement():
    verdict = within("cell", measured(QUIET)[0], [QUICK])
    assert (verdict.outcome, verdict.failure_kind) == (Outcome.FAILED, FailureKind.BUDGET)


def test_a_budget_is_not_failed_by_a_disturbed_one():
    """Neither by one that cannot be used, nor where the disturbance may have put the median above it."""
    assert within("cell", measured(STEP, STEP)[0], [QUICK]).outcome is Outcome.INCONCLUSIVE
    noted = replace(measured(QUIET)[0], disturbed="other work took 20% of the pinned cores", median_uncertainty=0.2)
    verdict = within("cell", noted, [Budget("*", latency_p50_ms=9)])
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "Over the budget, but disturbed (other work took 20%" in verdict.sentence
    assert within("cell", noted, [QUICK]).outcome is Outcome.FAILED  # twice the budget is not explained by a fifth
    assert within("cell", noted, [Budget("*", latency_p50_ms=11)]).passed


def test_size_and_memory_are_held_to_their_budget_whatever_the_samples():
    verdict = within("cell", measured(STEP, STEP)[0], [Budget("*", size_mb=1)])
    assert (verdict.outcome, verdict.failure_kind) == (Outcome.FAILED, FailureKind.BUDGET)


def test_growing_memory_is_said_of_a_pass():
    verdict = within("cell", replace(measured(QUIET)[0], memory_growth_bytes=61_000.0), [])
    assert verdict.passed
    assert verdict.sentence == "Every call makes the worker's resident memory grow by 61 KB."


def test_what_is_absent_is_not_in_the_record():
    data = timing_data(measured(QUIET)[0])
    assert not {"energy_j", "energy_source", "device_memory_bytes", "compute_ns", "memory_growth_bytes"} & set(data)
    assert data["remeasured"] == 0


# --- energy, device memory and phases, on fakes: no machine here has them


class Session:
    """A session that splits its time as asked."""

    def __init__(self, **phases):
        self._phases = phases

    def bind(self, feed):
        return lambda: None

    def phases(self, feed):
        return self._phases


def worker(session, device="cpu"):
    return latency.measure(session, {}, budget_s=0.02, max_samples=70, threads=1, device=device)


def test_phases_are_what_the_session_says():
    split_up = {"host_to_device_ns": 100, "compute_ns": 900, "device_to_host_ns": None, "other": 3}
    assert worker(Session(**split_up))["phases"] == {"host_to_device_ns": 100.0, "compute_ns": 900.0}
    assert latency.phases(object(), {}) == {}


def test_energy_per_inference_is_that_of_all_calls(monkeypatch):
    """Two joules over as many calls as were made between the readings."""
    from pytest_modelformats.measure import conditions as surroundings

    readings = iter([{"intel-rapl:0": (1_000_000, 10**9)}, {"intel-rapl:0": (3_000_000, 10**9)}])
    monkeypatch.setattr(surroundings, "energy", lambda: next(readings))
    found = worker(Session())
    assert found["energy"]["energy_j"] == pytest.approx(2 / found["sampled"]["calls"])
    assert found["energy"]["energy_source"].startswith("RAPL")
    assert "idle share included" in found["energy"]["energy_source"]


class Nvml:
    """As much of pynvml as is asked."""

    class NVMLError(Exception):
        """What it raises."""

    def __init__(self, processes=()):
        self.processes, self.energy = processes, 1000

    def nvmlInit(self):  # noqa: N802 - the library's own name
        return None

    def nvmlDeviceGetHandleByIndex(self, index):  # noqa: N802
        return index

    def nvmlDeviceGetTotalEnergyConsumption(self, _):  # noqa: N802
        self.energy += 5000
        return self.energy

    def nvmlDeviceGetComputeRunningProcesses(self, _):  # noqa: N802
        return self.processes


def test_energy_of_the_device_comes_before_that_of_the_processor(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", Nvml())
    found = worker(Session(), "cuda")["energy"]
    assert found["energy_source"].startswith("NVML")
    assert 0 < found["energy_j"] < 5
    assert worker(Session(), "cpu")["energy"] == {}


def test_device_memory_is_torchs_peak_or_what_nvml_counts(monkeypatch):
    import os

    process = SimpleNamespace(pid=os.getpid(), usedGpuMemory=700)
    monkeypatch.setitem(sys.modules, "pynvml", Nvml([process, SimpleNamespace(pid=1, usedGpuMemory=9)]))
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace())
    assert device_memory("cuda") == {
        "device_memory_bytes": 700,
        "device_memory_source": "NVML, at the end",
    }
    cuda = SimpleNamespace(
        is_available=lambda: True, is_initialized=lambda: True, max_memory_allocated=lambda: 123,
        reset_peak_memory_stats=lambda: None,
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    reset_device_peak("cuda")
    assert device_memory("cuda")["device_memory_bytes"] == 123
    assert device_memory("cpu") == {}


def test_phases_on_a_gpu_are_between_its_events(monkeypatch):
    """Each event lies where the clock stands; the copy takes 2 ms, the computation 5, the copy back 1."""
    now = [0.0]

    class Event:
        def __init__(self, *, enable_timing):
            assert enable_timing

        def record(self):
            self.at = now[0]

        def elapsed_time(self, other):
            return other.at - self.at

    class Tensor:
        def to(self, device):
            assert device == "cuda"
            now[0] += 2
            return self

        def cpu(self):
            now[0] += 1

    def run(tensors):
        now[0] += 5
        return [tensors["x"]]

    cuda = SimpleNamespace(Event=Event, synchronize=lambda: None)
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    found = split({"x": Tensor()}, run)
    assert found == {"host_to_device_ns": 2e6, "compute_ns": 5e6, "device_to_host_ns": 1e6}
