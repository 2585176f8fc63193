"""Samples come back from a record as they were taken, whatever form they lie there in."""

from __future__ import annotations

import base64
import json
import random
import zlib

import pytest

from pytest_modelformats.record.decode import MalformedLineError, decode
from pytest_modelformats.record.nouns import Latency
from pytest_modelformats.record.packed_samples import ENCODING, pack, unpack


def lognormal(count):
    generator = random.Random(count)
    return [int(5_000_000 * generator.lognormvariate(0, 0.02)) for _ in range(count)]


@pytest.mark.parametrize("count", [0, 1, 6, 64, 2000])
def test_what_is_packed_comes_back(count):
    samples = lognormal(count)
    stored = json.loads(json.dumps(pack(samples), allow_nan=False))
    assert list(unpack(stored)) == samples
    assert decode(Latency, {"samples_ns": stored}).samples_ns == tuple(samples)


def test_two_thousand_samples_take_six_tenths_of_their_list():
    samples = lognormal(2000)
    assert len(json.dumps(pack(samples))) < 0.6 * len(json.dumps(samples, separators=(",", ":")))


def test_a_list_that_is_shorter_stays_one():
    assert pack([5, 6, 7]) == [5, 6, 7]


def test_the_form_is_what_the_schema_says_it_is():
    """Two calls of any library and a running sum read it."""
    stored = pack(lognormal(500))
    differences = json.loads(zlib.decompress(base64.b64decode(stored["data"])))
    assert [sum(differences[:n]) for n in (1, 2, 500)] == [lognormal(500)[n] for n in (0, 1, 499)]


def test_records_of_earlier_versions_are_read():
    assert decode(Latency, {"samples_ns": [3, 4.5]}).samples_ns == (3, 4.5)


def packed(content):
    return {"encoding": ENCODING, "data": base64.b64encode(content).decode()}


@pytest.mark.parametrize(
    ("stored", "words"),
    [
        ({"encoding": "zstd", "data": ""}, "'zstd' is not known"),
        ({"encoding": ENCODING}, "damaged"),
        ({"encoding": ENCODING, "data": "&&&"}, "damaged"),
        (packed(b"no zlib"), "damaged"),
        (packed(zlib.compress(b"[1, 2]")[:-3]), "damaged"),
        (packed(zlib.compress(b'{"a": 1}')), "damaged"),
        (packed(zlib.compress(b'[1, "2"]')), "damaged"),
        (packed(zlib.compress(b"[1, true]")), "damaged"),
        (packed(zlib.compress(b"[" + b"1," * 20_000_000 + b"1]", 1)), "damaged"),  # 40 MB in 170 KB
        ("text", "a list, or packed samples"),
    ],
    ids=["unknown", "no-data", "no-base64", "no-zlib", "cut-off", "object", "text-inside", "bool", "bomb", "text"],
)
def test_what_is_no_samples_is_refused_by_name(stored, words):
    with pytest.raises(MalformedLineError, match=words) as raised:
        decode(Latency, {"samples_ns": stored})
    assert "'samples_ns'" in str(raised.value)
