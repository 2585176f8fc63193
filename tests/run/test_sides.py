"""Two sides in real processes: pinned, warmed up once, timed in blocks, and judged; nothing asserts on real seconds."""

from __future__ import annotations

import gc
import math
import os
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from inner_run import two_layers
from places import ROOT
from thin import environment

from pytest_modelformats.errors import ModelFormatsError
from pytest_modelformats.history.baseline import fresh_readings
from pytest_modelformats.measure.two_sides.interleaved import compare_latency
from pytest_modelformats.run import sides
from pytest_modelformats.run.sides import Opening, _delay, pair_of
from pytest_modelformats.run.workers import blocks
from pytest_modelformats.run.workers.blocks import Blocks
from pytest_modelformats.run.workers.pool import Pool
from pytest_modelformats.schema import Change, Environment, Source

sys.path.insert(0, str(ROOT))  # the planted slow-down is the benchmark's

ONNXRUNTIME = "pytest_modelformats.systems.onnxruntime.backend:open_session"
PINS = hasattr(os, "sched_setaffinity") and len(os.sched_getaffinity(0)) > 1


@pytest.fixture
def pool():
    with closing(Pool(memory_bytes=0, threads=1, isolate="process")) as made:
        yield made


@pytest.fixture
def opening(tmp_path):
    """ONNX Runtime on a model of two layers."""
    two_layers(tmp_path / "tiny.onnx")
    np.save(tmp_path / "x.npy", np.zeros((64, 4), np.float32))
    job = {
        "source": Source("tiny", str(tmp_path / "tiny.onnx"), "onnx", "onnx").to_json(),
        "artifact": str(tmp_path / "tiny.onnx"),
        "format": "onnx",
        "artifact_precision": "fp32",
        "precision": "fp32",
        "device": "cpu",
        "threads": 1,
        "inputs": [],
        "outputs": [],
        "options": {},
    }
    return Opening(Environment(), "onnxruntime", ONNXRUNTIME, job, {"x": str(tmp_path / "x.npy")}, 1, 60.0, "tiny")


def slowed(opening, share):
    job = {**opening.job, "options": {"planted": {"entry": opening.entry, "share": share}}}
    return Opening(
        opening.environment, opening.worker, "benchmarks.speed.slow:open_session", job, opening.feed, 1, 60.0, "slow"
    )


def processes(pool):
    return [worker.pid for worker in pool._apart]


@pytest.mark.alone
def test_identical_code_raises_no_alarm(pool, opening):
    """Whatever else this machine does, the same cell is not reported to differ from itself."""
    found = compare_latency(pair_of(pool, opening, opening), margin=0.1, budget_s=8)
    assert found.change in {Change.SAME, Change.INCONCLUSIVE}
    assert found.blocks >= 24
    assert found.pairs * 2 == pool.started == len(set(processes(pool)))


@pytest.mark.alone
def test_planted_slowdown_is_found_in_fresh_processes(pool, opening):
    """30 % more time, spun away inside the backend, is a regression in two pairs; the other way round, not slower."""
    found = compare_latency(pair_of(pool, opening, slowed(opening, 0.3)), margin=0.1, budget_s=20)
    assert found.change is Change.REGRESSION, found.sentence
    assert found.recurred
    assert found.pairs * 2 == pool.started
    assert 1.15 < found.ratio < 1.5


def test_blocks_are_pinned_and_opened_in_turns(pool, opening):
    """Both processes stay on the same core from their first block on; the pair after it is opened the other way."""
    open_pair = pair_of(pool, opening, slowed(opening, 0.5))
    with open_pair() as (before, after):
        assert before._opening.what == "tiny"
        samples = before.block(0.01)
        assert len(samples) >= 8
        assert all(isinstance(value, int) and value > 0 for value in samples)
        after.block(0.01)
        if PINS:
            cores = [os.sched_getaffinity(side._asked.pid) for side in (before, after)]
            assert cores[0] == cores[1] == set(before.facts["pinned"])
        first = [before._asked.pid, after._asked.pid]
    with open_pair() as (before, after):
        assert before._opening.what == "tiny"
        second = [before._asked.pid, after._asked.pid]
    assert not set(first) & set(second)
    assert processes(pool) == [*first, *reversed(second)]


@pytest.mark.alone
def test_what_the_sides_needed_is_kept_in_their_order(pool, opening):
    """Memory is that of the first session of each process; every opening is timed, also that of a second pair."""
    kept = []
    open_pair = pair_of(pool, opening, opening, kept)
    with open_pair() as (before, after):
        before.block(0.01)
        after.block(0.01)
        before.renew()
        assert kept == []
    fresh_readings.read_again(open_pair)
    assert [[len(side.loads_ns) for side in pair] for pair in kept] == [[2, 1], [1 + fresh_readings.OPENINGS] * 2]
    assert all(ns > 0 for pair in kept for side in pair for ns in side.loads_ns)
    held = [side.above_idle_bytes for pair in kept for side in pair]
    if None in held:
        pytest.skip("this system does not let a process reset its peak of resident memory")
    assert min(held) > 1e6  # ONNX Runtime keeps megabytes from its first session on
    assert max(held) < 1.3 * min(held)


