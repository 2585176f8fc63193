"""The process border: how a worker dies is named, what it started dies too, a foreign interpreter stays foreign."""

from __future__ import annotations

import os
import resource
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from places import ROOT

from pytest_modelformats.errors import (
    ConfigurationError,
    MissingDependency,
    NoDevice,
    OutOfMemory,
    RunError,
    Unsupported,
    WorkerCrashed,
    WorkerTimeout,
)
from pytest_modelformats.run.workers.pool import InProcess, Pool
from pytest_modelformats.run.workers.process import WorkerFailure, _Output
from pytest_modelformats.schema import Environment, Source, TensorSpec

# Enough for a worker to start on a machine that is busy with something else.
PATIENCE_S = 60.0
GIGABYTE = 1_000_000_000
# A module of the worker's: what a runtime may do to the process it lives in. One entry per function.
PROBE = '''
import ctypes, os, signal, subprocess, sys, time
import numpy as np


class Session:
    inputs = outputs = ()

    def __init__(self, run, statement=None):
        self.run, self.statement = run, statement or {}

    def close(self):
        pass


def running(run):
    return lambda job: Session(run)


def start_child(feed):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
    open(os.environ["PROBE_FILE"], "w").write(f"{os.getpid()} {child.pid}")
    time.sleep(3600)


def deaf(feed):
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    start_child(feed)


def child_outlives(feed):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
    open(os.environ["PROBE_FILE"], "w").write(f"{os.getpid()} {child.pid}")
    os._exit(3)


def last_words(feed):
    os.write(2, b"first line\\nCHECK failed: rank == 4 (3 vs. 4)\\n")
    os.abort()


def bad_alloc(feed):
    os.write(2, b"terminate called after throwing an instance of 'std::bad_alloc'\\n")
    os.abort()


def whisper(feed):
    os.write(2, b"caught std::bad_alloc, trying again with less\\n")
    return []


def flood(feed):
    line = b"x" * 1023 + b"\\n"
    for _ in range(200_000):
        os.write(1, line)
    os.write(1, b"the end\\n")
    return []


def hoard(feed):
    kept = []
    while True:
        kept.append(np.ones(1 << 22))


def raised(error):
    def run(feed):
        raise error
    return run


def echo(feed):
    return [feed["x"], np.array([os.getpid()])]


open_echo = running(echo)
open_segfault = running(lambda feed: ctypes.string_at(0))
open_abort = running(last_words)
open_bad_alloc = running(bad_alloc)
open_whisper = running(whisper)
open_kill = running(lambda feed: os.kill(os.getpid(), signal.SIGKILL))
open_exit_0 = running(lambda feed: os._exit(0))
open_exit_7 = running(lambda feed: os._exit(7))
open_system_exit = running(raised(SystemExit(5)))
open_hang = running(start_child)
open_deaf = running(deaf)
open_child_outlives = running(child_outlives)
open_flood = running(flood)
open_hoard = running(hoard)
open_torch_oom = running(raised(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 4 bytes")))
open_runtime_error = running(raised(RuntimeError("Got invalid dimensions for input: x")))


def refuse(name):
    def open_session(job):
        from pytest_modelformats import errors
        raise getattr(errors, name)(f"{name} it is")
    return open_session


open_unsupported = refuse("Unsupported")
open_no_device = refuse("NoDevice")


def open_import_error(job):
    import a_library_that_nobody_has


def open_value_error(job):
    raise ValueError("protobuf parsing failed")


def open_facts(job):
    """What this interpreter sees of the world that started it."""
    import importlib.metadata
    import importlib.util

    def installed(name):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            return ""

    names = ("pytest", "execnet", "torch", "torchscript", "openvino", "onnx", "psutil", "pytest_modelformats")
    return Session(None, {
        "path": list(sys.path),
        "prefix": sys.prefix,
        "executable": sys.executable,
        "environment": dict(os.environ),
        "found": [name for name in names if importlib.util.find_spec(name) is not None],
        "installed": [name for name in (*names, "pytest-modelformats", "pluggy", "filelock") if installed(name)],
        "package": sys.modules["pytest_modelformats"].__path__[0],
        "modules": sorted(sys.modules),
        "process_group": os.getpgid(0),
        "pid": os.getpid(),
    })
'''


