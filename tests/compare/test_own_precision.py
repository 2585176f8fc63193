"""A model whose file holds fp16 is planned, run and judged at fp16, not against an fp32 that it never had."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from inner_run import two_layers
from onnx import TensorProto, helper, numpy_helper
from onnxconverter_common import float16

from pytest_modelformats.compare.effective_precision import finer_is_faithful
from pytest_modelformats.compare.noise import Noise
from pytest_modelformats.schema import Cell, Decision, Outcome, OutputParity, PlannedCell, Step, Verdict
from pytest_modelformats.systems.onnx.precision import precision


def half(path, *, keep_io_types):
    two_layers(path)
    onnx.save(float16.convert_float_to_float16(onnx.load(path), keep_io_types=keep_io_types), path)
    return path


def weights(path, *, kinds, cast=()):
    """A sum of an input and of weights of so many elements of each dtype, some of them converted first."""
    tensors = [numpy_helper.from_array(np.ones(n, dtype), f"w{i}") for i, (dtype, n) in enumerate(kinds)]
    nodes = [
        helper.make_node("Cast", [t.name], [f"c{t.name}"], to=TensorProto.FLOAT) for t in tensors if t.name in cast
    ]
    taken = [f"c{t.name}" if t.name in cast else t.name for t in tensors]
    nodes += [helper.make_node("Custom", ["x", *taken], ["y"], domain="test")]
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N"]) for name in "xy"]
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", info[:1], info[1:], tensors)), path)
    return path


def test_the_weights_of_the_file_say_its_precision(tmp_path):
    path = tmp_path / "m.onnx"
    assert precision(two_layers(path)) == "fp32"
    for keep in (False, True):
        assert precision(half(path, keep_io_types=keep)) == "fp16"
    assert precision(weights(path, kinds=[("f2", 9), ("f4", 8), ("i8", 99)])) == "fp16"
    assert precision(weights(path, kinds=[("f2", 8), ("f4", 9)])) == "fp32"
    assert precision(weights(path, kinds=[("f2", 9), ("f8", 9)])) == "fp32"
    assert precision(weights(path, kinds=[])) == "fp32"


def test_weights_that_are_stored_in_fp16_and_computed_with_in_fp32_are_fp32(tmp_path):
    path = weights(tmp_path / "m.onnx", kinds=[("f2", 9), ("f4", 1)], cast={"w0"})
    assert precision(path) == "fp32"


def test_weights_beside_the_file_count_too(tmp_path):
    path = weights(tmp_path / "m.onnx", kinds=[("f2", 9000)])
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="m.data", size_threshold=0)
    assert path.stat().st_size < 1000
    assert precision(path) == "fp16"


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_a_damaged_file_holds_nothing_else_than_fp32(tmp_path, share):
    """What is wrong with it is told when it is loaded."""
    path = half(tmp_path / "m.onnx", keep_io_types=False)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    assert precision(path) == "fp32"
    path.write_bytes(bytes(np.random.default_rng(0).integers(0, 256, 4096, dtype=np.uint8)))
    assert precision(path) == "fp32"


@pytest.mark.parametrize("keep_io_types", [False, True])
def test_a_model_in_fp16_is_itself(run, pytester, keep_io_types):
    """ONNX Runtime has no fp16 kernels on a CPU: with inputs and outputs in fp32 it rounds nothing to fp16."""
    path = half(pytester.path / "half.onnx", keep_io_types=keep_io_types)
    chosen = ("--mf-suites", "contract,parity,batch", "--mf-backends", "onnxruntime", "--mf-devices", "cpu")
    ran = run("--mf-model", path, *chosen)
    assert ran.status == 0, ran.text
    assert ran.footer["cells"] == {
        "half-onnx-fp32-onnxruntime@cpu": "unsupported",
        "half-onnx-fp16-onnxruntime@cpu": "passed",
    }
    line = ran.checks["half-onnx-fp16-onnxruntime@cpu", "parity"]
    assert "It is the same model." in line["sentence"]
    assert ("computed with in fp32, which is finer" in line["sentence"]) == keep_io_types
    assert ran.footer["conversions"] == {"made": 0, "cached": 0}


def fallen(effective, weights=1e-4, **changes):
    cell = Cell("m", "onnx", "fp16", "onnxruntime", "cpu")
    planned = PlannedCell(cell, (), "fp16", Decision())
    fields = {"error_rms": 1e-8, "noise_rms": 1e-4, "noise_ratio": 1e-4}
    output = OutputParity("y", Outcome.FALLBACK, None, "y fell back", effective_precision=effective, **fields)
    verdict = Verdict(Outcome.FALLBACK, None, "y fell back", (output,))
    planned = SimpleNamespace(**{n: getattr(planned, n) for n in planned.__slots__} | changes)
    noise = {"fp32": [Noise(1e-8, 4e-8, 1e-8)], "fp16-weights": [Noise(weights, 4 * weights, weights)]}
    return finer_is_faithful(planned, verdict, noise)


def test_only_the_models_own_file_may_be_computed_more_finely():
    assert fallen("fp32").passed
    assert fallen("fp32").outputs[0].outcome is Outcome.PASSED
    for changes in (
        {"chain": (Step("onnx_fp16_from_onnx", "fp16"),)},
        {"candidate_path": "/x/half.onnx"},
        {"artifact_precision": "fp32"},
    ):
        assert fallen("fp32", **changes).outcome is Outcome.FALLBACK
    assert fallen("bf16").outcome is Outcome.FALLBACK


def test_a_conversion_of_weights_that_were_fp16s_before_may_be_too():
    """Rounding them makes no error, so what passes elsewhere as an error of fp16's size has none here."""
    chain = (Step("onnx_fp16_from_onnx", "fp16"),)
    assert fallen("fp32", weights=1.5e-8, chain=chain).passed
    assert fallen("fp32", weights=5e-8, chain=chain).outcome is Outcome.FALLBACK
    assert fallen("fp32", weights=1.5e-8, chain=chain, artifact_precision="fp32").outcome is Outcome.FALLBACK
