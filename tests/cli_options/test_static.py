"""``--mf-static``: Export fixed shapes instead of dynamic ones."""

from __future__ import annotations


def test_the_export_has_fixed_shapes(run, nets):
    ran = run(
        "--mf-model",
        nets,
        "--mf-formats",
        "onnx.legacy",
        "--mf-precisions",
        "fp32",
        "--mf-devices",
        "cpu",
        "--mf-suites",
        "contract,parity,batch",
        "--mf-static",
    )
    assert ran.status == 0, ran.text
    cell = "build-onnx.legacy-fp32-onnxruntime@cpu"
    assert ran.of("model")[0]["inputs"] == ["x:float32[1,4]"]
    assert ran.outcomes == {(cell, "contract"): "passed", (cell, "parity"): "passed", (cell, "batch"): "unsupported"}
    assert "fixed" in ran.checks[cell, "batch"]["sentence"]


def test_a_value_other_than_true_or_false_is_refused(refusal, tiny, pytester):
    (pytester.path / "modelformats.toml").write_text("static = []")
    assert "'static' is [] (a list); expected true or false" in refusal("--mf-model", tiny)
