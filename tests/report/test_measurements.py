"""Every figure of a measurement is a column with its unit in each report, and what was not read is no column."""

from __future__ import annotations

import json
import re

import pytest

from pytest_modelformats.record import read as lines
from pytest_modelformats.report import html, markdown, measurements, terminal
from pytest_modelformats.schema import numbers

MS = 1_000_000
HEADER = {"kind": "header", "schema": 1, "run": "r", "started": "2026-11-23T16:15:00+00:00", "tool": "0.1.0"}
HEADER["machine"] = {"cpu": "a processor"}
LATENCY = {
    "latency_p50_ns": 5 * MS, "latency_p50_low_ns": 5 * MS, "latency_p50_high_ns": 5 * MS, "latency_mean_ns": 6 * MS,
    "latency_std_ns": MS, "variation": 0.1, "latency_p90_ns": 7 * MS, "latency_p95_ns": 8 * MS, "latency_p99_ns": None,
    "items_per_s": 166.7, "load_ns": 40 * MS, "first_inference_ns": 30 * MS, "convert_ns": 2000 * MS,
    "size_bytes": 102_000_000, "idle_rss_bytes": 50_000_000, "peak_rss_bytes": 171_000_000, "batch": 1, "threads": 1,
    "warmup_runs": 5, "samples": 3, "samples_ns": [5 * MS] * 3, "disturbed": "", "pinned": [0],
}  # fmt: skip
EVERYTHING = {
    **LATENCY, "unusable": "", "outliers": 0.02, "drift": -0.013, "median_uncertainty": 0.004, "remeasured": 0,
    "machine_state": {"governor": "performance", "frequency_hz": [4_100_000_000, 800_000_000], "temperature_c": 61.0},
    "device_memory_bytes": 3_000_000_000, "device_memory_source": "torch, peak", "host_to_device_ns": 110_000,
    "compute_ns": 4_200_000, "device_to_host_ns": 90_000, "energy_j": 0.123, "energy_source": "NVML",
    "memory_growth_bytes": 61_000, "latency_p99_ns": 9 * MS,
}  # fmt: skip
THROUGHPUT = [
    {"batch": 8, "concurrency": 1, "mode": "sync", "items_per_s": 1234.5, "latency_p50_ns": 6 * MS, "samples": 64,
     "disturbed": "", "unusable": ""},
    {"batch": 1, "concurrency": 2, "mode": "threads", "why_not": "one session takes one call at a time"},
    {"batch": 1, "concurrency": 2, "mode": "async", "items_per_s": 321.0, "latency_p50_ns": 6 * MS, "samples": 64,
     "disturbed": "other work took 40%", "unusable": "may be off by 40%"},
]  # fmt: skip


@pytest.fixture
def run(tmp_path):
    """A run of one cell per set of data, read back from its record."""

    def written(*of_cells):
        found = [HEADER]
        for number, checks in enumerate(of_cells):
            name = f"net-onnx-fp32-runtime{number}@cpu"
            cell = {"kind": "cell", "cell": name, "model": "net", "format": "onnx", "precision": "fp32"}
            found.append({**cell, "backend": f"runtime{number}", "device": "cpu", "decision": "run"})
            for check, data in checks:
                line = {"kind": "check", "cell": name, "check": check, "test": "", "outcome": "passed", "sentence": ""}
                found.append({**line, "failure_kind": None, "duration_s": 0.1, "data": data})
        path = tmp_path / "results.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in found))
        return lines.read(path)

    return written


def test_every_figure_is_a_column_with_its_unit(run):
    table = measurements.measurements(run([("latency", EVERYTHING)]).cells)
    assert dict(zip(table.titles, (entry.text for entry in table.rows[0].entries), strict=True)) == {
        "conversion": "2.00 s",
        "load": "40.0 ms",
        "first inference": "30.0 ms",
        "p50": "5.00 ms",
        "p90": "7.00 ms",
        "p95": "8.00 ms",
        "p99": "9.00 ms",
        "mean": "6.00 ms",
        "std": "1.00 ms",
        "one at a time": "167 /s",
        "artifact": "102 MB",
        "memory above idle": "121 MB",
        "grows per call": "61.0 KB",
        "device memory": "3.00 GB",
        "host to device": "110 µs",
        "compute": "4.20 ms",
        "device to host": "90.0 µs",
        "energy per call": "123 mJ",
    }