@pytest.fixture
def probe(tmp_path, monkeypatch):
    """``probe.py`` where workers find it, and the file that it writes process numbers to."""
    folder = tmp_path / "probe"
    folder.mkdir()
    (folder / "probe.py").write_text(PROBE)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PROBE_FILE", str(tmp_path / "pids"))
    return tmp_path / "pids"


@pytest.fixture
def pool(probe):
    with closing(Pool(memory_bytes=0, threads=1, isolate="process")) as pool:
        yield pool


def job(**more):
    """A session job as it crosses the border; the probes look at none of it."""
    plain = {
        "source": Source("m", "m.npz", "mini", "mini").to_json(),
        "artifact": "m.npz", "format": "mini", "artifact_precision": "fp32", "precision": "fp32", "device": "cpu",
        "threads": 1, "inputs": [], "outputs": [], "options": {},
    }  # fmt: skip
    return {**plain, **more}


def opened(worker, entry, timeout_s=PATIENCE_S):
    return worker.request("open", timeout_s, entry=f"probe:{entry}", job=job())


def run(worker, entry, folder, timeout_s=PATIENCE_S):
    """Open a probe, which must succeed, and run it."""
    session = opened(worker, entry)["session"]
    return worker.request("run", timeout_s, session=session, feed={}, folder=str(folder / "out"))


def gone(pid):
    """Whether a process has ended; where nobody reaps orphans it stays as a zombie."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/status").read_text()
        except OSError:
            return True
        if "State:\tZ" in state:
            return True
        time.sleep(0.05)
    return False


def alive(worker, tmp_path):
    """Whether a worker answers with what it was sent."""
    array = np.arange(3.0)
    path = tmp_path / "x.npy"
    np.save(path, array)
    session = opened(worker, "open_echo")["session"]
    answer = worker.request("run", PATIENCE_S, session=session, feed={"x": str(path)}, folder=str(tmp_path / "echo"))
    return np.array_equal(np.load(answer["outputs"][0]), array)


# --- how a process ends


@pytest.mark.parametrize(
    ("entry", "error", "words"),
    [
        ("open_segfault", WorkerCrashed, "'run' in the probe worker was ended by SIGSEGV"),
        ("open_abort", WorkerCrashed, "ended by SIGABRT; it last printed: CHECK failed: rank == 4 (3 vs. 4)"),
        ("open_bad_alloc", OutOfMemory, "ended by SIGABRT after a failed allocation"),
        ("open_kill", OutOfMemory, "ended by SIGKILL, which the kernel sends when memory runs out"),
        ("open_exit_0", WorkerCrashed, "exited with status 0 without answering"),
        ("open_exit_7", WorkerCrashed, "exited with status 7 without answering"),
    ],
)
def test_end_of_a_worker_is_named(pool, tmp_path, entry, error, words):
    """The error says which request ended how; the worker is dead, and the next one is another process."""
    worker = pool.get(Environment(), "probe")
    with pytest.raises(error) as caught:
        run(worker, entry, tmp_path)
    assert words in str(caught.value)
    assert worker.dead
    assert gone(worker.pid)
    another = pool.get(Environment(), "probe")
    assert another is not worker
    assert alive(another, tmp_path)
    assert pool.started == 2


def test_system_exit_is_a_crash_that_the_worker_survives(pool, tmp_path):
    """A runtime that calls ``sys.exit`` has crashed as far as its cell is concerned."""
    worker = pool.get(Environment(), "probe")
    with pytest.raises(WorkerCrashed, match=r"'run' called sys.exit\(5\)"):
        run(worker, "open_system_exit", tmp_path)
    assert alive(worker, tmp_path)


def test_what_an_earlier_request_printed_explains_nothing(pool, tmp_path):
    """A caught bad_alloc of an earlier cell makes a later SIGSEGV no want of memory."""
    worker = pool.get(Environment(), "probe")
    run(worker, "open_whisper", tmp_path)
    with pytest.raises(WorkerCrashed, match=r"SIGSEGV$"):
        run(worker, "open_segfault", tmp_path)


def test_what_is_read_late_still_belongs_to_the_earlier_request(tmp_path):
    """The pipe is read by a thread, which a busy machine may hold up until after the next request was sent."""
    go_on = threading.Event()

    class Late(_Output):
        def _read(self):
            go_on.wait(PATIENCE_S)
            super()._read()

    output = Late(tmp_path / "pipe")
    with closing(output), (tmp_path / "pipe").open("wb", buffering=0) as pipe:
        pipe.write(b"of the earlier request\n")
        output.forget()
        pipe.write(b"of this one\n")
        go_on.set()
        assert output.text() == "of this one\n"


def test_death_at_import_is_named(pool, probe):
    """A module that ends the process while it is imported is told of by the request that needed it."""
    (probe.parent / "probe" / "deadly.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGILL)")
    worker = pool.get(Environment(), "probe")
    with pytest.raises(WorkerCrashed, match="'open' in the probe worker was ended by SIGILL"):
        worker.request("open", PATIENCE_S, entry="deadly:open_session", job=job())


def test_death_before_the_first_answer_is_named(pool, monkeypatch):
    """A worker that was killed while it started is told of, too."""
    worker = pool.get(Environment(), "probe")
    os.kill(worker._gateway._io.popen.pid, 9)
    with pytest.raises(OutOfMemory, match="SIGKILL"):
        opened(worker, "open_echo")


# --- errors that a worker survives


@pytest.mark.parametrize(
    ("entry", "error", "words"),
    [
        ("open_unsupported", Unsupported, "Unsupported it is"),
        ("open_no_device", NoDevice, "NoDevice it is"),
        ("open_import_error", MissingDependency, "a_library_that_nobody_has"),
        ("open_value_error", WorkerFailure, "ValueError: protobuf parsing failed"),
        ("open_runtime_error", RunError, "RuntimeError: Got invalid dimensions for input: x"),
        ("open_torch_oom", OutOfMemory, "can't allocate memory"),
    ],
)
def test_error_crosses_the_border(pool, tmp_path, entry, error, words):
    """An exception becomes its error here, and the worker serves on."""
    worker = pool.get(Environment(), "probe")
    with pytest.raises(error, match=words):
        run(worker, entry, tmp_path)
    assert pool.get(Environment(), "probe") is worker
    assert alive(worker, tmp_path)


def test_traceback_comes_along(pool):
    """What no error of ours stands for brings the worker's traceback."""
    with pytest.raises(WorkerFailure) as caught:
        opened(pool.get(Environment(), "probe"), "open_value_error")
    assert "in open_value_error" in caught.value.trace


