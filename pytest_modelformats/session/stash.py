"""Where a run keeps what its hooks share, in pytest's own stash."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_modelformats.session.campaign import Campaign
    from pytest_modelformats.session.keeper import Keeper

CAMPAIGN: pytest.StashKey[Campaign] = pytest.StashKey()
KEEPER: pytest.StashKey[Keeper] = pytest.StashKey()
# A wrong setting that collecting met.
REFUSAL: pytest.StashKey[pytest.UsageError] = pytest.StashKey()
