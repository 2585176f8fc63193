"""``--mf-opset``: The ONNX opset to export."""

from __future__ import annotations

OWN = """
def test_opset(mf_artifact):
    import onnx

    found = {o.domain: o.version for o in onnx.load(str(mf_artifact.path)).opset_import}
    assert found[""] == 17
"""


def test_the_export_has_the_asked_opset(run, nets, pytester):
    pytester.makepyfile(test_own=OWN)
    ran = run(
        "test_own.py",
        "--mf-model",
        nets,
        "--mf-formats",
        "onnx.legacy",
        "--mf-precisions",
        "fp32",
        "--mf-devices",
        "cpu",
        "--mf-opset",
        "17",
    )
    assert ran.status == 0, ran.text
    assert ran.of("header")[0]["options"]["opset"] == 17


def test_an_opset_that_nobody_writes_is_refused(refusal, tiny):
    sentence = refusal("--mf-model", tiny, "--mf-opset", "6")
    assert "--mf-opset is '6'; expected a whole number of at least 7" in sentence
