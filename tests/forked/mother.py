"""Forks the processes that clients ask for, each from a nursery: a child that has imported what its kind needs.

Single-threaded throughout, as everything that forks has to be. Ends with all that it has forked when its standard input
does.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import marshal
import os
import pkgutil
import random
import runpy
import selectors
import signal
import socket
import sys
import tempfile
import types
from typing import Any

WORKER = ("numpy", "runpy", "inspect", "pytest_modelformats.run.workers.server", "pytest_modelformats.measure")
# What is imported before the fork. Modules that start a thread cannot be: onnxruntime does.
MODULES = {
    "pytest": (
        *("pytest", "asyncio", "execnet", "filelock", "jinja2", "numpy", "packaging.requirements", "platformdirs"),
        *("psutil", "rich.console", "rich.table", "sqlalchemy", "sqlalchemy.dialects.sqlite", "forked.workers"),
    ),
    "worker": WORKER,
    "torch": (
        *WORKER,
        *("torch", "torch._dynamo", "torch.export", "torch._inductor.compile_fx", "torch.onnx"),
        *("onnx", "onnx.reference", "onnxscript", "torch.onnx._internal.exporter._core"),
    ),
}
# What a worker is started with unless --mf-threads says otherwise.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
# The beginnings of variables that are read when they are needed: a process has its client's. All others are the
# mother's own, or the process is not forked.
TAKEN = (
    *("PYTHONPATH", "HOME", "USERPROFILE", "PWD", "OLDPWD", "PATH", "TMPDIR", "COLUMNS", "LINES", "_", "SHLVL"),
    *("GITHUB_", "MF_", "MINIATURES_", "MODELFORMATS_", "PGPASS", "PIP_", "PROBE_", "PYTEST_", "UV_"),
    *("PY_COLORS", "TOX_ENV_DIR", "TORCHINDUCTOR_CACHE_DIR"),
)


def matter(variables: dict[str, str]) -> dict[str, str]:
    """The variables that a library may have read while it was imported."""
    return {name: value for name, value in variables.items() if not name.startswith(TAKEN)}


def import_for(kind: str) -> None:
    """Import what processes of a kind need; nothing else is done that they could inherit."""
    os.environ.update(ONE_THREAD)  # in pytest's own process numpy's threads only stand in the way
    if kind != "pytest":
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment] # as a worker's own start has it
    for name in MODULES[kind]:
        importlib.import_module(name)
    if kind == "pytest":
        from _pytest.config import default_plugins

        import pytest_modelformats

        for name in default_plugins:
            importlib.import_module(f"_pytest.{name}")
        for module in pkgutil.walk_packages(pytest_modelformats.__path__, "pytest_modelformats."):
            if not module.name.endswith(".bootstrap"):  # a script for execnet
                importlib.import_module(module.name)
    tasks = os.listdir("/proc/self/task")  # noqa: PTH208 - wanted is their number
    assert len(tasks) == 1, f"what is imported for {kind} has started a thread"
    gc.collect()
    gc.freeze()


class Nursery:
    """Forks a process for each message that comes from the mother; ends with all of them when she does."""

    def __init__(self, kind: str, mother: socket.socket) -> None:
        import_for(kind)
        self._mother = mother
        self._selector = selectors.DefaultSelector()
        self._selector.register(mother, selectors.EVENT_READ)
        self._children: dict[int, tuple[int, socket.socket]] = {}  # by the file that stands for the process

    def serve(self) -> dict[str, Any]:
        """Answer for ever; returns in a child alone, with what was asked for."""
        while True:
            for key, _ in self._selector.select():
                if key.data is not None:
                    self._ended(key.data)
                elif asked := self._fork():
                    return asked

    def _fork(self) -> dict[str, Any] | None:
        message, files, _, _ = socket.recv_fds(self._mother, 1 << 20, 4)
        if not message:
            for pid, _ in self._children.values():
                kill(pid)
                os.waitpid(pid, 0)
            os._exit(0)
        client = socket.socket(fileno=files.pop(0))
        pid = os.fork()
        if pid:
            close(files)
            pidfd = os.pidfd_open(pid)
            self._children[pidfd] = (pid, client)
            for watched in (pidfd, client):
                self._selector.register(watched, selectors.EVENT_READ, pidfd)
            with contextlib.suppress(OSError):
                client.sendall(b"y")
            return None
        self._selector.close()
        for opened in (self._mother, client, *(other for _, other in self._children.values())):
            opened.close()
        close(self._children)
        for number, file in enumerate(files):
            os.dup2(file, number)
        close(files)
        return marshal.loads(message)

    def _ended(self, pidfd: int) -> None:
        """A process has ended, which its client is told; or its client has, and then the process is ended."""
        if pidfd not in self._children:
            return  # both at once
        pid, client = self._children[pidfd]
        ended, status = os.waitpid(pid, os.WNOHANG)
        if not ended:
            kill(pid)
            _, status = os.waitpid(pid, 0)
        for watched in (pidfd, client):
            self._selector.unregister(watched)
        with contextlib.suppress(OSError):
            client.sendall(str(os.waitstatus_to_exitcode(status)).encode())
        client.close()
        os.close(pidfd)
        del self._children[pidfd]


def close(files: Any) -> None:
    """Close files by their numbers."""
    for file in files:
        os.close(file)


def kill(pid: int) -> None:
    """End a process, and its group where it leads one."""
    for end in (os.killpg, os.kill):
        with contextlib.suppress(OSError):
            end(pid, signal.SIGKILL)


class Mother:
    """Gives every client to the nursery of its kind, which is forked when the first of the kind comes."""

    def __init__(self, listening: socket.socket) -> None:
        self._listening = listening
        self._nurseries: dict[str, socket.socket] = {}
        self._processes: list[int] = []
        self._selector = selectors.DefaultSelector()
        for watched in (0, listening):
            self._selector.register(watched, selectors.EVENT_READ)

    def serve(self) -> Nursery:
        """Answer until the standard input ends; returns in a new nursery alone."""
        while all(key.fileobj != 0 for key, _ in self._selector.select()):
            client, _ = self._listening.accept()
            files: list[int] = []
            try:
                length, files, _, _ = socket.recv_fds(client, 4, 3)
                message = b""
                while len(message) < int.from_bytes(length, "big") and (more := client.recv(1 << 20)):
                    message += more
                asked = marshal.loads(message)
            except (EOFError, OSError, TypeError, ValueError):  # a client that was killed before it had said all
                client.close()
                close(files)
                continue
            kind = asked["kind"]
            if matter(asked["variables"]) == matter(dict(os.environ)) | ({} if kind == "pytest" else ONE_THREAD):
                if kind not in self._nurseries and (mother := self._fork(kind)):
                    client.close()
                    close(files)
                    return Nursery(kind, mother)
                with contextlib.suppress(OSError):  # a nursery that could not import: the client starts Python itself
                    socket.send_fds(self._nurseries[kind], [message], [client.fileno(), *files])
            client.close()
            close(files)
        for nursery in self._nurseries.values():
            nursery.close()
        for process in self._processes:
            os.waitpid(process, 0)
        os._exit(0)

    def _fork(self, kind: str) -> socket.socket | None:
        """Fork a nursery; returns in it alone what leads to its mother."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        process = os.fork()
        if process:
            theirs.close()
            self._nurseries[kind] = ours
            self._processes.append(process)
            return None
        self._selector.close()
        for opened in (self._listening, ours, *self._nurseries.values()):
            opened.close()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        return theirs


