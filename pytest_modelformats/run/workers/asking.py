"""Asking workers: the time-out, the progress shown meanwhile, and the files that tensors travel in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_modelformats.schema import Environment

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import numpy as np

    from pytest_modelformats.run.workers.pool import Asked, Pool

# Every converter lives in the worker of this name: what is timed never shares a process with it.
RUNTIME = "convert"


class Asker:
    """Sends requests to the workers of a pool.

    ``progress(what)`` returns a function that shows the elapsed seconds, or ``None`` when nobody watches.
    """

    def __init__(self, pool: Pool, timeout_s: float, progress: Callable[[str], Callable[[float], None] | None]) -> None:
        """Ask nothing yet."""
        self.pool = pool
        self.timeout_s = timeout_s
        self._progress = progress
        self._folders = 0

    def runtime(self, runtime: str, what: str, op: str, **arguments: Any) -> dict[str, Any]:
        """Ask the worker of a runtime, started if need be; ``what`` says to a person what goes on."""
        return self.worker(self.pool.get(Environment(), runtime, ()), what, op, **arguments)

    def worker(self, worker: Asked, what: str, op: str, **arguments: Any) -> dict[str, Any]:
        """Ask one worker; with an empty ``what`` nothing is shown, so that nothing disturbs it."""
        progress = self._progress(what) if what else None
        return worker.request(op, self.timeout_s, progress, **arguments)

    def watched(self, what: str) -> Callable[[float], None] | None:
        """What shows a person the elapsed seconds of ``what``, ``None`` when nobody watches."""
        return self._progress(what)

    def folder(self, name: str) -> Path:
        """A folder of its own in the run's private one; it is made by whoever writes to it."""
        self._folders += 1
        return self.pool.folder / name / str(self._folders)


def write_feed(feed: Mapping[str, np.ndarray], folder: Path) -> dict[str, str]:
    """Write the tensors of a feed; returns the path of each by name."""
    import numpy as np

    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    for index, (name, array) in enumerate(feed.items()):
        path = folder / f"{index}.npy"
        np.save(path, np.asarray(array, order="C"), allow_pickle=False)
        paths[name] = str(path)
    return paths


def read_arrays(paths: list[str]) -> list[np.ndarray]:
    """The arrays that a worker has written."""
    import numpy as np

    return [np.load(path, allow_pickle=False) for path in paths]
