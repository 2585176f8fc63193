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


def test_labels_that_cannot_be_right_are_refused(run, tiny, pytester):
    """An accuracy of 0 before and after never fails."""
    x = np.random.default_rng(1).normal(size=(6, 4)).astype(np.float32)
    right = np.array([0, 1, 2, 2, 1, 0])
    for labels, parts in (
        (np.array(["cat"] * 6), ("'labels' holds text, such as cat", "counted from 0")),
        (right + 0.5, ("'labels' holds numbers that are not whole, such as 0.5",)),
        (right + 100, ("labels from 100 to 102, and the model's 3 classes are counted from 0 to 2",)),
        (right - 1, ("labels from -1 to 1",)),
        (np.eye(4)[right], ("labels of shape [6, 4] for a model of 3 classes", "one-hot rows of 3")),
        (np.ones((6, 3)), ("labels of shape [6, 3] that are not one-hot",)),
        (right[:5], ("labels of shape [5] for 6 samples",)),
    ):
        np.savez(pytester.path / "samples.npz", x=x, labels=labels)
        one_sentence(run("--mf-model", tiny, "--mf-data", "samples.npz", *PARITY), "samples.npz", *parts)


def test_one_hot_labels_are_the_classes_that_they_mark(run, tiny, pytester):
    x = np.random.default_rng(1).normal(size=(6, 4)).astype(np.float32)
    right = np.array([0, 1, 2, 2, 1, 0])
    found = []
    for labels in (right, right.astype(np.float32), right[:, None], np.eye(3)[right]):
        np.savez(pytester.path / "samples.npz", x=x, labels=labels)
        ran = run("--mf-model", tiny, "--mf-data", "samples.npz", *PARITY)
        found.append(ran.checks["tiny-onnx-fp32-onnxruntime@cpu", "parity"]["data"]["statement"])
    assert {f["labelled_rows"] for f in found} == {6}
    assert len({f["accuracy_source"] for f in found}) == 1
