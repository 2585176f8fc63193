"""``module:callable`` and paths as users write them, made absolute; and names made safe for a pytest id."""

from __future__ import annotations

import os
import re
from pathlib import Path

from pytest_modelformats.errors import SourceError

_DOTTED = r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*"
_REFERENCE = re.compile(rf"(?P<module>{_DOTTED}|.+\.py):(?P<callable>{_DOTTED})")


def split_reference(text: str) -> tuple[str, str] | None:
    """``(module or file.py, callable)`` of ``module:callable``, ``None`` for anything else."""
    match = _REFERENCE.fullmatch(text)
    return (match["module"], match["callable"]) if match else None


def locate(text: str, base: Path) -> str:
    """An absolute path, or ``module:callable`` as it is, or ``<absolute path>.py:callable``."""
    reference = split_reference(text)
    path = os.path.abspath(base / Path(text).expanduser())  # noqa: PTH100 - resolve() would follow links, whose names are better
    if reference is None or Path(path).exists():
        return path
    module, attribute = reference
    return f"{locate(module, base)}:{attribute}" if module.endswith(".py") else text


def importable(location: str) -> tuple[str, tuple[str, ...]]:
    """``module:callable`` for a located reference, and the folders to look for it in first.

    Raises: SourceError where a ``.py`` file is missing or its name is no module name.
    """
    reference = split_reference(location)
    if reference is None or not reference[0].endswith(".py"):
        return location, ()
    file = Path(reference[0])
    if not file.is_file():
        msg = f"there is no file {file}, from which '{reference[1]}' was to be taken"
        raise SourceError(msg)
    if not file.stem.isidentifier():
        msg = f"'{file.name}' cannot be imported, its name is no module name; rename it to '{safe_name(file.stem)}.py'"
        raise SourceError(msg)
    return f"{file.stem}:{reference[1]}", (str(file.parent),)


def safe_name(text: str) -> str:
    """The text with everything but ASCII letters, digits, ``_`` and ``.`` replaced by ``_``."""
    return re.sub(r"[^A-Za-z0-9_.]", "_", text) or "model"
