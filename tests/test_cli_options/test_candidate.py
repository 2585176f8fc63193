"""``--mf-candidate``: An artifact you already have, judged against the model as if converted here."""

from __future__ import annotations

from inner_run import PARITY, two_layers


def test_a_candidate_is_a_cell_beside_those_converted_here(cells, tiny, pytester):
    two_layers(pytester.path / "shipped.onnx")
    found = cells("--mf-model", tiny, "--mf-candidate", "shipped.onnx", *PARITY[2:])
    assert found == ["tiny-onnx-fp32-onnxruntime@cpu", "tiny~shipped-onnx-fp32-onnxruntime@cpu"]


def test_an_unknown_key_is_refused_with_a_suggestion(refusal, tiny):
    sentence = refusal("--mf-model", tiny, "--mf-candidate", "tiny.onnx,precison=fp16")
    assert "'precison'" in sentence
    assert "did you mean 'precision'?" in sentence


def test_a_missing_file_is_refused(refusal, tiny):
    assert "there is no file" in refusal("--mf-model", tiny, "--mf-candidate", "nowhere.onnx")
