"""The OpenVINO lane end to end: recognise, describe, reference, convert, check, open, run."""

from __future__ import annotations

import itertools
import shutil

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from pytest_modelformats.compare import rounding
from pytest_modelformats.errors import ConvertError, RunError, SourceError, Unsupported
from pytest_modelformats.schema import Source, TensorSpec
from pytest_modelformats.schema.contract import ConversionJob, SessionJob
from pytest_modelformats.systems.openvino import backend as ov_backend
from pytest_modelformats.systems.openvino import format as ov_format
from pytest_modelformats.systems.openvino import (
    fp16_weights_from_openvino,
    from_onnx,
    from_pt2,
    from_pytorch,
    from_torchscript,
)


class Cnn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 16, 3, stride=2)
        self.head = nn.Linear(16 * 9, 10)

    def forward(self, image):
        return self.head(torch.relu(self.second(nn.functional.gelu(self.norm(self.first(image))))).flatten(1))


class Masked(nn.Module):
    """Two inputs that share dimensions, two outputs of different dtypes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(11, 8)
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 1)

    def forward(self, ids, mask):
        hidden = self.encoder(self.embedding(ids)) * mask[..., None]
        return {"hidden": hidden, "token": hidden.argmax(-1)}


class Bessel(nn.Module):
    def forward(self, x):
        return torch.special.bessel_j0(x)


CNN_IN = [TensorSpec("image", "float32", ("batch", 1, 8, 8))]
CNN_OUT = [TensorSpec("logits", "float32", ("batch", 10))]
MASKED_IN = [TensorSpec("ids", "int64", ("N", 3), 0, 10), TensorSpec("mask", "float32", ("N", 3))]
MASKED_OUT = [TensorSpec("hidden", "float32", ("N", 3, 8)), TensorSpec("token", "int64", ("N", 3))]


def rms(array):
    return float(np.sqrt(np.mean(np.square(np.asarray(array, np.float64)))))


@pytest.fixture
def conversion(tmp_path, monkeypatch):
    """Make a job whose source loads as the given module."""
    count = itertools.count()

    def make(module, specs, outputs, *, input_path=None, precision="fp32"):
        module = module.eval()
        monkeypatch.setattr(from_pytorch, "load_module", lambda _source: module)
        folder = tmp_path / f"job{next(count)}"
        folder.mkdir()
        generator = np.random.default_rng(3)
        example = {}
        for spec in specs:
            shape = [2 if isinstance(d, str) else d for d in spec.shape]
            if spec.is_float:
                example[spec.name] = generator.standard_normal(shape, dtype=np.float32)
            else:
                example[spec.name] = generator.integers(int(spec.low), int(spec.high) + 1, shape)
        source = Source("net", "tests:net", "factory", "pytorch")
        contract = tuple(specs), tuple(outputs)
        path = input_path or tmp_path / "none"
        return ConversionJob(source, path, folder / "model.xml", "fp32", precision, *contract, example, {})

    return make


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """The folder of the IR of a small CNN, converted once."""
    path = tmp_path_factory.mktemp("ir") / "model.xml"
    example = {"image": np.random.default_rng(3).standard_normal((2, 1, 8, 8), dtype=np.float32)}
    source = Source("net", "tests:net", "factory", "pytorch")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(from_pytorch, "load_module", lambda _source: Cnn().eval())
        from_pytorch.convert(ConversionJob(source, path, path, "fp32", "fp32", tuple(CNN_IN), tuple(CNN_OUT), example))
    return path.parent


@pytest.fixture
def cnn_ir(conversion, converted):
    """A copy of the IR, to be damaged at will."""
    job = conversion(Cnn(), CNN_IN, CNN_OUT)
    shutil.copytree(converted, job.output.parent, dirs_exist_ok=True)
    return job


def open_ir(path, precision="fp32", artifact_precision="fp32", threads=1, inputs=(), outputs=()):
    source = source_of(path)
    return ov_backend.open_session(
        SessionJob(source, path, "openvino", artifact_precision, precision, "cpu", threads, inputs, outputs)
    )


def source_of(path, **fields):
    return Source("net", str(path), "openvino", "openvino", **fields)


def images(batch, seed=0):
    return np.random.default_rng(seed).standard_normal((batch, 1, 8, 8), dtype=np.float32)


def torch_logits(image):
    with torch.no_grad():
        return Cnn().eval().double()(torch.from_numpy(image).double()).numpy()


def assert_runs_like_the_cnn(job, artifact_precision="fp32", precision="fp32", tolerance=2e-6):
    ov_format.check(job.output)
    session = open_ir(job.output, precision, artifact_precision)
    assert [str(s) for s in session.inputs] == ["image:float32[N,1,8,8]"]
    assert [str(s) for s in session.outputs] == ["logits:float32[N,10]"]
    for batch in (5, 1, 2, 7):
        np.testing.assert_allclose(
            session.run({"image": images(batch)})[0], torch_logits(images(batch)), atol=tolerance
        )


# --- recognising and describing ----------------------------------------------------------------


def test_an_ir_is_recognised_by_its_root(cnn_ir, tmp_path):
    head = cnn_ir.output.read_bytes()[:4096]
    assert ov_format.sniff(cnn_ir.output, head) == "openvino"
    other = tmp_path / "page.xml"
    other.write_text("<html><body/></html>")
    assert ov_format.sniff(other, other.read_bytes()) is None
    other.write_bytes(b"\x08\x0a")
    assert ov_format.sniff(other, other.read_bytes()) is None


def test_an_ir_without_its_weights_is_refused(cnn_ir):
    cnn_ir.output.with_suffix(".bin").unlink()
    with pytest.raises(SourceError, match=r"'model\.bin' do not lie beside it"):
        ov_format.sniff(cnn_ir.output, cnn_ir.output.read_bytes()[:4096])


def test_a_truncated_or_empty_ir_is_refused(cnn_ir):
    whole = cnn_ir.output.read_bytes()
    cnn_ir.output.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SourceError, match=r"'model\.xml' is a damaged OpenVINO IR: .*line"):
        ov_format.sniff(cnn_ir.output, whole[:4096])
    cnn_ir.output.write_bytes(b"")
    with pytest.raises(SourceError, match="empty"):
        ov_format.sniff(cnn_ir.output, b"")


def test_entities_are_never_expanded(tmp_path):
    path = tmp_path / "bomb.xml"
    bomb = "".join(f'<!ENTITY e{i} "{f"&e{i - 1};" * 10 if i else "x" * 1000}">' for i in range(12))
    path.write_text(f"<!DOCTYPE net [{bomb}]><net>&e11;</net>")
    path.with_suffix(".bin").write_bytes(b"")
    assert ov_format.sniff(path, path.read_bytes()[:4096]) is None


def test_cut_weights_are_a_source_error(cnn_ir):
    weights = cnn_ir.output.with_suffix(".bin")
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(SourceError, match=r"'model\.xml' cannot be read as an OpenVINO IR"):
        ov_format.describe(source_of(cnn_ir.output))
    with pytest.raises(ConvertError, match=r"OpenVINO refuses 'model\.xml'"):
        ov_format.check(cnn_ir.output)


def test_dynamic_dimensions_are_described_by_letters_and_may_be_fixed(cnn_ir):
    described = ov_format.describe(source_of(cnn_ir.output))
    assert [str(s) for s in (*described.inputs, *described.outputs)] == [
        "image:float32[N,1,8,8]",
        "logits:float32[N,10]",
    ]
    fixed = source_of(cnn_ir.output, inputs=(TensorSpec.parse("image:float32[4,1,8,8]"),))
    assert ov_format.describe(fixed).outputs[0].shape == (4, 10)


# --- the reference -----------------------------------------------------------------------------


def test_the_reference_says_that_it_is_estimated_and_grows_with_the_rounding_unit(cnn_ir):
    source, feeds = source_of(cnn_ir.output), [{"image": images(8)}]
    truth, method = ov_format.evaluate(source, feeds, "float64")
    assert method.startswith("estimated: fp32 run taken as truth")
    assert rms(truth[0][0] - torch_logits(images(8))) < 1e-6
    noise = {}
    for precision in ("fp32", "fp16", "bf16", "fp16-weights"):
        outputs, method = ov_format.evaluate(source, feeds, precision)
        assert precision in method
        noise[precision] = rms(outputs[0][0] - truth[0][0])
    assert 0 < 1000 * noise["fp32"] < noise["fp16"] < noise["bf16"] / 4
    assert noise["fp32"] * 100 < noise["fp16-weights"] < noise["bf16"]


def test_an_ir_with_compressed_weights_has_a_reference_too(conversion, cnn_ir):
    job = conversion(Cnn(), CNN_IN, CNN_OUT, input_path=cnn_ir.output, precision="fp16-weights")
    fp16_weights_from_openvino.convert(job)
    feeds = [{"image": images(4)}]
    truth, _ = ov_format.evaluate(source_of(job.output), feeds, "float64")
    noise = rms(ov_format.evaluate(source_of(job.output), feeds, "fp32")[0][0][0] - truth[0][0])
    assert 0 < noise < 1e-6


# --- converting --------------------------------------------------------------------------------


def test_a_module_is_converted_with_its_names_and_dynamic_batch(cnn_ir):
    assert_runs_like_the_cnn(cnn_ir)


def test_two_inputs_and_two_outputs_keep_names_dtypes_and_order(conversion):
    module = Masked().eval()
    job = conversion(module, MASKED_IN, MASKED_OUT)
    from_pytorch.convert(job)
    session = open_ir(job.output)
    assert [str(s) for s in session.inputs] == ["ids:int64[N,3]", "mask:float32[N,3]"]
    assert [str(s) for s in session.outputs] == ["hidden:float32[N,3,8]", "token:int64[N,3]"]
    for batch in (1, 2, 5):
        ids = np.random.default_rng(batch).integers(0, 11, (batch, 3))
        mask = np.random.default_rng(batch).random((batch, 3), dtype=np.float32)
        hidden, token = session.run({"mask": mask, "ids": ids})
        with torch.no_grad():
            expected = list(module(torch.from_numpy(ids), torch.from_numpy(mask)).values())
        np.testing.assert_allclose(hidden, expected[0], atol=2e-6)
        np.testing.assert_array_equal(token, expected[1])


def test_an_exported_program_is_converted_with_its_names_and_dynamic_batch(conversion, tmp_path):
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(Cnn().eval(), (torch.zeros(2, 1, 8, 8),), dynamic_shapes=({0: batch},))
    torch.export.save(program, tmp_path / "m.pt2")
    job = conversion(Cnn(), CNN_IN, CNN_OUT, input_path=tmp_path / "m.pt2")
    from_pt2.convert(job)
    assert_runs_like_the_cnn(job)


def test_a_program_exported_for_one_batch_size_is_refused_where_the_batch_is_symbolic(conversion, tmp_path):
    torch.export.save(torch.export.export(Cnn().eval(), (torch.zeros(2, 1, 8, 8),)), tmp_path / "m.pt2")
    job = conversion(Cnn(), CNN_IN, CNN_OUT, input_path=tmp_path / "m.pt2")
    with pytest.raises(ConvertError, match=r"dimension 0 \('batch'\) of 'image' of 'net' was fixed to 2"):
        from_pt2.convert(job)


def test_a_script_is_converted_with_its_names_and_dynamic_batch(conversion, tmp_path):
    with torch.no_grad():
        torch.jit.trace(Cnn().eval(), (torch.zeros(2, 1, 8, 8),)).save(tmp_path / "m.pt")
    job = conversion(Cnn(), CNN_IN, CNN_OUT, input_path=tmp_path / "m.pt")
    from_torchscript.convert(job)
    assert_runs_like_the_cnn(job)


def test_an_onnx_model_is_converted_with_its_names_and_dynamic_batch(conversion, tmp_path):
    axes = {"image": {0: "batch"}, "logits": {0: "batch"}}
    torch.onnx.export(
        Cnn().eval(), (torch.zeros(2, 1, 8, 8),), str(tmp_path / "m.onnx"), input_names=["image"],
        output_names=["logits"], dynamic_axes=axes, dynamo=False,
    )  # fmt: skip
    job = conversion(Cnn(), CNN_IN, CNN_OUT, input_path=tmp_path / "m.onnx")
    from_onnx.convert(job)
    assert_runs_like_the_cnn(job)


def squeezed(path, kernel=(4, 3, 3, 3)):
    """A convolution behind a Squeeze without axes: the graph's own dimensions do not say its rank."""
    weights = np.random.default_rng(0).standard_normal(kernel).astype(np.float32)
    nodes = [
        onnx.helper.make_node("Squeeze", ["x"], ["s"]),
        onnx.helper.make_node("Conv", ["s", "w"], ["y"], name="the_convolution"),
    ]
    inputs = [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["a", "b", "c", "d", "e"])]
    outputs = [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)]
    graph = onnx.helper.make_graph(nodes, "g", inputs, outputs, [onnx.numpy_helper.from_array(weights, "w")])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_what_only_the_contracts_shapes_make_clear_is_converted_with_them(conversion, tmp_path):
    specs = [TensorSpec("x", "float32", (2, 3, 8, 8, 1))]
    outputs = [TensorSpec("y", "float32", (2, 4, 6, 6))]
    job = conversion(Cnn(), specs, outputs, input_path=squeezed(tmp_path / "m.onnx"))
    from_onnx.convert(job)
    feed = {"x": np.random.default_rng(1).standard_normal((2, 3, 8, 8, 1)).astype(np.float32)}
    wanted = onnxruntime.InferenceSession(str(tmp_path / "m.onnx")).run(None, feed)[0]
    np.testing.assert_allclose(open_ir(job.output).run(feed)[0], wanted, atol=1e-5)


