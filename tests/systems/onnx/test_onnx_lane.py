"""The ONNX lane end to end: recognise, describe, reference, convert, check, open, run."""

from __future__ import annotations

import copy
import itertools
import os
import subprocess
import sys
import zipfile
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from places import ROOT
from torch import nn

from pytest_modelformats.errors import ConvertError, NoDevice, RunError, SourceError, Unsupported
from pytest_modelformats.schema import Source, TensorSpec
from pytest_modelformats.schema.contract import ConversionJob, SessionJob
from pytest_modelformats.systems.onnx import format as onnx_format
from pytest_modelformats.systems.onnx import fp16_from_onnx, from_pt2, from_pytorch, from_torchscript
from pytest_modelformats.systems.onnxruntime import backend as ort_backend

FLOAT = TensorProto.FLOAT


class Cnn(nn.Module):
    """Convolutions without batch norm, which an exporter may fold in float32."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 16, 3, stride=2)
        self.head = nn.Linear(16 * 9, 10)

    def forward(self, image):
        return self.head(torch.relu(self.second(nn.functional.gelu(self.first(image)))).flatten(1))


class Masked(nn.Module):
    """Two inputs that share a batch dimension, two outputs of different dtypes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(11, 8)
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 1)

    def forward(self, ids, mask):
        hidden = self.encoder(self.embedding(ids)) * mask[..., None]
        return hidden, hidden.argmax(-1)


class Bessel(nn.Module):
    def forward(self, x):
        return torch.special.bessel_j0(x)


class Branch(nn.Module):
    def forward(self, x):
        return x * 2 if x.sum() > 0 else -x


def rms(array):
    return float(np.sqrt(np.mean(np.square(np.asarray(array, np.float64)))))


@pytest.fixture
def conversion(tmp_path, monkeypatch):
    """Make a job whose source loads as the given module."""
    count = itertools.count()

    def make(module, specs, outputs, *, input_path=None, target=".onnx", precision="fp32", **options):
        module = module.eval()
        monkeypatch.setattr(from_pytorch, "load_module", lambda _source: module)
        folder = tmp_path / f"job{next(count)}"
        folder.mkdir()
        generator = np.random.default_rng(3)
        example = {}
        for spec in specs:
            shape = [2 + i if isinstance(d, str) else d for i, d in enumerate(spec.shape)]
            if spec.is_float:
                example[spec.name] = generator.standard_normal(shape, dtype=np.float32)
            else:
                example[spec.name] = generator.integers(int(spec.low), int(spec.high) + 1, shape)
        source = Source("net", "tests:net", "factory", "pytorch")
        return ConversionJob(
            source,
            input_path or tmp_path / "none",
            folder / f"model{target}",
            "fp32",
            precision,
            tuple(specs),
            tuple(outputs),
            example,
            options,
        )

    return make


CNN_IN = [TensorSpec("image", "float32", ("batch", 1, 8, 8))]
CNN_OUT = [TensorSpec("logits", "float32", ("batch", 10))]
MASKED_IN = [TensorSpec("ids", "int64", ("N", "S"), 0, 10), TensorSpec("mask", "float32", ("N", "S"))]
MASKED_OUT = [TensorSpec("hidden", "float32", ("N", "S", 8)), TensorSpec("token", "int64", ("N", "S"))]


def session_of(job, **changes):
    defaults = {
        "source": job.source,
        "artifact": job.output,
        "format": "onnx",
        "artifact_precision": job.precision,
        "precision": job.precision,
        "device": "cpu",
        "threads": 1,
        "inputs": job.inputs,
        "outputs": job.outputs,
    }
    return ort_backend.open_session(SessionJob(**(defaults | changes)))


def source_of(path, **fields):
    return Source("net", str(path), "onnx", "onnx", **fields)


def graph(nodes, inputs, outputs, *, initializers=(), opset=20, domains=(), ir_version=10):
    made = helper.make_graph(nodes, "graph", inputs, outputs, list(initializers))
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    return helper.make_model(made, opset_imports=imports, ir_version=ir_version)


