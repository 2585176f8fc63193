"""``--mf-model``: A model to test: a file, a folder of models, or module:callable that builds one."""

from __future__ import annotations

from inner_run import PARITY, two_layers


def test_every_model_named_has_cells(cells, tiny, nets, pytester):
    two_layers(pytester.path / "other.onnx")
    found = cells("--mf-model", tiny, "--mf-model", "other.onnx", "--mf-model", nets, *PARITY[2:])
    assert found == [f"{name}-onnx-fp32-onnxruntime@cpu" for name in ("tiny", "other", "build")]


def test_a_folder_stands_for_the_models_in_it(cells, pytester):
    folder = pytester.mkdir("models")
    two_layers(folder / "b.onnx")
    two_layers(folder / "a.onnx")
    (folder / "README.md").write_text("not a model")
    assert cells("--mf-model", "models", *PARITY[2:]) == ["a-onnx-fp32-onnxruntime@cpu", "b-onnx-fp32-onnxruntime@cpu"]


def test_models_of_one_name_are_told_apart(cells, pytester):
    for folder in ("one", "two"):
        two_layers(pytester.mkdir(folder) / "net.onnx")
    found = cells("--mf-model", "one/net.onnx", "--mf-model", "two/net.onnx", *PARITY[2:])
    assert found == ["net-onnx-fp32-onnxruntime@cpu", "net_2-onnx-fp32-onnxruntime@cpu"]


def test_a_model_elsewhere_leaves_the_project_where_it_is(run, shelf, pytester):
    ran = run("--mf-model", shelf / "tiny.onnx", *PARITY)
    assert ran.status == 0, ran.text
    assert ran.folder.parent == pytester.path / "reports"


def test_a_folder_without_models_is_refused(refusal, pytester):
    pytester.mkdir("empty")
    assert "holds no model" in refusal("--mf-model", "empty")
