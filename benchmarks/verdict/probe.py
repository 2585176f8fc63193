"""A test that the product runs beside its own suites: what fixed tolerances say of the outputs that it judges.

``BENCH_VERDICT_FOLDER`` holds ``<model>.npz``: the model's fp32 outputs on the same samples, by PyTorch.
A line per cell is appended to ``probe.jsonl`` there.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
from rules import verdicts


def test_rules(mf_cell, mf_reference, mf_outputs):  # noqa: ANN001, ANN201 - fixtures
    """Every rule's answer is written down."""
    folder = Path(os.environ["BENCH_VERDICT_FOLDER"])
    with np.load(folder / f"{mf_cell.cell.model}.npz") as file:
        fp32 = [[file[f"{feed}_{i}"] for i in range(len(t))] for feed, t in enumerate(mf_reference.truths)]
    line = {"cell": mf_cell.cell.id, "rules": verdicts(mf_reference.truths, fp32, mf_outputs)}
    with (folder / "probe.jsonl").open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(line) + "\n")
