"""``--mf-cells``: Only the cells whose ids one of these globs matches."""

from __future__ import annotations


def test_only_what_a_glob_or_an_id_matches_is_planned(cells, tiny):
    chosen = "tiny-onnx-fp32-onnxruntime@cpu,*-openvino-fp*-openvino@cpu"
    assert cells("--mf-model", tiny, "--mf-cells", chosen, "--mf-precisions", "fp32") == [
        "tiny-onnx-fp32-onnxruntime@cpu",
        "tiny-openvino-fp32-openvino@cpu",
    ]


def test_a_glob_that_matches_nothing_is_refused_with_a_suggestion(refusal, tiny):
    said = refusal("--mf-model", tiny, "--mf-cells", "tiny-onnx-fp32-onnxruntime@cpu,tiny-onnx-fp32-onnxruntme@cpu")
    assert "--mf-cells: 'tiny-onnx-fp32-onnxruntme@cpu' matches none of the " in said
    assert "did you mean 'tiny-onnx-fp32-onnxruntime@cpu'?" in said
    # a list of 100,000 ids is no help
    assert "modelformats plan" in refusal("--mf-model", tiny, "--mf-cells", "*-fp32-caffe@*")
