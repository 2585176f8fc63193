"""No false alarm on faithful conversions of a random network of every family, on real runtimes.

This is a small part of ``benchmarks/false_alarms.py``, which runs five networks of each family and prints how the
ratios are distributed.
"""

from __future__ import annotations

import math
import sys

import pytest
from places import ROOT

from pytest_modelformats.compare.floating import FAITHFUL_LOW, POINT_LIMIT
from pytest_modelformats.compare.second_look import FURTHEST
from pytest_modelformats.schema import PRECISIONS

sys.path.insert(0, str(ROOT))

from benchmarks.false_alarms import FAMILIES, LANES, LAWS, SATURATED, cells, networks, run

EACH = 3  # lanes of a network
# Successive networks take successive lanes; the one whose sums saturate is run where they do.
CELLS = [f"{family}_0-{LANES[(EACH * i + j) % len(LANES)]}" for i, family in enumerate(FAMILIES) for j in range(EACH)]
CELLS += [cell for cell in cells([SATURATED]) if "-onnx.legacy-fp32-" in cell or "-torchscript-fp32-" in cell]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(850)]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """One run of parity and the other laws."""
    ended = run(tmp_path_factory.mktemp("alarms") / "run", CELLS, ("parity", *LAWS), fuzz=8)
    assert ended.lines, ended.text
    return ended


def test_every_family_and_every_lane_is_there():
    """The small part leaves no family and no lane to the benchmark alone."""
    assert len(CELLS) == len(set(CELLS)) == EACH * len(FAMILIES) + 2
    assert set(CELLS) <= set(cells(networks(1)))
    for family in FAMILIES:
        assert sum(cell.startswith(f"{family}_0-") for cell in CELLS) == EACH
    for lane in LANES:
        assert sum(cell.endswith(f"-{lane}") for cell in CELLS) >= EACH


def test_no_faithful_cell_is_accused(found):
    """Every faithful cell passes parity."""
    checks = found.checks(["parity"])
    sys.stdout.write(f"\n{found.table()}\n")
    assert not {key: said for key, said in found.accused.items() if key[1] == "parity"}
    assert sorted(line["cell"] for line in checks) == sorted(CELLS)
    assert found.status == 0, found.text


def test_totals_add_up(found):
    """Every selected cell has one outcome, and the run is complete."""
    footer = found.lines[-1]
    assert footer["complete"]
    assert footer["totals"] == {"passed": len(CELLS)}
    assert set(footer["cells"]) == set(CELLS)


def test_ratios_are_measured(found):
    """Both ratios are finite numbers in every cell, below their limits, and above what would look too precise."""
    assert {cell for values in found.ratios.values() for _, _, cell in values} == set(CELLS)
    for precision, values in found.ratios.items():
        limit, point = PRECISIONS[precision].limit, POINT_LIMIT[PRECISIONS[precision].yardstick]
        for noise_ratio, point_ratio, cell in values:
            assert math.isfinite(noise_ratio), cell
            wide = FURTHEST if cell.startswith(f"{SATURATED}-") else 1
            assert FAITHFUL_LOW <= noise_ratio <= wide * limit, cell
            assert point_ratio <= wide * point, cell


def test_other_laws_accuse_no_faithful_cell(found):
    """The laws hold for a network of every family and in every lane, and so does parity on generated inputs."""
    checks = found.checks(LAWS)
    assert not {key: said for key, said in found.accused.items() if key[1] in LAWS}
    assert {(line["cell"], line["check"]) for line in checks} == {(cell, law) for cell in CELLS for law in LAWS}
    assert len(checks) == len(LAWS) * len(CELLS)
