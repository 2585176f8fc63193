"""The cache: one entry per key, moved into place whole, verified when read."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import pytest

from pytest_modelformats.convert.cache import METADATA, Cache, key_of
from pytest_modelformats.errors import CacheError, ConvertError

KEY = "ab" * 32


def fill(folder):
    (folder / "model.onnx").write_bytes(b"weights")
    return {"opset": 18}


def refuse(folder):
    raise AssertionError(f"{folder} was made although an entry was there")


def test_an_entry_is_made_once_and_read_afterwards(tmp_path):
    made = Cache(tmp_path).get_or_make(KEY, {"converter": "x"}, fill)
    read = Cache(tmp_path).get_or_make(KEY, {"converter": "x"}, refuse)
    assert (made.made, read.made) == (True, False)
    assert read.folder == made.folder
    assert (read.folder / "model.onnx").read_bytes() == b"weights"
    assert read.metadata["facts"] == {"opset": 18}
    assert read.metadata["converter"] == "x"


def test_a_damaged_entry_is_reported_discarded_and_made_again(tmp_path):
    made = Cache(tmp_path).get_or_make(KEY, {}, fill)
    (made.folder / "model.onnx").write_bytes(b"weightz")
    with pytest.warns(UserWarning, match="damaged entry of the cache was discarded and made again"):
        again = Cache(tmp_path).get_or_make(KEY, {}, fill)
    assert again.made
    assert "model.onnx" in again.damaged
    assert (again.folder / "model.onnx").read_bytes() == b"weights"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"files": {"gone": "00"}}'])
def test_an_entry_with_broken_metadata_is_made_again(tmp_path, text):
    made = Cache(tmp_path).get_or_make(KEY, {}, fill)
    (made.folder / METADATA).write_text(text)
    with pytest.warns(UserWarning, match="damaged"):
        again = Cache(tmp_path).get_or_make(KEY, {}, fill)
    assert again.made
    assert again.damaged


def test_nothing_is_left_when_making_fails(tmp_path):
    def fail(folder):
        (folder / "half").write_bytes(b"half")
        raise ConvertError("no such operator")

    cache = Cache(tmp_path)
    with pytest.raises(ConvertError):
        cache.get_or_make(KEY, {}, fail)
    assert not list(tmp_path.rglob("half"))
    assert cache.get_or_make(KEY, {}, fill).made


def test_the_key_does_not_depend_on_the_order_of_its_parts():
    assert key_of({"a": 1, "b": [2, "3"]}) == key_of({"b": [2, "3"], "a": 1})
    assert key_of({"a": 1}) != key_of({"a": "1"})


def _make_slowly(folder: str, log: str) -> None:
    def make(aside: Path):
        import time

        with Path(log).open("a") as handle:
            handle.write("made\n")
        time.sleep(0.3)
        return fill(aside)

    Cache(Path(folder)).get_or_make(KEY, {}, make)


def test_four_processes_that_want_the_same_entry_make_it_once(tmp_path):
    log = tmp_path / "log"
    context = multiprocessing.get_context("spawn")
    arguments = (str(tmp_path / "cache"), str(log))
    processes = [context.Process(target=_make_slowly, args=arguments) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [p.exitcode for p in processes] == [0] * 4
    assert log.read_text() == "made\n"


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheError, match=r"cannot be written .*; choose another folder with --mf-cache DIR"):
        Cache(tmp_path / "file" / "below")


def test_the_metadata_lists_every_file_with_its_hash(tmp_path):
    entry = Cache(tmp_path).get_or_make(KEY, {}, fill)
    on_disk = json.loads((entry.folder / METADATA).read_text())
    assert on_disk["files"] == {"model.onnx": "9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c"}