def test_what_openvino_says_of_an_operator_is_the_reason(conversion, tmp_path):
    specs = [TensorSpec("x", "float32", ("a", "b", "c", "d", "e"))]
    job = conversion(Cnn(), specs, [TensorSpec("y", "float32", None)], input_path=squeezed(tmp_path / "m.onnx"))
    with pytest.raises(ConvertError, match=r"'net': Conv-1\d: .*rank has to be known"):
        from_onnx.convert(job)


def test_compressed_weights_are_half_the_size_and_run_in_fp32(conversion, cnn_ir):
    job = conversion(Cnn(), CNN_IN, CNN_OUT, input_path=cnn_ir.output, precision="fp16-weights")
    fp16_weights_from_openvino.convert(job)
    sizes = [path.with_suffix(".bin").stat().st_size for path in (cnn_ir.output, job.output)]
    assert sizes[1] < 0.6 * sizes[0]
    assert_runs_like_the_cnn(job, "fp16-weights", "fp16-weights", tolerance=2e-3)
    rounded, _ = ov_format.evaluate(source_of(cnn_ir.output), [{"image": images(4)}], "fp16-weights")
    ran = open_ir(job.output, "fp16-weights", "fp16-weights").run({"image": images(4)})
    np.testing.assert_allclose(ran[0], rounded[0][0], atol=2e-6)