def value(name, shape, kind=FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def saved(model, path):
    onnx.save(model, str(path))
    return path


@pytest.fixture
def cnn_onnx(conversion):
    """A small CNN, exported."""
    job = conversion(Cnn(), CNN_IN, CNN_OUT)
    from_pytorch.convert_legacy(job)
    return job


# --- recognising -----------------------------------------------------------------------------


def test_a_model_is_recognised_by_its_content_whatever_it_is_called(cnn_onnx, tmp_path):
    other = tmp_path / "weights.dat"
    other.write_bytes(cnn_onnx.output.read_bytes())
    assert onnx_format.sniff(other, other.read_bytes()[:4096]) == "onnx"


def bytes_of_zip(tmp_path):
    with zipfile.ZipFile(tmp_path / "z", "w") as archive:
        archive.writestr("data.pkl", b"x")
    return (tmp_path / "z").read_bytes()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"hello world, not a model\n", "not an ONNX model: it starts with the text 'hello world"),
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer; run 'git lfs pull'"),
        (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", "not an ONNX model: its first bytes are 89 50"),
        (b"\x00" * 64, "not an ONNX model"),
        (b"\x08\x0a\x12\x02ab", "holds no graph"),
        (b"\x08\x0a\x3a\xff\xff\xff\xff\x0f", "truncated"),
    ],
)
def test_what_is_called_onnx_and_is_not_is_refused_with_the_reason(tmp_path, content, said):
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=r"m\.onnx") as caught:
        onnx_format.sniff(path, content[:4096])
    assert said in str(caught.value)
    other = tmp_path / "m.bin"
    other.write_bytes(content)
    assert onnx_format.sniff(other, content[:4096]) is None


def test_a_zip_archive_called_onnx_is_said_to_be_one(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(bytes_of_zip(tmp_path))
    with pytest.raises(SourceError, match="zip archive, which is what PyTorch writes"):
        onnx_format.sniff(path, path.read_bytes()[:4096])


def test_every_truncation_of_a_model_is_noticed(cnn_onnx, tmp_path):
    whole = cnn_onnx.output.read_bytes()
    path = tmp_path / "cut.onnx"
    for length in [*range(60), len(whole) // 2, len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(SourceError):
            onnx_format.sniff(path, whole[: min(length, 4096)])


# --- describing ------------------------------------------------------------------------------


def test_unnamed_dimensions_get_letters_and_initialisers_are_no_inputs(tmp_path):
    weight = numpy_helper.from_array(np.ones((5, 3), np.float32), "w")
    model = graph(
        [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Relu", ["h"], ["y"])],
        [value("x", [None, "rows", None, 5]), value("w", [5, 3])],
        [value("y", None)],
        initializers=[weight],
    )
    described = onnx_format.describe(source_of(saved(model, tmp_path / "m.onnx")))
    assert described.inputs == (TensorSpec("x", "float32", ("N", "rows", "D2", 5)),)
    assert described.outputs == (TensorSpec("y", "float32", None),)


def test_the_users_shape_overrides_a_symbol_and_outputs_follow(cnn_onnx):
    given = (TensorSpec("image", "float32", (4, 1, 8, 8)),)
    described = onnx_format.describe(source_of(cnn_onnx.output, inputs=given))
    assert described.inputs == given
    assert described.outputs[0].shape == (4, 10)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("imge:float32[N,1,8,8]", "no input 'imge'; its inputs are image"),
        ("image:int64[N,1,8,8]", "float32, not int64"),
        ("image:float32[N,3,8,8]", "1 fixed in the file"),
        ("image:float32[N,64]", "4 dimensions"),
    ],
)
def test_a_stated_input_that_contradicts_the_file_is_refused(cnn_onnx, spec, said):
    with pytest.raises(SourceError, match=said):
        onnx_format.describe(source_of(cnn_onnx.output, inputs=(TensorSpec.parse(spec),)))


def test_an_index_into_an_embedding_is_bounded_by_its_rows(conversion):
    job = conversion(Masked(), MASKED_IN, MASKED_OUT)
    from_pytorch.convert_legacy(job)
    ids, mask = onnx_format.describe(source_of(job.output)).inputs
    assert (ids.low, ids.high) == (0, 10)
    assert mask.low is None


# --- external data ---------------------------------------------------------------------------


@pytest.fixture
def external(tmp_path):
    """A model whose weight lies in weights.bin beside it; returns a function that changes where it is said to lie."""
    folder = tmp_path / "model"
    folder.mkdir()
    weight = numpy_helper.from_array(np.arange(512, dtype=np.float32).reshape(32, 16), "w")
    model = graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], [value("x", ["N", 32])], [value("y", ["N", 16])],
        initializers=[weight],
    )  # fmt: skip
    path = folder / "m.onnx"
    onnx.save(model, str(path), save_as_external_data=True, location="weights.bin", size_threshold=0)

    def relocate(**entries):
        changed = onnx.load(path, load_external_data=False)
        for key, text in entries.items():
            found = next((e for e in changed.graph.initializer[0].external_data if e.key == key), None)
            found = changed.graph.initializer[0].external_data.add(key=key) if found is None else found
            found.value = text
        path.write_bytes(changed.SerializeToString())
        return source_of(path)

    return relocate