def become(asked: dict[str, Any], path: list[str]) -> None:
    """Be the process that ``python ARGUMENTS…`` would have been."""
    os.environ.clear()
    os.environ.update(asked["variables"])
    os.chdir(asked["folder"])
    tempfile.tempdir = None
    random.seed()
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed()
    for name, number, mode in (("stdin", 0, "rb"), ("stdout", 1, "wb"), ("stderr", 2, "wb")):
        before = getattr(sys, name)
        raw = open(number, mode, closefd=False)  # noqa: SIM115 - for as long as the process lives
        new = io.TextIOWrapper(raw, before.encoding, before.errors, line_buffering=number == 2)
        setattr(sys, name, new)
        setattr(sys, f"__{name}__", new)
    option, code, *arguments = [a for a in asked["arguments"] if a != "-u"]
    first = "" if option == "-c" else asked["folder"]
    sys.path[:] = [first, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)), *path]
    sys.argv = [option, *arguments]
    if asked["kind"] == "pytest":
        from forked import workers

        workers.fork()
    if option == "-c":
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(code, vars(main))
    else:
        assert option == "-m"
        runpy.run_module(code, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    os.environ.pop("PYTHONPATH", None)
    own_path = sys.path[1:]
    server = socket.socket(socket.AF_UNIX)
    server.bind(sys.argv[1])
    server.listen(64)
    os.write(1, b"ready\n")
    become(Mother(server).serve().serve(), own_path)