def test_compressing_leaves_of_every_constant_what_the_noise_takes_for_it(tmp_path):
    """Single numbers and tensors of which too much would be lost stay in fp32; all others are rounded, or cut off."""
    import openvino
    from openvino import opset13

    small, third = 1e-5, np.float32(1 / 3)
    values = [
        [third], [third, third], [2.0], [-1e9], [1e6, *[third] * 7], [*[1e6] * 5, *[third] * 3],
        [*[1e6] * 6, third, third], [*[small] * 5, *[third] * 3], [*[small] * 6, third, third],
        [*[5e-5] * 7, third], [*[65505.0] * 3, third], [*[65505.0] * 2, third, third], [*[1e6] * 3, *[small] * 3, 1, 1],
        [1e-9, third, third, third], [-np.inf, third, third], [0.0, 0.0, third], images(1).ravel(),
    ]  # fmt: skip
    constants = [np.array(v, np.float32) for v in values]
    x = opset13.parameter([-1, 1], np.float32, name="x")
    sums = [opset13.add(x, opset13.constant(c)) for c in constants]
    openvino.save_model(openvino.Model(sums, [x], "m"), str(tmp_path / "m.xml"), compress_to_fp16=True)
    kept = openvino.Core().read_model(str(tmp_path / "m.xml"))
    for output, constant in zip(kept.outputs, constants, strict=True):
        node = output.get_node().input_value(0).get_node().input_value(1).get_node()
        node = node if node.get_type_name() == "Constant" else node.input_value(0).get_node()
        assert np.array_equal(node.get_data(dtype=np.float32).ravel(), rounding.compressed(constant)), constant