def test_what_no_cell_has_is_no_column(run):
    """One cell that has it is enough; the others then show a dash."""
    without = measurements.measurements(run([("latency", LATENCY)]).cells)
    assert not {"p99", "device memory", "compute", "energy per call", "grows per call"} & set(without.titles)
    both = measurements.measurements(run([("latency", LATENCY)], [("latency", EVERYTHING)]).cells)
    place = both.titles.index("energy per call")
    assert [row.entries[place].text for row in both.rows] == [numbers.ABSENT, "123 mJ"]
    assert [row.entries[place].value for row in both.rows] == [None, 0.123]


def test_the_terminal_has_the_columns_that_fit(run):
    table = measurements.measurements(run([("latency", EVERYTHING)]).cells, short=True)
    assert table.titles == ("load", "p50", "p95", "size", "memory")
    text = terminal.render(run([("latency", EVERYTHING)]), 80, color=False)
    assert max(map(len, text.splitlines())) <= 80
    assert re.search(r"onnx-fp32-runtime0@cpu +40.0 ms +5.00 ms", text)


def test_throughput_is_a_column_per_scenario_and_mode(run):
    table = measurements.throughput_table(
        run([("throughput", THROUGHPUT_OF[0]), ("throughput", THROUGHPUT_OF[1])]).cells
    )
    assert table.titles == ("batch 8", "batch 1, 2 in flight, threads", "batch 1, 2 in flight, async")
    (row,) = table.rows
    assert [entry.text for entry in row.entries] == ["1,234 /s", numbers.ABSENT, "321 /s"]
    assert row.doubt == "unusable"
    assert row.detail == "may be off by 40%; a thread per request: one session takes one call at a time"


THROUGHPUT_OF = ({"throughput": THROUGHPUT[:1]}, {"throughput": THROUGHPUT[1:]})


def test_all_reports_show_both_tables(run):
    full = run([("latency", {**EVERYTHING, "unusable": "off by 67%"}), ("throughput", {"throughput": THROUGHPUT})])
    page, text, said = html.render(full), markdown.render(full), terminal.render(full, 100, color=False)
    for rendered in (page, text, said):
        assert "1,234 /s" in rendered
        assert "121 MB" in rendered
    for rendered in (page, text):
        assert "energy per call" in rendered
        assert "one session takes one call at a time" in rendered
    assert 'data-v="5e+06"' in page
    assert "<h3>Measurements</h3>" in page
    assert "<b>Not to be used:</b> off by 67%" in page
    assert "4.10 GHz, 800 MHz" in page  # the machine's state stands with the cell
    assert "| unusable |" in text
    assert "* disturbed while it was measured" in said


def test_a_run_without_measurements_has_neither(run):
    bare = run([])
    assert "<h3>Measurements</h3>" not in html.render(bare)
    assert "What was measured" not in markdown.render(bare)
    assert "Measurements" not in terminal.render(bare, 80, color=False)


@pytest.mark.parametrize(
    ("joules", "text"), [(None, numbers.ABSENT), (0, "0 J"), (2.5e-7, "250 nJ"), (0.0123, "12.3 mJ"), (5, "5 J")]
)
def test_energy_has_its_unit(joules, text):
    assert numbers.energy(joules) == text


def test_a_throughput_that_is_none_is_refused_by_name(run):
    from pytest_modelformats.errors import ConfigurationError

    with pytest.raises(ConfigurationError, match="'throughput'"):
        run([("throughput", {"throughput": {"batch": 1}})])
    with pytest.raises(ConfigurationError, match="'concurrency'"):
        run([("throughput", {"throughput": [{"batch": 1, "mode": "sync"}]})])
