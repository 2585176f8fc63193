"""``--mf-data``: real samples to judge on."""

from __future__ import annotations

import numpy as np
from inner_run import PARITY, one_sentence


def test_the_samples_are_those_of_the_file(run, tiny, pytester):
    np.savez(pytester.path / "samples.npz", x=np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32))
    ran = run("--mf-model", tiny, "--mf-data", "samples.npz", *PARITY)
    assert ran.status == 0, ran.text
    (model,) = ran.of("model")
    assert model["samples"] == 5
    assert "samples.npz" in model["input_origin"]


def test_samples_of_another_shape_end_the_run_in_one_sentence(run, tiny, pytester):
    np.savez(pytester.path / "samples.npz", x=np.zeros((5, 3), np.float32))
    ran = run("--mf-model", tiny, "--mf-data", "samples.npz", *PARITY)
    one_sentence(ran, "samples.npz", "'x'", "4")


def test_a_missing_file_is_named(run, tiny):
    ran = run("--mf-model", tiny, "--mf-data", "nowhere.npz", *PARITY)
    assert ran.status != 0
    assert "nowhere.npz" in ran.text
    assert "Traceback" not in ran.text
