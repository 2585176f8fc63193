"""The two databases that every test of the history runs on, and runs to append."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pytest_modelformats.history.database import append as history_append
from pytest_modelformats.history.database import rows as history_rows
from pytest_modelformats.history.database import store as history
from pytest_modelformats.record import read as lines
from pytest_modelformats.record import write as record
from pytest_modelformats.schema.outcome import cell_outcome

from . import servers


@pytest.fixture(scope="session")
def postgresql():
    """A PostgreSQL server for the session; where there is none the test is skipped, or fails where one is required."""
    binaries = servers.programs()
    if binaries is None:
        servers.absent(os.environ)
    server, stop = servers.start(binaries)
    yield server
    stop()


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request, tmp_path):
    """The ``--mf-history`` of a new, empty database of each kind."""
    if request.param == "sqlite":
        return str(tmp_path / "history.sqlite")
    return request.getfixturevalue("postgresql").database()


class Opened:
    """A history, and the few things that tests do with it."""

    def __init__(self, where):
        self.where = where

    def append(self, *runs):
        with history.opened(self.where, Path(), write=True) as connection:
            return [history_append.append(connection, history_rows.entry_of(run)) for run in runs]

    def ask(self, function, *args):
        with history.opened(self.where, Path()) as connection:
            return function(connection, *args)

    def count(self, name):
        from sqlalchemy import func, select

        from pytest_modelformats.history.database.tables import tables

        return self.ask(lambda c: c.execute(select(func.count()).select_from(getattr(tables(), name))).scalar_one())


@pytest.fixture
def kept(database):
    return Opened(database)


MACHINE = {
    "cpu": "Imaginary CPU (zen9)", "cpu_flags": [], "cores": 2, "physical_cores": 2, "memory_bytes": 8 << 30,
    "os": "Linux 6.1", "architecture": "x86_64", "gpu": [], "gpu_driver": "", "python": "3.11.7",
}  # fmt: skip
CELL = "net-onnx-fp32-onnxruntime@cpu"


def cell_line(cell=CELL, **more):
    model, form, precision, rest = cell.split("-", 3)
    backend, device = rest.split("@")
    return {
        "kind": "cell", "cell": cell, "model": model, "format": form, "route": "", "precision": precision,
        "backend": backend, "device": device.partition("+")[0], "environment": device.partition("+")[2],
        "candidate": "", "chain": ["onnx_from_pytorch:fp32"], "decision": "run", "reason": "", "install": "", **more,
    }  # fmt: skip


def check_line(check, cell=CELL, outcome="passed", **data):
    return {
        "kind": "check", "cell": cell, "check": check, "test": f"modelformats::{check}::test_it[{cell}]",
        "outcome": outcome, "failure_kind": None, "sentence": f"{check} {outcome}.", "duration_s": 0.1, "data": data,
    }  # fmt: skip


def latency_line(p50=1000.0, cell=CELL, disturbed="", **data):
    return check_line(
        "latency", cell, latency_p50_ns=p50, latency_p50_low_ns=p50 * 0.99, latency_p50_high_ns=p50 * 1.01,
        latency_mean_ns=p50 * 1.1, latency_p90_ns=None, items_per_s=1e9 / p50, load_ns=5_000_000, size_bytes=4096,
        peak_rss_bytes=10_000_000, batch=1, threads=1, warmup_runs=3, samples=100, samples_ns=[int(p50)] * 3,
        variation=0.01, pinned=[0], disturbed=disturbed, **data,
    )  # fmt: skip


def parity_line(ratio=1.1, cell=CELL, outcome="passed"):
    output = {
        "name": "y", "outcome": "passed", "failure_kind": None, "sentence": "", "noise_ratio": ratio, "flips": 0.25,
    }  # fmt: skip
    return check_line("parity", cell, outcome, outputs=[output], noise_ratio=ratio, effective_precision="fp32")


def record_of(folder, number=0, body=None, *, footer=True, machine=None, versions=None, run="", **header):
    """Write a record of a run; ``number`` is its hour, and part of its id."""
    started = f"2026-{1 + number // 672:02}-{1 + number // 24 % 28:02}T{number % 24:02}:00:00+00:00"
    body = [cell_line(), parity_line(), latency_line()] if body is None else body
    run = run or f"run-{number:04}"
    head = {
        "kind": "header", "schema": 1, "run": run, "started": started, "tool": "0.1.0", "command": ["pytest"],
        "machine": {**MACHINE, **(machine or {})},
        "versions": {"onnxruntime": "1.26.0", "torch": "2.13.0", **(versions or {})},
        "options": {"threads": 1, "seed": 0}, **header,
    }  # fmt: skip
    planned = {line["cell"]: line["decision"] for line in body if line["kind"] == "cell"}
    heard = [line for line in body if line["kind"] == "check"]
    of = {cell: [(line["check"], line["outcome"]) for line in heard if line["cell"] == cell] for cell in planned}
    cells = {cell: cell_outcome(planned[cell], of[cell]).value for cell in planned}
    end = {
        "kind": "footer", "finished": started, "duration_s": 60.0, "complete": True,
        "totals": {o: list(cells.values()).count(o) for o in cells.values()}, "cells": cells,
        "conversions": {"made": 1, "cached": 2}, "exitstatus": 0,
    }  # fmt: skip
    path = Path(folder) / run / "results.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(record.dumps(line) + "\n" for line in [head, *body, *([end] if footer else [])]))
    return path


def lines_of(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


@pytest.fixture
def run_of(tmp_path):
    """A run with these measurements, read back from a record."""

    def make(number=0, body=None, **more):
        return lines.read(record_of(tmp_path / "records", number, body, **more))

    return make
