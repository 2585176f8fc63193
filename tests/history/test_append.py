"""Appending runs: idempotent, whole or not at all, several at once; the same on SQLite and PostgreSQL."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_modelformats.history import trend
from pytest_modelformats.history.database import store as history

from .conftest import CELL, cell_line, check_line, latency_line, parity_line, record_of

HERE = trend.DEFAULT_METRIC


def points(kept, metric=HERE, cell=CELL, last=100):
    (found,) = kept.ask(trend.trends, cell, metric, "all", last)
    return found.points


def test_what_was_measured_comes_back_with_its_interval_versions_and_outcome(kept, run_of):
    assert kept.append(run_of(5)) == [True]
    (point,) = points(kept)
    assert (point.value, point.low, point.high, point.samples) == (1000.0, 990.0, 1010.0, 100)
    assert (point.run, point.outcome, point.date) == ("run-0005", "passed", "2026-01-01 05:00")
    assert point.versions.runtime == {"onnxruntime": "1.26.0"}
    assert point.versions.beside["torch"] == "2.13.0"  # it converts
    assert point.versions.beside["Python"] == "3.11.7"


@pytest.mark.parametrize(
    ("metric", "value"),
    [
        ("load_ns", 5e6), ("size_bytes", 4096), ("peak_rss_bytes", 1e7), ("items_per_s", 1e6), ("noise_ratio", 1.1),
        ("flips", 0.25), ("variation", 0.01), ("latency_mean_ns", 1100.0), ("parity.noise_ratio", 1.1),
        ("items_per_s[batch=8,concurrency=2,threads]", 5000.0), ("outcome", None), ("parity.outcome", None),
    ],
)  # fmt: skip
def test_every_metric_is_kept(tmp_path, run_of, metric, value):
    from .conftest import Opened

    kept = Opened(str(tmp_path / "history.sqlite"))
    throughput = {"batch": 8, "concurrency": 2, "mode": "threads", "items_per_s": 5000.0, "samples": 7, "disturbed": ""}
    kept.append(run_of(0, [cell_line(), parity_line(), latency_line(throughput=[throughput])]))
    (point,) = points(kept, metric)
    assert point.value == value if value is None else point.value == pytest.approx(value)


def test_how_it_was_measured_is_no_metric(kept, run_of):
    kept.append(run_of())
    with pytest.raises(history.ConfigurationError, match="no metric 'batch'"):
        points(kept, "batch")


def test_the_same_run_twice_is_there_once(kept, run_of):
    run = run_of()
    assert kept.append(run, run) == [True, False]
    assert kept.append(run) == [False]
    assert kept.count("runs") == 1
    assert len(points(kept)) == 1


def test_a_run_that_was_added_while_it_went_on_is_replaced_by_the_whole_of_it(kept, run_of):
    half = run_of(0, [cell_line(), parity_line()], footer=False)
    assert kept.append(half) == [True]
    assert kept.append(run_of()) == [True]
    assert kept.append(half) == [False]
    assert kept.count("runs") == 1
    assert len(points(kept)) == 1
    assert len(points(kept, "outcome")) == 1


def test_an_interrupted_run_keeps_what_was_measured(kept, run_of):
    never = "net-onnx-fp16-onnxruntime@cpu"
    body = [cell_line(), cell_line(never), parity_line(), latency_line()]
    kept.append(run_of(0, body, footer=False))
    assert points(kept)[0].value == 1000.0
    with pytest.raises(history.ConfigurationError, match="no cell"):
        points(kept, cell=never)


def test_what_is_shown_again_from_an_earlier_run_is_no_new_measurement(kept, run_of):
    again = latency_line()
    again["data"]["reused"] = "2026-01-01T00:00:00+00:00"
    kept.append(run_of(0), run_of(1, [cell_line(), again]))
    assert [p.run for p in points(kept)] == ["run-0000"]
    assert len(points(kept, "latency.outcome")) == 2


def test_machines_of_one_kind_share_a_trend_and_others_do_not(kept, run_of):
    kept.append(run_of(0), run_of(1, machine={"memory_bytes": (8 << 30) - 200_000_000, "os": "Linux 6.9", "cores": 1}))
    kept.append(run_of(2, machine={"cpu": "Another"}))
    found = kept.ask(trend.trends, CELL, HERE, "all", 100)
    assert sorted(len(t.points) for t in found) == [1, 2]
    assert len({t.machine for t in found}) == 2


def test_a_cell_of_an_environment_has_the_versions_of_that_environment(kept, run_of):
    cell = f"{CELL}+old"
    old = {"versions": {"onnxruntime": "1.20.1"}, "python": "3.10.1", "requirements": ["onnxruntime==1.20.1"]}
    kept.append(run_of(0, [cell_line(cell), latency_line(cell=cell)], environments={"old": old}))
    (point,) = points(kept, cell=cell)
    assert point.versions.runtime == {"onnxruntime": "1.20.1"}
    assert point.versions.beside["Python"] == "3.10.1"
    assert point.versions.beside["torch"] == "2.13.0"


def test_what_disturbs_a_clock_changes_no_size(kept, run_of):
    kept.append(run_of(0, [cell_line(), latency_line(disturbed="foreign load")]))
    assert points(kept)[0].disturbed == "foreign load"
    assert points(kept, "size_bytes")[0].disturbed == ""


def test_a_users_check_with_parameters_keeps_its_worst_outcome(kept, run_of):
    one, two = check_line("theirs"), check_line("theirs", outcome="failed")
    two["test"] += "[other]"
    kept.append(run_of(0, [cell_line(), two, one]))
    assert points(kept, "theirs.outcome")[0].outcome == "failed"


APPEND = """
import sys
from pathlib import Path
from pytest_modelformats.history.database import append, rows, store
from pytest_modelformats.record import read

