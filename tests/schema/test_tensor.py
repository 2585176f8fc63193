"""A specification is read from its end, so that a name may hold anything, and what is printed reads back."""

from __future__ import annotations

import shlex

import pytest

from pytest_modelformats.errors import ConfigurationError
from pytest_modelformats.schema import TensorSpec

NAMES = ("x", "input:0", "serving_default_x:0", "a:b:c", "h[0]", "a,b", "x{1}", "model/in put", "int32", "it's")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rest", ["float32[N,4]", "int64[]", "int64[N,2]{0..9}", "uint8[1]{-1.5..1e+30}"])
def test_the_dtype_is_behind_the_last_colon_before_the_last_bracket(name, rest):
    found, alone = TensorSpec.parse(f"{name}:{rest}"), TensorSpec.parse(rest)
    assert found.name == name
    assert alone.name == ""
    assert (found.dtype, found.shape, found.low, found.high) == (alone.dtype, alone.shape, alone.low, alone.high)


@pytest.mark.parametrize("text", ["input:0", "input:0:float33[N]", "x:float32[N]]", "x:float32[[N]", ":float32[N]"])
def test_what_has_no_dtype_and_dimensions_at_its_end_is_refused(text):
    with pytest.raises(ConfigurationError, match="is not an input specification"):
        TensorSpec.parse(text)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_proposed_can_be_pasted(name):
    """In a shell it is one word, and that word says the same."""
    spec = TensorSpec(name, "int64", ("N", 3), 0, 1234567)
    (word,) = shlex.split(spec.pasted)
    assert TensorSpec.parse(word) == spec


def test_a_dimension_whose_name_cannot_be_written_is_proposed_as_a_letter():
    spec = TensorSpec("x:0", "int64", ("?", 3, "2*n", "Dynamic.1", "S"), 0, 9)
    assert spec.pasted == "'x:0:int64[N,3,d2,d3,S]{0..9}'"
