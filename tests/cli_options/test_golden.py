"""``--mf-golden``: A golden bundle to judge candidates by, in place of the model and its framework."""

from __future__ import annotations

import shutil

import pytest
from click.testing import CliRunner
from free_sizes import grouped, pooled
from inner_run import ONE_CELL, two_layers

from pytest_modelformats.cli.main import commands

RIGHT, WRONG = (f"tiny~{name}-onnx-fp32-onnxruntime@cpu" for name in ("right", "wrong"))


@pytest.fixture(scope="session")
def exported(shelf):
    """``tiny.golden``, exported from the tiny ONNX model."""
    target = shelf / "tiny.golden"
    options = ["--mf-cache", str(shelf / "cache")]
    done = CliRunner().invoke(commands, ["golden", "export", str(shelf / "tiny.onnx"), "-o", str(target), *options])
    assert done.exit_code == 0, done.output
    return target


@pytest.fixture
def golden(exported, pytester):
    """The bundle in the inner run's folder, without the model."""
    return shutil.copy(exported, pytester.path)


def candidates(folder):
    two_layers(folder / "right.onnx")
    two_layers(folder / "wrong.onnx", change=1.0)
    return ("--mf-candidate", "right.onnx", "--mf-candidate", "wrong.onnx")


def test_candidates_are_judged_without_the_model(run, golden, pytester):
    ran = run("--mf-golden", golden, *candidates(pytester.path), "--mf-suites", "parity,batch", *ONE_CELL)
    assert ran.footer["cells"] == {RIGHT: "passed", WRONG: "failed"}
    assert ran.checks[WRONG, "parity"]["failure_kind"] == "numeric"
    (model,) = ran.of("model")
    assert (model["format"], model["model"]) == ("golden", "tiny")


def test_the_configuration_file_may_name_it(cells, golden, pytester):
    two_layers(pytester.path / "right.onnx")
    (pytester.path / "modelformats.toml").write_text('golden = ["tiny.golden"]\ncandidate = ["right.onnx"]\n')
    assert cells() == [RIGHT]


def test_it_is_recognised_as_a_model_too(cells, golden, pytester):
    two_layers(pytester.path / "right.onnx")
    assert cells("--mf-model", golden, "--mf-candidate", "right.onnx", *ONE_CELL) == [RIGHT]


def test_alone_there_is_nothing_to_judge(refusal, golden):
    sentence = refusal("--mf-golden", golden)
    assert "nothing runs a model in golden by itself; name the artifact to judge with --mf-candidate" in sentence


def test_another_file_is_refused(refusal, tiny):
    assert "is no golden bundle but a model in onnx; give it by --mf-model" in refusal("--mf-golden", tiny)


def test_a_missing_file_is_refused(refusal):
    assert "there is no" in refusal("--mf-golden", "nowhere.golden")


@pytest.mark.parametrize("option", [("--mf-static",), ("--mf-data", "own.npz")])
def test_options_that_would_make_it_another_model_are_refused(run, golden, pytester, option):
    ran = run("--mf-golden", golden, *candidates(pytester.path), *ONE_CELL, "--mf-suites", "parity", *option)
    assert ran.status == pytest.ExitCode.USAGE_ERROR, ran.text
    assert f"leave out {option[0]}" in ran.text


@pytest.mark.slow
def test_sizes_that_were_only_tried_stay_so_in_a_bundle(run, shelf, pytester):
    """And where a file stated them, a latency is that of the model."""
    pooled(pytester.path / "stated.onnx", metadata={"imgsz": "[16, 24]"})
    grouped(pytester.path / "tried.onnx")
    for name, by in (("stated", "bundle"), ("tried", "tried")):
        options = ["--mf-cache", str(shelf / "cache"), "-o", f"{name}.golden"]
        done = CliRunner().invoke(commands, ["golden", "export", f"{name}.onnx", *options])
        assert done.exit_code == 0, done.output
        chosen = ("--mf-golden", f"{name}.golden", "--mf-candidate", f"{name}.onnx", "--mf-time-budget", "0.2")
        ran = run(*chosen, "--mf-suites", "parity,latency", *ONE_CELL)
        cell = f"{name}~{name}-onnx-fp32-onnxruntime@cpu"
        assert ran.outcomes[cell, "parity"] == "passed", ran.text
        assert {d["by"] for d in ran.of("model")[0]["sizes"]} == {by}
        latency = ran.checks[cell, "latency"]
        if by == "tried":
            assert latency["outcome"] == "not-measured"
            assert "export tried.golden again with --mf-input 'x:float32[N,32]'" in latency["sentence"]
        else:
            assert latency["data"]["sizes"] == {"height": 16, "width": 24}


def test_a_golden_bundle_of_another_model_fails_the_contract(run, golden, pytester):
    two_layers(pytester.path / "other.onnx", batch=4)
    chosen = ("--mf-suites", "contract,parity", *ONE_CELL)
    ran = run("--mf-golden", golden, "--mf-candidate", "other.onnx", *chosen)
    line = ran.checks["tiny~other-onnx-fp32-onnxruntime@cpu", "contract"]
    assert (line["outcome"], line["failure_kind"]) == ("failed", "contract")
    assert "dimension 0 of input 'x' was dynamic (N) and is now fixed at 4" in line["sentence"]