for path in sys.argv[2:]:
    entry = rows.entry_of(read.read(Path(path)))
    with store.opened(sys.argv[1], Path(), write=True) as connection:
        append.append(connection, entry)
"""


def started(code, *args):
    return subprocess.Popen([sys.executable, "-c", code, *map(str, args)], stderr=subprocess.PIPE, text=True)


def test_four_processes_append_at_once(kept, tmp_path):
    """Each appends its own runs and one that all of them have; they also race for creating the tables."""
    cells = [f"net{i}-onnx-fp32-onnxruntime@cpu" for i in range(20)]
    body = [line for cell in cells for line in (cell_line(cell), parity_line(cell=cell), latency_line(cell=cell))]
    common = record_of(tmp_path, 99, body)
    mine = [[record_of(tmp_path, 10 * p + i, body) for i in range(3)] for p in range(4)]
    processes = [started(APPEND, kept.where, *paths, common) for paths in mine]
    said = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, said
    assert kept.count("runs") == 13
    assert kept.count("cells") == 20
    for cell in cells:
        assert len(points(kept, cell=cell)) == 13


KILL = """
import os, signal
from sqlalchemy import event
from sqlalchemy.engine import Engine

@event.listens_for(Engine, "after_cursor_execute")
def after(connection, cursor, statement, parameters, context, executemany):
    if "INSERT INTO modelformats_measurements" in statement:
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_process_killed_while_it_appends_leaves_a_whole_database(kept, run_of, tmp_path):
    kept.append(run_of(0))
    before = {name: kept.count(name) for name in ("runs", "cells", "series", "measurements", "machines", "runtimes")}
    other = "other-onnx-fp32-onnxruntime@cpu"
    path = record_of(tmp_path, 1, [cell_line(other), latency_line(cell=other)], machine={"cpu": "Another"})
    killed = started(KILL + APPEND, kept.where, path)
    killed.communicate(timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert {name: kept.count(name) for name in before} == before
    assert kept.append(run_of(2)) == [True]
    done = started(APPEND, kept.where, path)
    assert done.communicate(timeout=60)[1] == ""
    assert kept.count("runs") == 3


def test_a_history_of_a_newer_version_is_refused(kept, run_of):
    from sqlalchemy import update

    from pytest_modelformats.history.database.tables import tables

    kept.append(run_of())
    with history.opened(kept.where, Path(), write=True) as connection:
        connection.execute(update(tables().schema).values(version=99))
    with pytest.raises(history.ConfigurationError, match=r"written by a newer pytest-modelformats \(schema 99.*update"):
        kept.append(run_of(1))
    with pytest.raises(history.ConfigurationError, match="schema 99"):
        kept.ask(trend.known_cells, "all")


def test_the_list_of_cells_has_counts_and_the_last_values(kept, run_of):
    other = "net-onnx-fp16-onnxruntime@cpu"
    kept.append(run_of(1, [cell_line(), parity_line(outcome="failed"), latency_line(2000.0)]))
    kept.append(run_of(0), run_of(2, [cell_line(other), parity_line(cell=other)]))
    found = kept.ask(trend.known_cells, "all")
    assert [(k.cell, k.runs, k.outcome, k.value) for k in found] == [
        (other, 1, "passed", None),
        (CELL, 2, "failed", 2000.0),
    ]
    assert kept.ask(trend.known_cells, "nowhere") == ()
    assert [k.value for k in kept.ask(trend.known_cells, "all", "noise_ratio")] == [1.1, 1.1]


def test_last_takes_the_newest(kept, run_of):
    kept.append(*(run_of(n) for n in (3, 1, 2, 0)))
    assert [p.run for p in points(kept, last=2)] == ["run-0002", "run-0003"]


def settings_of(tmp_path, where):
    from pytest_modelformats.settings.nouns import Settings

    return replace(Settings(tmp_path, tmp_path, tmp_path, 0), history=where)


def test_the_default_is_a_file_in_the_cache_folder_and_none_is_none(tmp_path, run_of):
    assert history.keep(settings_of(tmp_path / "cache", ""), run_of()) == []
    assert (tmp_path / "cache/history.sqlite").is_file()
    assert history.keep(settings_of(tmp_path / "off", "none"), run_of()) == []
    assert not (tmp_path / "off").exists()


def test_the_machine_keeps_its_identity_when_its_kernel_or_limits_change():
    from pytest_modelformats.settings import machine

    from .conftest import MACHINE

    facts = {**MACHINE, "memory_bytes": 25276514304, "gpu": ["NVIDIA GPU 0"]}
    same = machine.identity(facts)
    assert machine.identity({**facts, "os": "Linux 7", "python": "3.14", "cores": 1, "gpu": ["NVIDIA GPU 3"]}) == same
    assert machine.identity({**facts, "memory_bytes": 24 << 30, "gpu_driver": "999"}) == same
    assert machine.identity(json.loads(json.dumps({**facts, "gpu": ("NVIDIA GPU 0",)}))) == same
    for other in (
        {"cpu": "x"},
        {"physical_cores": 4},
        {"memory_bytes": 32 << 30},
        {"gpu": []},
        {"architecture": "arm"},
    ):
        assert machine.identity({**facts, **other}) != same
    assert machine.machine()["identity"] == machine.identity(machine.machine())
