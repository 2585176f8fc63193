"""Hands recorded latency samples to pytest-benchmark through its own public fixture.

A worker measured, so pytest-benchmark must not: its ``benchmark`` fixture is given a timer
that replays the samples, through the options that its marker offers to every test. Its
tables, ``--benchmark-*`` options, JSON and comparisons then work as its users expect.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pytest

# The name of pytest-benchmark's entry point, under which pytest knows it and ``-p no:`` disables it.
PLUGIN = "benchmark"


class ReplayedSamples:
    """A timer whose n-th pair of readings lies exactly the n-th sample apart.

    Units: seconds, as pytest-benchmark's timers count.
    """

    __name__ = "recorded_latency"  # what pytest-benchmark's JSON states as the timer

    def __init__(self, samples_ns: Sequence[int]) -> None:
        """Start before the first sample."""
        self._samples_s = [int(sample) / 1e9 for sample in samples_ns]
        self._readings = 0

    def __call__(self) -> float:
        """The next reading: 0 at the start of a round, the sample's duration at its end."""
        index, at_end = divmod(self._readings, 2)
        self._readings += 1
        # From 0 rather than from the last reading: a difference of growing sums would round.
        return self._samples_s[index] if at_end else 0.0


def is_active(config: pytest.Config) -> bool:
    """Whether pytest-benchmark is installed, not disabled by ``-p no:``, and not told to skip."""
    if not config.pluginmanager.hasplugin(PLUGIN):
        return False
    return not config.getoption("benchmark_skip", default=False) or config.getoption("benchmark_only", default=False)


def advertise(item: pytest.Item, fixture: str) -> bool:
    """Make ``--benchmark-only`` and ``--benchmark-skip`` count a test that uses ``fixture`` as a benchmark.

    They look for "benchmark" among ``item.fixturenames``. To be called from
    ``pytest_itemcollected``: what ``pytest_generate_tests`` appends is lost again, because
    pytest computes the closure anew for a test that was parametrized there.
    """
    names = getattr(item, "fixturenames", None)
    if names is None or fixture not in names or not item.config.pluginmanager.hasplugin(PLUGIN):
        return False
    if "benchmark" not in names:
        # At the end: ``fixture`` is set up first, and hands over before pytest asks for "benchmark" itself.
        names.append("benchmark")
    return True


def hand_over(
    request: pytest.FixtureRequest, samples_ns: Sequence[int], group: str, extra_info: Mapping[str, Any]
) -> bool:
    """Record the samples as the benchmark of the requesting test; whether pytest-benchmark took them.

    It does not where it is absent, disabled or skipping, nor where the test has used the
    ``benchmark`` fixture for itself. ``request`` must be of function scope, and a test can
    hand over once. A ``group`` in the test's own ``benchmark`` marker wins over ``group``.
    """
    import pytest

    if not samples_ns or not is_active(request.config):
        return False
    own = request.node.get_closest_marker("benchmark")
    timer = ReplayedSamples(samples_ns)
    # cprofile would profile the replay, and there is nothing in it.
    options = {"group": group, **(own.kwargs if own else {}), "timer": timer, "cprofile": False}
    request.node.add_marker(pytest.mark.benchmark(**options), append=False)
    benchmark = request.getfixturevalue("benchmark")
    # A fixture that something else asked for first has another timer: it would time the empty call below. The
    # attribute is private, but there is no public one; without it the options of the marker are trusted.
    if getattr(benchmark, "_timer", timer) is not timer or not hasattr(benchmark, "pedantic"):
        return False
    benchmark.extra_info.update(extra_info)
    benchmark.pedantic(lambda: None, rounds=len(samples_ns), iterations=1)
    return bool(benchmark.enabled)
