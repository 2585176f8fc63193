"""``--mf-config``: The configuration file."""

from __future__ import annotations

from inner_run import PARITY


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


def test_a_budget_that_matches_no_cell_is_refused(refusal, cells, tiny, pytester):
    """Mistyped, it would watch over nothing, without a word."""
    (pytester.path / "modelformats.toml").write_text('[budgets."tiny-onnx-fp32-onxruntime@*"]\nsize_mb = 1\n')
    sentence = refusal("--mf-model", tiny, *PARITY)
    assert 'modelformats.toml: [budgets."tiny-onnx-fp32-onxruntime@*"] matches no cell that can be pl' in sentence
    assert "did you mean 'tiny-onnx-fp32-onnxruntime@" in sentence
    # What the command line leaves out is no mistake, and neither is a precision that is run on request.
    for glob in ("*-openvino-fp16-*", "*-default-*"):
        (pytester.path / "modelformats.toml").write_text(f'[budgets."{glob}"]\nsize_mb = 1\n')
        assert cells("--mf-model", tiny, *PARITY[2:]) == ["tiny-onnx-fp32-onnxruntime@cpu"]
