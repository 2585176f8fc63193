"""``--mf-precisions``: Only these precisions."""

from __future__ import annotations


def test_only_the_named_precisions_have_cells(cells, tiny):
    found = cells("--mf-model", tiny, "--mf-precisions", "fp16", "--mf-formats", "onnx", "--mf-devices", "cpu")
    assert found == ["tiny-onnx-fp16-onnxruntime@cpu"]


def test_an_unknown_name_is_refused_with_a_suggestion(refusal, tiny):
    assert "unknown precision 'fp61'; did you mean 'fp16'?" in refusal("--mf-model", tiny, "--mf-precisions", "fp61")


def test_a_selection_that_leaves_nothing_is_refused(refusal, tiny):
    sentence = refusal("--mf-model", tiny, "--mf-precisions", "bf16", "--mf-formats", "onnx")
    assert "no cell is left to run" in sentence
    assert "--mf-formats onnx --mf-precisions bf16" in sentence
