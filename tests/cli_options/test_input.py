"""``--mf-input``: An input as name:dtype[dims]; a letter is a dimension that may vary, {low..high} bounds integers."""

from __future__ import annotations

import onnx
import pytest
from inner_run import PARITY, one_sentence
from onnx import TensorProto, helper


def test_the_specification_replaces_what_the_model_states(run, tiny):
    ran = run("--mf-model", tiny, "--mf-input", "x:float32[2,4]", *PARITY)
    assert ran.status == 0, ran.text
    assert ran.of("model")[0]["inputs"] == ["x:float32[2,4]"]


def test_an_unknown_dtype_is_refused_with_an_example(refusal, tiny):
    sentence = refusal("--mf-model", tiny, "--mf-input", "x:float33[N,4]")
    assert "'x:float33[N,4]' is not an input specification" in sentence
    assert "input:float32[N,3,224,224]" in sentence


def test_a_name_that_the_model_does_not_have_is_refused_with_those_it_has(run, tiny):
    one_sentence(run("--mf-model", tiny, "--mf-input", "z:float32[N,4]", *PARITY), "'z'", "its inputs are x")


@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        ("x:float32[N,4]{3..1}", ("has the range {3..1}", "the smaller one first")),
        ("x:int64[N,4]{3..1}", ("has the range {3..1}", "the smaller one first")),
        ("x:float32[N,4]{a..b}", ("has the range {a..b}", "two numbers")),
        ("x:float32[N,4]{nan..1}", ("has the range {nan..1}", "two numbers")),
        ("x:float32[N*2,4]", ("the dimension 'N*2', which is neither a whole number nor a name",)),
        ("x:float32[?,4]", ("the dimension '?'", "write a letter such as N")),
        ("x:float32[--3,4]", ("the dimension '--3'",)),
        ("x:float32[²,4]", ("the dimension '²'",)),
        ("x:float32[0,4]", ("a dimension below 1",)),
        ("x:float32[99999999999999999999,1,8,8]", ("a tensor of 6.4e+21 elements", "correct its sizes")),
    ],
)
def test_dimensions_and_ranges_that_cannot_be_are_refused(refusal, tiny, spec, parts):
    sentence = refusal("--mf-model", tiny, "--mf-input", spec)
    assert f"'{spec}'" in sentence
    for part in parts:
        assert part in sentence, sentence


def test_the_range_that_is_proposed_fits_the_dtype(run, pytester):
    """What the error says to add is accepted as it stands."""
    _identity(pytester.path / "small.onnx", TensorProto.UINT8)
    one_sentence(run("--mf-model", "small.onnx", *PARITY), "add --mf-input 'x:uint8[N,4]{0..255}' with its own range")
    _identity(pytester.path / "term.onnx", TensorProto.UINT8, "2*n")
    one_sentence(run("--mf-model", "term.onnx", *PARITY), "add --mf-input 'x:uint8[N,4]{0..255}' with its own range")
    ran = run("--mf-model", "small.onnx", "--mf-input", "x:uint8[N,4]{0..255}", *PARITY)
    assert ran.outcomes["small-onnx-fp32-onnxruntime@cpu", "parity"] == "passed", ran.text


def test_an_input_of_text_is_unsupported(run, pytester):
    _identity(pytester.path / "words.onnx", TensorProto.STRING)
    ran = run("--mf-model", "words.onnx", *PARITY)
    line = ran.checks["words-onnx-fp32-onnxruntime@cpu", "parity"]
    assert line["outcome"] == "unsupported", ran.text
    assert "the input 'x' of the model is text; only numbers and booleans" in line["sentence"]


def _identity(path, kind, batch="N", name="x"):
    """An ONNX model x[N,4] to y[N,4] of one operator."""
    x, y = (helper.make_tensor_value_info(called, kind, [batch, 4]) for called in (name, "y"))
    graph = helper.make_graph([helper.make_node("Identity", [name], ["y"])], "identity", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), str(path))


@pytest.mark.parametrize("name", ["input:0", "h[0]", "a,b"])
def test_a_name_may_hold_what_the_specification_is_made_of(run, pytester, name):
    """What the error says to add is accepted as it stands, and the input is the one that is meant."""
    _identity(pytester.path / "named.onnx", TensorProto.INT64, name=name)
    proposed = f"{name}:int64[N,4]{{0..30521}}"
    one_sentence(run("--mf-model", "named.onnx", *PARITY), f"add --mf-input '{proposed}' with its own range")
    ran = run("--mf-model", "named.onnx", "--mf-input", proposed, *PARITY)
    assert ran.outcomes["named-onnx-fp32-onnxruntime@cpu", "parity"] == "passed", ran.text
    assert ran.of("model")[0]["inputs"] == [proposed]
