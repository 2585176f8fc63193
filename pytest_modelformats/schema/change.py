"""What a comparison of two measurements says."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Change(str, Enum):
    """What a comparison of two measurements says of the later one."""

    SAME = "same"
    REGRESSION = "regression"
    IMPROVEMENT = "improvement"
    INCONCLUSIVE = "inconclusive"
    APPEARED = "appeared"
    VANISHED = "vanished"


@dataclass(frozen=True, slots=True)
class Comparison:
    """One metric of one cell, before and after.

    ``before`` and ``after`` are in ``unit`` (``ns``, ``bytes``, ``/s``, "" for plain numbers); ``ratio`` is after over
    before with its 95 % confidence interval, ``None`` where there is none. ``before_what`` and ``after_what`` say in
    words what was measured ("release-1.2, onnxruntime 1.26.0"). ``how`` is ``interleaved`` (both measured now, in ABBA
    blocks), ``stored`` (samples of an earlier run: weaker), ``reading`` (one number per run), ``not judged`` (one that
    says too little), ``identical`` (nothing that could matter differs, so nothing was measured) or ``exact`` (sizes and
    the like, which do not vary).
    ``p_value`` is one-sided, against "not beyond the margin". ``recurred``: found again in fresh processes.
    """

    cell: str
    metric: str
    unit: str
    change: Change
    sentence: str
    before_what: str = ""
    after_what: str = ""
    before: float | None = None
    after: float | None = None
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    margin: float = 0.05
    p_value: float | None = None
    how: str = "interleaved"
    recurred: bool | None = None
    blocks: int = 0
    seconds: float = 0.0
