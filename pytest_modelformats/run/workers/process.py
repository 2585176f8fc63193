"""One worker process: started by execnet, asked one thing at a time, killed as a group."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_modelformats.errors import BY_NAME, ConvertError, OutOfMemory, WorkerCrashed, WorkerTimeout

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_modelformats.schema import Environment

_CHUNK_BYTES = 4096
_TAIL_BYTES = 65536
# Written by us behind whatever a worker has printed: up to here it has been read.
_END = b"\x04"
_TICK_S = 0.5
# Where compilers that run inside a runtime keep what they compiled, unless the user has chosen a folder.
_COMPILER_CACHES = ("TORCHINDUCTOR_CACHE_DIR",)
_FOREIGN_UNSET = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PYTHONSTARTUP")


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """How a worker is started.

    ``folder`` is private to this run, ``compiled`` kept from run to run. ``memory_bytes`` 0 means no limit.
    """

    environment: Environment
    runtime: str
    folder: str
    memory_bytes: int
    threads: int
    shipped: str
    compiled: str = ""


class WorkerFailure(ConvertError):
    """An exception that no error of ours stands for; ``trace`` is the worker's traceback."""

    def __init__(self, message: str, trace: str) -> None:
        """Keep the traceback beside the sentence."""
        super().__init__(message)
        self.trace = trace


