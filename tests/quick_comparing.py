"""A plugin for inner runs: the interleaved comparison by a few blocks of each side, so no run waits for statistics.

The statistics are another module's, tested there with samples whose truth is known; here it is what is opened, fed and
judged that counts. A planted slow-down is several-fold, and half as much again is called one: of the fastest calls,
which other work on the machine leaves as they are.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

from pytest_modelformats.measure.two_sides import interleaved
from pytest_modelformats.schema import Change

FACTOR = 1.5


def compare_latency(open_pair, *, margin=0.05, budget_s, seed=0, progress=None):
    """Three blocks of each; the log has a line per comparison, and after ``TURTLES_WAIT`` of them none goes on."""
    log = os.environ.get("TURTLES_LOG")
    while log and len(_lines(log)) >= int(os.environ.get("TURTLES_WAIT", "1000")):
        time.sleep(0.01)
    blocks: tuple[list[int], list[int]] = ([], [])
    taken = 0
    with open_pair() as pair:
        for _ in range(3):
            for side, samples in zip(pair, blocks, strict=True):
                samples.extend(side.block(0.01))
            taken += 1
    fastest = min(blocks[0]), min(blocks[1])
    if log:
        with Path(log).open("a", encoding="utf-8") as handle:
            handle.write(f"{fastest[0]} {fastest[1]}\n")
    ratio = fastest[1] / fastest[0]
    change = Change.REGRESSION if ratio > FACTOR else Change.IMPROVEMENT if ratio * FACTOR < 1 else Change.SAME
    found = interleaved.compare_samples(*blocks, margin=margin)
    return replace(
        found,
        ratio=ratio,
        change=change,
        p_value=1e-6 if change is Change.REGRESSION else 0.9,
        p_value_faster=1e-6 if change is Change.IMPROVEMENT else 0.9,
        recurred=change is not Change.SAME,
        how="interleaved",
        blocks=taken,
    )


def _lines(log):
    return Path(log).read_text(encoding="utf-8").splitlines() if Path(log).exists() else []


interleaved.compare_latency = compare_latency
