"""Ways of calling a session: other memory layouts, watched inputs, several threads."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from pytest_modelformats.run.workers import calls
from pytest_modelformats.schema.dtypes import in_dtypes, own_dtypes

X = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


@pytest.mark.parametrize("layout", calls.LAYOUTS)
def test_a_layout_changes_the_memory_and_not_the_values(layout):
    (array,) = calls.laid_out({"x": X}, {"x": layout}).values()
    assert np.array_equal(array, X)
    assert array.dtype == X.dtype
    assert array.flags.c_contiguous == (layout == calls.CONTIGUOUS)


WANTED = [("x", "float32"), ("ids", "int64"), ("wide", "float64")]


@pytest.mark.parametrize(("precision", "own"), [("fp16", "float16"), ("bf16", "bfloat16")])
def test_the_own_dtype_of_a_narrow_precision_is_fed_where_the_artifact_takes_it(precision, own):
    stated = [("x", own), ("ids", "int64"), ("wide", own)]
    assert own_dtypes(WANTED, stated, precision) == {"x": own, "wide": own}
    assert own_dtypes(WANTED, stated[::-1], precision) == {"x": own, "wide": own}
    unnamed = [("", dtype) for _, dtype in stated]
    assert own_dtypes(WANTED, unnamed, precision) == {"x": own, "wide": own}
    assert own_dtypes(WANTED, (), precision) == {}


@pytest.mark.parametrize("precision", ["fp32", "tf32", "fp16-weights", "bf16"])
def test_a_dtype_that_the_contract_refuses_is_fed_as_it_is(precision):
    stated = [("x", "float16"), ("ids", "int32"), ("wide", "float32")]
    assert own_dtypes(WANTED, stated, precision) == {}
    assert own_dtypes([("x", "float16")], stated[:1], "fp16") == {}


def test_a_feed_is_rounded_to_the_nearest_of_the_narrower_float():
    import torch

    values = np.random.default_rng(0).standard_normal(10_000).astype(np.float32)
    values = np.concatenate([values, np.float32([1e30, -1e30, 1 + 2**-8, 1 + 3 * 2**-8, 0, -0.0, np.inf, np.nan])])
    feed = {"x": values, "ids": np.arange(3)}
    for dtype, kind in (("float16", torch.float16), ("bfloat16", torch.bfloat16)):
        cast = in_dtypes(feed, {"x": dtype})
        assert cast["x"].dtype.name == {"float16": "float16", "bfloat16": "float32"}[dtype]
        right = torch.from_numpy(values).to(kind).float().numpy()
        assert np.array_equal(cast["x"].astype(np.float32), right, equal_nan=True)
        assert cast["ids"] is feed["ids"]
    assert feed["x"] is values


def test_a_scalar_has_one_layout():
    scalar = np.float32(3) * np.ones(())
    for layout in calls.LAYOUTS:
        assert calls.laid_out({"x": scalar}, {"x": layout})["x"] == 3


def test_one_changed_bit_is_seen():
    arrays = {"x": X.copy(), "ids": np.arange(3), "nan": np.array([np.nan])}
    before = calls.copies(arrays)
    assert calls.changed(before, arrays) == []
    arrays["ids"][2] = 7
    arrays["x"][0, 0, 0] = -0.0
    assert calls.changed(before, arrays) == ["x", "ids"]


def test_threads_call_at_the_same_moment_and_outputs_are_their_own():
    inside, most, lock = [0], [0], threading.Lock()

    def run(feed):
        with lock:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
        time.sleep(0.02)
        with lock:
            inside[0] -= 1
        return [feed["x"] * 2]

    feeds = [{"x": X + i} for i in range(3)]
    outputs = calls.together(run, feeds, 2)
    assert most[0] == 3
    assert [len(rounds) for rounds in outputs] == [2, 2, 2]
    assert all(np.array_equal(y[0], (X + i) * 2) for i, rounds in enumerate(outputs) for y in rounds)


def test_an_output_that_a_later_call_overwrites_is_kept_as_it_was():
    buffer = np.zeros(1)

    def run(feed):
        buffer[0] += 1
        return [buffer]

    assert [float(y[0][0]) for y in calls.together(run, [{}], 3)[0]] == [1, 2, 3]


def test_what_one_thread_raises_is_raised_and_nobody_waits_for_it():
    def run(feed):
        if feed["x"] == 1:
            raise ValueError("thread one")
        return [np.zeros(1)]

    with pytest.raises(ValueError, match="thread one"):
        calls.together(run, [{"x": np.array(i)} for i in range(3)], 2)
