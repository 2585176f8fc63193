"""What is stated about samples is true of samples whose truth is known; no test asserts on real seconds."""

from __future__ import annotations

import gc
import json
import math
import mmap
import os
import random
import subprocess
import sys
import threading
from dataclasses import fields
from pathlib import Path

import pytest
from places import ROOT

from pytest_modelformats.measure import conditions as surroundings
from pytest_modelformats.measure import sampling as measure
from pytest_modelformats.measure import uncertainty
from pytest_modelformats.schema import Timing

MS = 1_000_000


@pytest.fixture(autouse=True, scope="module")
def _settled_heap():
    """What other tests have imported is no garbage: ``sample`` collects first, and need not look at it each time."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


class FakeWorld:
    """A clock that moves only when the timed call runs, by durations that the test chose."""

    def __init__(self, durations):
        self._durations = durations
        self.now = 0
        self.calls = 0

    def clock(self):
        return self.now

    def call(self):
        self.now += int(self._durations(self.calls))
        self.calls += 1

    def sample(self, **options):
        return measure.sample(self.call, clock=self.clock, **options)


def lognormal(seed, centre=5 * MS, spread=0.05):
    generator = random.Random(seed)
    return lambda _: centre * math.exp(generator.gauss(0, spread))


# --- sampling


def test_identical_calls_stop_at_the_fewest_samples():
    """Where nothing varies the first look is enough."""
    taken = FakeWorld(lambda _: 2 * MS).sample(budget_s=10)
    assert taken["samples_ns"] == [2 * MS] * measure.MIN_SAMPLES
    assert taken["settled"]


@pytest.mark.parametrize(("duration", "expected"), [(100_000, 216), (3_000, 2000)])
def test_short_calls_are_sampled_for_a_while(duration, expected):
    """64 calls of microseconds are over before anything can have happened: they go on for 20 ms, or to the most."""
    taken = FakeWorld(lambda _: duration).sample(budget_s=10)
    assert len(taken["samples_ns"]) == expected


def test_sampling_ends_when_the_interval_is_narrow():
    """The interval is within the target at the end, and was wider at the look before."""
    taken = FakeWorld(lognormal(1)).sample(budget_s=1e6, target=0.01)
    samples = taken["samples_ns"]
    stated = measure.statistics(samples, 1)
    assert measure.MIN_SAMPLES < len(samples) < 2000
    assert stated["latency_p50_low_ns"] >= 0.99 * stated["latency_p50_ns"]
    assert stated["latency_p50_high_ns"] <= 1.01 * stated["latency_p50_ns"]
    earlier = sorted(samples[: len(samples) * 2 // 3])
    low, high = measure.median_interval(earlier)
    assert not (low >= 0.99 * earlier[len(earlier) // 2] and high <= 1.01 * earlier[len(earlier) // 2])


def test_max_samples_is_kept():
    """A median that never gets narrow ends at max_samples exactly."""
    taken = FakeWorld(lognormal(2, spread=1.0)).sample(budget_s=1e6, target=1e-6, max_samples=301)
    assert len(taken["samples_ns"]) == 301


def test_budget_is_kept():
    """Warm-up and samples together end within one call of the budget."""
    world = FakeWorld(lognormal(3, spread=1.0))
    world.sample(budget_s=2, target=1e-9, max_samples=10**6)
    assert 2e9 <= world.now <= 2e9 + 500 * MS


def test_slow_call_still_gets_an_interval():
    """One call longer than the budget: one warm-up run and the six samples that an interval needs, no more."""
    world = FakeWorld(lambda _: 10_000 * MS)
    taken = world.sample(budget_s=2)
    assert taken["warmup_runs"] == 1
    assert len(taken["samples_ns"]) == measure.FEWEST_SAMPLES
    assert world.calls == 1 + measure.FEWEST_SAMPLES


def test_warm_up_outlasts_slow_first_calls():
    """Calls that get faster over a while are not among the samples."""
    taken = FakeWorld(lambda n: max(MS, 3 * MS * 0.98**n)).sample(budget_s=2)
    assert taken["warmup_runs"] > 55  # 3 * 0.98**55 is just below 1
    assert set(taken["samples_ns"]) == {1 * MS}


def test_warm_up_is_bounded():
    """A call that gets slower for ever uses a quarter of the budget for warm-up, and says that it never settled."""
    world = FakeWorld(lambda n: MS * 1.1**n if n < 60 else MS * 300)
    taken = world.sample(budget_s=1)
    assert not taken["settled"]
    assert taken["samples_ns"]


def test_each_sample_is_one_call():
    """Calls of a microsecond are not batched: every recorded duration is one that a single call took."""
    durations = [900 + n % 7 for n in range(200_000)]
    taken = FakeWorld(lambda n: durations[n]).sample(budget_s=1, target=1e-9, max_samples=500)
    assert len(taken["samples_ns"]) >= measure.MIN_SAMPLES
    assert set(taken["samples_ns"]) <= set(durations)


def test_first_call_after_a_look_is_not_recorded():
    """Between two blocks there is one call that no sample stands for."""
    world = FakeWorld(lognormal(4, spread=1.0))
    taken = world.sample(budget_s=1e6, target=1e-9, max_samples=96)
    assert len(taken["samples_ns"]) == 96
    assert world.calls == taken["warmup_runs"] + 64 + 1 + 32


def test_answer_is_plain():
    """The answer crosses the process border and JSON as it is."""
    taken = FakeWorld(lambda _: MS).sample(budget_s=1)
    assert json.loads(json.dumps(taken, allow_nan=False)) == taken


# --- what surrounds it


def test_collector_is_off_meanwhile_and_on_afterwards():
    """No garbage collection runs inside a sample."""
    seen = set()
    world = FakeWorld(lambda _: MS)

    def call():
        seen.add(gc.isenabled())
        world.call()

    measure.sample(call, budget_s=1, clock=world.clock)
    assert seen == {False}
    assert gc.isenabled()


def test_everything_is_restored_when_the_call_raises():
    """A runtime that fails leaves the collector and the cores as they were."""
    before = os.sched_getaffinity(0)

    def call():
        raise RuntimeError("refused")

    with pytest.raises(RuntimeError, match="refused"):
        measure.sample(call, budget_s=1)
    assert gc.isenabled()
    assert os.sched_getaffinity(0) == before


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system does not pin threads")
def test_every_thread_is_pinned_and_released():
    """The cores hold for threads that run already, and every thread has its own cores back afterwards."""
    before = os.sched_getaffinity(0)
    ready, done = threading.Event(), threading.Event()
    other = threading.Thread(target=lambda: (ready.set(), done.wait()))
    other.start()
    ready.wait()
    late = []
    try:
        with surroundings.pinned_to_cores(1) as cores:
            assert len(cores) == 1
            assert os.sched_getaffinity(0) == os.sched_getaffinity(other.native_id) == set(cores)
            late.append(threading.Thread(target=done.wait))
            late[0].start()
        assert os.sched_getaffinity(other.native_id) == os.sched_getaffinity(late[0].native_id) == before
        assert os.sched_getaffinity(0) == before
    finally:
        done.set()
        other.join()
        late[0].join()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system does not pin threads")
def test_pinning_that_is_refused_is_not_claimed(monkeypatch):
    """Where the system refuses, the cores recorded are none."""

    def refuse(tid, mask):
        raise PermissionError

    monkeypatch.setattr(os, "sched_setaffinity", refuse)
    with surroundings.pinned_to_cores(1) as cores:
        assert cores == ()


def test_physical_cores_come_before_their_second_threads(monkeypatch):
    """Two threads on a machine with two hardware threads per core get two cores."""
    siblings = {0: "0-1", 1: "0-1", 2: "2-3", 3: "2-3"}
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(siblings), raising=False)
    monkeypatch.setattr(surroundings, "_read", lambda path: siblings[int(path.split("/cpu")[2].split("/")[0])])
    assert surroundings._cores(2) == (0, 2)
    assert surroundings._cores(3) == (0, 2, 1)
    assert surroundings._cores(9) == (0, 2, 1, 3)


def test_evidence_is_the_difference_of_two_readings():
    """Other work on the pinned cores is what they were busy beyond this process."""
    before = {"load": 0.5, "switches": 10, "busy_s": 100.0, "own_s": 1.0, "wall_s": 50.0, "throttled": 3}
    after = {"load": 0.7, "switches": 14, "busy_s": 103.0, "own_s": 3.0, "wall_s": 52.0, "throttled": None}
    found = surroundings.difference(before, after, 2)
    assert found["foreign_share"] == pytest.approx(0.25)
    assert (found["involuntary_switches"], found["throttled"], found["sampling_s"]) == (4, None, 2.0)


def test_peak_counts_from_the_reset(monkeypatch):
    """The peak is at least what was allocated since, and falls back with the next reset."""
    if not measure.reset_peak():
        pytest.skip("this system cannot set the peak of resident memory back")
    # Pages of its own: what malloc hands out may be memory that the process holds already.
    with mmap.mmap(-1, 64 << 20) as block:
        block.write(b"x" * (64 << 20))
    risen = measure.memory()
    assert risen["peak_bytes"] - risen["rss_bytes"] > 32 << 20
    measure.reset_peak()
    assert measure.memory()["peak_bytes"] < risen["peak_bytes"] - (32 << 20)


def test_peak_that_cannot_be_attributed_is_none(monkeypatch):
    """Without a reset the peak of the process's life is stated as such, and no other."""
    monkeypatch.setattr(Path, "write_text", lambda *_, **__: (_ for _ in ()).throw(PermissionError()))
    assert measure.reset_peak() is False
    found = measure.memory()
    assert found["peak_bytes"] is None
    assert found["lifetime_peak_bytes"] > 0