def test_a_renewed_side_has_another_session(pool, opening):
    """Another session in the same process, warmed up; one that took long to open is left as it is."""
    with pair_of(pool, opening, opening)() as (before, after):
        before.block(0.01)
        process, session = before._asked.pid, before._session
        assert 0 < before.renew() < 60
        assert before._session != session
        assert before._asked.pid == process
        assert len(before.block(0.01)) >= 3
        after._opening_s = sides.LONGEST_OPENING_S + 1
        session = after._session
        assert after.renew() == math.inf
        assert after._session == session


def test_nothing_is_left_running(pool, opening):
    """The workers of a pair end with it, also where the second side cannot be opened."""
    with pair_of(pool, opening, opening)():
        pass
    broken = Opening(Environment(), "onnxruntime", ONNXRUNTIME, {**opening.job, "artifact": "/nowhere.onnx"},
                     opening.feed, 1, 60.0, "broken")  # fmt: skip
    with pytest.raises(ModelFormatsError), pair_of(pool, opening, broken)():
        pass
    assert all(worker.dead for worker in pool._apart)
    assert not [pid for pid in processes(pool) if pid and Path(f"/proc/{pid}/cmdline").exists()]


@pytest.mark.slow
@pytest.mark.alone
def test_foreign_interpreter_needs_numpy_alone(pool, opening, tmp_path):
    """A side under another interpreter is compared with one under ours; nothing of ours is installed there."""
    python = environment(tmp_path / "foreign", "numpy")
    own = Opening(Environment(), "numpy", "pytest_modelformats.cli.selftest.workloads:open_numpy", opening.job,
                  {"x": str(tmp_path / "big.npy")}, 1, 60.0, "numpy here")  # fmt: skip
    np.save(tmp_path / "big.npy", np.ones((32, 128), np.float32))
    there = Opening(Environment("foreign", str(python)), own.worker, own.entry, own.job, own.feed, 1, 60.0, "there")
    found = compare_latency(pair_of(pool, own, there), margin=0.5, budget_s=4)
    assert found.change in {Change.SAME, Change.INCONCLUSIVE}
    assert found.blocks >= 24


def test_pinning_of_this_process_is_undone(opening, tmp_path):
    """Without isolation both sides live here; afterwards this process is as it was."""
    np.save(tmp_path / "big.npy", np.ones((32, 128), np.float32))
    entry, feed = "pytest_modelformats.cli.selftest.workloads:open_numpy", {"x": str(tmp_path / "big.npy")}
    opening = Opening(Environment(), "numpy", entry, opening.job, feed, 1, 60.0, "numpy here")
    cores = os.sched_getaffinity(0) if PINS else set()
    with closing(Pool(memory_bytes=0, threads=1, isolate="none")) as pool:
        with pair_of(pool, opening, opening)() as (before, after):
            after.block(0.005)
            before.block(0.005)
            assert not gc.isenabled()
        assert gc.isenabled()
    assert not PINS or os.sched_getaffinity(0) == cores


# --- a block, with a clock of its own


class Steps:
    """Calls that take what a test says, on a clock that nothing else moves."""

    def __init__(self, monkeypatch, taken):
        self.now, self.calls, self._taken = 0, 0, taken
        monkeypatch.setattr(blocks.time, "perf_counter_ns", lambda: self.now)

    def __call__(self):
        self.now += self._taken(self.calls)
        self.calls += 1


def taken(answer):
    return np.frombuffer(answer["samples_ns"], np.int64).tolist()


def test_first_call_of_a_block_is_not_recorded(monkeypatch):
    """The call that finds its caches cold is made, and left out."""
    cold = {"next": 0}

    def duration(call):
        if cold["next"]:
            cold["next"] -= 1
            return 9_000_000
        return 1_000_000

    steps = Steps(monkeypatch, duration)
    measured = Blocks(lambda: steps, 1, 0.5)
    try:
        cold["next"] = 1
        assert set(taken(measured.block(0.02, 8))) == {1_000_000}
    finally:
        measured.close()


@pytest.mark.parametrize(("call_ms", "calls"), [(1, 50), (10, 8), (200, 3), (1000, 3)])
def test_blocks_of_slow_calls_are_short(monkeypatch, call_ms, calls):
    """50 ms, or eight calls, or half a second, but never fewer than three calls."""
    steps = Steps(monkeypatch, lambda call: call_ms * 1_000_000)
    measured = Blocks(lambda: steps, 1, 0.5)
    try:
        assert len(taken(measured.block(0.05, 8))) == calls
    finally:
        measured.close()


@pytest.mark.parametrize(
    ("waited", "interrupted", "calls", "delay"),
    [
        (0.5, 25, 5000, 0.005),  # half of the time lost, in few calls: the median stays
        (0.5, 10, 20, 0.5),
        (0.001, 8, 8, 0.001),  # every call interrupted, for no time
        (None, None, 10, 0.0),
    ],
)
def test_delay_is_what_can_move_a_median(waited, interrupted, calls, delay):
    assert _delay({"waited": waited, "interrupted": interrupted}, calls) == pytest.approx(delay)
