"""The folders of environments in the cache: where each is, what is in it, how it is made.

A virtual environment cannot be moved, so it is built where it stays: under a lock, and the file that says what is in
it is written last. One without that file, or with other packages than it says, is made again.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shlex
import shutil
import sys
import sysconfig
import time
from functools import cache
from typing import TYPE_CHECKING, Any

from pytest_modelformats.convert.cache import key_of
from pytest_modelformats.errors import CacheError, EnvironmentUnavailable
from pytest_modelformats.run.environments import install
from pytest_modelformats.settings import environments

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytest_modelformats.settings.nouns import EnvironmentEntry, Settings

FOLDER = "environments"
MARKER = "modelformats.json"
_KEY_DIGITS = 32
_LOCK_TICK_S = 0.5
# Asked of the interpreter itself: it alone knows what it finds.
_BASE = (
    "import json, platform, sys, sysconfig; print(json.dumps([platform.python_version(), "
    "sys.implementation.name, sysconfig.get_platform(), sys.executable]))"
)
INSTALLED = (
    "import json, platform; from importlib.metadata import distributions; print(json.dumps([platform.python_version(), "
    "{d.metadata['Name']: d.version for d in reversed(list(distributions())) if d.metadata['Name']}]))"
)


def folder_of(settings: Settings, entry: EnvironmentEntry) -> Path:
    """Where an environment is, or will be; raises EnvironmentUnavailable where its interpreter does not start."""
    parts = {"requirements": list(environments.complete(entry)), "base": _base(entry)}
    return settings.cache.absolute() / FOLDER / key_of(parts)[:_KEY_DIGITS]


def folders(settings: Settings) -> list[Path]:
    """Every folder of an environment in the cache, whole or not."""
    root = settings.cache.absolute() / FOLDER
    return sorted(f for f in root.iterdir() if f.is_dir()) if root.is_dir() else []


def _base(entry: EnvironmentEntry) -> list[str]:
    """Version, implementation, platform and path of the interpreter that an environment is based on."""
    if not entry.python:
        own = getattr(sys, "_base_executable", sys.executable)
        return [platform.python_version(), sys.implementation.name, sysconfig.get_platform(), own]
    try:
        return list(_asked(entry.python))
    except install.Failed as failed:
        msg = f"the environment '{entry.name}' cannot be based on {entry.python}: {failed}; correct its 'python'"
        raise EnvironmentUnavailable(msg) from None


@cache
def _asked(python: str) -> tuple[str, ...]:
    return tuple(install.look(shutil.which(python) or python, _BASE))


def locked(folder: Path, timeout_s: float, show: Callable[[float], None] | None) -> Any:
    """The lock of one environment, acquired; raises CacheError."""
    import filelock

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(str(folder.with_name(f".{folder.name}.lock")))
        started = time.monotonic()
        while (elapsed := time.monotonic() - started) < timeout_s:
            with contextlib.suppress(filelock.Timeout):
                return lock.acquire(timeout=_LOCK_TICK_S)
            if show is not None:
                show(elapsed)
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        msg = f"the cache folder {folder.parent} cannot be written ({why}); choose another folder with --mf-cache DIR"
        raise CacheError(msg) from None
    msg = f"another process has held {folder} for {timeout_s:g} s; end it, or wait longer with --mf-timeout"
    raise CacheError(msg)


def make(
    settings: Settings,
    entry: EnvironmentEntry,
    required: tuple[str, ...],
    folder: Path,
    show: Callable[[float], None] | None,
) -> None:
    """Build it in place, the marker last; what a failed one leaves is removed."""
    from pytest_modelformats.record.write import now

    installer = install.find_installer()
    shutil.rmtree(folder, ignore_errors=True)
    base = shutil.which(entry.python) or entry.python or sys.executable
    started = time.monotonic()
    try:
        interpreter = install.make(installer, folder, base, required, settings.timeout_s, show)
        python, versions = install.look(str(interpreter), INSTALLED)
        facts = {
            "requirements": [*map(install.without_secrets, required)],
            "python": python,
            "versions": versions,
            "made_by": installer.name,
        }
        facts |= {"made_at": now(), "seconds": round(time.monotonic() - started, 2), "found": _installed(folder)}
        aside = folder / f".{MARKER}"
        aside.write_text(json.dumps(facts, indent=2, sort_keys=True), encoding="utf-8")
        aside.replace(folder / MARKER)
    except (install.Failed, OSError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise unavailable(entry, installer.name, str(error)) from None
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def unavailable(entry: EnvironmentEntry, installer: str, why: str) -> EnvironmentUnavailable:
    """The error that says what cannot be made, in the installer's own last words, and what to do next."""
    again = f"modelformats env create {shlex.quote(install.without_secrets(written(entry)))}"
    return EnvironmentUnavailable(
        f"the environment '{entry.name}' cannot be made: {installer} says: {why.rstrip('.')}. Correct its "
        f"requirements, or let the package index be reached, and see it alone: {again}"
    )


def written(entry: EnvironmentEntry) -> str:
    """An entry as ``--mf-env`` reads it."""
    return f"{entry.name}={' '.join(text.replace(' ', '') for text in entry.requirements)}"


def _installed(folder: Path) -> list[str]:
    """What is installed, by the folders that say so."""
    return sorted({p.name for p in folder.glob("lib*/python*/site-packages/*.dist-info")})


def read(folder: Path) -> dict[str, Any] | None:
    """What a whole environment says of itself; ``None`` where it is none."""
    try:
        facts: dict[str, Any] = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        whole = os.access(folder / "bin" / "python", os.X_OK) and facts["found"] == _installed(folder)
        return facts if whole and facts["versions"] and facts["python"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
