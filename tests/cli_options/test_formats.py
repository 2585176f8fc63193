"""``--mf-formats``: Only these formats; format.route asks for one way of converting."""

from __future__ import annotations


def test_only_the_named_formats_have_cells(cells, tiny):
    found = cells("--mf-model", tiny, "--mf-formats", "openvino", "--mf-precisions", "fp32", "--mf-devices", "cpu")
    assert found == ["tiny-openvino-fp32-openvino@cpu"]


def test_a_route_is_asked_for_by_name(cells, nets):
    found = cells(
        "--mf-model",
        nets,
        "--mf-formats",
        "onnx,onnx.legacy",
        "--mf-precisions",
        "fp32",
        "--mf-backends",
        "onnxruntime",
        "--mf-devices",
        "cpu",
    )
    assert found == ["build-onnx-fp32-onnxruntime@cpu", "build-onnx.legacy-fp32-onnxruntime@cpu"]


def test_an_unknown_name_is_refused_with_a_suggestion(refusal, tiny):
    assert "unknown format 'onxx'; did you mean 'onnx'?" in refusal("--mf-model", tiny, "--mf-formats", "onxx")
