"""Whole runs of the plugin in a pytest of their own, on models so small that starting a process is what costs."""

from __future__ import annotations

import importlib
import os
import pkgutil
import shutil
import subprocess
import sys
from pathlib import Path

import forked
import pytest
from dummy_index import write_index
from forked import workers
from forked.mother import matter
from inner_run import ended, one_sentence, two_layers
from places import ROOT

import pytest_modelformats

pytest_plugins = ["pytester"]

NETS = '''
"""The architecture of the tiny model, for sources that PyTorch evaluates."""
INPUTS = ("x:float32[N,4]",)


def build():
    import torch

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.hidden, self.out = torch.nn.Linear(4, 8), torch.nn.Linear(8, 3)

        def forward(self, x):
            return self.out(torch.tanh(self.hidden(x)))

    torch.manual_seed(0)
    return Net()
'''

# Inductor compiles a trial program for every instruction set, 14 s of a processor in each new cache folder.
os.environ.setdefault("TORCHINDUCTOR_VEC_ISA_OK", "1")
# Inner runs are runs of their own, also where these tests run under pytest-xdist: pytest-benchmark looks at this.
for _variable in [name for name in os.environ if name.startswith("PYTEST_XDIST_")]:
    del os.environ[_variable]

# pytest removes what a run in this process has imported, but not from the attributes of our package: what is
# imported before stays whole. None of it is heavy.
for _module in pkgutil.walk_packages(pytest_modelformats.__path__, "pytest_modelformats."):
    if not _module.name.endswith(".bootstrap"):  # a script for execnet
        importlib.import_module(_module.name)
# So must SQLAlchemy: the tables that our package remembers are of the SQLAlchemy that it met first.
for _name in ("sqlalchemy", "sqlalchemy.dialects.sqlite", "sqlalchemy.dialects.postgresql"):
    importlib.import_module(_name)


# pytest-xdist hands out whole files in their order: what takes longest comes first, or one process waits for the other.
LONGEST = (
    *("test_miniatures", "test_bundles", "test_fuzz", "test_bench_verdict", "test_localise", "test_demo"),
    *("test_resnet50", "test_torch_lane", "test_expectations", "test_golden", "test_fixtures", "test_environments"),
    *("test_false_alarms", "test_comparisons", "test_update_expectations", "test_special_outputs", "test_readme"),
)


def pytest_collection_modifyitems(items):
    """Order the files; within a file the order stays."""
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(LONGEST)))


def pytest_configure(config):
    """Start the process that inner runs and workers are forked from: one, also for pytest-xdist's processes."""
    config.addinivalue_line("markers", "genuine: starts each process itself, for what starting one does is looked at")
    forked.VARIABLES = dict(os.environ)
    if forked.POSSIBLE:
        workers.fork()
        if not hasattr(config, "workerinput"):
            config.add_cleanup(forked.Mother().close)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """Fork no worker for a test that looks at a clock or at memory, and nothing for one that looks at a start."""
    with pytest.MonkeyPatch.context() as patch:
        # Libraries that tests import here leave variables behind (scikit-learn does): no inner run is to have them.
        for name in set(matter(dict(os.environ))) - set(forked.VARIABLES):
            patch.delenv(name)
        if item.get_closest_marker("alone"):
            patch.setenv(forked.MEASURED, "1")
        if item.get_closest_marker("genuine"):
            patch.delenv(forked.PLACE, raising=False)
        return (yield)


@pytest.fixture(scope="session")
def shelf(tmp_path_factory):
    """A folder for what several tests share: models, and the cache of everything converted from them."""
    folder = tmp_path_factory.mktemp("shelf")
    two_layers(folder / "tiny.onnx")
    (folder / "tiny_nets.py").write_text(NETS)
    return folder


@pytest.fixture(scope="session")
def state_dict(shelf):
    """The tiny PyTorch model's weights alone, as ``torch.save`` writes a state_dict."""
    code = "import torch, tiny_nets; torch.save(tiny_nets.build().state_dict(), 'weights.pth')"
    subprocess.run([sys.executable, "-c", code], cwd=shelf, check=True)
    return shelf / "weights.pth"


