"""The reference: noise per precision from what a worker evaluated, how each came about, and what could not be had."""

from __future__ import annotations

import json

import jsonschema
import numpy as np
import pytest
from inner_run import PARITY
from places import RECORD_SCHEMA
from special_outputs import FLOAT, save

from pytest_modelformats.compare import reference
from pytest_modelformats.compare.reference import EVALUATED, build_reference
from pytest_modelformats.convert import code_digest
from pytest_modelformats.convert.cache import Cache
from pytest_modelformats.errors import Unsupported
from pytest_modelformats.schema import PRECISIONS, registry

TRUTH = np.random.default_rng(0).normal(size=(8, 5)) * 1e3


def reference_of(folder, answers):
    """The reference whose evaluation at a precision gives ``answers[precision]``, else the truth in float32."""

    def evaluate(precision, target):
        outputs = answers.get(precision, TRUTH if precision == "float64" else TRUTH.astype(np.float32))
        if isinstance(outputs, Exception):
            raise outputs
        target.mkdir(parents=True)
        (target / "0").mkdir()
        np.save(target / "0" / "0.npy", outputs)
        return {"outputs": [[str(target / "0" / "0.npy")]], "method": f"{precision}: native"}

    return build_reference(Cache(folder), {"content": "x"}, 1, evaluate)


def test_every_precision_that_is_judged_has_its_noise(tmp_path):
    """A precision added to the table is evaluated, or another one's noise counts for it."""
    found = reference_of(tmp_path, {})
    assert set(found.noise) == set(EVALUATED) == {p.yardstick for p in PRECISIONS.values()}
    assert found.missing == {}


def test_an_identity_at_tf32_has_fp32s_noise(tmp_path):
    """Rounding operands rounds no result: the floor of writing it down is fp32's."""
    noise = reference_of(tmp_path, {}).noise
    assert noise["tf32"] == noise["fp32"]
    assert noise["fp16"][0].rms > 1000 * noise["fp32"][0].rms


@pytest.mark.parametrize("lost", [np.nan, np.inf])
def test_a_source_that_overflows_everywhere_has_no_noise_there(tmp_path, lost):
    """Its noise would be zero, and every honest cell a failure; the reason is kept instead."""
    found = reference_of(tmp_path, {"fp16": np.full(TRUTH.shape, lost, np.float32)})
    assert "fp16" not in found.noise
    assert found.missing["fp16"] == "the source itself gives NaN or Inf in every element of output 0 there"
    assert "bf16" in found.noise


def test_a_source_that_overflows_in_places_has_the_noise_of_the_rest(tmp_path):
    """One Inf of forty leaves thirty-nine to measure."""
    rounded = TRUTH.astype(np.float16).astype(np.float32)
    rounded[0, 0] = np.inf
    found = reference_of(tmp_path, {"fp16": rounded})
    assert np.isfinite(found.noise["fp16"][0].rms)
    assert found.noise["fp16"][0].rms > 0


def test_what_cannot_be_evaluated_says_why(tmp_path):
    """An outside format without a rounding of its own keeps its other precisions."""
    found = reference_of(tmp_path, {"tf32": Unsupported("no such arithmetic")})
    assert found.missing == {"tf32": "no such arithmetic"}
    assert "tf32" not in found.noise


def test_what_another_version_of_the_tool_made_is_evaluated_anew(tmp_path, monkeypatch):
    """A rounding that it did otherwise would stay in the cache for ever."""
    assert reference_of(tmp_path, {}).made
    assert not reference_of(tmp_path, {}).made
    monkeypatch.setattr(reference, "code_digest", lambda: "another")
    assert reference_of(tmp_path, {}).made


@pytest.mark.parametrize(("module", "counts"), [("compare.noise", True), ("compare.sampled", True), ("cli", False)])
def test_the_code_that_evaluates_is_known_by_its_content(tmp_path, monkeypatch, module, counts):
    before = reference.code_digest()
    assert edited(tmp_path, monkeypatch, module, reference.code_digest, before) == counts


@pytest.mark.parametrize(
    ("module", "counts"), [("systems.torch.reference.modes", True), ("systems.onnx.format", False)]
)
def test_the_code_of_a_format_is_known_by_all_that_it_imports(tmp_path, monkeypatch, module, counts):
    def digest():
        return code_digest.imported_digest.__wrapped__(registry.formats()["pytorch"].module)

    assert edited(tmp_path, monkeypatch, module, digest, digest()) == counts


