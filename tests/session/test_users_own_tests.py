"""The user's own tests take cells by fixture, beside whatever else they parametrise."""

from __future__ import annotations

import pytest
from inner_run import ONE_CELL, one_sentence

CELL = "tiny-onnx-fp32-onnxruntime@cpu"
EVERY_STAGE = """
import numpy as np


def test_cell(mf_cell):
    assert mf_cell.cell.id == "tiny-onnx-fp32-onnxruntime@cpu"
    assert (mf_cell.cell.format, mf_cell.cell.backend, mf_cell.cell.device) == ("onnx", "onnxruntime", "cpu")


def test_artifact(mf_artifact):
    assert mf_artifact.path.name == "tiny.onnx"
    assert mf_artifact.size_bytes == mf_artifact.path.stat().st_size


def test_reference(mf_reference):
    ((truth,),) = mf_reference.truths
    assert truth.dtype == np.float64
    assert truth.shape == (8, 3)
    assert mf_reference.noise["fp32"][0].rms > 0


def test_outputs(mf_outputs, mf_reference):
    ((out,),) = mf_outputs
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, mf_reference.truths[0][0], rtol=1e-3, atol=1e-4)


def test_contract_parity_batch_determinism(mf_contract, mf_parity, mf_batch, mf_determinism):
    assert all(verdict.passed for verdict in (mf_contract, mf_parity, mf_batch, mf_determinism))
    assert mf_parity.noise_ratio < 4


def test_timing(mf_timing):
    assert mf_timing.latency_p50_ns > 0
    assert len(mf_timing.samples_ns) >= 6


def test_run(mf_run):
    x = np.eye(4, dtype=np.float32)
    one, rows = mf_run({"x": x}), [mf_run({"x": x[i : i + 1]})["y"] for i in range(4)]
    assert set(one) == {"y"}
    np.testing.assert_allclose(np.concatenate(rows), one["y"], rtol=1e-5, atol=1e-6)


def test_run_refuses_other_names(mf_run):
    mf_run({"z": np.eye(4, dtype=np.float32)})
"""


def test_every_stage_is_a_fixture(run, tiny, pytester):
    pytester.makepyfile(test_own=EVERY_STAGE)
    ran = run("test_own.py", "--mf-model", tiny, *ONE_CELL, "--mf-time-budget", "0.05")
    ran.result.assert_outcomes(passed=7, failed=1)
    refused = ran.checks[CELL, "test_run_refuses_other_names"]
    assert refused["outcome"] == "failed"
    assert refused["sentence"] == "the inputs are called x, and z were given"
    assert set(ran.outcomes) == {
        (CELL, line.split("(")[0][4:]) for line in EVERY_STAGE.splitlines() if line[:4] == "def "
    }


def test_given_paths_keep_the_suites_out(collected, tiny, pytester):
    pytester.makepyfile(test_own="def test_it(mf_parity): assert mf_parity.passed")
    found = collected("test_own.py", "--mf-model", tiny, *ONE_CELL)
    assert found == [f"test_own.py::test_it[{CELL}]"]


def test_suites_and_own_tests_are_run_together_when_both_are_named(collected, tiny, pytester):
    pytester.makepyfile(test_own="def test_it(mf_parity): assert mf_parity.passed")
    found = collected("test_own.py", "modelformats::contract", "--mf-model", tiny, *ONE_CELL)
    assert sorted(found) == [
        f"modelformats::contract::test_interface_survives[{CELL}]",
        f"test_own.py::test_it[{CELL}]",
    ]


@pytest.mark.parametrize(
    ("file", "head"), [("modelformats.toml", ""), ("pyproject.toml", "[tool.modelformats]\n")], ids=["own", "pyproject"]
)
def test_models_come_from_the_configuration(run, tiny, pytester, file, head):
    table = head.strip().strip("[]")
    name = f"{table}.models.digits" if table else "models.digits"
    (pytester.path / file).write_text(
        f'{head}formats = ["onnx"]\nprecisions = ["fp32"]\n[{name}]\npath = "tiny.onnx"\n'
    )
    pytester.makepyfile(test_own="def test_it(mf_parity): assert mf_parity.passed")
    ran = run("--mf-devices", "cpu")
    assert ran.outcomes == {("digits-onnx-fp32-onnxruntime@cpu", "test_it"): "passed"}, ran.text