# --- time


@pytest.mark.parametrize("entry", ["open_hang", "open_deaf"])
def test_timeout_ends_the_process_group(pool, probe, tmp_path, entry):
    """A stuck worker is killed in time, with the child that it started, also if it ignores signals."""
    worker = pool.get(Environment(), "probe")
    opened(worker, "open_echo")
    started = time.monotonic()
    with pytest.raises(WorkerTimeout, match=r"'run' in the probe worker gave no answer within 2 s .* --mf-timeout"):
        run(worker, entry, tmp_path, timeout_s=2)
    assert time.monotonic() - started < 120
    own, child = (int(pid) for pid in probe.read_text().split())
    assert own == worker.pid
    assert gone(own)
    assert gone(child)
    assert alive(pool.get(Environment(), "probe"), tmp_path)


def test_child_of_a_crashed_worker_ends_too(pool, probe, tmp_path):
    """What a worker started does not outlive its crash."""
    with pytest.raises(WorkerCrashed, match="status 3"):
        run(pool.get(Environment(), "probe"), "open_child_outlives", tmp_path)
    assert all(gone(pid) for pid in probe.read_text().split())


def test_progress_is_told_while_waiting(pool, probe, tmp_path):
    """Whoever watches hears of the seconds that pass."""
    worker = pool.get(Environment(), "probe")
    session = opened(worker, "open_hang")["session"]
    heard = []
    with pytest.raises(WorkerTimeout):
        worker.request("run", 2, heard.append, session=session, feed={}, folder=str(tmp_path))
    assert heard == sorted(heard)
    assert 2 <= len(heard) <= 5


def test_closing_the_pool_ends_every_worker(probe, tmp_path):
    """Nothing is left of a pool: no process, no folder."""
    pool = Pool(memory_bytes=0, threads=1, isolate="process")
    workers = [pool.get(Environment(), name) for name in ("one", "two")]
    for worker in workers:
        opened(worker, "open_echo")
    assert len({worker.pid for worker in workers}) == 2
    assert pool.folder.exists()
    pool.close()
    assert all(gone(worker.pid) for worker in workers)
    assert not pool.folder.exists()


# --- memory and output


