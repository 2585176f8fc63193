"""Dimensions that are free, and the sizes that are tried for them."""

from __future__ import annotations

import pytest

from pytest_modelformats.schema import TensorSpec
from pytest_modelformats.source.free_dimensions import MOST_TRIES, candidates, free, images, term


def specs(*texts):
    return [TensorSpec.parse(text) for text in texts]


def test_the_batch_and_fixed_dimensions_are_not_free():
    assert free(specs("x:float32[N,3,H,W]", "y:float32[2,N,S]")) == {"H": ("x", 2), "W": ("x", 3), "S": ("y", 2)}
    assert free(specs("x:float32[N,3]")) == {}
    assert free(specs("audio:float32[1,samples]", "low:float32[]")) == {"samples": ("audio", 1)}


def test_a_term_of_others_is_not_free():
    mask = TensorSpec("mask", "int64", ("N", "past + seq"), 0, 1)
    inputs = [TensorSpec("ids", "int64", ("N", "seq"), 0, 9), TensorSpec("k", "float32", ("N", 2, "past", 8)), mask]
    assert set(free(inputs)) == {"seq", "past"}
    assert term("past + seq", {"past": 16, "seq": 24}) == 40


@pytest.mark.parametrize("text", ["a/2", "a - 9", "b", "a**9", "__import__('os')", "a//0", "(" * 500, "a + 'b'", ""])
def test_what_is_no_term_of_known_sizes_has_no_size(text):
    assert term(text, {"a": 4}) is None


def test_images_are_told_by_their_channels_or_by_names():
    found = images(
        specs("a:float32[N,3,H,W]", "b:float32[N,H,W,3]", "c:float32[N,3,1,height,width]", "d:float32[N,64,T,F]")
    )
    assert found == [("a", 2, 3), ("b", 1, 2), ("c", 3, 4)]


def test_images_are_tried_at_sizes_that_networks_are_trained_on_the_smallest_first():
    found = [(one["H"], one["W"]) for one in candidates(specs("x:float32[N,3,H,W]"), {})]
    assert found[0] == (64, 64)
    assert {(32, 320), (48, 320), (224, 224), (320, 320), (640, 640)} < set(found)
    areas = [high * wide for high, wide in found]
    assert areas == sorted(areas)
    assert any(high != wide for high, wide in found[:2])


def test_one_side_alone_is_tried_where_the_other_is_fixed():
    assert {tuple(one) for one in candidates(specs("x:float32[N,3,48,W]"), {})} == {("W",)}
    assert candidates(specs("x:float32[N,3,H,W]"), {"H": 48}) == candidates(specs("x:float32[N,3,48,W]"), {})
    assert all(one == {"S": one["S"]} for one in candidates(specs("x:float32[N,3,S,S]"), {}))


def test_other_dimensions_are_tried_from_16_and_told_apart():
    first, second, *_ = candidates(specs("a:float32[N,S]", "b:float32[N,T,8]"), {})
    assert first == {"S": 16, "T": 16}
    assert second["S"] != second["T"]
    assert [one["S"] for one in candidates(specs("a:float32[N,S]"), {})][:3] == [16, 24, 32]


def test_both_kinds_together_are_tried_in_a_bounded_number_of_ways():
    found = candidates(specs("image:float32[N,3,H,W]", "ids:int64[N,S]{0..9}"), {})
    assert found[0] == {"H": 64, "W": 64, "S": 16}
    assert len(found) == MOST_TRIES
    assert len({one["S"] for one in found}) > 1
    assert len({one["H"] for one in found}) > 1


def test_nothing_is_tried_where_nothing_is_free():
    assert candidates(specs("x:float32[N,3,H,W]"), {"H": 9, "W": 9}) == []
