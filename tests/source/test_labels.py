"""Labelled data decides whatever the format of the source: rows of class scores are a classifier's in ONNX too."""

from __future__ import annotations

import numpy as np
import pytest
from inner_run import ONE_CELL, two_layers

from pytest_modelformats.schema import TensorSpec, classifies


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        (["y:float32[N,10]"], True),
        (["y:float16[N,2]"], True),
        (["y:float32[N,1]"], False),
        (["y:float32[N,C]"], False),
        (["y:float32[8,10]"], False),
        (["y:float32[N,10,4]"], False),
        (["y:int64[N,10]"], False),
        (["y:float32[N,10]", "z:float32[N]"], False),
        ([], False),
    ],
)
def test_one_row_of_class_scores_a_sample_is_a_classifier(outputs, expected):
    assert classifies([TensorSpec.parse(text) for text in outputs]) is expected


@pytest.mark.slow
def test_the_accuracy_of_an_onnx_source_is_compared(run, tiny, pytester):
    """A candidate that a wide tolerance lets through, and that decides otherwise for most of the labelled rows."""
    import onnxruntime

    rows = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)
    (scores,) = onnxruntime.InferenceSession(str(tiny), providers=["CPUExecutionProvider"]).run(None, {"x": rows})
    np.savez(pytester.path / "data.npz", x=rows, labels=scores.argmax(1))
    two_layers(pytester.path / "other.onnx", seed=1)
    (pytester.path / "wide.toml").write_text('[tolerances."*"]\natol = 100\n')
    ran = run(
        "--mf-model", tiny, "--mf-data", "data.npz", "--mf-candidate", "other.onnx", "--mf-config", "wide.toml",
        "--mf-suites", "parity", *ONE_CELL,
    )  # fmt: skip
    wrong = next(cell for cell, _ in ran.outcomes if "~" in cell)
    right = next(cell for cell, _ in ran.outcomes if "~" not in cell)
    assert ran.outcomes[right, "parity"] == "passed"
    assert ran.outcomes[wrong, "parity"] == "failed"
    assert ran.checks[wrong, "parity"]["failure_kind"] == "accuracy"
    assert "Accuracy fell from 100.00%" in ran.checks[wrong, "parity"]["sentence"]
