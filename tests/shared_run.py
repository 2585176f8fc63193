"""An inner run that several tests read: the ``run`` fixture's, for a fixture that outlives a test."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import forked
from inner_run import ended


@dataclass(frozen=True)
class Told:
    """The end of a process, by the names of pytester's result."""

    ret: int
    outlines: list[str]
    errlines: list[str]


def shared_run(folder, *args, plugins=(), paths=(), timeout=300, **environment):
    """Run pytest in a folder with this plugin and those in ``plugins``; ``paths`` are where its modules are found.

    Nothing of the surrounding run's options or plugins takes part. ``environment`` is set for this run alone.
    """
    chosen = [argument for name in ("modelformats", *plugins) for argument in ("-p", name)]
    command = [*forked.python("pytest"), "-m", "pytest", "-p", "no:cacheprovider", *chosen, *map(str, args)]
    own = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **environment}
    own["PYTHONPATH"] = os.pathsep.join(map(str, (folder, *paths)))
    own.pop("PYTEST_ADDOPTS", None)
    done = subprocess.run(command, cwd=folder, env=own, capture_output=True, text=True, timeout=timeout, check=False)
    told = Told(done.returncode, done.stdout.splitlines(), done.stderr.splitlines())
    return ended(told, Path(folder) / "reports")