def test_external_data_inside_the_folder_is_read(external):
    source = external()
    assert onnx_format.describe(source).inputs[0].shape == ("N", 32)
    outputs, _ = onnx_format.evaluate(source, [{"x": np.ones((1, 32), np.float32)}], "float64")
    np.testing.assert_array_equal(outputs[0][0][0], np.arange(512).reshape(32, 16).sum(0))


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"location": "../secret.bin"}, "outside the model's folder"),
        ({"location": "/etc/hostname"}, "outside the model's folder"),
        ({"location": "link.bin"}, "outside the model's folder"),
        ({"location": "gone.bin"}, "does not lie beside the model"),
        ({"location": ""}, "no usable location"),
        ({"offset": "64"}, "need 2048 bytes at offset 64"),
        ({"offset": "99999999999"}, "need 2048 bytes"),
        ({"length": "99999999999"}, "need 99999999999 bytes"),
        ({"length": "-5"}, "no byte counts"),
    ],
)
def test_external_data_that_escapes_or_lacks_bytes_is_refused(external, tmp_path, entries, said):
    (tmp_path / "secret.bin").write_bytes(b"\0" * 4096)
    (tmp_path / "model" / "link.bin").symlink_to(tmp_path / "secret.bin")
    source = external(**entries)
    for step in (onnx_format.describe, lambda s: onnx_format.evaluate(s, [], "float64")):
        with pytest.raises(SourceError, match=said):
            step(source)


# --- the reference ---------------------------------------------------------------------------


def test_the_float64_reference_of_a_cnn_is_torchs_own(cnn_onnx):
    image = np.random.default_rng(1).standard_normal((3, 1, 8, 8), dtype=np.float32)
    with torch.no_grad():
        truth = Cnn().eval().double()(torch.from_numpy(image).double()).numpy()
    source = source_of(cnn_onnx.output)
    outputs, method = onnx_format.evaluate(source, [{"image": image}], "float64")
    assert outputs[0][0].dtype == np.float64
    assert np.abs(outputs[0][0] - truth).max() < 1e-10
    assert "ReferenceEvaluator" in method


@pytest.mark.parametrize(("precision", "dtype"), [("fp16", torch.float16), ("bf16", torch.bfloat16)])
def test_rounding_noise_is_that_of_torchs_own_kernels(cnn_onnx, precision, dtype):
    image = np.random.default_rng(1).standard_normal((8, 1, 8, 8), dtype=np.float32)
    feeds = [{"image": image}]
    source = source_of(cnn_onnx.output)
    truth = onnx_format.evaluate(source, feeds, "float64")[0][0][0]
    noise = rms(onnx_format.evaluate(source, feeds, precision)[0][0][0] - truth)
    with torch.no_grad():
        native = copy.deepcopy(Cnn().eval()).to(dtype)(torch.from_numpy(image).to(dtype)).double().numpy()
    assert 0.7 < noise / rms(native - truth) < 1.4
    fp32 = rms(onnx_format.evaluate(source, feeds, "fp32")[0][0][0] - truth)
    assert fp32 < noise / 100


