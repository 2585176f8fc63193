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


def test_an_unknown_device_is_refused_with_a_suggestion(refusal, tiny):
    sentence = refusal("--mf-model", tiny, "--mf-candidate", "tiny.onnx,device=gpu")
    assert "'tiny.onnx,device=gpu' has an unknown device; did you mean 'cuda'?" in sentence


def test_a_candidate_that_gets_no_cell_is_refused(refusal, cells, tiny, pytester):
    """Nobody learns from a run without it whether the artifact is any good."""
    two_layers(pytester.path / "mine.onnx")
    chosen = ("--mf-model", tiny, "--mf-candidate")
    sentence = refusal(*chosen, "mine.onnx,precision=bf16")
    assert "'mine.onnx' gets no cell: onnxruntime runs onnx at fp32, tf32, fp16, and not at bf" in sentence
    sentence = refusal(*chosen, "mine.onnx", "--mf-backends", "openvino")
    assert "it is onnx at fp32, which onnxruntime runs, and --mf-backends is openvino; add onnxruntime" in sentence
    sentence = refusal(*chosen, "mine.onnx,device=cuda", "--mf-devices", "cpu")
    assert "it runs on cuda, and --mf-devices is cpu; add cuda there" in sentence
    sentence = refusal(*chosen, "mine.onnx,precision=tf32,device=cpu")
    assert "onnxruntime runs onnx at tf32 on cuda, and not on cpu" in sentence
    # The file's own candidates are left out as other cells are, where the command line narrows.
    (pytester.path / "modelformats.toml").write_text('candidate = ["mine.onnx"]\n')
    narrowed = ("--mf-model", tiny, "--mf-precisions", "fp32", "--mf-devices", "cpu", "--mf-backends", "openvino")
    assert cells(*narrowed) == ["tiny-openvino-fp32-openvino@cpu"]
    (pytester.path / "modelformats.toml").write_text('candidate = ["mine.onnx"]\nbackends = ["openvino"]\n')
    assert "--mf-backends is openvino" in refusal("--mf-model", tiny)
