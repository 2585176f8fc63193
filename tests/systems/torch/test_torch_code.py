"""Two modules of the same weights that compute different things are never taken for one another."""

from __future__ import annotations

import functools
import itertools
import os
import subprocess
import sys
import threading
import types

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from pytest_modelformats.systems.torch.reference.code import code_digest  # noqa: E402
from pytest_modelformats.systems.torch.reference.describing import state_digest  # noqa: E402

F = nn.functional


def between(part):
    return nn.Sequential(nn.Linear(4, 4), part, nn.Linear(4, 4))


class Holds(nn.Module):
    """A module with one attribute."""

    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, x):
        return x


def closed_over(bound):
    return lambda x: x + bound


def loop():
    """A list that holds itself, beside another number."""
    value = [1]
    value.append(value)
    return value


def hooked(hook):
    module = nn.ReLU()
    module.register_forward_hook(hook)
    return module


def unsaved(value):
    module = nn.Module()
    module.register_buffer("scale", torch.tensor(value), persistent=False)
    return module


def filled(value):
    linear = nn.Linear(2, 2)
    with torch.no_grad():
        for parameter in linear.parameters():
            parameter.fill_(value)
    return linear


def gelu(**settings):
    return functools.partial(F.gelu, **settings)


def named(**settings):
    return types.SimpleNamespace(**settings)


@functools.cache
def cached(x):
    return x


# What differs in each pair is not in the state; the modules of a pair have the same.
PAIRS = {
    "activation": lambda: (between(nn.ReLU()), between(nn.GELU())),
    "setting of torch's module": lambda: (nn.LayerNorm(4, eps=1e-5), nn.LayerNorm(4, eps=1e-3)),
    "stride": lambda: (nn.Conv2d(1, 1, 3), nn.Conv2d(1, 1, 3, stride=2)),
    "order": lambda: (nn.Sequential(nn.ReLU(), nn.Tanh()), nn.Sequential(nn.Tanh(), nn.ReLU())),
    "mode": lambda: (nn.Dropout().train(), nn.Dropout().eval()),
    "number": lambda: (Holds(-6), Holds(-10)),
    "type of number": lambda: (Holds(1), Holds(1.0)),
    "nested": lambda: (Holds({"a": [1, (2, 3)]}), Holds({"a": [1, (2, 4)]})),
    "torch's function": lambda: (Holds(torch.relu), Holds(torch.tanh)),
    "function": lambda: (Holds(F.relu), Holds(F.silu)),
    "built-in": lambda: (Holds(F.gelu), Holds(F.softplus)),
    "lambdas of one line": lambda: (Holds(lambda x: x + 1), Holds(lambda x: x + 2)),
    "closure": lambda: (Holds(closed_over(1)), Holds(closed_over(2))),
    "partial": lambda: (Holds(gelu(approximate="none")), Holds(gelu(approximate="tanh"))),
    "method": lambda: (Holds("a".join), Holds("a".strip)),
    "cached function": lambda: (Holds(cached), Holds(functools.cache(closed_over(1)))),
    "dtype": lambda: (Holds(torch.float16), Holds(torch.bfloat16)),
    "class": lambda: (Holds(nn.ReLU), Holds(nn.GELU)),
    "configuration": lambda: (Holds(named(eps=1e-5)), Holds(named(eps=1e-3))),
    "unregistered tensor": lambda: (Holds([torch.zeros(2)]), Holds([torch.ones(2)])),
    "unregistered module": lambda: (Holds([filled(0.0)]), Holds([filled(1.0)])),
    "array": lambda: (Holds(np.zeros(3)), Holds(np.ones(3))),
    "buffer that is not saved": lambda: (unsaved(1.0), unsaved(2.0)),
    "hook": lambda: (hooked(lambda m, x, y: y + 1), hooked(lambda m, x, y: y * 2)),
    "no hook": lambda: (hooked(lambda m, x, y: y + 1), nn.ReLU()),
    "set": lambda: (Holds({"a", "b"}), Holds({"a", "c"})),
    "loop": lambda: (Holds(loop()), Holds([2, *loop()])),
}  # fmt: skip


@pytest.mark.parametrize("what", PAIRS)
def test_what_the_state_does_not_hold_is_told_apart(what):
    torch.manual_seed(0)
    one, _ = PAIRS[what]()
    torch.manual_seed(0)
    _, other = PAIRS[what]()
    assert code_digest(one) != code_digest(other)


@pytest.mark.parametrize("what", PAIRS)
def test_the_same_module_built_again_is_the_same(what):
    """Also beside other objects: neither addresses nor the number of hooks in the process are in it."""
    for one, again in zip(PAIRS[what](), PAIRS[what](), strict=True):
        hooked(lambda m, x, y: y)
        assert code_digest(one) == code_digest(again)