def test_rounded_weights_alone_cost_less_than_rounding_everything(cnn_onnx):
    feeds = [{"image": np.random.default_rng(1).standard_normal((4, 1, 8, 8), dtype=np.float32)}]
    source = source_of(cnn_onnx.output)
    outputs = {p: onnx_format.evaluate(source, feeds, p)[0][0][0] for p in ("float64", "fp32", "fp16-weights", "fp16")}
    noise = {p: rms(o - outputs["float64"]) for p, o in outputs.items()}
    assert 100 * noise["fp32"] < noise["fp16-weights"] < noise["fp16"]


def test_bodies_of_branches_are_upcast_and_rounded(tmp_path):
    def body(name):
        node = helper.make_node("Mul", ["x", name + "_c"], [name + "_out"])
        constant = helper.make_node("Constant", [], [name + "_c"], value_float=1 / 3)
        return helper.make_graph([constant, node], name, [], [value(name + "_out", ["N", 64])])

    branch = helper.make_node("If", ["flag"], ["y"], then_branch=body("then"), else_branch=body("else"))
    true = numpy_helper.from_array(np.ones((), bool), "flag")
    model = graph([branch], [value("x", ["N", 64])], [value("y", ["N", 64])], initializers=[true])
    source = source_of(saved(model, tmp_path / "m.onnx"))
    x = np.random.default_rng(0).standard_normal((2, 64), dtype=np.float32)
    truth, method = onnx_format.evaluate(source, [{"x": x}], "float64")
    assert method.startswith("float64")
    np.testing.assert_array_equal(truth[0][0], x.astype(np.float64) * np.float64(np.float32(1 / 3)))
    half = onnx_format.evaluate(source, [{"x": x}], "fp16")[0][0][0]
    np.testing.assert_array_equal(half, half.astype(np.float16))


def test_where_the_evaluator_computes_in_float32_the_noise_is_estimated(tmp_path):
    model = graph(
        [helper.make_node("GridSample", ["x", "grid"], ["h"]), helper.make_node("Mul", ["h", "w"], ["y"])],
        [value("x", ["N", 1, 6, 6]), value("grid", ["N", 6, 6, 2])],
        [value("y", ["N", 1, 6, 6])],
        initializers=[numpy_helper.from_array(np.full((1, 1, 6, 6), 0.7, np.float32), "w")],
    )
    source = source_of(saved(model, tmp_path / "m.onnx"))
    generator = np.random.default_rng(0)
    feeds = [
        {
            "x": generator.standard_normal((2, 1, 6, 6), dtype=np.float32),
            "grid": generator.uniform(-1, 1, (2, 6, 6, 2)).astype(np.float32),
        }
    ]
    truth, method = onnx_format.evaluate(source, feeds, "float64")
    assert method == "estimated: fp32 run taken as truth (onnx.reference computes GridSample in float32)"
    noise = {}
    for precision in ("fp32", "fp16", "bf16"):
        outputs, method = onnx_format.evaluate(source, feeds, precision)
        assert method.startswith(
            "estimated: inputs and weights perturbed"
            if precision == "fp32"
            else f"{precision}: every weight and operator result rounded to it by nodes added"
        )
        noise[precision] = rms(outputs[0][0] - truth[0][0])
        again = onnx_format.evaluate(source, feeds, precision)[0]
        np.testing.assert_array_equal(outputs[0][0], again[0][0])
    assert 0 < 100 * noise["fp32"] < noise["fp16"] < noise["bf16"] / 4


def test_an_evaluator_that_strays_from_onnx_runtime_is_not_believed(cnn_onnx, monkeypatch):
    from pytest_modelformats.systems.onnx.reference import operators

    honest = operators.convolved
    monkeypatch.setattr(operators, "convolved", lambda *a: 1.05 * honest(*a))
    image = np.random.default_rng(7).standard_normal((2, 1, 8, 8), dtype=np.float32)
    _, method = onnx_format.evaluate(source_of(cnn_onnx.output), [{"image": image}], "float64")
    assert "onnx.reference and ONNX Runtime differ by" in method


# --- converting ------------------------------------------------------------------------------

