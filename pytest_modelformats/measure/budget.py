"""What a cell may cost, where the configuration sets it."""

from __future__ import annotations

import fnmatch
from typing import TYPE_CHECKING

from pytest_modelformats.schema import FailureKind, Outcome, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_modelformats.schema import Timing
    from pytest_modelformats.schema.limits import Budget


def within(cell: str, timing: Timing, budgets: Sequence[Budget]) -> Verdict:
    """Whether the measurement stays within every budget whose glob matches the cell.

    The whole confidence interval of the median must lie above a latency budget for it to be
    exceeded; an interval that straddles it is inconclusive, and so is a median above it that a
    disturbance may have put there. A measurement too disturbed to use is inconclusive whatever
    the budget; size and memory are held to theirs all the same.
    """
    over: list[str] = []
    unclear: list[str] = [timing.unusable] if timing.unusable else []
    for budget in budgets:
        if not fnmatch.fnmatchcase(cell, budget.glob):
            continue
        if budget.latency_p50_ms is not None:
            over_it, near_it = _latency(timing, budget.latency_p50_ms)
            over.extend(over_it)
            unclear.extend(near_it)
        over.extend(_above("artifact size", timing.size_bytes, budget.size_mb))
        above_idle = None
        if timing.peak_rss_bytes is not None and timing.idle_rss_bytes is not None:
            above_idle = timing.peak_rss_bytes - timing.idle_rss_bytes
        over.extend(_above("peak memory above idle", above_idle, budget.peak_memory_mb))
    if over:
        return Verdict(Outcome.FAILED, FailureKind.BUDGET, f"Over budget: {'; '.join(over)}.")
    if unclear:
        return Verdict(Outcome.INCONCLUSIVE, None, f"{'; '.join(unclear)}.")
    return Verdict(Outcome.PASSED, None, _growth(timing))


def _growth(timing: Timing) -> str:
    if timing.memory_growth_bytes is None:
        return ""
    return f"Every call makes the worker's resident memory grow by {timing.memory_growth_bytes / 1e3:.4g} KB."


def _latency(timing: Timing, limit_ms: float) -> tuple[list[str], list[str]]:
    """What is over a latency budget, and what is unclear about it."""
    low, high = timing.latency_p50_low_ns / 1e6, timing.latency_p50_high_ns / 1e6
    if high <= limit_ms or timing.unusable:
        return [], []
    said = f"median latency {low:.4g} to {high:.4g} ms, budget {limit_ms:g} ms"
    if low <= limit_ms:
        return [], [f"At the budget's edge: {said}"]
    # What a disturbance may have added is taken off before a budget counts as exceeded.
    explained = timing.disturbed and low * (1 - (timing.median_uncertainty or 0.0)) <= limit_ms
    return ([], [f"Over the budget, but disturbed ({timing.disturbed}): {said}"]) if explained else ([said], [])


def _above(what: str, found: int | None, limit_mb: float | None) -> list[str]:
    if limit_mb is None or found is None or found <= limit_mb * 1e6:
        return []
    return [f"{what} {found / 1e6:.4g} MB, budget {limit_mb:g} MB"]
