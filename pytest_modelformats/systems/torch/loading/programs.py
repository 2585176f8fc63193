"""TorchScript files and exported programs, opened without running what a hostile one carries."""

from __future__ import annotations

import inspect
import os
import re
import warnings
import zipfile
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pytest_modelformats.errors import SourceError, TrustError
from pytest_modelformats.systems.torch.loading.hostile_pt2 import refuse_code

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# TorchScript cannot reach Python, but these operators read and write files, and these classes are C++ plug-ins.
_SCRIPT_REFUSED = re.compile(
    rb"\b(torch\.save|torch\.from_file|ops\.aten\.(save|from_file)|__torch__\.torch\.classes)\b"
)


def load_scripted(path: Path, *, trust: bool = False) -> Any:
    """Return the TorchScript module of the file, on the CPU.

    Raises: SourceError; TrustError where its code touches files or foreign classes.
    """
    import torch

    try:
        if not trust:
            _refuse_file_access(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.jit.load(path, map_location="cpu")
    except (RuntimeError, ValueError, OSError, zipfile.BadZipFile) as error:
        msg = f"'{path.name}' cannot be loaded as TorchScript ({first_line(error)}); save it again with torch.jit.save"
        raise SourceError(msg) from error


def _refuse_file_access(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            found = _SCRIPT_REFUSED.search(archive.read(name)) if name.endswith(".py") else None
            if found:
                msg = (
                    f"'{path.name}' holds TorchScript that calls {found[0].decode()}, which reaches beyond the model; "
                    "add --mf-trust to allow it for this file"
                )
                raise TrustError(msg)


def load_exported(path: Path, *, trust: bool = False) -> tuple[Any, Any]:
    """Return the exported program of the file and the module made from it.

    Raises: SourceError; TrustError where loading could run code that the file carries.
    """
    import torch

    if not trust:
        refuse_code(path)
    try:
        with warnings.catch_warnings(), _weights_only(force=not trust):
            warnings.simplefilter("ignore")
            program = torch.export.load(path)
            return program, module_of(program)
    except Exception as error:  # torch.export.load raises whatever the reading of the file runs into
        msg = f"'{path.name}' cannot be loaded as an exported program ({first_line(error)}); export and save it again"
        raise SourceError(msg) from error


def module_of(program: Any) -> Any:
    """Make a module of an exported program, without the input guards where torch can leave them out.

    The guards are code of the file, and they refuse the float64 that the truth is evaluated in.
    """
    if "check_guards" in inspect.signature(program.module).parameters:
        return program.module(check_guards=False)
    return program.module()


@contextmanager
def _weights_only(*, force: bool) -> Iterator[None]:
    """Make every ``torch.load`` inside ``torch.export.load`` refuse code, by torch's own switch."""
    before = os.environ.get("TORCH_FORCE_WEIGHTS_ONLY_LOAD")
    if force:
        os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
    try:
        yield
    finally:
        if force and before is None:
            del os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"]
        elif force and before is not None:
            os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = before


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, or its type where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