def test_worker_half_needs_the_standard_library_only():
    """A foreign interpreter that has nothing installed can sample."""
    code = (
        "import sys; from pytest_modelformats.measure.sampling import sample, memory; sample(lambda: 1, budget_s=0.01);"
        "memory(); print(sorted(n for n in sys.modules if n.split('.')[0] in {'numpy', 'pytest', 'psutil', 'torch'}))"
    )
    root = ROOT
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert run.stdout.strip() == "[]"


# --- statistics


def test_fields_are_those_of_timing():
    """Every key is a field of schema.Timing."""
    stated = measure.statistics([5, 6, 7], 1)
    assert set(stated) <= {field.name for field in fields(Timing)}


def test_plain_numbers():
    """Median, mean, deviation and throughput of a handful that can be checked by hand."""
    stated = measure.statistics([4 * MS, 2 * MS, 6 * MS, 8 * MS], batch=5)
    assert stated["latency_p50_ns"] == 5 * MS
    assert stated["latency_mean_ns"] == 5 * MS
    assert stated["latency_std_ns"] == pytest.approx(math.sqrt(20 / 3) * MS)
    assert stated["variation"] == pytest.approx(math.sqrt(20 / 3) / 5)
    assert stated["items_per_s"] == pytest.approx(1000)  # 20 items in 20 ms
    assert (stated["latency_p50_low_ns"], stated["latency_p50_high_ns"]) == (2 * MS, 8 * MS)
    assert "only 4 samples" in stated["disturbed"]