def test_a_square_is_no_reason_for_nan_in_an_estimate(tmp_path):
    """An exponent that is moved by a rounding unit has no power of a negative number."""
    import openvino
    from openvino import opset13

    x = opset13.parameter([-1, 3], np.float32, name="x")
    square = opset13.power(x, opset13.constant(np.float32(2)))
    openvino.save_model(openvino.Model([square], [x], "m"), str(tmp_path / "m.xml"), compress_to_fp16=False)
    feeds = [{"x": np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)}]
    source = source_of(tmp_path / "m.xml")
    truth, noise = (ov_format.evaluate(source, feeds, p)[0][0][0] for p in ("float64", "fp32"))
    assert 0 < rms(noise - truth) < 1e-6


class Shared(nn.Module):
    """Outputs that are an input, or each other."""

    def forward(self, x, ids):
        hidden = x * 2
        return hidden, x, hidden, ids, x


SHARED_IN = [TensorSpec("x", "float32", ("N", 3)), TensorSpec("ids", "int64", ("N",), 0, 10)]
SHARED_OUT = [
    TensorSpec(name, dtype, shape)
    for name, dtype, shape in (
        ("output_0", "float32", ("N", 3)),
        ("output_1", "float32", ("N", 3)),
        ("output_2", "float32", ("N", 3)),
        ("output_3", "int64", ("N",)),
        ("x_again", "float32", ("N", 3)),
    )
]