def edited(tmp_path, monkeypatch, module, digest, before):
    """Whether a digest is another one where a module's file differs."""
    found, name = code_digest._file_of, f"pytest_modelformats.{module}"
    copy = tmp_path / "edited.py"
    copy.write_text(found(name).read_text() + "# edited")
    monkeypatch.setattr(code_digest, "_file_of", lambda asked: copy if asked == name else found(asked))
    monkeypatch.setattr(code_digest, "module_digest", code_digest.module_digest.__wrapped__)
    return digest() != before


# --- in the record


def model_line(ran):
    """The one model line, valid by the schema."""
    (line,) = ran.of("model")
    schema = json.loads(RECORD_SCHEMA.read_text())
    jsonschema.Draft202012Validator(schema).validate(line)
    return line


def test_the_record_and_the_page_say_how_each_floor_was_evaluated(run, tiny):
    """Per precision in one word, with the particulars beside it."""
    ran = run("--mf-model", tiny, *PARITY)
    line = model_line(ran)
    assert line["truth_how"] == "upcast"
    assert {n["precision"]: n["how"] for n in line["noise"]} == {
        "fp32": "native", "tf32": "rounded", "fp16": "rounded", "bf16": "rounded", "fp16-weights": "rounded",
    }  # fmt: skip
    assert line["noise_missing"] == []
    page = (ran.folder / "index.html").read_text()
    assert "<b>native</b>: fp32: native, ONNX Runtime" in page
    assert "Against the truth, <b>upcast</b>: float64: upcast graph" in page


def test_an_estimated_reference_says_so(run, pytester):
    """Where onnx.reference computes in float32: the truth is estimated, fp32's noise perturbed, the others' rounded."""
    nodes = [
        ("Unsqueeze", ["x", "axes"], ["image"], {}),
        ("GridSample", ["image", "grid"], ["sampled"], {}),
        ("ReduceSum", ["sampled"], ["total"], {"keepdims": 0}),
        ("Mul", ["x", "total"], ["y"], {}),
    ]
    from onnx import numpy_helper

    random = np.random.default_rng(0)
    constants = {"axes": np.array([0, 1]), "grid": random.uniform(-1, 1, (1, 4, 4, 2)).astype(np.float32)}
    initialisers = [numpy_helper.from_array(v, n) for n, v in constants.items()]
    path = save(pytester.path / "m.onnx", nodes, {"y": (FLOAT, ["N", 4])}, initialisers)
    ran = run("--mf-model", path, *PARITY)
    line = model_line(ran)
    assert line["truth_how"] == "estimated"
    assert {n["precision"]: n["how"] for n in line["noise"]} == {
        "fp32": "perturbed", "tf32": "rounded", "fp16": "rounded", "bf16": "rounded", "fp16-weights": "rounded",
    }  # fmt: skip
    assert ran.outcomes["m-onnx-fp32-onnxruntime@cpu", "parity"] == "passed"
    said = ran.checks["m-onnx-fp32-onnxruntime@cpu", "parity"]["sentence"]
    assert "The truth is an estimate, the source's own fp32 run: unusual rows are not judged by it." in said
    assert ran.checks["m-onnx-fp32-onnxruntime@cpu", "parity"]["data"]["outputs"][0].get("stress_ratio") is None


def test_the_noise_of_an_arithmetic_is_not_below_that_of_its_weights():
    """Of eight numbers the rounding of weights and that of results may cancel; another runtime's do not."""
    truth = np.linspace(1, 2, 8)

    def evaluate(precision):
        off = {"float64": 0.0, "fp32": 1e-7, "fp16": 2e-4}.get(precision, 9e-4)
        return [[truth + off]], "native"

    noise = reference.reference_of(evaluate, ("fp32", "fp16", "fp16-weights")).noise
    assert noise["fp16"][0].rms == noise["fp16-weights"][0].rms == pytest.approx(9e-4, rel=0.01)
    assert reference.reference_of(evaluate, ("fp32", "fp16")).noise["fp16"][0].rms < 5e-4


@pytest.mark.parametrize(("method", "least"), [("estimated: fp32 run taken as truth", 2.0**-22), ("native", 2.0**-24)])
def test_an_estimate_of_the_truth_is_off_itself_and_knows_no_places(method, least):
    """Its own error is a few units of the last place; what is smaller, and where it is, is nothing to be red for."""
    truth = np.random.default_rng(0).standard_normal((8, 64, 4))
    size = np.sqrt(np.mean(truth**2))

    def evaluate(precision):
        return [
            [truth * (1 + (2.0**-40 if precision == "fp32" else 0))]
        ], method if precision == "float64" else "native"

    (noise,) = reference.reference_of(evaluate, ("fp32",)).noise["fp32"]
    assert noise.rms == pytest.approx(least * size / (1 if "estimated" in method else np.sqrt(3)))
    assert (noise.profile is None) is ("estimated" in method)
    assert min(noise.rows) >= (least * size if "estimated" in method else 0)