OWN_PARAMETERS = """
import numpy as np
import pytest


@pytest.mark.parametrize("scale", [0.0, 1.0, 1e6])
@pytest.mark.parametrize("rows", [1, 5])
def test_outputs_are_finite(mf_run, scale, rows):
    assert np.isfinite(mf_run({"x": np.full((rows, 4), scale, np.float32)})["y"]).all()
"""


def test_own_parameters_stand_beside_the_cell(run, tiny, pytester):
    pytester.makepyfile(test_own=OWN_PARAMETERS)
    ran = run("test_own.py", "--mf-model", tiny, *ONE_CELL)
    ran.result.assert_outcomes(passed=6)
    checks = ran.of("check")
    assert {line["cell"] for line in checks} == {CELL}
    assert len({line["test"] for line in checks}) == 6
    assert ran.footer["totals"] == {"passed": 1}


FAILS = """
def test_own_claim(mf_outputs):
    assert mf_outputs[0][0].shape == (8, 99)


def test_raises(mf_cell):
    raise ValueError("of my own making")


def test_without_a_cell():
    pass
"""


def test_a_failing_test_of_the_users_is_on_record(run, tiny, pytester):
    pytester.makepyfile(test_own=FAILS)
    ran = run("test_own.py", "--mf-model", tiny, *ONE_CELL)
    ran.result.assert_outcomes(passed=1, failed=2)
    assert ran.outcomes == {(CELL, "test_own_claim"): "failed", (CELL, "test_raises"): "failed"}
    assert ran.checks[CELL, "test_raises"]["sentence"] == "of my own making"
    assert ran.footer["totals"] == {"failed": 1}


def test_a_failure_that_the_user_marked_as_expected_is_one_on_record(run, tiny, pytester):
    pytester.makepyfile(
        test_own="""
        import pytest

        @pytest.mark.xfail(reason="nets#7")
        def test_it(mf_outputs): assert not len(mf_outputs)
        """
    )
    ran = run("test_own.py", "--mf-model", tiny, *ONE_CELL)
    ran.result.assert_outcomes(xfailed=1)
    assert ran.checks[CELL, "test_it"]["outcome"] == "expected-failure"
    assert "nets#7" in ran.checks[CELL, "test_it"]["sentence"]
    assert ran.footer["totals"] == {"expected-failure": 1}


def test_a_cell_without_a_model_is_a_usage_error(run, pytester):
    pytester.makepyfile(test_own="def test_it(mf_parity): pass\n\ndef test_other(): pass")
    one_sentence(run(inprocess=True), "test_own.py::test_it takes a cell", "--mf-model FILE", "modelformats.toml")


def test_a_wrong_configuration_is_a_usage_error_once_a_test_takes_a_cell(run, pytester):
    (pytester.path / "modelformats.toml").write_text('model = "nowhere.onnx"')
    pytester.makepyfile(test_other="def test_other(): pass")
    assert run(inprocess=True).status == 0
    pytester.makepyfile(test_own="def test_it(mf_parity): pass")
    one_sentence(run(inprocess=True), "nowhere.onnx")


def test_a_stage_that_is_asked_for_too_late_is_told_of(run, tiny, pytester):
    """Cells are parameters, and which a test has is settled before it runs."""
    pytester.makepyfile(
        "def test_late(request):\n    request.getfixturevalue('mf_parity')\n\n\n"
        "def test_cell_in_time(request, mf_cell):\n    assert request.getfixturevalue('mf_parity').passed\n"
    )
    ran = run("--mf-model", tiny, *ONE_CELL, *pytester.path.glob("test_*.py"))
    ran.result.assert_outcomes(passed=1, failed=1)
    assert "mf_cell has no value here" in ran.text
    assert "Take mf_cell as an argument of the test; request.getfixturevalue() comes too late" in ran.text
    assert "AttributeError" not in ran.text
