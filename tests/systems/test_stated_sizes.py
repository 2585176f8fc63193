"""What the formats state of the sizes of free dimensions, on files that their libraries wrote."""

from __future__ import annotations

import json

import onnx
import pytest
from free_sizes import grouped, pooled
from inner_run import two_layers

from pytest_modelformats.errors import SourceError
from pytest_modelformats.schema import Source, TensorSpec
from pytest_modelformats.systems.onnx import format as onnx_format

BOTH = {("height", 320), ("width", 320)}


def described(form, path, kind, **more):
    return form.describe(Source("net", str(path), kind, kind, **more))


def sizes(description):
    return {(d.symbol, d.size) for d in description.sizes}, {d.by for d in description.sizes}


def test_an_onnx_file_is_read_alike_with_and_without_its_library(tmp_path):
    """The plan reads it with the standard library; also where initialisers are inputs, and dimensions have no name."""
    paths = [
        two_layers(tmp_path / "a.onnx"),
        pooled(tmp_path / "b.onnx", dims=("", 1, "", "?"), metadata={"imgsz": "[320, 320]"}),
        grouped(tmp_path / "c.onnx"),
    ]
    older = onnx.load(paths[0])
    older.graph.input.extend(
        onnx.helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)) for t in older.graph.initializer
    )
    onnx.save(older, tmp_path / "d.onnx")
    for path in (*paths, tmp_path / "d.onnx"):
        assert onnx_format.stated(path)[0] == described(onnx_format, path, "onnx").inputs
    assert onnx_format.stated(paths[1])[1] == {"imgsz": "[320, 320]"}
    assert onnx_format.stated(paths[1])[0][0].shape == ("N", 1, "D2", "D3")


@pytest.mark.parametrize("content", [b"\x3a\x7f\x01", b"\x0f\x01", b"\x08" + b"\xff" * 12])
def test_a_file_that_is_no_model_is_refused_without_the_library(tmp_path, content):
    (tmp_path / "bad.onnx").write_bytes(content)
    with pytest.raises(SourceError, match=r"bad\.onnx"):
        onnx_format.stated(tmp_path / "bad.onnx")


def test_an_onnx_file_states_sizes_in_its_metadata_and_the_user_comes_first(tmp_path):
    path = pooled(tmp_path / "net.onnx", metadata={"imgsz": "[320, 320]"})
    assert sizes(described(onnx_format, path, "onnx")) == (BOTH, {"metadata"})
    pinned = described(onnx_format, path, "onnx", inputs=(TensorSpec.parse("x:float32[N,1,320,width]"),))
    assert {(d.symbol, d.by) for d in pinned.sizes} == {("height", "--mf-input"), ("width", "metadata")}
    # What contradicts the user is not used.
    other = described(onnx_format, path, "onnx", inputs=(TensorSpec.parse("x:float32[N,1,24,width]"),))
    assert {(d.symbol, d.by) for d in other.sizes} == {("height", "--mf-input")}


def test_an_openvino_ir_states_sizes_in_its_model_info(tmp_path):
    import openvino

    from pytest_modelformats.systems.openvino import format as openvino_format

    model = openvino.convert_model(str(pooled(tmp_path / "net.onnx")))
    model.set_rt_info("320 320", ["model_info", "imgsz"])
    model.set_rt_info("[1, 1, 320, 320]", ["model_info", "input_shape"])
    openvino.save_model(model, str(tmp_path / "net.xml"))
    found, by = sizes(described(openvino_format, tmp_path / "net.xml", "openvino"))
    assert {size for _, size in found} == {320}
    assert (len(found), by) == (2, {"metadata"})


def test_a_torchscript_states_sizes_in_the_files_beside_its_code(tmp_path):
    """As ultralytics writes them."""
    import torch

    from pytest_modelformats.systems.torch import torchscript

    traced = torch.jit.trace(torch.nn.Conv2d(3, 2, 3), torch.zeros(1, 3, 8, 8))
    torch.jit.save(traced, tmp_path / "net.pt", _extra_files={"config.txt": json.dumps({"imgsz": [320, 320]})})
    given = (TensorSpec.parse("input:float32[N,3,height,width]"),)
    assert sizes(described(torchscript, tmp_path / "net.pt", "torchscript", inputs=given)) == (BOTH, {"metadata"})


def test_an_architecture_states_sizes_that_the_user_leaves_free(tmp_path):
    from pytest_modelformats.systems.torch import pytorch

    (tmp_path / "sized_nets.py").write_text(
        "import torch\nINPUTS = ('input:float32[N,3,320,320]',)\ndef net():\n    return torch.nn.Conv2d(3, 2, 3)\n"
    )
    source = Source(
        "net",
        f"{tmp_path / 'sized_nets.py'}:net",
        "factory",
        "pytorch",
        inputs=(TensorSpec.parse("input:float32[N,3,height,width]"),),
    )
    assert sizes(pytorch.describe(source)) == (BOTH, {"architecture"})
