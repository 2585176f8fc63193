"""Has the workers of a forked run forked as well."""

from __future__ import annotations

import shlex
import sys

from forked import python
from pytest_modelformats.run.workers import process

# These import PyTorch; of the others' runtimes, one starts a thread while it is imported and the rest import quickly.
WITH_TORCH = ("convert", "torch")


def fork() -> None:
    """From now on this process's workers are forked, where they use its own Python."""
    command, own_id, status = process._gateway_spec, process.Worker._process_id, process._exit_status
    clients: dict[int, int] = {}

    def spec(settings: process.WorkerSettings) -> str:
        made, end = command(settings), shlex.quote(sys.executable)
        if settings.environment.python:
            return made
        assert made.endswith(end)
        kind = "torch" if settings.runtime in WITH_TORCH else "worker"
        return made.removesuffix(end) + shlex.join(python(kind))

    def process_id(self: process.Worker) -> int:
        pid = own_id(self)
        clients[pid] = self._gateway._io.popen.pid
        return pid

    process._gateway_spec = spec
    process.Worker._process_id = process_id
    # The worker is no child of this process; its client is, and ends in the same way.
    process._exit_status = lambda pid: status(clients.get(pid, pid))
