"""What is read of a machine is what its files say; what is not there is absent."""

from __future__ import annotations

import pytest

from pytest_modelformats.measure import conditions as surroundings
from pytest_modelformats.measure import machine_state


@pytest.fixture
def root(tmp_path):
    """A root folder that files are written into by path."""

    def write(files):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n")
        return tmp_path

    return write


CPU = "sys/devices/system/cpu/cpu{}/cpufreq/{}"
CPUINFO = "processor : 0\ncpu MHz : 2596.130\n\nprocessor : 1\ncpu MHz : 3100.5"


def test_nothing_readable_is_nothing_stated(tmp_path):
    assert machine_state.state((0, 1), tmp_path) == {}
    assert machine_state.energy(tmp_path) == {}
    assert machine_state.energy_between({}, {}) is None


def test_governor_and_frequency_are_those_of_the_pinned_cores(root):
    files = {CPU.format(c, "scaling_governor"): name for c, name in ((0, "powersave"), (2, "performance"))}
    files |= {CPU.format(c, "scaling_cur_freq"): hz for c, hz in ((0, 800_000), (2, 4_100_000))}
    found = machine_state.state((2,), root(files))
    assert found == {"governor": "performance", "frequency_hz": [4_100_000_000], "frequency_source": "cpufreq"}
    assert machine_state.state((0, 2), root({}))["governor"] == "performance, powersave"


def test_cpuinfo_stands_in_where_cpufreq_is_not_there(root):
    found = machine_state.state((1,), root({"proc/cpuinfo": CPUINFO}))
    assert found == {"frequency_hz": [3_100_500_000], "frequency_source": "cpuinfo"}
    assert machine_state.state((7,), root({})) == {}
    assert machine_state.state((), root({})) == {}


def test_the_processors_sensor_is_the_one_that_counts(root):
    zones = {"thermal_zone0": ("acpitz", 27_800), "thermal_zone1": ("x86_pkg_temp", 61_000)}
    files = {}
    for zone, (kind, temperature) in zones.items():
        files |= {f"sys/class/thermal/{zone}/type": kind, f"sys/class/thermal/{zone}/temp": temperature}
    files |= {"sys/class/hwmon/hwmon0/name": "nvme", "sys/class/hwmon/hwmon0/temp1_input": 88_000}
    assert machine_state.state((), root(files)) == {"temperature_c": 61.0}


def test_any_sensor_is_better_than_none(root):
    files = {"sys/class/hwmon/hwmon0/name": "board", "sys/class/hwmon/hwmon0/temp1_input": 41_500}
    files |= {"sys/class/hwmon/hwmon0/temp2_input": "N/A"}
    assert machine_state.state((), root(files)) == {"temperature_c": 41.5}


def test_pressure_is_that_of_some_tasks(root):
    files = {"proc/pressure/cpu": "some avg10=5.92 avg60=4.00 total=5\nfull avg10=0.10 avg60=0 total=0"}
    files |= {"proc/pressure/memory": "some avg10=0.00 avg60=0.00 total=0"}
    found = machine_state.state((), root(files))
    assert found == {"cpu_pressure_percent": 5.92, "memory_pressure_percent": 0.0}


def powercap(zone, name, counter, limit=262_143_328_850):
    folder = f"sys/class/powercap/{zone}"
    return {f"{folder}/name": name, f"{folder}/energy_uj": counter, f"{folder}/max_energy_range_uj": limit}


def test_energy_is_that_of_the_packages(root):
    """Parts of a package, and the platform that holds it, would count it twice."""
    files = powercap("intel-rapl:0", "package-0", 5_000_000) | powercap("intel-rapl:0:0", "core", 1)
    files |= powercap("intel-rapl:1", "package-1", 7_000_000) | powercap("intel-rapl:2", "psys", 9)
    files |= powercap("intel-rapl-mmio:0", "package-0", 3)
    before = machine_state.energy(root(files))
    assert set(before) == {"intel-rapl:0", "intel-rapl:1"}
    files = powercap("intel-rapl:0", "package-0", 6_500_000) | powercap("intel-rapl:1", "package-1", 7_250_000)
    after = machine_state.energy(root(files))
    assert machine_state.energy_between(before, after) == pytest.approx(1.75)


def test_a_counter_that_wraps_is_counted_through(root):
    before = {"intel-rapl:0": (990, 1000)}
    assert machine_state.energy_between(before, {"intel-rapl:0": (30, 1000)}) == pytest.approx(40e-6)


def test_a_counter_that_may_not_be_read_is_absent(root):
    """Since CVE-2020-8694 only root may read it."""
    files = powercap("intel-rapl:0", "package-0", "")
    assert machine_state.energy(root(files)) == {}


def test_stolen_time_is_a_figure_of_its_own(monkeypatch):
    """Steal is not the work of other processes here, and no part of it is counted twice."""
    #        user nice system idle iowait irq softirq steal
    lines = {"before": "cpu0 100 0 10 500 0 0 0 20 0 0", "after": "cpu0 200 0 10 550 0 0 0 70 0 0"}
    monkeypatch.setattr(surroundings.os, "sysconf", lambda name: 100 if name == "SC_CLK_TCK" else 4096)
    found = {}
    for name, line in lines.items():
        monkeypatch.setattr(surroundings, "_read", lambda path, line=line: line if path == "/proc/stat" else "")
        found[name] = surroundings.readings((0,)) | {"own_s": 0.0 if name == "before" else 0.8}
    found["before"]["wall_s"], found["after"]["wall_s"] = 0.0, 2.0
    between = surroundings.difference(found["before"], found["after"], 1)
    assert between["foreign_share"] == pytest.approx((1.0 - 0.8) / 2)
    assert between["steal_share"] == pytest.approx(0.25)


def test_short_measurements_have_no_shares():
    """The kernel counts in ticks of 10 ms: of a tenth of a second it says nothing."""
    before = {"load": 0.5, "switches": 0, "busy_s": 1.0, "stolen_s": 1.0, "own_s": 0.0, "wall_s": 0.0, "throttled": 0}
    found = surroundings.difference(before, {**before, "wall_s": 0.1, "busy_s": 1.1}, 1)
    assert (found["foreign_share"], found["steal_share"]) == (None, None)
