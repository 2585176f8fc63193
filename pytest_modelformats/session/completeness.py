"""Whether a run looked at everything that is planned: what it did not look at, it must not judge."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_modelformats.settings.options import NARROWS, given

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_modelformats.settings.nouns import Settings

# The first test of a cell that was deselected.
LEFT_OUT: pytest.StashKey[str] = pytest.StashKey()

# pytest's own ways to leave tests out, by the attribute of ``config.option``. The first ones leave them out
# as files, before they are collected; of the others pytest tells, but not to the controller of pytest-xdist.
_BEFORE_COLLECTION = {"lf": "--lf", "stepwise": "--stepwise"}
_AFTER_IT = {"keyword": "-k", "markexpr": "-m", "deselect": "--deselect"}


def partial_because(config: pytest.Config, settings: Settings, cells: Sequence[str], planned: int) -> str:
    """What makes the run a partial one, "" where it is whole; ``cells`` are the selected ones of ``planned``."""
    if settings.suites:
        return "only some suites were chosen (--mf-suites)"
    distributed = config.pluginmanager.has_plugin("dsession")
    ways = {**_BEFORE_COLLECTION, **(_AFTER_IT if distributed else {})}
    left_out = [flag for name, flag in ways.items() if getattr(config.option, name, None)]
    if left_out:
        return f"{' and '.join(left_out)} leaves tests out"
    if LEFT_OUT in config.stash:
        return f"the test {config.stash[LEFT_OUT]} was deselected"
    if any("::" in str(arg) and not str(arg).startswith("-") for arg in config.invocation_params.args):
        return "single tests were named"
    if len(cells) < planned:
        return f"{len(cells)} of {planned} planned cells were selected"
    return ""


def narrowed_by(config: pytest.Config) -> list[str]:
    """The options of the command line that choose which cells there are."""
    return [f"--mf-{key.replace('_', '-')}" for key in given(config.option) if key in NARROWS]
