"""The judgement of a cell."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pytest_modelformats.schema.outcome import FailureKind, Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class OutputParity:
    """The numbers of parity for one output of one cell.

    ``error_rms`` and ``error_max`` are against the float64 truth, ``noise_rms`` and
    ``noise_max`` what rounding alone costs the source model at the asked precision,
    in the output's own unit. ``noise_ratio`` = error_rms / noise_rms.
    ``flips`` is the share of samples (classifiers) or elements (integers) decided otherwise, ``signal_rms`` the
    truth's own size.
    """

    name: str
    outcome: Outcome
    failure_kind: FailureKind | None
    sentence: str
    error_rms: float | None = None
    error_max: float | None = None
    noise_rms: float | None = None
    noise_max: float | None = None
    noise_ratio: float | None = None
    point_ratio: float | None = None
    effective_precision: str = ""
    flips: float | None = None
    elements: int = 0
    # In units of the noise: the worst slice and element of their own (noise_profile.py), stress rows (stress.py),
    # what stays when the inputs move (second_look.py).
    slice_ratio: float | None = None
    local_point_ratio: float | None = None
    stress_ratio: float | None = None
    systematic_ratio: float | None = None
    signal_rms: float | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The judgement of a cell's outputs: the worst output's outcome and its sentence.

    ``execution`` is what the runtime states of what ran, ``contradiction`` the sentence that
    says where this cannot be true (see ``compare/stated_execution.py``).
    """

    outcome: Outcome
    failure_kind: FailureKind | None
    sentence: str
    outputs: tuple[OutputParity, ...] = ()
    statement: Mapping[str, Any] = field(default_factory=dict)
    execution: Mapping[str, Any] = field(default_factory=dict)
    contradiction: str = ""

    @property
    def passed(self) -> bool:
        """Whether the cell's model still is the model."""
        return self.outcome is Outcome.PASSED

    @property
    def noise_ratio(self) -> float | None:
        """The largest noise ratio over the outputs."""
        return max((o.noise_ratio for o in self.outputs if o.noise_ratio is not None), default=None)
