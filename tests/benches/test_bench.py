"""The benchmark of the tool's own costs: a part that fails loses none of the others; the comparison can be timed."""

from __future__ import annotations

import sys

import pytest
from inner_run import PARITY
from places import ROOT

pytestmark = pytest.mark.alone

sys.path.insert(0, str(ROOT / "benchmarks"))

import bench  # noqa: E402
import comparison  # noqa: E402


def test_what_was_measured_is_shown_although_a_later_part_fails(monkeypatch, tmp_path, capsys):
    def fails(*_):
        raise RuntimeError("no such thing")

    monkeypatch.setattr(bench, "HERE", tmp_path / "benchmarks")
    monkeypatch.setattr(sys, "argv", ["bench.py", "--parts", "cells,comparison"])
    monkeypatch.setattr(bench, "cells_part", lambda *_: [bench.Row("(c) cells", 1.5, (0, 2), "how")])
    monkeypatch.setattr(bench, "comparison_part", fails)
    with pytest.raises(RuntimeError, match="no such thing"):
        bench.main()
    assert "(c) cells   1.500  at most 2    yes  how" in capsys.readouterr().out
    assert list((tmp_path / "reports").glob("bench-*.json"))


@pytest.mark.slow
def test_the_comparison_is_that_of_the_run_whose_reference_it_takes(run, state_dict, nets, tmp_path):
    ran = run("--mf-model", state_dict, "--mf-arch", nets, *PARITY, "--mf-cache=cache", cache=False)
    assert ran.status == pytest.ExitCode.OK, ran.text
    found = comparison.measure("x:float32[N,4]", ran.reports.parent / "cache", tmp_path)
    ((_, parity),) = ((key, line) for key, line in ran.checks.items() if key[1] == "parity")
    assert found["noise_ratio"] == pytest.approx(parity["data"]["noise_ratio"], rel=0.2)
    assert 0 < found["comparison_s"] < 1
    assert 0 < found["inferences_s"] < 1
    assert found["rows"] == comparison.SAMPLES