ROUTES = [from_pytorch.convert_dynamo, from_pytorch.convert_legacy]


@pytest.mark.slow
@pytest.mark.parametrize("convert", ROUTES)
def test_names_symbols_and_numbers_survive_the_export(conversion, convert):
    module = Masked().eval()
    legacy = convert is from_pytorch.convert_legacy  # tracing bakes the length into nn.MultiheadAttention
    specs = [replace(s, shape=("N", 3)) for s in MASKED_IN] if legacy else MASKED_IN
    job = conversion(module, specs, MASKED_OUT)
    facts = convert(job)
    assert facts["opset"] >= 18
    onnx_format.check(job.output)
    session = session_of(job)
    assert [s.name for s in session.inputs] == ["ids", "mask"]
    assert [s.name for s in session.outputs] == ["hidden", "token"]
    assert session.inputs[0].shape == specs[0].shape
    for batch, length in ((1, 3), (2, 3), (5, 3)) if legacy else ((1, 3), (2, 4), (5, 7)):
        ids = np.random.default_rng(batch).integers(0, 11, (batch, length))
        mask = np.random.default_rng(batch).random((batch, length), dtype=np.float32)
        hidden, token = session.run({"ids": ids, "mask": mask})
        with torch.no_grad():
            expected = module(torch.from_numpy(ids), torch.from_numpy(mask))
        np.testing.assert_allclose(hidden, expected[0], atol=2e-6)
        np.testing.assert_array_equal(token, expected[1])
    assert session.statement["execution_providers"] == ["CPUExecutionProvider"]


@pytest.mark.parametrize("convert", ROUTES)
def test_a_mapping_is_flattened_and_inputs_are_matched_by_name(conversion, convert):
    class Scaled(nn.Module):
        def forward(self, x, scale):
            return {"scaled": x * scale, "parts": (x - scale, x.abs())}

    specs = [TensorSpec("scale", "float32", (4,)), TensorSpec("x", "float32", ("N", 4))]
    outputs = [TensorSpec(name, "float32", ("N", 4)) for name in ("scaled", "parts_0", "parts_1")]
    job = conversion(Scaled(), specs, outputs)
    convert(job)
    session = session_of(job)
    assert [s.name for s in session.outputs] == ["scaled", "parts_0", "parts_1"]
    x, scale = np.full((3, 4), -2, np.float32), np.full(4, 5, np.float32)
    assert [float(y[0, 0]) for y in session.run({"x": x, "scale": scale})] == [-10, -7, 2]


def test_an_opset_that_the_exporter_did_not_write_is_an_error(conversion):
    job = conversion(Cnn(), CNN_IN, CNN_OUT, opset=13)
    with pytest.raises(ConvertError, match=r"asked for opset 13, the exporter wrote 18.*--mf-opset 18.*onnx\.legacy"):
        from_pytorch.convert_dynamo(job)


def test_opset_13_by_the_legacy_exporter(conversion):
    job = conversion(Cnn(), CNN_IN, CNN_OUT, opset=13)
    assert from_pytorch.convert_legacy(job)["opset"] == 13
    onnx_format.check(job.output)


@pytest.mark.parametrize("convert", ROUTES)
def test_an_operator_without_translation_is_unsupported_and_named(conversion, convert, capsys):
    specs = [TensorSpec("x", "float32", ("N", 4))]
    job = conversion(Bessel(), specs, [TensorSpec("y", "float32", ("N", 4))])
    with pytest.raises(Unsupported, match="bessel_j0"):
        convert(job)
    assert capsys.readouterr().out == ""


def test_a_module_that_branches_on_its_data_is_a_convert_error(conversion):
    specs = [TensorSpec("x", "float32", ("N", 4))]
    job = conversion(Branch(), specs, [TensorSpec("y", "float32", ("N", 4))])
    with pytest.raises(ConvertError, match="data-dependent"):
        from_pytorch.convert_dynamo(job)
    facts = from_pytorch.convert_legacy(job)
    assert "Python boolean" in facts["warnings"][0]