def test_memory_limit_ends_in_out_of_memory(probe, tmp_path):
    """Memory beyond the limit cannot be had, the error names the option, and the machine keeps the rest."""
    with closing(Pool(memory_bytes=GIGABYTE, threads=1, isolate="process")) as pool:
        worker = pool.get(Environment(), "probe")
        with pytest.raises(OutOfMemory, match="--mf-memory"):
            run(worker, "open_hoard", tmp_path)
        if not worker.dead:
            peak = Path(f"/proc/{worker.pid}/status").read_text().split("VmHWM:")[1].split()[0]
            assert int(peak) * 1024 < 1.3 * GIGABYTE
        assert alive(pool.get(Environment(), "probe"), tmp_path)


def test_flood_is_read_and_only_its_end_is_kept(pool, tmp_path):
    """200 MB of output take no disk and no memory, and end within the request's time; the last line is still known."""
    worker = pool.get(Environment(), "probe")
    opened(worker, "open_echo")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run(worker, "open_flood", tmp_path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000
    assert sum(path.stat().st_size for path in pool.folder.rglob("*") if path.is_file()) < 1_000_000
    worker.kill()
    assert len(worker.output()) <= 100_000
    assert worker.output().endswith("the end\n")


def test_output_does_not_reach_the_terminal(pool, tmp_path, capfd):
    """What a runtime prints stays with it."""
    run(pool.get(Environment(), "probe"), "open_whisper", tmp_path)
    assert capfd.readouterr() == ("", "")


# --- what a worker is


def test_worker_is_reused_per_runtime_and_environment(pool):
    """One process per (environment, runtime), its own process group, under this interpreter."""
    one, other = pool.get(Environment(), "one"), pool.get(Environment(), "other")
    assert pool.get(Environment(), "one") is one
    assert one is not other
    facts = opened(one, "open_facts")["statement"]
    assert facts["executable"] == sys.executable
    assert facts["process_group"] == facts["pid"] == one.pid
    assert facts["pid"] != os.getpid()
    assert facts["environment"]["OMP_NUM_THREADS"] == "1"
    assert one.python == sys.version.split()[0]


def test_threads_are_set_for_every_library(probe):
    """--mf-threads reaches OpenMP, MKL and OpenBLAS."""
    with closing(Pool(memory_bytes=0, threads=3, isolate="process")) as pool:
        environment = opened(pool.get(Environment(), "probe"), "open_facts")["statement"]["environment"]
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    assert [environment[name] for name in names] == ["3"] * 3


def test_preloading_a_missing_module_is_no_error_yet(pool, tmp_path):
    """Imports ahead of their use only save time."""
    worker = pool.get(Environment(), "probe", ("json", "a_library_that_nobody_has"))
    pool.settle(PATIENCE_S)
    assert alive(worker, tmp_path)


def test_without_isolation_the_answers_are_the_same(probe, tmp_path):
    """``--mf-isolate none`` answers in this process, with the same errors."""
    with closing(Pool(memory_bytes=0, threads=1, isolate="none")) as pool:
        worker = pool.get(Environment(), "probe")
        assert isinstance(worker, InProcess)
        assert pool.get(Environment("other", "python"), "another") is worker
        assert alive(worker, tmp_path)
        assert opened(worker, "open_facts")["statement"]["pid"] == os.getpid()
        with pytest.raises(Unsupported, match="Unsupported it is"):
            opened(worker, "open_unsupported")
        assert pool.started == 0


def test_object_arrays_do_not_cross(pool, tmp_path):
    """A feed that would have to be unpickled is refused."""
    np.save(tmp_path / "x.npy", np.array([{}], object), allow_pickle=True)
    worker = pool.get(Environment(), "probe")
    session = opened(worker, "open_echo")["session"]
    with pytest.raises(WorkerFailure, match="allow_pickle"):
        worker.request("run", PATIENCE_S, session=session, feed={"x": str(tmp_path / "x.npy")}, folder=str(tmp_path))


# --- another interpreter

FOREIGN_VERSION = "1.26.0"


@pytest.fixture
def two_layers(tmp_path):
    """An ONNX model that onnxruntime 1.26 reads, an input for it, and what it answers."""
    import onnx

    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    random = np.random.default_rng(0)
    w1, w2 = random.normal(size=(4, 8)).astype(np.float32), random.normal(size=(8, 3)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["h"]),
        helper.make_node("Tanh", ["h"], ["a"]),
        helper.make_node("MatMul", ["a", "w2"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "two_layers",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(w1, "w1"), numpy_helper.from_array(w2, "w2")],
    )
    path = tmp_path / "two_layers.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), str(path))
    x = random.normal(size=(5, 4)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    return path, tmp_path / "x.npy", np.tanh(x.astype(np.float64) @ w1) @ w2


def run_onnx(worker, model, tmp_path):
    """Open and run through the real backend; returns (statement, the stated output, array)."""
    path, feed, _ = model
    specs = [TensorSpec("x", "float32", ("N", 4)).to_json()]
    answer = worker.request(
        "open",
        PATIENCE_S,
        entry="pytest_modelformats.systems.onnxruntime.backend:open_session",
        job=job(artifact=str(path), format="onnx", inputs=specs, options={"optimization": "all"}),
    )
    got = worker.request(
        "run", PATIENCE_S, session=answer["session"], feed={"x": str(feed)}, folder=str(tmp_path / "y")
    )
    return answer["statement"], answer["outputs"][0], np.load(got["outputs"][0])


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_two_versions_of_a_runtime_in_one_run(pool, foreign, two_layers, tmp_path):
    """Each environment runs its own onnxruntime on the same file, and says which."""
    for environment in (Environment(), foreign):
        worker = pool.get(environment, "onnxruntime")
        statement, output, y = run_onnx(worker, two_layers, tmp_path)
        np.testing.assert_allclose(y, two_layers[2], atol=1e-5)
        assert TensorSpec.from_json(output) == TensorSpec("y", "float32", ("N", 3))
        if environment is foreign:
            assert statement["version"] == FOREIGN_VERSION
        else:
            assert statement["version"] != FOREIGN_VERSION
    assert pool.started == 2
    assert pool.get(foreign, "onnxruntime") is not pool.get(Environment(), "onnxruntime")


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_nothing_of_ours_leaks_into_a_foreign_environment(pool, foreign, tmp_path, monkeypatch):
    """There, only the shipped source is seen: no package, path or variable of the environment that pytest runs in."""
    ours = tmp_path / "ours"
    ours.mkdir()
    (ours / "ours_alone.py").write_text("")
    (ours / "numpy.py").write_text("raise ImportError('this is not numpy')")
    monkeypatch.setenv("PYTHONPATH", str(ours))
    monkeypatch.setenv("PYTHONSTARTUP", str(ours / "ours_alone.py"))
    site = Path(foreign.python).parent.parent / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}"
    (site / "site-packages" / "probe.py").write_text(PROBE)
    facts = opened(pool.get(foreign, "probe"), "open_facts")["statement"]
    assert facts["prefix"] == str(Path(foreign.python).parent.parent)
    assert not set(facts["environment"]) & {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PYTHONSTARTUP"}
    assert facts["found"] == ["pytest_modelformats"]
    assert facts["installed"] == []
    assert facts["package"].startswith(str(pool.folder))
    own = {str(Path(p).resolve()) for p in (sys.prefix, str(ours), str(ROOT))}
    assert not [p for p in facts["path"] if any(str(Path(p).resolve()).startswith(root) for root in own)]
    heavy = {"torch", "onnx", "openvino", "pytest", "psutil", "filelock"}
    assert not heavy & {name.partition(".")[0] for name in facts["modules"]}


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_missing_runtime_of_a_foreign_environment_is_a_missing_dependency(pool, foreign):
    """What is installed here is not installed there."""
    worker = pool.get(foreign, "openvino", ("openvino",))
    with pytest.raises(MissingDependency, match="openvino"):
        worker.request("open", PATIENCE_S, entry="pytest_modelformats.systems.openvino.backend:open_session", job=job())


def test_interpreter_that_does_not_exist_is_told_of(pool, tmp_path):
    """A wrong path is one clear error, and so is a program that is no interpreter; neither hangs."""
    nowhere = Environment("nowhere", str(tmp_path / "no" / "python"))
    with pytest.raises(ConfigurationError, match=r"the environment 'nowhere' has no interpreter at .*/no/python"):
        pool.get(nowhere, "probe", ("numpy",))
    with pytest.raises(WorkerCrashed, match="probe worker"):
        opened(pool.get(Environment("false", "/bin/false"), "probe", ("numpy",)), "open_echo", timeout_s=20)