class _Output:
    """Reads what a worker prints and keeps only the end, so that a flood costs no memory or disk."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path, 0o600)
        self._fd = os.open(path, os.O_RDWR)
        self._tail = b""
        # Written by us behind what an earlier request has printed, which may be read long after its answer came.
        self._mark = os.urandom(16)
        self._marks_written = self._marks_read = 0
        self._read_on = threading.Condition()
        self._open = True
        self._thread = threading.Thread(target=self._read, name="modelformats-output", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while True:
            chunk = os.read(self._fd, _CHUNK_BYTES)
            with self._read_on:
                *earlier, self._tail = (self._tail + chunk).split(self._mark)
                self._tail = self._tail[-_TAIL_BYTES:]
                self._marks_read += len(earlier)
                self._read_on.notify_all()
            if not self._open and _END in chunk:
                return

    def text(self) -> str:
        """What the latest request has printed; nothing where the reading has not come to it within a second."""
        with self._read_on:
            up_to_date = self._read_on.wait_for(lambda: self._marks_read == self._marks_written, 1.0)
            return self._tail.decode("utf-8", "replace").removesuffix(_END.decode()) if up_to_date else ""

    def forget(self) -> None:
        """Let go of what was printed so far: it belongs to an earlier request."""
        if self._open:
            self._marks_written += 1
            os.write(self._fd, self._mark)

    def close(self) -> None:
        if self._open:
            self._open = False
            os.write(self._fd, _END)
            self._thread.join(1.0)
            os.close(self._fd)


class Worker:
    """A started worker. Requests are answered in order; after a failure of the process it is ``dead``."""

    def __init__(self, settings: WorkerSettings) -> None:
        """Start the process; returns before its imports are done.

        Raises: WorkerCrashed where the interpreter does not start.
        """
        import execnet

        self.settings = settings
        self.dead = False
        self.last_used = time.monotonic()
        self._pending = 0
        name = settings.runtime.replace("/", "_")
        fifo = Path(settings.folder) / f"{name}-{os.getpid()}-{time.monotonic_ns()}.out"
        self._output = _Output(fifo)
        self._group = execnet.Group()
        try:
            self._gateway = self._group.makegateway(_gateway_spec(settings))
        except (OSError, EOFError) as error:
            self._output.close()
            python = settings.environment.python or sys.executable
            msg = f"the {settings.runtime} worker ended while it started under {python} ({error})"
            raise WorkerCrashed(msg) from None
        bootstrap = Path(__file__).with_name("bootstrap.py").read_text(encoding="utf-8")
        self.pid = 0
        self.python = ""
        setup = {
            "log": str(fifo),
            "memory_bytes": settings.memory_bytes,
            "path": [settings.shipped] if settings.environment.python else [*_own_path()],
            "shipped": bool(settings.environment.python),
        }
        try:
            self._channel = self._gateway.remote_exec(bootstrap)
            self._channel.send(setup)
        except OSError:
            raise self._death("starting") from None

    def preload(self, modules: tuple[str, ...]) -> None:
        """Have modules imported in the background; the answer is collected with the next request."""
        with contextlib.suppress(OSError):  # a worker that is dead already is told of by the next request
            self._channel.send({"op": "preload", "modules": list(modules)})
            self._pending += 1

    def request(
        self, op: str, timeout_s: float, progress: Callable[[float], None] | None = None, **arguments: Any
    ) -> dict[str, Any]:
        """Ask for something and wait for the answer.

        Raises: WorkerTimeout, WorkerCrashed, OutOfMemory when the process did not answer;
        otherwise the error that the worker named.
        """
        self.last_used = time.monotonic()
        started = time.monotonic()
        self._catch_up(started, timeout_s, progress)
        self._output.forget()
        try:
            self._channel.send({"op": op, **arguments})
        except OSError:
            raise self._death(op) from None
        answer = self._receive(started, timeout_s, progress, op)
        self.last_used = time.monotonic()
        if answer["ok"]:
            return answer
        raise _error_of(answer)

    def settle(self, timeout_s: float) -> None:
        """Wait until the imports asked for by :meth:`preload` are done."""
        self._catch_up(time.monotonic(), timeout_s, None)

    def _catch_up(self, started: float, timeout_s: float, progress: Callable[[float], None] | None) -> None:
        if not self.pid:
            hello = self._receive(started, timeout_s, progress, "starting")
            self.pid, self.python = hello["pid"], hello["python"]
        while self._pending:
            self._receive(started, timeout_s, progress, "importing")
            self._pending -= 1

    def _receive(
        self, started: float, timeout_s: float, progress: Callable[[float], None] | None, op: str
    ) -> dict[str, Any]:
        while True:
            elapsed = time.monotonic() - started
            left = timeout_s - elapsed
            if left <= 0:
                self.kill()
                msg = (
                    f"'{op}' in the {self.settings.runtime} worker gave no answer within {timeout_s:g} s and was "
                    "killed; allow more with --mf-timeout"
                )
                raise WorkerTimeout(msg)
            try:
                # Without someone to tell there is nothing to wake up for: a timed worker must not be disturbed.
                answer: dict[str, Any] = self._channel.receive(min(left, _TICK_S) if progress else left)
            except self._channel.TimeoutError:
                if progress is not None:
                    progress(elapsed)
            except (EOFError, self._channel.RemoteError) as error:
                raise self._death(op, "" if isinstance(error, EOFError) else str(error)) from None
            else:
                return answer

    def _death(self, op: str, said: str = "") -> WorkerCrashed | OutOfMemory:
        """Name how the process ended."""
        status = _exit_status(self._process_id())
        self.kill()
        tail = (said or self._output.text()).strip()
        where = f"'{op}' in the {self.settings.runtime} worker"
        last = f"; it last printed: {tail.splitlines()[-1][:300]}" if tail else ""
        if status is not None and status < 0:
            name = signal.Signals(-status).name
            if -status == signal.SIGKILL:
                return OutOfMemory(f"{where} was ended by SIGKILL, which the kernel sends when memory runs out{last}")
            if -status == signal.SIGABRT and "bad_alloc" in tail:
                return OutOfMemory(f"{where} was ended by {name} after a failed allocation{last}")
            return WorkerCrashed(f"{where} was ended by {name}{last}")
        how = f"exited with status {status}" if status is not None else "ended"
        return WorkerCrashed(f"{where} {how} without answering{last}")

    def _process_id(self) -> int:
        return self.pid or int(self._gateway._io.popen.pid)  # noqa: SLF001 - before the worker has said its number

    def output(self) -> str:
        """The end of what the worker printed."""
        return self._output.text()

    def kill(self) -> None:
        """End the process and everything that it started."""
        self.dead = True
        pid = self._process_id()
        for end in (os.killpg, os.kill):
            with contextlib.suppress(OSError):
                end(pid, signal.SIGKILL)
        self._release()

    def close(self) -> None:
        """End the process in an orderly way, or by force if that takes long."""
        if not self.dead:
            self.kill()

    def _release(self) -> None:
        with contextlib.suppress(OSError):
            self._gateway._io.wait()  # noqa: SLF001 - reaps the child; execnet offers it only for whole groups
        with contextlib.suppress(OSError):
            self._group.terminate(timeout=1.0)
        self._output.close()


def _own_path() -> list[str]:
    """``sys.path`` of this interpreter: a worker of its own environment sees what pytest sees."""
    return [p for p in sys.path if p and "__pycache__" not in p]


def _gateway_spec(settings: WorkerSettings) -> str:
    """The execnet specification: interpreter, threads, compilers' caches, and for a foreign one nothing of ours."""
    threads = [f"{name}={settings.threads}" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")]
    command = ["env"]
    if settings.environment.python:
        for name in _FOREIGN_UNSET:
            command += ["-u", name]
    command += threads
    if settings.compiled:
        command += [f"{name}={settings.compiled}" for name in _COMPILER_CACHES if name not in os.environ]
    command += [settings.environment.python or sys.executable]
    if settings.environment.python:
        command += ["-E", "-s"]
    return "popen//execmodel=main_thread_only//python=" + shlex.join(command)


def _exit_status(pid: int) -> int | None:
    """The exit status of a child without reaping it, negative for a signal; ``None`` if it cannot be told."""
    if not hasattr(os, "waitid"):
        return None
    for _ in range(50):
        try:
            ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return None
        if ended is not None:
            return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
        time.sleep(0.1)
    return None


def _error_of(answer: dict[str, Any]) -> Exception:
    cls = BY_NAME.get(answer["error"])
    return WorkerFailure(answer["message"], answer["traceback"]) if cls is None else cls(answer["message"])