@pytest.mark.parametrize("route", ["torch", "onnx"])
def test_an_output_that_is_an_input_or_another_output_keeps_its_own_name(conversion, tmp_path, route):
    path = tmp_path / "m.onnx"
    job = conversion(Shared(), SHARED_IN, SHARED_OUT, input_path=path)
    if route == "torch":
        from_pytorch.convert(job)
    else:
        names = {"input_names": ["x", "ids"], "output_names": [s.name for s in SHARED_OUT], "dynamo": False}
        axes = {spec.name: {0: "N"} for spec in (*SHARED_IN, *SHARED_OUT)}
        example = (torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64))
        torch.onnx.export(Shared().eval(), example, str(path), dynamic_axes=axes, **names)
        from_onnx.convert(job)
    ov_format.check(job.output)
    session = open_ir(job.output)
    assert [str(s) for s in session.inputs] == ["x:float32[N,3]", "ids:int64[N]"]
    assert [(s.name, s.dtype) for s in session.outputs] == [(s.name, s.dtype) for s in SHARED_OUT]
    x, ids = np.random.default_rng(0).standard_normal((5, 3), dtype=np.float32), np.arange(5)
    for got, expected in zip(session.run({"x": x, "ids": ids}), (x * 2, x, x * 2, ids, x), strict=True):
        np.testing.assert_array_equal(got, expected)


def test_an_output_that_is_called_as_an_input_is_unsupported(conversion):
    """OpenVINO's own file format renames the output: 'output' comes back as 'output_1'."""

    class Named(nn.Module):
        def forward(self, output):
            return output * 2

    spec = TensorSpec("output", "float32", ("N", 3))
    with pytest.raises(Unsupported, match="of 'net' are both called 'output'"):
        from_pytorch.convert(conversion(Named(), [spec], [spec]))


