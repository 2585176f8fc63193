"""The folder that this package lies in: what ships beside its code is found from here, wherever the asking file is."""

from __future__ import annotations

from pathlib import Path

import pytest_modelformats

NAME = "pytest_modelformats"


def folder() -> Path:
    """Return the absolute folder of the package."""
    return Path(str(pytest_modelformats.__file__)).resolve().parent
