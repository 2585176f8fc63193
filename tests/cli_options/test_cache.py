"""``--mf-cache``: Folder that keeps converted artifacts between runs."""

from __future__ import annotations

CONVERTED = ("--mf-formats", "onnx", "--mf-precisions", "fp16", "--mf-devices", "cpu", "--mf-suites", "parity")


def test_an_artifact_is_converted_once_and_then_taken_from_the_folder(run, tiny, pytester):
    chosen = ("--mf-model", tiny, *CONVERTED, "--mf-cache", "kept/here")
    first, second = run(*chosen, cache=False), run(*chosen, cache=False)
    assert first.status == second.status == 0, first.text + second.text
    assert first.footer["conversions"] == {"made": 1, "cached": 0}
    assert second.footer["conversions"] == {"made": 0, "cached": 1}
    assert len(list((pytester.path / "kept/here").rglob("model.onnx"))) == 1


def test_a_damaged_artifact_is_made_again(run, tiny, pytester):
    chosen = ("--mf-model", tiny, *CONVERTED, "--mf-cache", "kept")
    run(*chosen, cache=False)
    (artifact,) = (pytester.path / "kept").rglob("model.onnx")
    whole = artifact.read_bytes()
    artifact.write_bytes(whole[:-1] + b"?")
    again = run(*chosen, cache=False)
    assert again.status == 0, again.text
    assert again.footer["conversions"] == {"made": 1, "cached": 0}
    assert artifact.read_bytes() == whole


def test_a_file_in_place_of_the_folder_is_refused(refusal, tiny):
    sentence = refusal("--mf-model", tiny, "--mf-cache", "tiny.onnx", cache=False)
    assert "--mf-cache is 'tiny.onnx'; expected a folder, and this is a file" in sentence


ZOO = """
import torch


def _of(activation):
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), activation, torch.nn.Linear(8, 3))


def relu():
    return _of(torch.nn.ReLU())


def gelu():
    return _of(torch.nn.GELU())
"""


def test_two_models_of_the_same_weights_and_file_share_nothing(run, pytester):
    """The one's artifact taken for the other's would pass: its reference would be the other's, too."""
    (pytester.path / "zoo.py").write_text(ZOO)
    chosen = ("--mf-input", "input:float32[N,4]", *CONVERTED, "--mf-cache", "kept")
    ran = [run("--mf-model", f"zoo.py:{name}", *chosen, cache=False) for name in ("relu", "gelu")]
    assert [r.status for r in ran] == [0, 0], ran[1].text
    assert [r.footer["conversions"]["cached"] for r in ran] == [0, 0]
    artifacts = {path.read_bytes() for path in (pytester.path / "kept").rglob("model.onnx")}
    assert any(b"Erf" in artifact or b"Gelu" in artifact for artifact in artifacts)
    assert any(b"Relu" in artifact for artifact in artifacts)