def test_an_operator_without_conversion_rule_is_unsupported_and_named(conversion):
    spec = TensorSpec("x", "float32", ("N", 4))
    job = conversion(Bessel(), [spec], [TensorSpec("y", "float32", ("N", 4))])
    with pytest.raises(Unsupported, match="aten::special_bessel_j0"):
        from_pytorch.convert(job)


def test_a_lost_input_is_a_convert_error(conversion):
    class Deaf(nn.Module):
        def forward(self, ids, mask):
            return ids * 2

    job = conversion(Deaf(), MASKED_IN, [MASKED_OUT[1]])
    try:
        from_pytorch.convert(job)
    except ConvertError as error:
        assert "1 inputs, the source 2 (ids, mask)" in str(error)  # noqa: PT017 - OpenVINO may also keep it
    else:
        assert [s.name for s in open_ir(job.output).inputs] == ["ids", "mask"]


def test_inputs_are_matched_by_name_where_the_contract_has_another_order(conversion):
    job = conversion(Masked(), MASKED_IN[::-1], MASKED_OUT)
    from_pytorch.convert(job)
    assert [str(s) for s in open_ir(job.output).inputs] == ["mask:float32[N,3]", "ids:int64[N,3]"]


# --- the runtime -------------------------------------------------------------------------------


def noise_of(cnn_ir, precision):
    session = open_ir(cnn_ir.output, precision)
    return rms(session.run({"image": images(16)})[0] - torch_logits(images(16))), session.statement


def has_bf16_units():
    import openvino

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@pytest.mark.skipif("not has_bf16_units()", reason="this CPU has no bf16 units: OpenVINO then runs fp32")
def test_the_bf16_hint_gives_errors_of_bf16_size(cnn_ir):
    fp32, statement = noise_of(cnn_ir, "fp32")
    assert statement["precision_hint"] == "f32"
    bf16, statement = noise_of(cnn_ir, "bf16")
    assert statement["precision_hint"] == "bf16"
    feeds, source = [{"image": images(16)}], source_of(cnn_ir.output)
    truth = ov_format.evaluate(source, feeds, "float64")[0][0][0]
    yardstick = rms(ov_format.evaluate(source, feeds, "bf16")[0][0][0] - truth)
    assert 1000 * fp32 < bf16
    assert 0.3 < bf16 / yardstick < 3


@pytest.mark.skipif("not has_bf16_units()", reason="this CPU has no bf16 units: OpenVINO then runs fp32")
def test_what_the_f16_hint_and_no_hint_give_is_stated_and_measurable(cnn_ir):
    sizes = {precision: noise_of(cnn_ir, precision) for precision in ("bf16", "fp16", "default")}
    for precision, (error, statement) in sizes.items():
        assert statement["precision_asked"] == {"bf16": "bf16", "fp16": "f16", "default": "none"}[precision]
        if "FP16" not in statement["capabilities"]:
            assert statement["precision_hint"] == "bf16"
            assert error == pytest.approx(sizes["bf16"][0], rel=0.5)


def test_a_larger_batch_after_a_bound_call_still_runs(cnn_ir):
    session = open_ir(cnn_ir.output)
    call = session.bind({"image": images(2)})
    call()
    np.testing.assert_allclose(session.run({"image": images(9)})[0], torch_logits(images(9)), atol=2e-6)
    call()
    np.testing.assert_allclose(session.run({"image": images(1)})[0], torch_logits(images(1)), atol=2e-6)


def test_the_bound_call_keeps_its_own_inputs(cnn_ir):
    session = open_ir(cnn_ir.output)
    image = images(2)
    call = session.bind({"image": image})
    image[:] = np.nan
    call()
    request = call.__self__
    np.testing.assert_allclose(request.get_output_tensor(0).data, torch_logits(images(2)), atol=2e-6)


def test_inputs_that_would_be_cast_silently_are_refused(cnn_ir):
    session = open_ir(cnn_ir.output)
    with pytest.raises(RunError, match="'image' is float32, float64 was fed"):
        session.run({"image": images(2).astype(np.float64)})
    with pytest.raises(RunError, match=r"inputs are \['image'\], \['img'\] were fed"):
        session.run({"img": images(2)})
    with pytest.raises(RunError, match="shape"):
        session.run({"image": np.zeros((2, 3, 8, 8), np.float32)})


