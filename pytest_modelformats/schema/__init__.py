"""The frozen nouns of the pipeline, and the words they are written with.

Standard library only: this module is imported in the pytest process, in every worker and
in foreign interpreters.
"""

from __future__ import annotations

from pytest_modelformats.schema.cell import Cell, Decision, Environment, Plan, PlannedCell, Step
from pytest_modelformats.schema.change import Change, Comparison
from pytest_modelformats.schema.model import Description, Source
from pytest_modelformats.schema.outcome import SKIPPED_OUTCOMES, FailureKind, Outcome
from pytest_modelformats.schema.precision import PRECISIONS, Precision
from pytest_modelformats.schema.system import Backend, Converter, Format
from pytest_modelformats.schema.tensor import DTYPES, MOST_ELEMENTS, TensorSpec, classifies
from pytest_modelformats.schema.timing import Timing
from pytest_modelformats.schema.verdict import OutputParity, Verdict

__all__ = [
    "DTYPES",
    "MOST_ELEMENTS",
    "PRECISIONS",
    "SCHEMA_VERSION",
    "SKIPPED_OUTCOMES",
    "Backend",
    "Cell",
    "Change",
    "Comparison",
    "Converter",
    "Decision",
    "Description",
    "Environment",
    "FailureKind",
    "Format",
    "Outcome",
    "OutputParity",
    "Plan",
    "PlannedCell",
    "Precision",
    "Source",
    "Step",
    "TensorSpec",
    "Timing",
    "Verdict",
    "classifies",
]

SCHEMA_VERSION = 1
