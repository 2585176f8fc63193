"""A test that the product runs beside its own suites: where each cell's artifact lies, for the second opinion.

A line per cell is appended to the file that ``BENCH_ZOO_ARTIFACTS`` names.
"""

from __future__ import annotations

import json
import os
from pathlib import Path


def test_artifact(mf_cell, mf_artifact):  # noqa: ANN001, ANN201 - fixtures
    """The artifact's path is written down."""
    cell = mf_cell.cell
    line = {"cell": cell.id, "precision": cell.precision, "backend": cell.backend, "artifact": str(mf_artifact.path)}
    with Path(os.environ["BENCH_ZOO_ARTIFACTS"]).open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(line) + "\n")
