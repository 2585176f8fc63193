"""A whole run with a runtime whose median is a coin toss: measured again, inconclusive, red for no budget.

The runtime brings its own clock, which nothing but its calls moves: the samples are the same on a busy machine.
"""

from __future__ import annotations

import pytest

CELL = "tiny-onnx-fp32-uneven@cpu"
BACKEND = """
import itertools

from pytest_modelformats.measure import sampling
from pytest_modelformats.run.workers import latency
from pytest_modelformats.schema import Backend
from pytest_modelformats.systems.onnxruntime import backend as onnxruntime

BACKEND = Backend(
    name="uneven", title="Uneven", worker="uneven", precisions={("onnx", "fp32"): ("fp32",)}, devices=("cpu",),
    entry="uneven_backend:open_session", requires=("onnxruntime",), install="pip install uneven",
)


def open_session(job):
    session = onnxruntime.open_session(job)
    times, now = itertools.cycle((1_000_000, 5_000_000)), [0]

    def call():
        now[0] += next(times)

    def sample(call, **more):
        taken = sampling.sample(call, clock=lambda: now[0], **more)
        return {**taken, "involuntary_switches": 0, "foreign_share": 0.0, "steal_share": 0.0}

    session.bind = lambda feed: call
    latency.sample = sample
    return session
"""


@pytest.fixture
def uneven(pytester, monkeypatch):
    """An installed runtime of which every second call takes five times as long."""
    (pytester.path / "uneven_backend.py").write_text(BACKEND)
    info = pytester.path / "uneven-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: uneven\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[modelformats.backends]\nuneven = uneven_backend:BACKEND\n")
    monkeypatch.setenv("PYTHONPATH", str(pytester.path))
    (pytester.path / "modelformats.toml").write_text('[budgets."*"]\nlatency_p50_ms = 0.0001\n')


@pytest.mark.slow
def test_too_disturbed_is_neither_red_nor_green(uneven, run, tiny):
    ran = run("--mf-model", tiny, "--mf-backends", "uneven", "--mf-suites", "latency", "--mf-time-budget", "0.5", "-rs")
    assert ran.status == 0, ran.text
    line = ran.checks[CELL, "latency"]
    assert line["outcome"] == "inconclusive"
    assert "the samples fall into two groups of about the same size" in line["sentence"]
    assert "and so it was when measured again" in line["sentence"]
    assert "Next: measure longer" in line["sentence"]
    assert line["data"]["remeasured"] == 1
    assert line["data"]["unusable"]
    assert line["data"]["samples"] >= 20
    assert "inconclusive: The median latency may be off by" in ran.text
    assert ran.footer["cells"][CELL] == "inconclusive"
    assert "Not to be used" in (ran.folder / "index.html").read_text()
