"""Samples: seeded ones are reproducible and independent, the user's own are checked."""

from __future__ import annotations

import numpy as np
import pytest

from pytest_modelformats.errors import ConfigurationError, SourceError
from pytest_modelformats.schema import TensorSpec
from pytest_modelformats.source.samples import load_samples, make_samples, rows


def specs(*texts):
    return [TensorSpec.parse(text) for text in texts]


def refused(call, *words, error=SourceError):
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


# --- seeded --------------------------------------------------------------------------------


def test_a_symbolic_batch_gets_as_many_rows_as_asked_for():
    samples = make_samples(specs("x:float32[N,3]"), 5, 0)
    assert samples.rows == 5
    assert [feed["x"].shape for feed in samples.feeds] == [(5, 3)]
    assert (samples.batch_symbol, samples.batch_axes) == ("N", {"x": (0,)})


def test_a_fixed_batch_gets_feeds_until_there_are_enough_rows():
    samples = make_samples(specs("x:float32[4,3]"), 10, 0)
    assert [feed["x"].shape for feed in samples.feeds] == [(4, 3)] * 3
    assert (samples.rows, samples.batch_symbol) == (12, "")


def test_feeds_of_a_fixed_batch_differ():
    first, second = make_samples(specs("x:float32[1,3]"), 2, 0).feeds
    assert not np.array_equal(first["x"], second["x"])


