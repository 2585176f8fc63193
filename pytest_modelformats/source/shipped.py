"""The suites and fixtures that ship with the package, and the models that it builds itself, one recipe file each.

A recipe is ``fixtures/models/<name>.py``. It defines ``build() -> nn.Module`` and
``INPUTS``, a tuple of input specifications; where they apply, ``DATA`` (the name of a
function in the same file that yields real samples) and ``CLASSIFIER``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_modelformats.schema import package

if TYPE_CHECKING:
    from pathlib import Path


def shipped(name: str) -> Path:
    """The folder ``suites`` or ``fixtures``: inside the installed package, or beside it in a checkout."""
    inside = package.folder() / name
    return inside if inside.is_dir() else package.folder().parent / name


def fixtures_folder() -> Path:
    """``pytest_modelformats/fixtures`` in an installed wheel, ``fixtures`` beside the package in a checkout."""
    return shipped("fixtures")


def fixture_models() -> dict[str, str]:
    """Every recipe by name, as ``path/to/file.py:build``, which ``torch_architecture.import_callable`` resolves."""
    files = sorted((fixtures_folder() / "models").glob("*.py"))
    return {path.stem: f"{path}:build" for path in files if not path.stem.startswith("_")}
