"""``--mf-backends``: Only these backends."""

from __future__ import annotations


def test_only_the_named_backends_have_cells(cells, tiny):
    found = cells("--mf-model", tiny, "--mf-backends", "openvino", "--mf-precisions", "fp32", "--mf-devices", "cpu")
    assert found
    assert all("-openvino@" in cell for cell in found)


def test_an_unknown_name_is_refused_with_a_suggestion(refusal, tiny):
    sentence = refusal("--mf-model", tiny, "--mf-backends", "onnxrutime")
    assert "unknown backend 'onnxrutime'; did you mean 'onnxruntime'?" in sentence
