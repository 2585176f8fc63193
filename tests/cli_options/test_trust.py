"""``--mf-trust``: Allow loading models that execute code they carry, such as pickled modules."""

from __future__ import annotations

import subprocess
import sys

import pytest

SAVE = "import torch; torch.manual_seed(0); torch.save(torch.nn.Linear(4, 3), 'module.pt')"
EAGER = ("--mf-suites", "parity", "--mf-formats", "pytorch", "--mf-precisions", "fp32", "--mf-backends", "torch")


@pytest.mark.slow
def test_a_pickled_module_is_loaded_where_it_is_trusted(run, pytester):
    subprocess.run([sys.executable, "-c", SAVE], cwd=pytester.path, check=True)
    chosen = ("--mf-model", "module.pt", "--mf-input", "input:float32[N,4]", *EAGER, "--mf-devices", "cpu")
    ran = run(*chosen, "--mf-trust")
    assert ran.outcomes == {("module-pytorch-fp32-torch@cpu", "parity"): "passed"}, ran.text


def test_a_value_other_than_true_or_false_is_refused(refusal, tiny, pytester):
    (pytester.path / "modelformats.toml").write_text('trust = "yes"')
    sentence = refusal("--mf-model", tiny)
    assert "modelformats.toml: 'trust' is 'yes' (text); expected true or false" in sentence
