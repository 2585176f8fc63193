"""The interface check: every difference is a sentence, what is not stated cannot differ."""

from __future__ import annotations

import pytest

from pytest_modelformats.compare.interface import Trial, behaviour, differences
from pytest_modelformats.schema import TensorSpec
from pytest_modelformats.schema.registry import formats

INPUTS = [TensorSpec.parse("image:float32[N,1,8,8]"), TensorSpec.parse("ids:int64[N,S]")]
OUTPUTS = [TensorSpec.parse("logits:float32[N,10]"), TensorSpec.parse("label:int64[N]")]


def found(inputs=INPUTS, outputs=OUTPUTS, form="onnx", precision="fp32"):
    return texts(differences(INPUTS, OUTPUTS, inputs, outputs, formats()[form], precision))


def texts(found):
    return [difference.text for difference in found]


def test_an_unchanged_interface_has_no_differences():
    assert found() == []


def test_what_is_not_stated_cannot_differ():
    assert found((), ()) == []
    assert found([TensorSpec("", "float32", None), TensorSpec("", "int64", None)], ()) == []


@pytest.mark.parametrize(
    ("outputs", "said"),
    [
        (OUTPUTS[:1], "there are 1 outputs (logits) where the source has 2"),
        ([OUTPUTS[1], OUTPUTS[0]], "output 0 is called 'label' where the source says 'logits'"),
        ([TensorSpec.parse("logit:float32[N,10]"), OUTPUTS[1]], "output 0 is called 'logit'"),
        ([OUTPUTS[0], TensorSpec.parse("label:int32[N]")], "output 'label' is int32 where the source has int64"),
        ([TensorSpec.parse("logits:float32[N,9]"), OUTPUTS[1]], "dimension 1 of output 'logits' is 9"),
        ([TensorSpec.parse("logits:float32[1,10]"), OUTPUTS[1]], "was dynamic (N) and is now fixed at 1"),
        ([TensorSpec.parse("logits:float32[10]"), OUTPUTS[1]], "has rank 1 where the source has 2"),
        ([TensorSpec.parse("logits:float16[N,10]"), OUTPUTS[1]], "output 'logits' is float16"),
    ],
)
def test_each_change_is_named(outputs, said):
    assert said in "; ".join(found(outputs=outputs))


def test_a_narrow_cell_may_hand_out_its_own_dtype():
    narrow = [TensorSpec.parse("logits:float16[N,10]"), OUTPUTS[1]]
    assert found(outputs=narrow, precision="fp16") == []
    assert found(outputs=narrow, precision="bf16") != []


def test_names_count_only_where_the_format_holds_them():
    renamed = [TensorSpec.parse("other:float32[N,10]"), OUTPUTS[1]]
    assert found(outputs=renamed, form="torchscript") == []
    assert found(outputs=renamed, form="openvino") != []


UNNAMED = [TensorSpec.parse("output_0:float32[N,10]"), TensorSpec.parse("label:int64[N]")]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("logits", "label"), ""),
        (("output_0", "label"), ""),
        (("logits", "class"), "output 1 is called 'class' where the source says 'label'"),
        (("label", "output_0"), "output 0 is called 'label' where the source says 'output_0'"),
    ],
)
def test_an_output_that_the_source_does_not_name_goes_by_position(names, said):
    """A name that the source has for another of its outputs is a change of order."""
    stated = [TensorSpec(name, spec.dtype, spec.shape) for name, spec in zip(names, UNNAMED, strict=True)]
    told = texts(differences(INPUTS, UNNAMED, INPUTS, stated, formats()["onnx"], "fp32", ("output_0",)))
    assert said in "; ".join(told)
    assert bool(told) == bool(said)


def test_an_output_without_a_name_keeps_its_dtype_shape_and_number():
    for stated, said in (
        ([TensorSpec.parse("logits:int32[N,10]"), UNNAMED[1]], "output 'output_0' is int32"),
        ([TensorSpec.parse("logits:float32[N,9]"), UNNAMED[1]], "dimension 1 of output 'output_0' is 9"),
        ([TensorSpec.parse("logits:float32[N,10]")], "there are 1 outputs"),
    ):
        told = texts(differences(INPUTS, UNNAMED, INPUTS, stated, formats()["onnx"], "fp32", ("output_0",)))
        assert said in "; ".join(told)


def test_a_dimension_that_became_dynamic_is_no_loss():
    fixed = [TensorSpec.parse("image:float32[N,C,H,W]"), INPUTS[1]]
    assert found(inputs=fixed) == []


FIXED = differences(
    INPUTS,
    OUTPUTS,
    [INPUTS[0], TensorSpec.parse("ids:int64[N,16]")],
    [TensorSpec.parse("logits:float32[4,10]"), OUTPUTS[1]],
    formats()["onnx"],
    "fp32",
)


def trial(rows, length, *, got=True, asked=True):
    """A run with so many rows of ids of a length; ``got`` is the shapes that come out, the right ones or none."""
    right = ((rows, 10), (rows,))
    return Trial(
        f"with N = {rows}, S = {length}",
        ((rows, 1, 8, 8), (rows, length)),
        right if asked else None,
        right if got is True else got,
        "" if got else "no",
    )


def lost(*trials):
    return [d.label for d in behaviour(FIXED, trials).lost]


def test_what_behaves_alike_is_not_lost_and_what_had_one_size_is_told():
    seen = behaviour(FIXED, [trial(8, 16), trial(2, 16)])
    assert seen.lost == ()
    assert [(d.label, d.axis) for d in seen.single] == [("input 'ids'", 1)]
    assert behaviour(FIXED, [trial(8, 16), trial(2, 32)]).single == ()


def test_a_refusal_is_the_inputs_dimension_that_stands_against_what_was_given():
    assert lost(trial(8, 16), trial(2, 32, got=None)) == ["input 'ids'"]
    assert lost(trial(8, 16, got=None)) == ["input 'ids'", "output 'logits'"], "no input's: so it is all that differ"


def test_another_shape_is_the_dimension_of_its_output():
    assert lost(trial(8, 16, got=((4, 10), (8,)))) == ["output 'logits'"]
    assert lost(trial(8, 16, got=((8, 10), (4,)))) == ["input 'ids'", "output 'logits'"]
    assert lost(trial(8, 16, got=((8, 10),))) == ["input 'ids'", "output 'logits'"]
    assert behaviour(FIXED, [trial(8, 16, got=((8, 10),))]).evidence.endswith(
        "1 outputs come out where the source gives 2"
    )


def test_where_the_source_cannot_be_asked_a_refusal_counts_against_what_the_inputs_declare():
    assert lost(trial(8, 32, got=None, asked=False)) == ["input 'ids'"]
    assert lost(trial(8, 16, got=None, asked=False)) == []
    assert lost(trial(8, 32, asked=False)) == []