@pytest.fixture(scope="session")
def foreign(shelf):
    """An environment that has numpy and onnxruntime 1.26.0, and nothing of ours; inner runs find it in their cache."""
    from pytest_modelformats.run.environments import made as environments
    from pytest_modelformats.settings import load as configuration

    asked = {"cache": str(shelf / "cache"), "env": ["ort-1.26=onnxruntime==1.26.0"]}
    return environments.ready(configuration.load(shelf, asked), "ort-1.26").environment


@pytest.fixture(scope="session")
def index(tmp_path_factory):
    """The folder of a package index that needs no network."""
    return write_index(tmp_path_factory.mktemp("index") / "wheels")


@pytest.fixture
def offline(index, monkeypatch):
    """Packages come from ``index`` alone, for pip and so for uv."""
    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    return index


@pytest.fixture(scope="session")
def digits(shelf):
    """The weights of the digits model, trained by its recipe's own command."""
    recipe = ROOT / "fixtures" / "models" / "digits_cnn.py"
    subprocess.run([sys.executable, str(recipe), str(shelf / "digits_cnn.pth")], check=True, capture_output=True)
    return shelf / "digits_cnn.pth"


@pytest.fixture
def tiny(shelf, pytester):
    """``tiny.onnx`` in the inner run's folder."""
    return Path(shutil.copy(shelf / "tiny.onnx", pytester.path))


@pytest.fixture
def nets(shelf, pytester):
    """``tiny_nets.py`` in the inner run's folder, as ``tiny_nets:build``."""
    shutil.copy(shelf / "tiny_nets.py", pytester.path)
    return "tiny_nets:build"


@pytest.fixture
def run(shelf, pytester, monkeypatch):
    """Run pytest in the inner folder with this plugin and those in ``plugins``; the cache is the session's.

    The run is a process of its own, and so is each of its workers (``forked/``).
    """
    monkeypatch.setattr(pytester, "_getpytestargs", lambda: (*forked.python("pytest"), "-m", "pytest"))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)

    def start(*args, plugins=(), cache=True, inprocess=False, timeout=120):
        chosen = ["-p", "no:cacheprovider", *(a for p in ("modelformats", *plugins) for a in ("-p", p))]
        shared = [f"--mf-cache={shelf / 'cache'}"] if cache else []  # with "=", or pytest takes it for a test path
        command = [*chosen, *map(str, args), *shared]
        if inprocess:
            return ended(pytester.runpytest_inprocess(*command), pytester.path / "reports")
        return ended(pytester.runpytest_subprocess(*command, timeout=timeout), pytester.path / "reports")

    return start


@pytest.fixture
def collected(run):
    """The ids of the tests that a command line selects; nothing is run, so this needs no process of its own."""

    def collect(*args, **kwargs):
        ran = run(*args, "--collect-only", "-q", inprocess=True, **kwargs)
        assert ran.status == pytest.ExitCode.OK, ran.text
        return [line for line in ran.result.outlines if "::" in line]

    return collect


@pytest.fixture
def cells(collected):
    """The cells that a command line selects: those that run, in their order."""

    def select(*args, **kwargs):
        found = collected(*args, "--mf-suites", "parity", **kwargs)
        return [line.partition("[")[2].rstrip("]") for line in found if "::parity::" in line]

    return select


@pytest.fixture
def refusal(run):
    """The one sentence in which a command line ends that nothing can be done with."""

    def refuse(*args, cache=True):
        return one_sentence(run(*args, cache=cache, inprocess=True))

    return refuse


@pytest.fixture
def imaginary(pytester, monkeypatch):
    """An installed package that registers the backend ``imaginary``: ONNX on a CPU with an unheard-of instruction.

    Its runtime is whatever ``requires`` names; by default it is there, and the CPU is what lacks.
    """

    def install(requires="json"):
        (pytester.path / "imaginary_backend.py").write_text(
            f"""
from pytest_modelformats.schema import Backend

BACKEND = Backend(
    name="imaginary", title="Imaginary", worker="imaginary", precisions={{("onnx", "fp32"): ("fp32",)}},
    devices=("cpu",), entry="pytest_modelformats.systems.onnxruntime.backend:open_session", requires=("{requires}",),
    install="pip install imaginary", needs_cpu_flags={{"fp32": ("unheard_of",)}},
)
"""
        )
        info = pytester.path / "imaginary-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: imaginary\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("[modelformats.backends]\nimaginary = imaginary_backend:BACKEND\n")
        monkeypatch.setenv("PYTHONPATH", str(pytester.path))

    return install
