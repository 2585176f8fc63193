"""What endangers the process it happens in."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

FLOOD_BYTES = 200_000_000


def read_address_zero() -> Any:
    """End by SIGSEGV, as native code does."""
    return ctypes.string_at(0)


def exit_with_zero() -> Any:
    """End the process without a word, with the status of success."""
    os._exit(0)


def kill() -> Any:
    """End by SIGKILL, as the kernel does when memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)


def hang(who: str) -> Any:
    """Start a child that sleeps, note its number in ``$MINIATURES_FOLDER``, ignore SIGTERM and sleep too."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
    Path(os.environ["MINIATURES_FOLDER"], f"{who}.pids").write_text(f"{os.getpid()} {child.pid}")
    time.sleep(3600)


def allocate() -> Any:
    """Take memory, and use it, until there is none."""
    import numpy as np

    hoard = []
    while True:
        hoard.append(np.ones(1 << 22))


def abort_without_memory() -> Any:
    """End as C++ does when nobody catches a failed allocation."""
    os.write(2, b"terminate called after throwing an instance of 'std::bad_alloc'\n  what():  std::bad_alloc\n")
    os.abort()


def flood() -> None:
    """Print more than anyone wants to keep."""
    line = b"W miniature.cc:17] this warning is printed once per multiplication\n" * 1000
    for _ in range(FLOOD_BYTES // len(line)):
        os.write(1, line)
