"""``--mf-history``: The database that every run is appended to."""

from __future__ import annotations

import json
import sqlite3

from click.testing import CliRunner
from inner_run import PARITY, one_sentence

from pytest_modelformats.cli import main as cli

LATENCY = ("--mf-suites", "parity,latency", *PARITY[2:], "--mf-time-budget", "0.1")


def runs(path):
    with sqlite3.connect(path) as connection:
        return connection.execute("SELECT run, complete FROM modelformats_runs ORDER BY id").fetchall()


def test_every_run_is_appended_to_the_file(run, tiny, pytester):
    """By default, to the one in the cache folder."""
    first = run("--mf-model", tiny, *LATENCY, "--mf-history", "kept/ci.sqlite")
    second = run("--mf-model", tiny, *PARITY, "--mf-cache", "one", cache=False)
    assert first.status == second.status == 0, first.text + second.text
    assert "history" not in first.text.lower().replace("--mf-history", "")
    path = pytester.path / "kept/ci.sqlite"
    assert runs(path) == [(first.folder.name, 1)]
    assert runs(pytester.path / "one/history.sqlite") == [(second.folder.name, 1)]
    with sqlite3.connect(path) as connection:
        found = dict(
            connection.execute(
                "SELECT metric, value FROM modelformats_measurements JOIN modelformats_series ON id = series_id "
                "WHERE run_id = 1 AND value IS NOT NULL"
            )
        )
    said = first.checks[first.cells[0], "latency"]["data"]
    for metric in ("latency_p50_ns", "load_ns", "size_bytes", "peak_rss_bytes", "items_per_s"):
        assert found[metric] == said[metric]
    assert "noise_ratio" in found
    assert first.of("header")[0]["machine"]["identity"]


def test_an_interrupted_run_keeps_what_was_measured_until_then(run, tiny, pytester):
    pytester.makepyfile(
        "def test_a(mf_parity): assert mf_parity.passed\n\ndef test_b(mf_cell): raise KeyboardInterrupt"
    )
    ran = run(
        "--mf-model",
        tiny,
        *PARITY[2:],
        "--mf-history",
        "h.sqlite",
        "test_an_interrupted_run_keeps_what_was_measured_until_then.py",
    )
    assert ran.status == 2, ran.text
    assert runs(pytester.path / "h.sqlite") == [(ran.folder.name, 0)]
    with sqlite3.connect(pytester.path / "h.sqlite") as connection:
        checks = connection.execute("SELECT \"check\" FROM modelformats_series WHERE metric = 'noise_ratio'").fetchall()
    assert checks == [("test_a",)]


def test_a_run_that_was_killed_loses_no_finished_measurement(run, tiny, pytester):
    """Its record is whole to the last finished check, and ``modelformats history --add`` takes it up."""
    pytester.makepyfile(
        "import os, signal\n\ndef test_a(mf_parity): assert mf_parity.passed\n\n"
        "def test_b(mf_cell): os.kill(os.getpid(), signal.SIGKILL)"
    )
    ran = run("--mf-model", tiny, *PARITY[2:], f"--mf-history={pytester.path}/h.sqlite", f"{pytester._name}.py")
    assert ran.status == -9
    assert not (pytester.path / "h.sqlite").exists()
    done = CliRunner().invoke(
        cli.commands, ["history", "--add", "reports", "--mf-history", "h.sqlite", *ran.cells, "--metric", "noise_ratio"]
    )
    assert done.exit_code == 0, done.output
    assert f"test_a.noise_ratio, 1 run on {ran.of('header')[0]['machine']['identity']}" in done.stdout
    assert runs(pytester.path / "h.sqlite") == [(ran.folder.name, 0)]


def test_a_database_that_cannot_be_written_costs_one_remark_and_no_password_is_shown_or_recorded(run, tiny):
    where = "postgresql://who:topsecret@127.0.0.1:1/x"
    ran = run("--mf-model", tiny, *PARITY, f"--mf-history={where}")
    assert ran.status == 0, ran.text
    assert ran.footer["complete"]
    (said,) = (line for line in ran.result.outlines if "this run is not in the history" in line)
    assert "refused" in said
    assert "look whether the server runs" in said
    assert "topsecret" not in ran.text
    for path in ran.folder.rglob("*"):
        assert not path.is_file() or b"topsecret" not in path.read_bytes(), path
    assert "postgresql://who:***@127.0.0.1:1/x" in json.dumps(ran.of("header")[0]["command"])


def test_a_folder_or_an_unknown_database_is_refused(run, refusal, tiny):
    assert "expected a file, and this is a folder" in refusal("--mf-model", tiny, "--mf-history", ".")
    ran = run("--mf-model", tiny, "--mf-history=mysql://who:topsecret@host/x", inprocess=True)
    assert "expected a file, postgresql://user@host/database, or none" in one_sentence(ran, "mysql://who:***@host/x")
