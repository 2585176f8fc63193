"""``--mf-config``: The configuration file."""

from __future__ import annotations


def test_the_named_file_configures_the_run(cells, tiny, pytester):
    (pytester.path / "nightly.toml").write_text('model = "tiny.onnx"\nformats = ["onnx"]\nprecisions = ["fp16"]\n')
    assert cells("--mf-config", "nightly.toml", "--mf-devices", "cpu") == ["tiny-onnx-fp16-onnxruntime@cpu"]


def test_the_command_line_wins(cells, tiny, pytester):
    (pytester.path / "modelformats.toml").write_text('model = "tiny.onnx"\nformats = ["onnx"]\nprecisions = ["fp16"]\n')
    assert cells("--mf-precisions", "fp32", "--mf-devices", "cpu") == ["tiny-onnx-fp32-onnxruntime@cpu"]


def test_a_missing_file_is_refused(refusal, tiny):
    sentence = refusal("--mf-model", tiny, "--mf-config", "nowhere.toml")
    assert "--mf-config: there is no file" in sentence
    assert "nowhere.toml" in sentence


def test_an_unknown_key_is_refused_with_a_suggestion(refusal, tiny, pytester):
    (pytester.path / "modelformats.toml").write_text('formts = ["onnx"]')
    sentence = refusal("--mf-model", tiny)
    assert "modelformats.toml: 'formts' is not a key; did you mean 'formats'?" in sentence