def test_without_the_option_dynamic_the_shapes_are_the_examples(conversion):
    job = conversion(Cnn(), CNN_IN, CNN_OUT, dynamic=False)
    from_pytorch.convert_legacy(job)
    assert session_of(job).inputs[0].shape == (2, 1, 8, 8)


def test_the_export_of_an_exported_program_keeps_names_and_dynamic_batch(conversion, tmp_path):
    module = Cnn().eval()
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(module, (torch.zeros(2, 1, 8, 8),), dynamic_shapes=({0: batch},))
    torch.export.save(program, tmp_path / "m.pt2")
    job = conversion(module, CNN_IN, CNN_OUT, input_path=tmp_path / "m.pt2")
    from_pt2.convert(job)
    onnx_format.check(job.output)
    assert_runs_like(module, job)


def test_the_export_of_a_script_keeps_names_and_dynamic_batch(conversion, tmp_path):
    module = Cnn().eval()
    with torch.no_grad():
        torch.jit.trace(module, (torch.zeros(2, 1, 8, 8),)).save(tmp_path / "m.pt")
    job = conversion(module, CNN_IN, CNN_OUT, input_path=tmp_path / "m.pt")
    from_torchscript.convert(job)
    onnx_format.check(job.output)
    assert_runs_like(module, job)


def assert_runs_like(module, job, tolerance=2e-6):
    session = session_of(job)
    assert [s.name for s in session.inputs] == [s.name for s in job.inputs]
    assert [s.name for s in session.outputs] == [s.name for s in job.outputs]
    for batch in (1, 2, 5):
        image = np.random.default_rng(batch).standard_normal((batch, 1, 8, 8), dtype=np.float32)
        with torch.no_grad():
            expected = module(torch.from_numpy(image)).numpy()
        np.testing.assert_allclose(session.run({"image": image})[0], expected, atol=tolerance)


def test_a_model_turned_to_fp16_holds_fp16_weights_behind_fp32_inputs(conversion, cnn_onnx):
    before = onnx.load(cnn_onnx.output)
    job = conversion(Cnn(), CNN_IN, CNN_OUT, input_path=cnn_onnx.output, precision="fp16")
    facts = fp16_from_onnx.convert(job)
    onnx_format.check(job.output)
    after = onnx.load(job.output)
    kinds = {t.data_type for t in after.graph.initializer if t.data_type != TensorProto.INT64}
    assert kinds == {TensorProto.FLOAT16}
    assert (facts["opset"], facts["ir_version"]) == (before.opset_import[0].version, before.ir_version)
    assert job.output.stat().st_size < 0.7 * cnn_onnx.output.stat().st_size
    assert onnx_format.describe(source_of(job.output)).inputs == tuple(CNN_IN)
    assert_runs_like(Cnn().eval(), job, tolerance=5e-3)
    with pytest.raises(AssertionError):
        assert_runs_like(Cnn().eval(), job)


def test_what_computes_in_fp16_in_places_is_no_model_to_turn_to_fp16(conversion, cnn_onnx, tmp_path):
    """That a library takes no mixed model says nothing against the model: the cell is unsupported, not red."""
    model = onnx.load(cnn_onnx.output)
    weight = next(i for i in model.graph.initializer if i.data_type == FLOAT and len(i.dims) > 1)
    half = numpy_helper.from_array(numpy_helper.to_array(weight).astype(np.float16), f"{weight.name}.half")
    model.graph.initializer.remove(weight)
    model.graph.initializer.append(half)
    model.graph.node.insert(0, helper.make_node("Cast", [half.name], [weight.name], to=FLOAT))
    onnx.save(model, tmp_path / "mixed.onnx")
    job = conversion(Cnn(), CNN_IN, CNN_OUT, input_path=tmp_path / "mixed.onnx", precision="fp16")
    with pytest.raises(Unsupported, match=r"'mixed\.onnx' computes in fp16 in places already"):
        fp16_from_onnx.convert(job)