@pytest.mark.parametrize("dtype", ["bf16", "f16"])
def test_narrow_inputs_and_outputs_cross_with_their_values(tmp_path, dtype):
    """numpy has no bfloat16: float32 that it holds exactly goes in and comes out, in a bundle too."""
    import openvino
    from openvino import opset13

    x = opset13.parameter([-1, 4], getattr(openvino.Type, dtype), name="x")
    x.output(0).get_tensor().set_names({"x"})
    model = openvino.Model([opset13.multiply(x, opset13.constant(2, getattr(openvino.Type, dtype)))], [x], "twice")
    model.outputs[0].get_tensor().set_names({"y"})
    openvino.save_model(model, str(tmp_path / "m.xml"), compress_to_fp16=False)
    values = np.array([[1, -0.5, 3, 0.25]], np.float32 if dtype == "bf16" else np.float16)
    session = open_ir(tmp_path / "m.xml")
    assert [s.dtype for s in (*session.inputs, *session.outputs)] == [{"bf16": "bfloat16", "f16": "float16"}[dtype]] * 2
    settings = {"threads": 1, "precision": "fp32", "artifact": str(tmp_path / "m.xml")}
    settings |= {"inputs": [{"name": "x"}], "outputs": [{"name": "y"}]}
    alone, _, _ = ov_backend.open_alone(settings)
    for (result,) in (session.run({"x": values}), alone({"x": values})):
        assert result.dtype == values.dtype
        np.testing.assert_array_equal(result, values * 2)


def test_the_threads_asked_for_are_stated(cnn_ir):
    assert open_ir(cnn_ir.output, threads=2).statement["threads"] == 2


@pytest.mark.parametrize("precision", ["tf32", "fp16", "bf16"])
def test_nodes_that_round_are_bit_equal_to_rounding(precision):
    """Compiled for the CPU, split values are what numpy rounds to; a conversion and back would be optimised away."""
    from pathlib import Path

    import openvino
    from openvino import opset13

    from pytest_modelformats.compare import rounding
    from pytest_modelformats.systems.openvino import reference as openvino_reference
    from pytest_modelformats.systems.openvino import rounding as openvino_rounding

    values = np.random.default_rng(0).standard_normal((64, 32)).astype(np.float32)
    x = opset13.parameter([-1, 32], np.float32, name="x")
    kept = openvino_rounding._split(opset13.relu(x).output(0), precision)
    model = openvino.Model([kept], [x], "split")
    result = openvino_reference._run(model, Path("split.xml"), [{"x": values}])[0][0]
    assert np.array_equal(result, rounding.rounded(np.maximum(values, 0), precision))
    assert not np.array_equal(result, np.maximum(values, 0))


@pytest.mark.parametrize("precision", ["tf32", "fp16", "bf16"])
def test_noise_by_rounding_nodes_is_torchs_own(cnn_ir, precision):
    from pytest_modelformats.systems.torch.reference import numerics

    feeds = [{"image": images(8)}]
    source = source_of(cnn_ir.output)
    outputs, method = ov_format.evaluate(source, feeds, precision)
    truth = ov_format.evaluate(source, feeds, "float64")[0][0][0]
    own = {p: numerics.evaluate(Cnn().eval(), feeds, p)[0][0][0] for p in ("float64", precision)}
    assert "by nodes added to the graph" in method
    assert 0.6 < rms(outputs[0][0] - truth) / rms(own[precision] - own["float64"]) < 1.6


