"""Ways of calling a session: other memory layouts, watched inputs, several threads."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from pytest_modelformats.workers import calls

X = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


@pytest.mark.parametrize("layout", calls.LAYOUTS)
def test_a_layout_changes_the_memory_and_not_the_values(layout):
    (array,) = calls.laid_out({"x": X}, {"x": layout}).values()
    assert np.array_equal(array, X)
    assert array.dtype == X.dtype
    assert array.flags.c_contiguous == (layout == calls.CONTIGUOUS)


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
