"""The fidelity benchmark: its figures follow from the blocks, and all three sides can be asked."""

from __future__ import annotations

import argparse
import sys

import pytest
from places import ROOT

pytestmark = pytest.mark.alone

sys.path.insert(0, str(ROOT))

from benchmarks.speed import fidelity  # noqa: E402

LONG = fidelity.Subject("net", "x:float32[N,4]", 1)


def figures(tool, app, loop, backend="openvino"):
    """The figures of one block of each side twice a round, given in milliseconds."""
    sides = zip(fidelity.SIDES, (tool, app, loop), strict=True)
    blocks = {side: [ms * 1e6 for ms in values for _ in range(2)] for side, values in sides}
    return {row["what"].partition(": ")[2]: row for row in fidelity._figures(backend, LONG, blocks)}


def test_the_ratio_is_that_of_neighbours_whatever_the_machine_does_meanwhile():
    """A host that becomes slower and slower moves both sides of every round."""
    slower = [10, 20, 30, 40, 50]
    found = figures([ms * 1.03 for ms in slower], slower, [ms * 1.01 for ms in slower])
    assert found["reported / benchmark_app"]["figure"] == pytest.approx(1.03)
    assert found["reported / bare loop"]["figure"] == pytest.approx(1.03 / 1.01)
    assert found["reported / benchmark_app"]["within"] == [0.98, 1.02]


def test_below_a_millisecond_there_is_no_target_and_the_binding_has_a_figure():
    found = figures([0.022] * 3, [0.019] * 3, [0.0215] * 3)
    assert {row["within"] for row in found.values()} == {None}
    assert found["the Python binding, µs per call"]["figure"] == pytest.approx(2.5)
    assert "the Python binding, µs per call" not in figures([5.0], [5.0], [5.0])


def test_benchmark_app_runs_openvino_alone():
    assert set(figures([5.0], [], [5.0], "onnxruntime")) == {"reported / bare loop"}


@pytest.mark.slow
def test_every_side_answers(monkeypatch):
    """What they come to on a machine that does other work is no matter of a test, but it is the same call."""
    monkeypatch.setattr(fidelity, "BLOCK_S", 0.1)
    rows = fidelity.rows(argparse.Namespace(rounds=1, subjects="text_encoder"))
    reported = [row for row in rows if "reported" in row["what"]]
    assert [row["what"] for row in reported] == [
        "text_encoder × 32 on openvino: reported / benchmark_app",
        "text_encoder × 32 on openvino: reported / bare loop",
        "text_encoder × 32 on onnxruntime: reported / bare loop",
    ]
    assert all(0.1 < row["figure"] < 10 for row in reported)
    assert all(set(row) == {"what", "figure", "within", "how"} for row in rows)
