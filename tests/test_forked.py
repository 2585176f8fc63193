"""A forked process is the process that was asked for, and nothing passes from one to another."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import forked
import pytest
from forked.mother import ONE_THREAD, matter
from inner_run import PARITY

from pytest_modelformats.errors import OutOfMemory
from pytest_modelformats.run.workers.pool import Pool
from pytest_modelformats.schema import Environment

pytestmark = pytest.mark.skipif(not forked.POSSIBLE, reason="processes are forked on Linux alone")


def connected():
    """Connect to the mother as a client does."""
    client = socket.socket(socket.AF_UNIX)
    client.connect(os.environ[forked.PLACE])
    return client


def test_a_client_that_is_killed_before_it_has_asked_ends_nothing():
    connected().close()
    with closing(connected()) as client:
        socket.send_fds(client, [(100).to_bytes(4, "big")], [0, 1, 2])
        client.sendall(b"half of")
    assert ask("worker", "import forked; print(1)").stdout == "1\n"


@pytest.fixture(autouse=True)
def _variables_of_before(monkeypatch):
    """What other tests of this process have imported may have left variables behind, and then nothing is forked."""
    for name in set(matter(dict(os.environ))) - set(forked.VARIABLES):
        monkeypatch.delenv(name)
    for name, value in matter(forked.VARIABLES).items():
        monkeypatch.setenv(name, value)


def ask(kind, code, **options):
    command = [*forked.python(kind), "-c", code]
    options["env"] = os.environ | ({} if kind == "pytest" else ONE_THREAD)  # as workers are started
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=100, **options)


@pytest.mark.parametrize("kind", ["pytest", "worker", "torch"])
def test_what_is_slow_to_import_is_there(kind):
    ran = ask(kind, "import sys; print(' '.join(sys.modules))")
    found = set(ran.stdout.split())
    assert {"forked", "numpy"} <= found, ran.stderr
    # Runtimes stay out of pytest's own process, and PyTorch out of the workers of the other runtimes.
    assert ("torch" in found) == (kind == "torch")
    assert not {"onnxruntime", "openvino"} & found


def test_it_has_its_folder_variables_path_and_arguments(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "more"))
    monkeypatch.setenv("MF_ANYTHING", "1")
    monkeypatch.delenv("HOME", raising=False)
    code = "import os, sys; print(os.getcwd(), os.environ.get('MF_ANYTHING'), 'HOME' in os.environ, sys.path, __name__)"
    forked_one = ask("worker", code, cwd=tmp_path)
    real = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert forked_one.stdout == real.stdout
    assert str(tmp_path / "more") in real.stdout


@pytest.mark.parametrize(
    "ending", ["sys.exit(0)", "sys.exit(5)", "1 / 0", *(f"os.kill(os.getpid(), {n})" for n in (9, 11))]
)
def test_it_ends_as_that_process_would(ending):
    code = f"import os, resource, sys; resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); {ending}"
    ran = ask("worker", code)
    real = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == real.returncode
    assert ran.stdout == real.stdout
    assert ran.stderr.splitlines()[-1:] == real.stderr.splitlines()[-1:]


def test_nothing_passes_from_one_to_another():
    code = "import json, sys; print(hasattr(json, 'left')); json.left = True; sys.modules['numpy'].left = True"
    assert [ask("worker", code).stdout for _ in range(2)] == ["False\n", "False\n"]


@pytest.mark.parametrize("kind", ["worker", "torch"])
def test_two_have_other_random_numbers(kind):
    code = "import random, numpy; print(random.random(), numpy.random.random())"
    first, second = (ask(kind, code).stdout.split() for _ in range(2))
    assert not set(first) & set(second)


def test_it_ends_when_its_client_is_killed(tmp_path):
    code = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    command = [*forked.python("worker"), "-c", code]
    client = subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | ONE_THREAD)
    pid = int(client.stdout.readline())
    assert pid != client.pid
    client.kill()
    client.wait()
    for _ in range(600):
        if not Path(f"/proc/{pid}").exists():
            break
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists()
    client.stdout.close()


def test_a_variable_that_libraries_read_starts_python_itself(monkeypatch):
    monkeypatch.setenv("SOMETHING_THAT_NOBODY_KNOWS", "1")
    ran = ask("worker", "import sys; print('forked' in sys.modules)")
    assert ran.stdout == "False\n", ran.stderr


def test_an_inner_run_and_its_workers_are_forked(run, tiny, pytester):
    pytester.makeconftest(
        """
import sys
from pathlib import Path
from pytest_modelformats.run.workers import process

def pytest_unconfigure():
    Path("seen").write_text(f"{'forked' in sys.modules} {spec_of.count('client.py')}")

made, spec_of = process._gateway_spec, []
def spec(settings):
    spec_of.append("client.py" if "client.py" in made(settings) else "")
    return made(settings)
process._gateway_spec = spec
"""
    )
    ran = run("--mf-model", tiny, *PARITY)
    assert ran.status == 0, ran.text
    assert (pytester.path / "seen").read_text() == "True 2"


def test_a_worker_that_is_killed_says_by_what(run, tiny, pytester):
    """As it does where the worker is a child of pytest: how it ended is read from the process that stands for it."""
    pytester.makeconftest(
        f"""
import os
from pytest_modelformats.run.workers import process

asked = process.Worker.request
def request(self, op, *args, **arguments):
    if op == "run":
        os.kill(self.pid, {int(signal.SIGSEGV)})
    return asked(self, op, *args, **arguments)
process.Worker.request = request
"""
    )
    ran = run("--mf-model", tiny, *PARITY)
    assert ran.status == 1, ran.text
    assert "'run' in the onnxruntime worker was ended by SIGSEGV" in ran.text


def test_without_the_mother_python_is_started(monkeypatch):
    monkeypatch.delenv(forked.PLACE)
    assert forked.python("worker") == (sys.executable,)


def test_a_mother_that_has_gone_is_no_obstacle(monkeypatch, tmp_path):
    monkeypatch.setitem(os.environ, forked.PLACE, str(tmp_path / "nobody"))
    ran = ask("worker", "import sys; print('forked' in sys.modules)")
    assert ran.stdout == "False\n", ran.stderr


def test_workers_of_this_process_are_forked_too():
    with closing(Pool(memory_bytes=0, threads=1, isolate="process")) as pool:
        worker = pool.get(Environment(), "convert")
        answer = worker.request("preload", 100, modules=["torch"])
        assert answer["versions"]["torch"]
        assert worker.pid != worker._gateway._io.popen.pid
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(OutOfMemory, match="SIGKILL"):
            worker.request("preload", 100, modules=[])


@pytest.mark.alone
def test_a_worker_that_is_measured_is_python_itself():
    assert forked.python("worker") == (sys.executable,)
    assert forked.python("pytest") != (sys.executable,)


@pytest.mark.genuine
def test_for_what_looks_at_a_start_nothing_is_forked():
    assert forked.python("worker") == forked.python("pytest") == (sys.executable,)
