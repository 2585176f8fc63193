"""A background load that comes and goes: a process that sleeps, then spins, now on one core and now on another."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

QUIET_S, BUSY_S = (0.5, 6.0), (0.3, 4.0)
MEASURED_CORE_SHARE = 0.5


@contextlib.contextmanager
def load(seed: int, *, wanted: bool = True) -> Iterator[None]:
    """The load goes on inside, and ends with it or with this process."""
    if not wanted:
        yield
        return
    child = subprocess.Popen([sys.executable, str(Path(__file__)), str(seed), str(os.getpid())])
    try:
        yield
    finally:
        child.kill()
        child.wait()


def come_and_go(seed: int, parent: int) -> None:
    """Sleep and spin at random, seeded times until the parent has ended."""
    draw = random.Random(seed)
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    block = bytearray(1 << 22)
    while os.getppid() == parent:
        time.sleep(draw.uniform(*QUIET_S))
        until = time.monotonic() + draw.uniform(*BUSY_S)
        if cores:
            # The first allowed core is where one thread is measured (surroundings.py).
            os.sched_setaffinity(0, {cores[0] if draw.random() < MEASURED_CORE_SHARE else cores[-1]})
        while time.monotonic() < until:
            bytes(block)  # goes through the caches, too


if __name__ == "__main__":
    come_and_go(int(sys.argv[1]), int(sys.argv[2]))
