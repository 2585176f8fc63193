"""Processes that need not import: each is forked from one that has imported already, and is a process of its own.

Most seconds of an inner run are imports: pytest and this package in its own process, PyTorch in each worker. A mother
process (``mother.py``) imports them once for all tests. ``client.py`` stands where ``python`` stood: it sends its
arguments, its folder, its variables and its three files to the mother, a child of whom becomes the process that was
asked for, and it ends as that one ends. Nothing but freshly imported modules is there before: no run leaves anything to
another. Where a variable differs that a library may have read while it was imported, the client starts Python itself.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
# Tells the processes of pytest-xdist, and inner runs, where the mother listens.
PLACE = "MODELFORMATS_TESTS_FORKED"
# Where it is set, workers are started by themselves: somebody looks at a clock or at memory in them.
MEASURED = "MODELFORMATS_TESTS_MEASURED"
# The variables of this process when its tests began.
VARIABLES = dict(os.environ)
POSSIBLE = sys.platform == "linux" and hasattr(os, "pidfd_open") and hasattr(socket, "send_fds")


class Mother:
    """The process that others are forked from. It ends, with all its children, when it is closed or its owner ends."""

    def __init__(self) -> None:
        self._folder = tempfile.mkdtemp(prefix="forked-")
        place = str(Path(self._folder, "mother"))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "forked.mother", place],
            cwd=HERE.parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # what is typed at the terminal is not for it
        )
        assert self._process.stdout.readline() == b"ready\n"
        os.environ[PLACE] = place

    def close(self) -> None:
        del os.environ[PLACE]
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        shutil.rmtree(self._folder)


def python(kind: str) -> tuple[str, ...]:
    """The beginning of a command that stands where ``python`` would; ``kind`` says what has been imported."""
    if PLACE not in os.environ or (kind != "pytest" and MEASURED in os.environ):
        return (sys.executable,)
    return (sys.executable, "-I", "-S", str(HERE / "client.py"), os.environ[PLACE], kind)
