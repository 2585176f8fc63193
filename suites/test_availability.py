"""Which planned cells cannot run here, and why."""

import pytest


@pytest.mark.modelformats(cells="not-run")
def test_runs_here(mf_artifact):
    """Every planned cell runs on this machine, or the reason why not is on record."""
    assert mf_artifact.path.exists()
