"""The shipped suites: where they are, their order on a cell, and which of them a run has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_modelformats.source.shipped import shipped

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_modelformats.settings.nouns import Settings

# The order in which the suites run on a cell. Those that share its first session come before latency closes it,
# and history last of the judging ones, as what it feeds may spoil that session; latency is measured in a session
# that has not run anything yet, so it comes before determinism uses that one.
ORDER = (
    "availability",
    "contract",
    "parity",
    "batch",
    "permutation",
    "unmodified",
    "concurrency",
    "history",
    "fuzz",
    "latency",
    "determinism",
    "threads",
    "throughput",
    "comparison",
    "regression",
)
# Part of a run only where there is something to compare with.
COMPARING = frozenset({"comparison", "regression"})
# Run only where they are asked for, and by what: threads opens two sessions more, which torch.compile needs seconds
# for; throughput measures for seconds per batch size and number of requests.
OPT_IN = {
    "threads": ("--mf-suites threads",),
    "throughput": ("--mf-batch", "--mf-concurrency", "--mf-suites throughput"),
}


def suites() -> dict[str, Path]:
    """The shipped suites by name, in the order in which they run on a cell."""
    order = ORDER
    found = {path.stem.removeprefix("test_"): path for path in sorted(shipped("suites").glob("test_*.py"))}
    return {name: found[name] for name in (*order, *(n for n in found if n not in order)) if name in found}


def default_suites(settings: Settings) -> set[str]:
    """The suites that run where none is named: all but the opt-in ones, and fuzz where it has a budget."""
    from pytest_modelformats.checks.fuzz import search as fuzz

    without = {*OPT_IN, *(() if fuzz.budget(settings) else ("fuzz",)), *COMPARING}
    asked = {"throughput"} if settings.batch or settings.concurrency else set()
    return (set(suites()) - (without - asked)) | comparing_suites(settings)


def comparing_suites(settings: Settings) -> frozenset[str]:
    """The suites that compare: with a baseline, or between environments; none where there is neither."""
    return COMPARING if settings.baseline or settings.environments else frozenset()
