"""Golden bundles, as the planner reads them."""

from __future__ import annotations

from pytest_modelformats.schema import Format

GOLDEN = Format(
    name="golden",
    title="golden bundle",
    module="pytest_modelformats.systems.golden.format",
    suffix=".golden",
    precisions=(),
    named_inputs=True,
    named_outputs=True,
)

FORMATS = (GOLDEN,)