def test_the_same_seed_gives_the_same_values():
    first, second = (make_samples(specs("x:float32[N,3]"), 4, 7).feeds[0]["x"] for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_another_seed_gives_other_values():
    first, second = (make_samples(specs("x:float32[N,3]"), 4, seed).feeds[0]["x"] for seed in (0, 1))
    assert not np.array_equal(first, second)


def test_another_input_does_not_change_the_values():
    alone = make_samples(specs("x:float32[N,3]"), 4, 0).feeds[0]["x"]
    beside = make_samples(specs("a:float32[N]", "x:float32[N,3]"), 4, 0).feeds[0]["x"]
    np.testing.assert_array_equal(alone, beside)


def test_inputs_of_one_shape_differ():
    feed = make_samples(specs("a:float32[N,3]", "b:float32[N,3]"), 4, 0).feeds[0]
    assert not np.array_equal(feed["a"], feed["b"])


@pytest.mark.parametrize("spec", ["x:float32[N,3]", "x:int64[N,3]{0..99}", "x:bool[N,3]"])
def test_a_larger_pool_begins_with_the_smaller_one(spec):
    small, large = (make_samples(specs(spec), count, 0).feeds[0]["x"] for count in (3, 9))
    np.testing.assert_array_equal(small, large[:3])


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_floats_are_standard_normal_up_to_the_scale_of_a_row(dtype):
    values = make_samples(specs(f"x:{dtype}[N,4096]"), 16, 0).feeds[0]["x"].astype("float64")
    scale = values.std(axis=1)
    assert np.abs((values / scale[:, None]).mean()) < 0.02
    assert (scale > 0.45).all()
    assert (scale < 2.1).all()
    assert scale.max() / scale.min() > 1.5


def test_every_input_has_its_dtype():
    feed = make_samples(specs("a:float16[N]", "b:int8[N]{-3..3}", "c:bool[N]", "d:uint8[N]{0..255}"), 4, 0).feeds[0]
    assert {name: array.dtype.name for name, array in feed.items()} == {
        "a": "float16",
        "b": "int8",
        "c": "bool",
        "d": "uint8",
    }


def test_bfloat16_is_held_exactly_in_float32():
    values = make_samples(specs("x:bfloat16[N,64]"), 4, 0).feeds[0]["x"]
    assert values.dtype == np.float32
    assert not (values.view(np.uint32) & 0xFFFF).any()
    assert len(np.unique(values)) > 100


def test_integers_cover_their_range_with_both_ends():
    values = make_samples(specs("x:int64[N,100]{-2..3}"), 8, 0).feeds[0]["x"]
    assert set(np.unique(values)) == {-2, -1, 0, 1, 2, 3}


def test_floats_with_a_range_are_uniform_in_it():
    values = make_samples(specs("x:float32[N,1000]{0..1}"), 8, 0).feeds[0]["x"]
    assert 0 <= values.min() < 0.01
    assert 0.99 < values.max() <= 1


def test_booleans_are_mixed():
    assert 0.3 < make_samples(specs("x:bool[N,100]"), 8, 0).feeds[0]["x"].mean() < 0.7


def test_a_symbol_has_one_size_in_all_inputs():
    feed = make_samples(specs("a:float32[N,S]", "b:float32[N,3,S]"), 2, 0).feeds[0]
    assert feed["a"].shape[1] == feed["b"].shape[2]


def test_a_symbol_can_be_given_a_size():
    assert make_samples(specs("a:float32[N,S]"), 2, 0, {"S": 5}).feeds[0]["a"].shape == (2, 5)


def test_an_unknown_symbol_is_refused():
    call = lambda: make_samples(specs("a:float32[N,seq]"), 2, 0, {"seg": 5})  # noqa: E731
    refused(call, "'seg'", "did you mean 'seq'?", error=ConfigurationError)


def test_a_batch_that_is_not_the_first_axis_is_followed():
    samples = make_samples(specs("x:float32[N,3]", "y:float32[S,N,2]"), 4, 0)
    assert samples.feeds[0]["y"].shape == (16, 4, 2)
    assert samples.batch_axes == {"x": (0,), "y": (1,)}


def test_dimensions_without_a_name_are_not_one_symbol():
    spec = TensorSpec("x", "float32", ("?", 3, "?"))
    samples = make_samples([spec], 4, 0)
    assert samples.feeds[0]["x"].shape == (4, 3, 16)
    assert samples.batch_symbol == "?"


def test_a_scalar_input_is_no_batch():
    samples = make_samples(specs("t:float32[]", "x:float32[N,2]"), 4, 0)
    assert samples.feeds[0]["t"].shape == ()
    assert samples.rows == 4


def test_integers_without_a_range_are_refused_with_the_option_to_add():
    refused(lambda: make_samples(specs("ids:int64[N,128]"), 2, 0), "--mf-input 'ids:int64[N,128]{0..30521}'")


def test_a_range_beyond_the_dtype_is_refused():
    refused(lambda: make_samples(specs("x:int8[N]{0..300}"), 2, 0), "x:int8[N]{0..300}", "int8")


def test_a_range_of_fractions_is_refused_for_integers():
    refused(lambda: make_samples([TensorSpec("x", "int8", ("N",), 0.5, 2)], 2, 0), "whole int8 numbers")


def test_an_unknown_shape_is_refused_with_the_option_to_add():
    refused(lambda: make_samples([TensorSpec("x", "float32", None)], 2, 0), "shape", "--mf-input 'x:float32[")


def test_a_model_without_inputs_is_refused():
    refused(lambda: make_samples([], 2, 0), "no inputs", "--mf-input")


# --- rows ----------------------------------------------------------------------------------


def test_rows_are_taken_along_the_batch_of_every_input():
    samples = make_samples(specs("x:float32[N,3]", "y:float32[S,N]", "c:float32[5]"), 4, 0)
    feed, pool = rows(samples, 1, 3), samples.feeds[0]
    np.testing.assert_array_equal(feed["x"], pool["x"][1:3])
    np.testing.assert_array_equal(feed["y"], pool["y"][:, 1:3])
    np.testing.assert_array_equal(feed["c"], pool["c"])


def test_beyond_the_last_row_the_pool_begins_again():
    samples = make_samples(specs("x:float32[N,3]"), 2, 0)
    np.testing.assert_array_equal(rows(samples, 1, 4)["x"], samples.feeds[0]["x"][[1, 0, 1]])


def test_with_a_fixed_batch_rows_are_a_whole_feed():
    samples = make_samples(specs("x:float32[2,3]"), 6, 0)
    np.testing.assert_array_equal(rows(samples, 2, 4)["x"], samples.feeds[1]["x"])


# --- the user's own ------------------------------------------------------------------------


@pytest.fixture
def npz(tmp_path):
    def save(**arrays):
        path = tmp_path / "data.npz"
        np.savez(path, **arrays)
        return str(path)

    return save


ONES = "import numpy\ndef data(): return {'x': numpy.ones((2, 3), 'float32')}\n"
ROWS = np.arange(12, dtype="float32").reshape(4, 3)


def test_an_archive_is_read(npz):
    samples = load_samples(npz(x=ROWS, labels=np.arange(4)), specs("x:float32[N,3]"))
    np.testing.assert_array_equal(samples.feeds[0]["x"], ROWS)
    np.testing.assert_array_equal(samples.labels, np.arange(4))
    assert (samples.rows, samples.batch_symbol, samples.origin) == (4, "N", "data.npz, 4 samples")


def test_a_folder_of_arrays_is_read(tmp_path):
    np.save(tmp_path / "x.npy", ROWS)
    assert load_samples(str(tmp_path), specs("x:float32[N,3]")).rows == 4


def test_a_callable_is_called(tmp_path):
    (tmp_path / "digits_for_test.py").write_text(
        "import numpy\ndef data(): return {'x': numpy.ones((2, 3), 'float32')}\n"
    )
    assert load_samples("digits_for_test:data", specs("x:float32[N,3]"), [str(tmp_path)]).rows == 2


def test_a_callable_of_a_file_is_called(tmp_path):
    (tmp_path / "d.py").write_text(ONES)
    assert load_samples(f"{tmp_path}/d.py:data", specs("x:float32[N,3]")).rows == 2


def test_a_limit_keeps_the_first_rows(npz):
    samples = load_samples(npz(x=ROWS, labels=np.arange(4)), specs("x:float32[N,3]"), limit=3)
    np.testing.assert_array_equal(samples.feeds[0]["x"], ROWS[:3])
    assert (samples.rows, len(samples.labels)) == (3, 3)
    assert "the first 3 used" in samples.origin


def test_rows_are_split_into_feeds_of_a_fixed_batch(npz):
    samples = load_samples(
        npz(x=ROWS, c=np.ones(2, "float32"), labels=np.arange(4)), specs("x:float32[2,3]", "c:float32[2]")
    )
    assert [feed["x"][0, 0] for feed in samples.feeds] == [0, 6]
    assert [feed["c"].shape for feed in samples.feeds] == [(2,), (2,)]
    assert samples.rows == 4


def test_a_limit_keeps_whole_feeds_of_a_fixed_batch(npz):
    samples = load_samples(npz(x=ROWS), specs("x:float32[2,3]"), limit=1)
    assert (samples.rows, len(samples.feeds)) == (2, 1)


def test_byte_order_is_made_native(npz):
    feed = load_samples(npz(x=ROWS.astype(">f4")), specs("x:float32[N,3]")).feeds[0]
    assert feed["x"].dtype == np.dtype("=f4")
    np.testing.assert_array_equal(feed["x"], ROWS)


@pytest.mark.parametrize(
    ("arrays", "spec", "words"),
    [
        ({"y": ROWS}, ["x:float32[N,3]"], ("'y'", "no input of the model", "known are x")),
        ({"x": ROWS}, ["x:float32[N,3]", "mask:bool[N]"], ("no array for the input mask:bool[N]", "it holds x")),
        ({"x": ROWS.astype("float64")}, ["x:float32[N,3]"], ("'x' is float64", "takes float32", ".astype('float32')")),
        ({"x": ROWS[0]}, ["x:float32[N,3]"], ("shape [3]", "x:float32[N,3]")),
        ({"x": ROWS}, ["x:float32[N,4]"], ("shape [4, 3]", "x:float32[N,4]")),
        ({"x": ROWS}, ["x:float32[3,3]"], ("shape [4, 3]", "x:float32[3,3]")),
        ({"x": ROWS, "w": ROWS[:, 0]}, ["x:float32[N,3]", "w:float32[2]"], ("'w'", "shape [4]", "w:float32[2]")),
        ({"x": ROWS, "m": ROWS[:2]}, ["x:float32[N,3]", "m:float32[N,3]"], ("dimension N is 4 in 'x' and 2 in 'm'",)),
        ({"x": ROWS[:0]}, ["x:float32[N,3]"], ("at least 1", "'x' 0")),
        ({"x": ROWS, "labels": np.arange(3)}, ["x:float32[N,3]"], ("labels of shape [3] for 4 samples",)),
        ({"x": np.array([1, 9])}, ["x:int64[N]{0..5}"], ("values from 1 to 9", "{0..5}")),
        ({"x": ROWS, "m": ROWS}, ["x:float32[2,3]", "m:float32[1,3]"], ("2 for 'x', 4 for 'm'",)),
        ({"x": np.array(["a"])}, ["x:float32[N]"], ("'x' holds", "only numbers")),
    ],
)
def test_arrays_that_the_model_does_not_take_are_refused(npz, arrays, spec, words):
    refused(lambda: load_samples(npz(**arrays), specs(*spec)), "data.npz", *words)


def test_a_pickled_array_is_refused_without_loading_it(npz):
    refused(lambda: load_samples(npz(x=np.array([{}], object)), specs("x:float32[N]")), "data.npz", "cannot be read")


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04rest"])
def test_a_file_that_is_no_archive_is_refused(tmp_path, content):
    (tmp_path / "d.npz").write_bytes(content)
    refused(lambda: load_samples(str(tmp_path / "d.npz"), specs("x:float32[N]")), "d.npz", "numpy.savez")


def test_a_damaged_archive_is_refused(npz, tmp_path):
    content = (tmp_path / npz(x=ROWS)).read_bytes()
    damaged = content.replace(ROWS.tobytes(), ROWS[::-1].tobytes())
    (tmp_path / "data.npz").write_bytes(damaged)
    refused(lambda: load_samples(str(tmp_path / "data.npz"), specs("x:float32[N,3]")), "data.npz", "cannot be read")


def test_a_folder_without_arrays_is_refused(tmp_path):
    refused(lambda: load_samples(str(tmp_path), specs("x:float32[N]")), "no .npy file")


def test_missing_data_is_refused(tmp_path):
    refused(lambda: load_samples(str(tmp_path / "none.npz"), specs("x:float32[N]")), "none.npz", ".npz")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("raise KeyError('k')", ("d.py:data", "KeyError")),
        ("return [1]", ("returned a list", "dict")),
        ("import none_such", ("ModuleNotFoundError", "none_such")),
    ],
)
def test_a_callable_that_fails_is_named(tmp_path, code, words):
    (tmp_path / "d.py").write_text(f"def data():\n    {code}\n")
    refused(lambda: load_samples(f"{tmp_path}/d.py:data", specs("x:float32[N]")), *words)


def test_an_unknown_callable_is_refused():
    refused(lambda: load_samples("none_such_module:data", specs("x:float32[N]")), "none_such_module:data")
