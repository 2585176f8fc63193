"""Evaluating a source: what one precision is evaluated on, the others are too."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest

from pytest_modelformats.run.workers.asking import write_feed
from pytest_modelformats.run.workers.server import Server
from pytest_modelformats.schema import Source

SOURCE = Source(name="m", location="m", format="f", kind="file").to_json()


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """Evaluate at a precision in a format whose method says how many feeds it was given."""
    module = types.ModuleType("counting_format")
    module.evaluate = lambda source, feeds, precision: ([[f["x"]] for f in feeds], f"of {len(feeds)} feeds")
    monkeypatch.setitem(sys.modules, "counting_format", module)

    def evaluate(precision, **more):
        feeds = [write_feed({"x": np.full(3, n)}, tmp_path / f"in-{n}") for n in range(2)]
        folder = str(tmp_path / "out" / precision)
        return Server.op_evaluate(None, "counting_format", SOURCE, feeds, precision, folder, **more)

    return evaluate


def test_the_input_that_is_run_twice_is_no_part_of_what_is_evaluated(asked, tmp_path):
    """A truth must not be estimated because of an input that no noise is measured on."""
    again = write_feed({"x": np.zeros(3)}, tmp_path / "again")
    truth, rounded = asked("float64", again=again), asked("fp32")
    assert truth["method"] == rounded["method"] == "of 2 feeds"
    assert len(truth["outputs"]) == len(rounded["outputs"]) == 2
    assert truth["random"] == ""
