"""pytest-benchmark's own options do on whole runs of this plugin what they do anywhere."""

from __future__ import annotations

import json

import pytest
from inner_run import ONE_CELL

CELL = "tiny-onnx-fp32-onnxruntime@cpu"
LATENCY = f"test_cost_within_budget[{CELL}]"
BATCHES = [f"test_throughput_of_right_results[{CELL}-batch{size}]" for size in (1, 8)]


@pytest.fixture
def benchmarked(run, tiny):
    """Run the latency and throughput suites of one cell beside pytest-benchmark, and one suite that times nothing."""

    def start(*more, suites="contract,latency,throughput"):
        chosen = (*ONE_CELL, "--mf-suites", suites, "--mf-batch", "1,8", "--mf-time-budget", "0.05")
        return run("--mf-model", tiny, *chosen, *more, plugins=["benchmark"], inprocess=True)

    return start


def timed(ran):
    """Whether both were measured; beside other work on these cores they may be inconclusive."""
    return {ran.outcomes[CELL, "latency"], ran.outcomes[CELL, "throughput"]} <= {"passed", "inconclusive"}


def saved(pytester):
    return sorted((pytester.path / ".benchmarks").rglob("*.json"))


@pytest.mark.slow
def test_runs_are_saved_compared_and_failed_by_their_difference(benchmarked, pytester):
    """What --benchmark-autosave wrote is what --benchmark-compare and --benchmark-compare-fail judge by."""
    first = benchmarked("--benchmark-autosave")
    assert first.status == 0, first.text
    (path,) = saved(pytester)
    benchmarks = json.loads(path.read_text())["benchmarks"]
    assert {b["name"]: b["group"] for b in benchmarks} == {
        LATENCY: "tiny batch 1",
        BATCHES[0]: "tiny batch 1",
        BATCHES[1]: "tiny batch 8",
    }
    second = benchmarked("--benchmark-compare", "--benchmark-compare-fail=median:100000%", "--benchmark-autosave")
    assert second.status == 0, second.text
    assert all(f"{name} ({when}" in second.text for name in (LATENCY, *BATCHES) for when in ("0001_", "NOW"))
    assert "benchmark 'tiny batch 1': 4 tests" in second.text
    assert len(saved(pytester)) == 2

    # A past in which everything took a thousandth of the time: whatever is measured now is slower.
    data = json.loads(path.read_text())
    for benchmark in data["benchmarks"]:
        stats = benchmark["stats"]
        benchmark["stats"] = {k: v / 1000 if isinstance(v, float) else v for k, v in stats.items() if k != "data"}
    path.write_text(json.dumps(data))
    third = benchmarked("--benchmark-compare=0001", "--benchmark-compare-fail=median:50%")
    assert third.status != 0
    assert "Performance has regressed" in third.text


@pytest.mark.slow
def test_disable_measures_and_records_all_the_same_and_shows_no_table(benchmarked, pytester):
    ran = benchmarked("--benchmark-disable", "--benchmark-autosave")
    assert ran.status == 0, ran.text
    assert "benchmark 'tiny" not in ran.text
    assert saved(pytester) == []
    assert timed(ran)


def test_only_runs_what_times_a_cell(benchmarked):
    ran = benchmarked("--benchmark-only")
    assert ran.status == 0, ran.text
    assert ran.outcomes[CELL, "contract"] == "not-measured"
    assert timed(ran)


def test_skip_leaves_out_what_times_a_cell(benchmarked):
    ran = benchmarked("--benchmark-skip")
    assert ran.outcomes[CELL, "contract"] == "passed"
    assert ran.outcomes[CELL, "latency"] == ran.outcomes[CELL, "throughput"] == "not-measured"


def test_no_scenario_leaves_the_benchmark_fixture_unused(benchmarked):
    """pytest-benchmark warns of a fixture that was asked for and not used."""
    ran = benchmarked("--mf-concurrency", "2", suites="throughput")
    assert ran.status == 0, ran.text
    assert "was not used" not in ran.text
    assert "benchmark 'tiny batch 1 concurrency 2'" in ran.text