@pytest.mark.parametrize("count", [1, 2])
def test_few_samples_are_stated_as_few(count):
    """One sample is a median with a range and a warning, not an error."""
    stated = measure.statistics([7] * count, 1)
    assert stated["latency_p50_low_ns"] == stated["latency_p50_high_ns"] == 7
    assert f"only {count} samples" in stated["disturbed"]


def test_no_samples_are_refused():
    """There is no statistic of nothing."""
    with pytest.raises(ValueError, match="no samples"):
        measure.statistics([], 1)


@pytest.mark.parametrize("count", [*range(1, 130), 500, 2000, 2001])
def test_interval_is_the_narrowest_that_covers(count):
    """The ranks are the exact binomial ones: 95 % is reached, and would not be one rank further in."""

    def coverage(rank):
        return 1 - 2 * sum(math.comb(count, k) for k in range(rank + 1)) / 2**count

    rank = uncertainty._interval_rank(count)
    if count < measure.FEWEST_SAMPLES:
        assert rank == 0
    else:
        assert coverage(rank) >= 0.95
        assert coverage(rank + 1) < 0.95


@pytest.mark.parametrize("count", [6, 20, 100])
def test_interval_covers_the_true_median(count):
    """Over 2000 skewed sets the 95 % interval holds the true median at least 94 % of the time."""
    generator = random.Random(count)
    held = 0
    for _ in range(2000):
        low, high = measure.median_interval(sorted(generator.lognormvariate(0, 1) for _ in range(count)))
        held += low <= 1.0 <= high
    assert held >= 0.94 * 2000


def test_interval_covers_although_sampling_stops_by_it():
    """Looking several times and stopping at the first narrow interval costs a few per cent of coverage, not more."""
    held = 0
    for seed in range(300):
        taken = FakeWorld(lognormal(seed)).sample(budget_s=30, target=0.01)["samples_ns"]
        low, high = measure.median_interval(sorted(taken))
        held += low <= 5 * MS <= high
    assert held >= 0.90 * 300


@pytest.mark.parametrize(("name", "share", "needed"), [("p90", 0.9, 64), ("p95", 0.95, 130), ("p99", 0.99, 662)])
def test_percentiles_are_earned(name, share, needed):
    """One sample too few gives None; enough gives the sample at the nearest rank."""
    values = list(range(1, needed + 1))
    random.Random(0).shuffle(values)
    key = f"latency_{name}_ns"
    assert measure.statistics(values[: needed - 1], 1)[key] is None
    assert measure.statistics(values, 1)[key] == math.ceil(share * needed)