def test_the_truth_of_an_fp16_model_is_its_own_weights_in_float64(conversion, cnn_onnx):
    job = conversion(Cnn(), CNN_IN, CNN_OUT, input_path=cnn_onnx.output, precision="fp16")
    fp16_from_onnx.convert(job)
    feeds = [{"image": np.random.default_rng(1).standard_normal((4, 1, 8, 8), dtype=np.float32)}]
    source = source_of(job.output)
    truth, method = onnx_format.evaluate(source, feeds, "float64")
    assert method.startswith("float64")
    with torch.no_grad():
        expected = Cnn().eval().half().double()(torch.from_numpy(feeds[0]["image"]).double()).numpy()
    assert np.abs(truth[0][0] - expected).max() < 1e-10
    fp32 = onnx_format.evaluate(source, feeds, "fp32")[0][0][0]
    assert fp32.dtype == np.float32
    assert 0 < rms(fp32 - truth[0][0]) < 1e-7


def test_the_checker_refuses_a_graph_that_is_not_sorted(tmp_path):
    nodes = [helper.make_node("Relu", ["h"], ["y"]), helper.make_node("Neg", ["x"], ["h"])]
    path = saved(graph(nodes, [value("x", ["N"])], [value("y", ["N"])]), tmp_path / "m.onnx")
    with pytest.raises(ConvertError, match=r"onnx\.checker refuses 'm\.onnx'"):
        onnx_format.check(path)


# --- the runtime -----------------------------------------------------------------------------


def relu_model(path, **keywords):
    node = helper.make_node(keywords.pop("operator", "Relu"), ["x"], ["y"], domain=keywords.pop("domain", ""))
    kind = keywords.pop("kind", FLOAT)
    return saved(graph([node], [value("x", ["N", None], kind)], [value("y", ["N", None], kind)], **keywords), path)


def open_file(path, **changes):
    job = SessionJob(source_of(path), path, "onnx", "fp32", "fp32", "cpu", 1, (), ())
    return ort_backend.open_session(SessionJob(**{f: changes.get(f, getattr(job, f)) for f in SessionJob.__slots__}))


@pytest.mark.parametrize(
    ("keywords", "said"),
    [
        ({"opset": 90}, r"supports opsets up to \d+, the model has 90; convert with a lower --mf-opset"),
        ({"ir_version": 90}, r"reads ONNX IR versions up to \d+, 'm.onnx' has 90"),
        ({"operator": "Erf", "kind": TensorProto.BFLOAT16}, r"no cpu implementation of Erf \(opset 13\)"),
        ({"operator": "Foo", "domain": "my.own", "domains": ["my.own"]}, "does not know the operator my.own:Foo"),
    ],
)
def test_what_the_runtime_lacks_is_unsupported_and_named(tmp_path, keywords, said):
    path = relu_model(tmp_path / "m.onnx", **keywords)
    with pytest.raises(Unsupported, match=said):
        open_file(path)


def test_a_damaged_file_is_a_run_error(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"\x08\x0a\x3a\x7f")
    with pytest.raises(RunError, match=r"m\.onnx"):
        open_file(tmp_path / "m.onnx")


def test_a_device_that_is_not_there_is_no_device(tmp_path):
    path = relu_model(tmp_path / "m.onnx")
    with pytest.raises(NoDevice, match="CUDAExecutionProvider"):
        open_file(path, device="cuda")


def test_inputs_of_another_dtype_are_refused(tmp_path):
    session = open_file(relu_model(tmp_path / "m.onnx"))
    assert session.inputs[0] == TensorSpec("x", "float32", ("N", "D1"))
    with pytest.raises(RunError, match="double"):
        session.run({"x": np.zeros((2, 3))})
    with pytest.raises(RunError, match="x"):
        session.run({})


def test_the_bound_call_runs_the_inputs_handed_over(tmp_path):
    session = open_file(relu_model(tmp_path / "m.onnx"), options={"optimization": "basic"}, threads=2)
    call = session.bind({"x": np.ones((2, 3), np.float32)})
    call()
    call()
    assert session.statement["optimization"] == "basic"
    assert session.statement["threads"] == 2
    with pytest.raises(Unsupported, match="no optimisation level 'most'"):
        open_file(tmp_path / "m.onnx", options={"optimization": "most"})


