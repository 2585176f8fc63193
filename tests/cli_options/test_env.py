"""``--mf-env``: cells run beside the others in environments with other versions."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from inner_run import ONE_CELL

from pytest_modelformats.cli import main as cli

CELL = "tiny-onnx-fp32-onnxruntime@cpu"
DECLARED = """
[environments."ort-1.26"]
requirements = ["onnxruntime==1.26.0", "numpy<3"]

[environments.vino]
requirements = ["openvino>=2025.0,<2026"]
"""


def test_every_cell_of_a_required_runtime_has_one_in_the_environment(cells, tiny, pytester):
    chosen = ("--mf-model", tiny, "--mf-formats", "onnx", "--mf-devices", "cpu")
    plain = cells(*chosen)
    beside = cells(*chosen, "--mf-env", "ort-1.26=onnxruntime==1.26.0")
    assert len(plain) > 1
    assert beside == [cell for name in plain for cell in (name, f"{name}+ort-1.26")]
    assert not (pytester.path / "cache" / "environments").exists()  # planning makes nothing


def test_declared_ones_run_unless_one_is_selected_or_none(cells, tiny, pytester):
    (pytester.path / "modelformats.toml").write_text(DECLARED)
    chosen = ("--mf-model", tiny, "--mf-formats", "onnx,openvino", "--mf-precisions", "fp32", "--mf-devices", "cpu")
    vino = "tiny-openvino-fp32-openvino@cpu"
    assert set(cells(*chosen)) == {CELL, f"{CELL}+ort-1.26", vino, f"{vino}+vino"}
    assert set(cells(*chosen, "--mf-env", "vino")) == {CELL, vino, f"{vino}+vino"}
    assert set(cells(*chosen, "--mf-env", "none")) == {CELL, vino}
    other = ("--mf-env", "vino", "--mf-env", "new=onnxruntime>=1.30, numpy")
    assert set(cells(*chosen, *other)) == {CELL, f"{CELL}+new", vino, f"{vino}+vino"}


def test_an_artifact_of_the_users_has_a_cell_there_too(cells, tiny):
    chosen = ("--mf-model", tiny, *ONE_CELL, "--mf-candidate", tiny, "--mf-env", "old=onnxruntime==1.26.0")
    assert {cell for cell in cells(*chosen) if "~" in cell} == {
        "tiny~tiny-onnx-fp32-onnxruntime@cpu",
        "tiny~tiny-onnx-fp32-onnxruntime@cpu+old",
    }


def test_pytest_selects_by_the_environments_name(collected, tiny):
    chosen = ("--mf-model", tiny, *ONE_CELL, "--mf-suites", "parity", "--mf-env", "ort-1.26=onnxruntime==1.26.0")
    assert len(collected(*chosen, "-k", "ort-1.26 and parity")) == 1
    assert len(collected(*chosen, "-k", "not ort-1.26 and parity")) == 1


def test_the_plan_names_the_environments(tiny, pytester):
    arguments = ("plan", str(tiny), "--mf-env", "old=onnxruntime<1.27", "--mf-backends", "onnxruntime")
    shown = CliRunner().invoke(cli.commands, list(arguments))
    assert shown.exit_code == 0, shown.output
    assert "old: onnxruntime<1.27" in shown.output
    assert f"{CELL}+old" in shown.output


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("onnxruntime==1.26.0", "names no environment but a requirement; write NAME=onnxruntime==1.26.0"),
        ("a b=onnxruntime==1.26.0", "'a b' is no name for an environment"),
        ("a+b=onnxruntime==1.26.0", "'a+b' is no name for an environment"),
        ("none=onnxruntime==1.26.0", "'none' is no name for an environment"),
        ("old=onnxruntime=1.26.0", "'onnxruntime=1.26.0' is no requirement"),
        ("old=onnxruntime==1.26.0 onnxruntime==1.25.0", "onnxruntime is required twice"),
        ("old=", "'old=' has no requirements"),
        ("old", "the configuration has no environment 'old'; none is declared there"),
        ("old=pillow==9.0", "no backend stands on what the environment 'old' requires (pillow==9.0)"),
    ],
)
def test_what_is_no_environment_is_refused(refusal, tiny, asked, words):
    assert words in refusal("--mf-model", tiny, "--mf-env", asked)


def test_an_environment_that_was_probably_meant_is_named(refusal, tiny, pytester):
    (pytester.path / "modelformats.toml").write_text(DECLARED)
    assert "did you mean 'ort-1.26'?" in refusal("--mf-model", tiny, "--mf-env", "ort-1.25")
    twice = ("--mf-env", "vino", "--mf-env", "vino")
    assert "'vino' is asked for twice" in refusal("--mf-model", tiny, *twice)
    assert "others are named beside it" in refusal("--mf-model", tiny, "--mf-env", "none", "--mf-env", "vino")


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("environments = 3", "'environments' is 3"),
        ("environments.old = 'onnxruntime'", "expected a table, such as"),
        ("environments.old = {}", "has no requirements; add requirements"),
        ("environments.old = {requirement = 'onnxruntime'}", "did you mean 'requirements'?"),
        ("environments.old = {requirements = ['onnxruntime'], python = 'a', interpreter = 'b'}", "has both 'python'"),
        ("environments.'a/b' = {requirements = ['onnxruntime']}", "'a/b' is no name for an environment"),
    ],
)
def test_a_wrong_table_is_refused(refusal, tiny, pytester, table, words):
    (pytester.path / "modelformats.toml").write_text(table)
    assert words in refusal("--mf-model", tiny)


def test_one_process_has_one_version_of_everything(refusal, tiny):
    sentence = refusal("--mf-model", tiny, "--mf-env", "old=onnxruntime==1.26.0", "--mf-isolate", "none")
    assert "--mf-isolate none runs everything in pytest's own process" in sentence


@pytest.mark.slow
def test_an_environment_that_cannot_be_made_ends_its_own_cells_alone(run, tiny, offline):
    """One sentence with the installer's own words, in bounded time; ``--mf-require`` makes it a failure."""
    chosen = ("--mf-model", tiny, *ONE_CELL, "--mf-suites", "parity", "--mf-env", "ort-99=onnxruntime==99.99")
    ran = run(*chosen)
    assert ran.status == 0, ran.text
    assert ran.outcomes[CELL, "parity"] == "passed"
    line = ran.checks[f"{CELL}+ort-99", "parity"]
    assert line["outcome"] == "missing-dependency"
    assert "the environment 'ort-99' cannot be made: " in line["sentence"]
    assert "onnxruntime==99.99" in line["sentence"]
    assert "modelformats env create ort-99=onnxruntime==99.99" in line["sentence"]
    assert "\n" not in line["sentence"]
    assert len(line["sentence"]) < 700
    (header,) = ran.of("header")
    assert header["environments"]["ort-99"]["problem"] == line["sentence"]
    assert header["environments"]["ort-99"]["versions"] == {}
    json.dumps(header)
    strict = run(*chosen, "--mf-require", "ort-99")
    assert strict.status == 1
    assert strict.outcomes[f"{CELL}+ort-99", "parity"] == "failed"
    assert "--mf-require ort-99" in strict.checks[f"{CELL}+ort-99", "parity"]["sentence"]
