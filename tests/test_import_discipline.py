"""Someone else's test suite does not feel that the plugin is installed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT

# The modules that pytest needs of ours: the hooks, and the table of options with its errors.
OURS = {
    "pytest_modelformats",
    "pytest_modelformats.plugin",
    "pytest_modelformats.session",
    "pytest_modelformats.session.stash",
    "pytest_modelformats.settings",
    "pytest_modelformats.settings.options",
    "pytest_modelformats.errors",
}
HEAVY = {
    "numpy", "torch", "onnx", "onnxruntime", "onnxscript", "openvino", "tensorflow", "sklearn", "safetensors",
    "execnet", "jinja2", "rich", "click", "psutil", "filelock", "platformdirs", "archspec", "jsonschema",
    "hypothesis", "sqlalchemy", "ruptures", "scipy", "psycopg",
}  # fmt: skip

# Looks at the very end, after every summary, at what the process has become.
OBSERVER = """
import atexit
import importlib.metadata
import json
import sys

started, scanned = [], []


def audit(event, arguments):
    if event in {"subprocess.Popen", "os.fork", "os.exec", "os.posix_spawn", "os.system"}:
        started.append(event)


sys.addaudithook(audit)
scan = importlib.metadata.entry_points
importlib.metadata.entry_points = lambda **chosen: (scanned.append(chosen), scan(**chosen))[1]


@atexit.register
def report():
    with open("seen.json", "w") as file:
        json.dump({"modules": sorted(sys.modules), "started": started, "scanned": scanned}, file)
"""


@pytest.fixture
def foreign(pytester, monkeypatch):
    """Run a foreign suite of one line; returns what its process had loaded, started and scanned by its end."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makeconftest(OBSERVER)
    pytester.makepyfile(test_theirs="def test_it(): pass")

    def start(*args):
        result = pytester.runpytest_subprocess("-p", "no:cacheprovider", *args)
        return result, json.loads((pytester.path / "seen.json").read_text())

    return start


def tops(modules):
    return {name.partition(".")[0] for name in modules}


def test_nothing_heavy_is_loaded(foreign):
    result, seen = foreign("-p", "modelformats", "-ra", "--durations=3")
    result.assert_outcomes(passed=1)
    assert not tops(seen["modules"]) & HEAVY
    assert {name for name in seen["modules"] if name.startswith("pytest_modelformats")} <= OURS
    assert seen["started"] == []
    assert not [chosen for chosen in seen["scanned"] if "modelformats" in str(chosen)]


def test_only_our_few_modules_are_added(foreign):
    """With and without the plugin, the process differs by our modules and nothing else."""
    _, without = foreign()
    _, with_us = foreign("-p", "modelformats")
    added = set(with_us["modules"]) - set(without["modules"])
    assert {name for name in added if not name.startswith("pytest_modelformats")} <= sys.stdlib_module_names
    assert {name for name in added if name.startswith("pytest_modelformats")} == OURS


def test_a_project_that_configures_models_does_not_pay_until_a_test_takes_a_cell(foreign, pytester):
    (pytester.path / "modelformats.toml").write_text('model = "nowhere.onnx"')
    result, seen = foreign("-p", "modelformats")
    result.assert_outcomes(passed=1)
    assert not tops(seen["modules"]) & HEAVY


def test_a_failing_suite_of_others_is_left_alone(foreign, pytester):
    pytester.makepyfile(
        test_theirs="import pytest\n\n@pytest.mark.parametrize('x', ['a@b-c'])\ndef test_it(x): assert 0"
    )
    result, seen = foreign("-p", "modelformats")
    result.assert_outcomes(failed=1)
    assert "modelformats" not in result.stdout.str().partition("short test summary")[0].partition("collected")[2]
    assert not (pytester.path / "reports").exists()
    assert not tops(seen["modules"]) & HEAVY


def test_planning_loads_no_framework(foreign, tiny):
    """Naming a model costs our own modules and the planner's few libraries, and no framework."""
    (Path(tiny).parent / "test_theirs.py").write_text("def test_it(mf_cell): pass")
    result, seen = foreign("-p", "modelformats", f"--mf-model={tiny}", "--collect-only", "-q")
    assert result.ret == 0
    assert not tops(seen["modules"]) & (HEAVY - {"platformdirs", "archspec", "psutil"})
    assert seen["started"] == []
    assert any("modelformats" in str(chosen) for chosen in seen["scanned"])  # so the observer does see what is done


def ruff(path, code):
    return subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--config", "pyproject.toml", "--stdin-filename", path, "-"],
        cwd=ROOT, input=code, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("module", ["numpy", "torch", "rich", "onnxruntime.capi"])
def test_the_linter_catches_a_heavy_import_at_module_level(module):
    found = ruff("pytest_modelformats/new.py", f'"""New."""\n\nimport {module}\n\nprint({module})\n')
    assert found.returncode == 1
    assert "TID253" in found.stdout


def test_the_linter_leaves_imports_inside_functions_alone():
    code = (
        '"""New."""\n\n\ndef length() -> float:\n    """Return it."""\n    import numpy\n\n    return float(numpy.pi)\n'
    )
    assert "TID253" not in ruff("pytest_modelformats/new.py", code).stdout