@pytest.mark.parametrize(("share", "needed"), sorted(measure.SAMPLES_FOR_PERCENTILE.items()))
def test_percentile_counts_are_wilks(share, needed):
    """The number of samples is the fewest with which two lie beyond the percentile, 99 % of the time."""

    def confidence(count):
        return 1 - count * share ** (count - 1) + (count - 1) * share**count

    assert confidence(needed) >= 0.99 > confidence(needed - 1)


# --- evidence of a disturbance

QUIET = {"involuntary_switches": 2, "sampling_s": 2.0, "foreign_share": 0.01, "throttled": 0}
ONE_HUMP = {
    "normal": lambda g: g.gauss(1, 0.05),
    "lognormal": lambda g: g.lognormvariate(0, 0.3),
    "exponential above a floor": lambda g: 1 + g.expovariate(5),
    "uniform": lambda g: g.uniform(0.9, 1.1),
    "heavy tail": lambda g: 1 + 0.02 * g.paretovariate(1.5),
    "rare spikes": lambda g: 1 + 0.01 * g.random() + (3 if g.random() < 0.04 else 0),
}


@pytest.mark.parametrize("count", [uncertainty.SAMPLES_FOR_MODES, 200])
@pytest.mark.parametrize("shape", ONE_HUMP)
def test_one_hump_is_not_two_modes(shape, count):
    """Ordinary shapes of latency are rarely called bimodal or drifting: 5 % of small sets, 1 % of larger ones."""
    generator = random.Random(shape)
    sets = [[int(MS * ONE_HUMP[shape](generator)) for _ in range(count)] for _ in range(100)]
    assert sum(bool(measure.disturbance(samples, QUIET)) for samples in sets) <= (1 if count == 200 else 5)


def test_two_modes_are_named():
    """The two latencies of an unpinned small model (.0098 and .0136 ms) are seen and stated with their shares."""
    generator = random.Random(5)
    samples = [int(generator.gauss(9_800 if n % 3 else 13_600, 150)) for n in range(300)]
    text = measure.disturbance(samples, {})
    assert text == "two modes: 67% of the samples near 0.00979 ms, the others near 0.0136 ms"


def test_modes_of_the_clock_are_not_modes():
    """A clock that counts in coarse steps makes groups that are too near each other to matter."""
    assert measure.disturbance([10_000 + 40 * (n % 2) for n in range(200)], QUIET) == ""


def test_identical_samples_are_undisturbed():
    """Nothing is wrong with a latency that does not vary."""
    assert measure.disturbance([MS] * 100, QUIET) == ""


@pytest.mark.parametrize(("change", "word"), [(1.2, "+20%"), (0.8, "-20%")])
def test_drift_is_named(change, word):
    """A median that moved from the first half to the second is stated with its sign."""
    generator = random.Random(6)
    samples = [int(MS * generator.gauss(1, 0.1)) for _ in range(100)]
    samples += [int(change * MS * generator.gauss(1, 0.1)) for _ in range(100)]
    text = measure.disturbance(samples, QUIET)
    sign, percent = text.split("drifted by ")[1][0], int(text.split("drifted by ")[1][1:].split("%")[0])
    assert sign == word[0]
    assert 15 <= percent <= 25


def test_variation_alone_is_no_disturbance():
    """Much variation counts only with many involuntary context switches beside it."""
    generator = random.Random(7)
    samples = [int(MS * (1 + generator.expovariate(1))) for _ in range(300)]
    assert measure.disturbance(samples, QUIET) == ""
    busy = {**QUIET, "involuntary_switches": 400}
    assert "400 involuntary context switches in 2.0 s" in measure.disturbance(samples, busy)
    assert measure.disturbance([MS] * 100, busy) == ""


@pytest.mark.parametrize(
    ("evidence", "text"),
    [
        ({"foreign_share": 0.5}, "other work took 50% of the pinned cores"),
        ({"throttled": 7}, "the processor throttled 7 times"),
    ],
)
def test_foreign_work_and_throttling_are_named(evidence, text):
    """Counters of the system are evidence by themselves."""
    assert measure.disturbance([MS] * 100, {**QUIET, **evidence}) == text


def test_missing_counters_are_no_evidence():
    """A system without the counters is not called disturbed."""
    missing = dict.fromkeys(QUIET)
    assert measure.disturbance([int(MS * (1 + n % 5)) for n in range(100)], missing) == ""
