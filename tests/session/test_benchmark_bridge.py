"""Recorded samples reach pytest-benchmark's JSON, table and options unchanged."""

from __future__ import annotations

import json

import pytest

pytest_plugins = ["pytester"]

SAMPLES = [1_234_567, 1_000_001, 3, 999_999_999_999, 17_000_003, 17_000_003, 2_000_000]

CONFTEST = """
import pytest
from pytest_modelformats.session.pytest_benchmark import advertise, hand_over

SAMPLES = %r
taken = []

def pytest_itemcollected(item):
    advertise(item, "mf_timing")

def pytest_generate_tests(metafunc):
    if "cell" in metafunc.fixturenames:
        metafunc.parametrize("cell", ["digits-onnx", "digits-openvino"])

@pytest.fixture
def cell():
    return "one"

@pytest.fixture
def mf_timing(request, cell):
    result = hand_over(request, SAMPLES, "latency digits", {"backend": "onnxruntime", "batch": 1})
    taken.append(result)
    return result

def pytest_terminal_summary(terminalreporter):
    terminalreporter.write_line(f"taken={taken}")
"""


@pytest.fixture
def inner(pytester, monkeypatch):
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    pytester.makeconftest(CONFTEST % SAMPLES)
    pytester.makepyfile("def test_latency(mf_timing):\n    pass\n\ndef test_other():\n    pass\n")

    def run(*args, plugins=("benchmark",)):
        chosen = [part for name in plugins for part in ("-p", name)]
        return pytester.runpytest_inprocess(*chosen, "-p", "no:cacheprovider", *args)

    return run


def read(pytester, name="out.json"):
    return json.loads((pytester.path / name).read_text())["benchmarks"]


def test_json_holds_the_samples(inner, pytester):
    """What --benchmark-json writes is the recorded samples in order, in seconds."""
    inner("--benchmark-json=out.json").assert_outcomes(passed=3)
    benchmarks = read(pytester)
    assert [b["param"] for b in benchmarks] == ["digits-onnx", "digits-openvino"]
    for benchmark in benchmarks:
        assert benchmark["stats"]["data"] == [s / 1e9 for s in SAMPLES]
        assert benchmark["stats"]["rounds"] == len(SAMPLES)
        assert benchmark["group"] == "latency digits"
        assert benchmark["extra_info"] == {"backend": "onnxruntime", "batch": 1}
        assert benchmark["options"]["timer"] == "recorded_latency"


def test_table_shows_the_group_and_the_tests(inner):
    """The table on the terminal is headed by the group and has a row per measured test."""
    result = inner("--benchmark-columns=median,rounds")
    result.stdout.fnmatch_lines(["*benchmark 'latency digits': 2 tests*", "*test_latency?digits-onnx?*2,000,000.0*7*"])
    result.stdout.fnmatch_lines(["taken=[[]True, True[]]"])


def test_compare_works_across_runs(inner, pytester):
    """A saved run compares with a later one, because both are pytest-benchmark's own."""
    inner("--benchmark-save=first", "--benchmark-storage=file://saved").assert_outcomes(passed=3)
    result = inner("--benchmark-compare", "--benchmark-storage=file://saved", "--benchmark-compare-fail=median:1%")
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(["*test_latency?digits-onnx? (0001_first*", "*test_latency?digits-onnx? (NOW)*"])


def test_disabled_hands_over_nothing(inner, pytester):
    """Under --benchmark-disable the tests pass, the samples are not taken, and no warning appears."""
    result = inner("--benchmark-disable")
    result.assert_outcomes(passed=3, warnings=0)
    result.stdout.fnmatch_lines(["taken=[[]False, False[]]"])
    result.stdout.no_fnmatch_line("*latency digits*")


def test_absent_plugin_is_no_error(inner):
    """Without pytest-benchmark the tests pass and the answer is False."""
    result = inner(plugins=())
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(["taken=[[]False, False[]]"])


def test_only_selects_the_measured_tests(inner):
    """--benchmark-only runs what measures and skips the rest."""
    result = inner("--benchmark-only")
    result.assert_outcomes(passed=2, skipped=1)
    result.stdout.fnmatch_lines(["taken=[[]True, True[]]"])


def test_skip_leaves_out_the_measured_tests(inner):
    """--benchmark-skip skips what measures before anything is measured."""
    result = inner("--benchmark-skip")
    result.assert_outcomes(passed=1, skipped=2)
    result.stdout.fnmatch_lines(["taken=[[][]]"])


def test_skip_does_not_skip_a_test_that_is_not_advertised(inner, pytester):
    """--benchmark-skip alone does not turn a measured test into a skip in the middle of it."""
    pytester.makeconftest((CONFTEST % SAMPLES).replace('advertise(item, "mf_timing")', "pass"))
    result = inner("--benchmark-skip")
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(["taken=[[]False, False[]]"])


def test_xdist_runs_without_handing_over(inner):
    """Under xdist pytest-benchmark disables itself, and the tests pass all the same."""
    inner("-n1", "--benchmark-json=out.json", plugins=("benchmark", "xdist")).assert_outcomes(passed=3)


def test_cprofile_does_not_profile_the_replay(inner, pytester):
    """--benchmark-cprofile leaves the replay alone."""
    inner("--benchmark-cprofile=tottime", "--benchmark-json=out.json").assert_outcomes(passed=3)
    assert all("cprofile" not in benchmark for benchmark in read(pytester))


def test_own_marker_keeps_its_group(inner, pytester):
    """A test that names its own group stays in it, and still replays."""
    pytester.makepyfile(
        "import pytest\n\n@pytest.mark.benchmark(group='mine', warmup=True)\ndef test_latency(mf_timing):\n    pass\n"
    )
    inner("--benchmark-json=out.json", "-k", "test_latency").assert_outcomes(passed=2)
    assert {b["group"] for b in read(pytester)} == {"mine"}
    assert read(pytester)[0]["stats"]["data"] == [s / 1e9 for s in SAMPLES]


@pytest.mark.parametrize("arguments", ["benchmark, mf_timing", "used, mf_timing"])
def test_a_benchmark_of_the_tests_own_is_not_replaced(inner, pytester, arguments):
    """Where the fixture was made before the samples, nothing made up is recorded under their name."""
    pytester.makepyfile(
        "import pytest\n\n@pytest.fixture\ndef used(benchmark):\n    return benchmark\n\n"
        f"def test_latency({arguments}):\n    assert not mf_timing\n    {arguments.split(',')[0]}(sum, [1, 2])\n"
    )
    few = ("--benchmark-max-time=0.01", "--benchmark-min-rounds=1", "--benchmark-calibration-precision=1")
    inner("--benchmark-json=out.json", *few, "-k", "test_latency").assert_outcomes(passed=2)
    assert all(b["extra_info"] == {} and b["group"] is None for b in read(pytester))


def test_no_samples_are_not_handed_over(inner, pytester):
    """An empty measurement is no benchmark."""
    pytester.makeconftest(CONFTEST % [])
    result = inner("--benchmark-json=out.json")
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(["taken=[[]False, False[]]"])
