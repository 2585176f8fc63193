"""A plugin for inner runs: the interleaved comparison by one block of each side, so that no run waits for statistics.

The statistics are another module's, tested there with samples whose truth is known; here it is what is opened, fed and
judged that counts. A planted slow-down is several-fold, and half as much again is called one.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from statistics import median

from pytest_modelformats import comparing
from pytest_modelformats.schema import Change

FACTOR = 1.5


def compare_latency(open_pair, *, margin=0.05, budget_s, seed=0, progress=None):
    """One block of each."""
    with open_pair() as (before, after):
        blocks = before.block(0.02), after.block(0.02)
    if os.environ.get("TURTLES_LOG"):
        with Path(os.environ["TURTLES_LOG"]).open("a", encoding="utf-8") as handle:
            handle.write(f"{median(blocks[0])} {median(blocks[1])}\n")
    ratio = median(blocks[1]) / median(blocks[0])
    change = Change.REGRESSION if ratio > FACTOR else Change.IMPROVEMENT if ratio * FACTOR < 1 else Change.SAME
    found = comparing.compare_samples(*blocks, margin=margin)
    return replace(
        found,
        ratio=ratio,
        change=change,
        p_value=1e-6 if change is Change.REGRESSION else 0.9,
        p_value_faster=1e-6 if change is Change.IMPROVEMENT else 0.9,
        recurred=change is not Change.SAME,
        how="interleaved",
    )


comparing.compare_latency = compare_latency
