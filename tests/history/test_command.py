"""``modelformats history``: the list of cells, trends in three forms, records added, and what else it says."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from pytest_modelformats.cli import main as cli
from pytest_modelformats.errors import ModelFormatsError
from pytest_modelformats.settings import machine

from .conftest import CELL, MACHINE, cell_line, latency_line, parity_line, record_of

HERE = machine.identity(MACHINE)


@pytest.fixture(autouse=True)
def this_machine(monkeypatch):
    monkeypatch.setattr(machine, "machine", lambda: {**MACHINE, "identity": HERE})


def ask(*args):
    """What the command prints; its error is a sentence."""
    done = CliRunner().invoke(cli.commands, ["history", *map(str, args)])
    if isinstance(done.exception, ModelFormatsError):
        return str(done.exception)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture
def where(kept, run_of):
    """A history of 30 runs: 20 with one version, 10 with another one that is slower; one was disturbed."""
    runs = []
    for n in range(30):
        version = "1.26.0" if n < 20 else "1.32.0"
        p50 = (1000.0 if n < 20 else 1200.0) + n % 5
        body = [cell_line(), parity_line(), latency_line(p50, disturbed="foreign load" if n == 7 else "")]
        runs.append(run_of(n, body, versions={"onnxruntime": version}))
    kept.append(*runs)
    return f"--mf-history={kept.where}"


def test_the_trend_tells_values_versions_and_the_step(where):
    text = ask(CELL, where)
    assert f"{CELL}\n  latency.latency_p50_ns, 30 runs on {HERE} (Imaginary CPU (zen9), 2 cores)" in text
    assert "▁▁▁▁▁▁▁·▁" in text
    row = next(line for line in text.splitlines() if "run-0020" in line)
    assert "2026-01-01 20:00" in row
    assert "1.20 µs" in row
    assert "1.19 µs to 1.21 µs" in row
    assert "+19.5 %" in row
    assert "onnxruntime 1.32.0  changed: onnxruntime 1.26.0 → 1.32.0" in row
    assert "disturbed" in next(line for line in text.splitlines() if "run-0007" in line)
    assert text.count("changed: ") == 1
    assert (
        "Step at 2026-01-01 20:00 (run-0020): 1.00 µs → 1.20 µs (× 1.2); changed there: onnxruntime 1.26.0 → 1.32.0."
        in text
    )


def test_it_is_markdown_where_asked(where):
    text = ask(CELL, where, "--format", "md", "--last", "12")
    assert text.startswith(f"### `{CELL}`\n")
    assert "| date (UTC) | run | value | interval | change | outcome | versions |" in text
    assert text.count("| run-00") == 12
    assert "run-0017" not in text


def test_it_is_json_where_asked(where):
    (found,) = json.loads(ask(CELL, where, "--format", "json"))
    assert found["unit"] == "ns"
    assert [p["run"] for p in found["points"]] == [f"run-{n:04}" for n in range(30)]
    assert found["points"][20]["versions"]["onnxruntime"] == "1.32.0"
    (step,) = found["steps"]
    assert (step["run"], step["changed"]) == ("run-0020", ["onnxruntime 1.26.0 → 1.32.0"])
    assert step["ratio"] == pytest.approx(1.2, rel=0.01)


def test_without_a_cell_every_known_cell_is_listed(where):
    text = ask(where)
    row = f"{CELL} {HERE} 30 2026-01-02 05:00 passed 1.20 µs"
    assert text.split() == f"cell machine runs last run (UTC) outcome latency_p50_ns {row}".split()
    assert json.loads(ask(where, "--format", "json"))[0]["runs"] == 30
    assert f"| {CELL} | {HERE} | 30 | 2026-01-02 05:00 | passed | 1.10 |" in ask(
        where, "--format", "md", "--metric", "noise_ratio"
    ).replace("\\", "")


def test_a_glob_gives_a_trend_per_cell(where, kept, run_of):
    other = "net-onnx-fp16-onnxruntime@cpu"
    kept.append(run_of(40, [cell_line(other), latency_line(cell=other)]))
    text = ask("net-onnx-*", where)
    assert f"{CELL}\n" in text
    assert f"{other}\n" in text


def test_other_metrics_and_the_outcome_have_trends(where):
    assert "No steps in 30 undisturbed runs." in ask(CELL, where, "--metric", "parity.noise_ratio")
    assert "4.10 KB" in ask(CELL, where, "--metric", "size_bytes")
    text = ask(CELL, where, "--metric", "outcome")
    assert "passed" in text
    assert "Step" not in text


def test_a_changed_outcome_is_told_with_the_version_that_changed(where, kept, run_of):
    kept.append(run_of(40, [cell_line(), parity_line(outcome="failed")], versions={"onnxruntime": "1.33.0"}))
    text = ask(CELL, where, "--metric", "outcome")
    assert "passed → failed at 2026-01-02 16:00 (run-0040); changed there: onnxruntime 1.32.0 → 1.33.0." in text
    assert text.count("→ failed") == 1


def test_other_machines_are_named_and_chosen(where, kept, run_of):
    kept.append(run_of(50, machine={"cpu": "Another", "physical_cores": 64}))
    other = machine.identity({**MACHINE, "cpu": "Another", "physical_cores": 64})
    assert "1 run on " + other in ask(CELL, where, "--machine", "all")
    assert "1 run on " + other in ask(CELL, where, "--machine", other[:6])
    assert "30 runs" not in ask(CELL, where, "--machine", other)
    text = ask(CELL, where, "--machine", "zzz")
    assert "no machine 'zzz', only of" in text
    assert f"{other} (Another, 64 cores)" in text
    assert "choose with --machine" in ask(where, "--machine", "zzz")


def test_a_cell_or_metric_that_is_not_known_gets_a_suggestion(where, kept, run_of):
    cells = [f"other{i}-onnx-fp32-onnxruntime@cpu" for i in range(6)]
    kept.append(run_of(60, [line for cell in cells for line in (cell_line(cell), parity_line(cell=cell))]))
    assert f"no cell 'net-onnx-fp32-onnxruntim@cpu'; did you mean '{CELL}'?" in ask(
        "net-onnx-fp32-onnxruntim@cpu", where
    )
    assert "it has 7: 'modelformats history --machine all' lists them" in ask("zzz", where)
    assert "no metric 'latency_p50'" in ask(CELL, where, "--metric", "latency_p50")
    assert "did you mean 'latency_p50_ns'?" in ask(CELL, where, "--metric", "latency_p50")


def test_a_run_that_was_killed_is_added_from_its_record(tmp_path):
    """Its record has no footer, and may end in the middle of a line."""
    where = f"--mf-history={tmp_path / 'h.sqlite'}"
    path = record_of(tmp_path / "reports", 3, footer=False)
    with path.open("a") as file:
        file.write('{"kind":"check","cell":"net')
    done = CliRunner().invoke(cli.commands, ["history", "--add", str(tmp_path / "reports"), where])
    assert done.stderr == "1 added\n"
    assert "1.00 µs" in ask(CELL, where)
    again = CliRunner().invoke(cli.commands, ["history", "--add", str(path), CELL, where])
    assert again.stderr == "0 added, 1 of which the history has already\n"
    assert "1 run on" in again.stdout


def test_a_history_that_is_off_or_absent_is_said(tmp_path):
    assert "switched off" in ask("--mf-history", "none")
    assert "there is no history at" in ask("--mf-history", tmp_path / "x.sqlite")
    assert "folder" in ask("--mf-history", tmp_path)


def test_the_default_is_in_the_cache_folder(tmp_path):
    assert f"there is no history at {tmp_path}/history.sqlite yet" in ask("--mf-cache", tmp_path)