def test_where_rounding_nodes_do_not_run_the_noise_is_perturbed(cnn_ir, monkeypatch):
    from pytest_modelformats.systems.openvino import rounding as openvino_rounding

    def refuse(*_arguments):
        raise RuntimeError("no such operator")

    monkeypatch.setattr(openvino_rounding, "insert_rounding", refuse)
    source, feeds = source_of(cnn_ir.output), [{"image": images(8)}]
    truth = ov_format.evaluate(source, feeds, "float64")[0][0][0]
    noise = {}
    for precision in ("fp32", "tf32", "bf16"):
        outputs, method = ov_format.evaluate(source, feeds, precision)
        assert method == f"estimated: inputs and constants perturbed by one rounding unit of {precision}, run in fp32"
        noise[precision] = rms(outputs[0][0] - truth)
    assert 0 < 1000 * noise["fp32"] < noise["tf32"] < noise["bf16"] / 4


class Port:
    """A port of a compiled model, as far as its names go."""

    def __init__(self, *names):
        self.names = set(names)

    def get_names(self):
        return self.names

    def get_any_name(self):
        return min(self.names)


@pytest.mark.parametrize(
    ("names", "wanted", "said"),
    [
        ([("F0::mean", "y"), ("z",)], ["y", "z"], ["y", "z"]),
        ([("b",), ("a",)], ["a", "b"], ["b", "a"]),
        ([("a", "b"), ("a", "b")], ["a", "b"], ["a", "b"]),
        ([("a", "b"), ("c",)], ["b", "a"], ["b", "c"]),
        ([("n1", "n0"), ()], ["a", "b"], ["n0", ""]),
        ([("a",), ("n",)], ["a"], ["a", "n"]),
        ([("a",)], ["b", "a"], ["a"]),
    ],
)
def test_any_name_of_a_port_counts_and_the_order_stays(names, wanted, said):
    """A name that stands at another place than the source's is called so: the contract sees it."""
    assert ov_backend.names_of([Port(*own) for own in names], wanted) == said


def test_a_port_of_several_names_is_called_by_the_contract(tmp_path):
    """Compiling merges tensors with their names: the wanted one is stated, fed and handed out."""
    import openvino
    from openvino import opset13

    x = opset13.parameter([-1, 4], np.float32, name="x")
    y = opset13.add(x, np.float32(1))
    x.output(0).set_names({"x", "a_name_before"})
    y.output(0).set_names({"y", "another"})
    path = tmp_path / "model.xml"
    openvino.save_model(openvino.Model([y], [x]), str(path))
    specs = [TensorSpec("x", "float32", ("N", 4))], [TensorSpec("y", "float32", ("N", 4))]
    session = open_ir(path, inputs=specs[0], outputs=specs[1])
    assert [s.name for s in (*session.inputs, *session.outputs)] == ["x", "y"]
    assert session.run({"x": np.ones((1, 4), np.float32)})[0].tolist() == [[2.0] * 4]
    settings = {"artifact": str(path), "threads": 1, "precision": "fp32"}
    settings |= {"inputs": [specs[0][0].to_json()], "outputs": [specs[1][0].to_json()]}
    run, inputs, outputs = ov_backend.open_alone(settings)
    assert (inputs[0][0], outputs[0][0]) == ("x", "y")
    assert run({"x": np.ones((1, 4), np.float32)})[0].tolist() == [[2.0] * 4]


def test_a_scalar_input_stays_a_scalar(tmp_path):
    """An input without dimensions, such as a sampling rate, is fed as one."""
    import openvino
    from openvino import opset13

    x, rate = opset13.parameter([-1, 4], np.float32, name="x"), opset13.parameter([], np.int64, name="rate")
    y = opset13.multiply(x, opset13.convert(rate, "f32"))
    for node, name in ((x, "x"), (rate, "rate"), (y, "y")):
        node.output(0).set_names({name})
    path = tmp_path / "model.xml"
    openvino.save_model(openvino.Model([y], [x, rate]), str(path))
    feed = {"x": np.ones((1, 4), np.float32), "rate": np.asarray(3)}
    assert open_ir(path).run(feed)[0].tolist() == [[3.0] * 4]
    inputs = [{"name": "x"}, {"name": "rate"}]
    settings = {"artifact": str(path), "threads": 1, "precision": "fp32", "inputs": inputs, "outputs": [{"name": "y"}]}
    assert ov_backend.open_alone(settings)[0](feed)[0].tolist() == [[3.0] * 4]
