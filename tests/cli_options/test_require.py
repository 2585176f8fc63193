"""``--mf-require``: 'not run' becomes a failure for the named."""

from __future__ import annotations

from inner_run import ONE_CELL, PARITY


def test_a_name_that_did_not_run_fails(run, tiny, imaginary):
    imaginary(requires="a_runtime_that_is_not_installed")
    chosen = ("--mf-model", tiny, *ONE_CELL[:4], "--mf-devices", "cpu", "--mf-suites", "parity")
    cell = "tiny-onnx-fp32-imaginary@cpu"
    lenient = run(*chosen)
    assert lenient.status == 0, lenient.text
    assert lenient.outcomes[cell, "availability"] == "missing-dependency"
    strict = run(*chosen, "--mf-require", "imaginary,onnxruntime")
    assert strict.status == 1
    assert strict.outcomes[cell, "availability"] == "failed"
    assert strict.outcomes["tiny-onnx-fp32-onnxruntime@cpu", "parity"] == "passed"
    sentence = strict.checks[cell, "availability"]["sentence"]
    assert "--mf-require imaginary" in sentence
    assert "pip install imaginary" in sentence
    assert strict.footer["totals"] == {"passed": 1, "failed": 1}


def test_an_unknown_name_is_refused_with_a_suggestion(refusal, tiny):
    sentence = refusal("--mf-model", tiny, "--mf-require", "openvno")
    assert "unknown name to require 'openvno'; did you mean 'openvino'?" in sentence


def test_a_name_that_no_cell_has_fails(run, tiny, pytester):
    chosen = ("--mf-model", tiny, *PARITY)
    strict = run(*chosen, "--mf-require", "onnx,pytorch")
    assert strict.status == 1, strict.text
    assert "--mf-require pytorch: no planned cell has it with --mf-formats" in strict.text
    assert "--mf-require onnx" not in strict.text
    assert strict.footer["totals"] == {"passed": 1}
    # What the file requires, a narrower look at the keyboard need not have.
    (pytester.path / "modelformats.toml").write_text('require = ["openvino"]\n')
    assert run(*chosen).status == 0
    (pytester.path / "modelformats.toml").write_text('require = ["openvino"]\nformats = ["onnx"]\n')
    whole = run("--mf-model", tiny, "--mf-suites", "contract")
    assert whole.status == 1, whole.text
    assert "--mf-require openvino: no planned cell has it, so it did not run" in whole.text