@pytest.mark.parametrize("what", [threading.Lock, torch.Generator, object, lambda: np.random.default_rng(0)])
def test_what_has_only_an_address_is_its_type(what):
    assert code_digest(Holds(what())) == code_digest(Holds(what()))


class Refuses(dict):
    """An object that can be asked nothing."""

    def items(self):
        raise RuntimeError("not loaded yet")

    def __repr__(self):
        raise RuntimeError("not loaded yet")


class Bare:
    """One without attributes."""

    __slots__ = ()
    __repr__ = Refuses.__repr__


@pytest.mark.parametrize("what", [Refuses, Bare])
def test_what_cannot_be_asked_is_its_type(what):
    assert code_digest(Holds(what())) == code_digest(Holds(what()))
    assert code_digest(Holds(what())) != code_digest(Holds({}))


def test_the_tree_is_told_in_reasonable_time():
    """What is shared is told once: 40 lists, each of which holds the one before twice, have 2^40 paths."""
    value = [1]
    for _ in range(40):
        value = [value, value]
    assert code_digest(Holds(value)) == code_digest(Holds(value))


# --- in files of the user's, in processes of their own

HELPER = "def act(x):\n    return x{}\n"
MODEL = """
import torch
from package.helper import act
from package import settings


class Net(torch.nn.Module):
    def __init__(self, names=("b", "a", "c")):
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(3, 3)
        self.names = set(names)
        self.settings = {name: len(name) for name in names}

    def forward(self, x):
        return act(self.layer(x)) * settings.SCALE


def make():
    return Net()


def other():
    return Net()
"""
ASK = """
import sys
from pytest_modelformats.systems.torch.loading.architecture import by_reference
from pytest_modelformats.systems.torch.reference.code import code_digest
from pytest_modelformats.systems.torch.reference.describing import state_digest
architecture = by_reference(sys.argv[1], ["."])
module = architecture.build()
print(state_digest(module), code_digest(module, architecture.file, architecture.reference))
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """The user's package, in a folder to which every process comes."""
    folder = tmp_path_factory.mktemp("code") / "package"
    folder.mkdir()
    for name, text in (
        ("__init__", ""),
        ("helper", HELPER.format("")),
        ("settings", "SCALE = 1.0\n"),
        ("model", MODEL),
    ):
        (folder / f"{name}.py").write_text(text)
    return folder


def ask(package, reference="package.model:make", *, order=0):
    """The digests of state and code in a process of its own; ``order`` decides in which order a set is there."""
    command = [sys.executable, "-B", "-c", ASK, reference]
    named = {**os.environ, "PYTHONHASHSEED": str(order)}
    answer = subprocess.run(command, cwd=package.parent, env=named, capture_output=True, text=True, check=True)
    return answer.stdout.split()


@pytest.fixture(scope="module")
def before(package):
    """What is said of the package as it was written."""
    return ask(package)


@pytest.mark.slow
def test_another_process_says_the_same(package, before):
    """Whatever order a set has there."""
    orders = {
        subprocess.run(
            [sys.executable, "-c", "print(list(set('bac')))"],
            env={**os.environ, "PYTHONHASHSEED": str(order)},
            capture_output=True,
            check=True,
        ).stdout
        for order in (0, 1)
    }
    assert len(orders) == 2
    assert ask(package, order=1) == before


@pytest.mark.slow
@pytest.mark.parametrize(("file", "text"), [("helper", HELPER.format(" + 1")), ("settings", "SCALE = 2.0\n")])
def test_code_that_the_model_imports_is_part_of_it(package, before, file, text):
    written = package / f"{file}.py"
    plain = written.read_text()
    written.write_text(text)
    try:
        after = ask(package)
    finally:
        written.write_text(plain)
    assert before[0] == after[0]
    assert before[1] != after[1]


@pytest.mark.slow
def test_another_constructor_of_the_file_is_another_model(package, before):
    assert ask(package, "package.model:other")[1] != before[1]


def test_the_weights_are_no_part_of_it():
    assert code_digest(filled(0.0)) == code_digest(filled(1.0))
    assert state_digest(filled(0.0)) != state_digest(filled(1.0))


def test_every_pair_has_its_own_digests():
    """No two modules of all the pairs are alike, the second of 'no hook' and the like aside."""
    modules = list(itertools.chain.from_iterable(pair() for pair in PAIRS.values()))
    assert len({code_digest(m) for m in modules}) > len(modules) - 6
