"""The workers of a run: one per (environment, runtime), started on demand, closed when memory is short."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pytest_modelformats.convert.code_digest import NOT_SHIPPED, place_of
from pytest_modelformats.errors import ConfigurationError
from pytest_modelformats.run.workers.process import Worker, WorkerSettings, _error_of
from pytest_modelformats.schema import package

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_modelformats.schema import Environment

# Below this share of free memory, workers that are not in use are closed before another one starts.
MEMORY_PRESSURE = 0.15


class Asked(Protocol):
    """What can be asked: a worker process, or this process under ``--mf-isolate none``."""

    dead: bool

    def request(
        self, op: str, timeout_s: float, progress: Callable[[float], None] | None = None, **arguments: Any
    ) -> dict[str, Any]:
        """Answer a request or raise the error that it ended in."""
        ...

    def preload(self, modules: tuple[str, ...]) -> None:
        """Import modules ahead of their use."""
        ...

    def settle(self, timeout_s: float) -> None:
        """Wait until everything asked for has been done."""
        ...

    def close(self) -> None:
        """Free what is held."""
        ...


class InProcess:
    """Answers in the pytest process itself, for a debugger: no time-outs, no protection."""

    dead = False

    def __init__(self) -> None:
        """Hold a server of our own."""
        from pytest_modelformats.run.workers.server import Server

        self._server = Server()

    def request(
        self, op: str, timeout_s: float, progress: Callable[[float], None] | None = None, **arguments: Any
    ) -> dict[str, Any]:
        """Answer at once; ``timeout_s`` and ``progress`` have no meaning here."""
        del timeout_s, progress
        answer = self._server.handle({"op": op, **arguments})
        if answer["ok"]:
            return answer
        raise _error_of(answer)

    def preload(self, modules: tuple[str, ...]) -> None:
        """Do nothing: imports happen where they are needed."""

    def settle(self, timeout_s: float) -> None:
        """Nothing is going on."""

    def close(self) -> None:
        """Nothing to close."""


class Pool:
    """Hands out workers by (environment, runtime)."""

    def __init__(self, *, memory_bytes: int, threads: int, isolate: str, compiled: str = "") -> None:
        """Create the private folder that tensors travel through; no process yet.

        ``compiled`` is a folder in which compilers inside the runtimes keep their work from run to run.
        """
        self.folder = Path(tempfile.mkdtemp(prefix="modelformats-"))
        self._memory_bytes = memory_bytes
        self._threads = threads
        self._isolate = isolate
        self._compiled = compiled
        self._workers: dict[tuple[str, str], Asked] = {}
        self._apart: list[Asked] = []
        self.started = 0

    def get(self, environment: Environment, runtime: str, preload: tuple[str, ...] = ()) -> Asked:
        """The worker for a runtime in an environment, started if there is none alive."""
        key = ("", "") if self._isolate == "none" else (environment.name, runtime)
        worker = self._workers.get(key)
        if worker is None or worker.dead:
            worker = self._start(environment, runtime)
            self._workers[key] = worker
            if preload:
                worker.preload(preload)
        return worker

    def fresh(self, environment: Environment, runtime: str) -> Asked:
        """A worker of its own, that no other request will meet; whoever asked for it closes it."""
        worker = self._start(environment, runtime)
        self._apart.append(worker)
        return worker

    def settle(self, timeout_s: float) -> None:
        """Wait for imports that are still going on, so that they disturb no measurement."""
        for worker in self._workers.values():
            if not worker.dead:
                worker.settle(timeout_s)

    def _start(self, environment: Environment, runtime: str) -> Asked:
        if self._isolate == "none":
            return InProcess()
        if environment.python and shutil.which(environment.python) is None:
            msg = f"the environment '{environment.name}' has no interpreter at {environment.python}; correct its path"
            raise ConfigurationError(msg)
        self._relieve()
        self.started += 1
        shipped = self._shipped() if environment.python else ""
        return Worker(
            WorkerSettings(
                environment, runtime, str(self.folder), self._memory_bytes, self._threads, shipped, self._compiled
            )
        )

    def _relieve(self) -> None:
        """Close the workers that have been idle longest while free memory is short."""
        import psutil

        idle = sorted(
            (w for w in self._workers.values() if isinstance(w, Worker) and not w.dead), key=lambda w: w.last_used
        )
        for worker in idle:
            memory = psutil.virtual_memory()
            if memory.available > MEMORY_PRESSURE * memory.total:
                return
            worker.close()

    def _shipped(self) -> str:
        """A folder holding this package's source alone, for interpreters that do not have it."""
        target = self.folder / "source"
        if not target.exists():
            left = {str(place_of(name)) for name in NOT_SHIPPED}
            data = shutil.ignore_patterns("__pycache__", "suites", "fixtures", "*.json")

            def ignored(folder: str, names: list[str]) -> set[str]:
                return {*data(folder, names), *(n for n in names if str(Path(folder, n)) in left)}

            shutil.copytree(package.folder(), target / package.NAME, ignore=ignored)
        return str(target)

    def close(self) -> None:
        """End every worker and remove the private folder."""
        for worker in (*self._workers.values(), *self._apart):
            worker.close()
        self._workers.clear()
        self._apart.clear()
        shutil.rmtree(self.folder, ignore_errors=True)