def test_the_backend_imports_neither_onnx_nor_numpy_by_itself():
    code = (
        "import sys; import pytest_modelformats.systems.onnxruntime.backend, pytest_modelformats.systems.onnx.format, "
        "pytest_modelformats.systems.openvino.format, pytest_modelformats.systems.openvino.backend, "
        "pytest_modelformats.systems.onnx.from_pytorch, pytest_modelformats.systems.openvino.from_pytorch; "
        "print([m for m in ('numpy', 'onnx', 'torch', 'openvino', 'onnxruntime') if m in sys.modules])"
    )
    root = ROOT
    environment = os.environ | {"PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "[]"


def test_where_rounding_nodes_do_not_run_the_noise_is_perturbed(cnn_onnx, monkeypatch):
    from pytest_modelformats.systems.onnx.reference import evaluate as onnx_reference
    from pytest_modelformats.systems.onnx.reference import rounding as onnx_rounding

    feeds = [{"image": np.random.default_rng(1).standard_normal((8, 1, 8, 8), dtype=np.float32)}]
    monkeypatch.setattr(onnx_reference, "FLOAT32_ONLY", frozenset({"Conv"}))
    onnx_reference._last.clear()
    source = source_of(cnn_onnx.output)
    truth = onnx_format.evaluate(source, feeds, "float64")[0][0][0]
    said, noise = {}, {"nodes": {}, "perturbed": {}}
    for way, found in noise.items():
        for precision in ("tf32", "fp16", "bf16"):
            outputs, said[way, precision] = onnx_format.evaluate(source, feeds, precision)
            found[precision] = rms(outputs[0][0] - truth)

        def refuse(*_arguments):
            raise RunError("no kernel for it")

        monkeypatch.setattr(onnx_rounding, "insert_rounding", refuse)
    onnx_reference._last.clear()
    assert all("by nodes added to the graph" in line for (way, _), line in said.items() if way == "nodes")
    assert all(
        line.startswith("estimated: inputs and weights perturbed") for (w, _), line in said.items() if w != "nodes"
    )
    for precision, value in noise["nodes"].items():
        assert 0.4 < noise["perturbed"][precision] / value < 3


@pytest.mark.parametrize("precision", ["tf32", "fp16", "bf16"])
def test_nodes_that_round_are_bit_equal_to_rounding(tmp_path, precision):
    """ONNX Runtime removes neither the casts nor the differences; for tf32 it is the operand that is rounded."""
    from pytest_modelformats.compare import rounding
    from pytest_modelformats.systems.onnx.reference import rounding as onnx_rounding
    from pytest_modelformats.systems.onnx.reference import run as onnx_run

    eye = numpy_helper.from_array(np.eye(32, dtype=np.float32), "eye")
    model = graph(
        [helper.make_node("MatMul", ["x", "eye"], ["y"])], [value("x", ["N", 32])], [value("y", ["N", 32])],
        initializers=[eye],
    )  # fmt: skip
    x = np.random.default_rng(0).standard_normal((64, 32)).astype(np.float32)
    onnx_rounding.insert_rounding(model, precision, frozenset())
    result = onnx_run.run_ort(model, tmp_path / "m.onnx", [{"x": x}])[0][0]
    assert np.array_equal(result, rounding.rounded(x, precision))
    assert not np.array_equal(result, x)


def test_sizes_are_not_rounded(tmp_path):
    """What says how large something is stays exact: a scale of 2.001 would give another shape at bf16."""
    from pytest_modelformats.systems.onnx.reference import evaluate as onnx_reference

    scales = numpy_helper.from_array(np.array([1, 1, 2.125, 2.125], np.float32), "scales")
    model = graph(
        [helper.make_node("Relu", ["x"], ["r"]), helper.make_node("Resize", ["r", "", "scales"], ["y"], mode="linear")],
        [value("x", ["N", 1, 8, 8])], [value("y", ["N", 1, 17, 17])], initializers=[scales],
    )  # fmt: skip
    path = saved(model, tmp_path / "m.onnx")
    x = np.random.default_rng(0).standard_normal((2, 1, 8, 8)).astype(np.float32)
    for precision in ("tf32", "fp16", "bf16"):
        assert onnx_reference._rounded_graph(path, [{"x": x}], precision)[0][0].shape == (2, 1, 17, 17)
