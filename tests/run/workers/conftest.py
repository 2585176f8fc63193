"""How a worker starts and ends is looked at here."""

from __future__ import annotations

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_itemcollected(item):
    """Each worker of these tests is started as users' are."""
    item.add_marker("genuine")
