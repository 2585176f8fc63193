"""Run a command while other processes take every core in random bursts: ``python tools/restless.py -- make test``.

A test that judges a clock or memory tighter than a busy machine allows fails under it. The bursts and pauses are
between 0.1 and 1 second, from a seed that is printed; the exit status is the command's.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import subprocess
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

SHORTEST_S, LONGEST_S = 0.1, 1.0


def burn(seed: int, parent: int) -> None:
    """Take one core in bursts until the parent is gone."""
    chance = random.Random(seed)  # noqa: S311 - no secret hangs on it
    while os.getppid() == parent:
        ends = time.monotonic() + chance.uniform(SHORTEST_S, LONGEST_S)
        while time.monotonic() < ends:
            sum(range(1000))
        time.sleep(chance.uniform(SHORTEST_S, LONGEST_S))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command under load and return its exit status."""
    parser = argparse.ArgumentParser(prog="python tools/restless.py", description=main.__doc__)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**31), help="of the bursts")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="that take a core each")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND ...")
    chosen = parser.parse_args(arguments)
    command = [word for index, word in enumerate(chosen.command) if index or word != "--"]
    if not command:
        parser.error("name a command after --, for example: python tools/restless.py -- make test")
    sys.stdout.write(f"{chosen.processes} processes take the cores in bursts (--seed {chosen.seed})\n")
    sys.stdout.flush()
    spawn = multiprocessing.get_context("spawn")
    busy = [
        spawn.Process(target=burn, args=(chosen.seed + i, os.getpid()), daemon=True) for i in range(chosen.processes)
    ]
    for process in busy:
        process.start()
    try:
        return subprocess.call(command)
    finally:
        for process in busy:
            process.terminate()


if __name__ == "__main__":
    sys.exit(main())
