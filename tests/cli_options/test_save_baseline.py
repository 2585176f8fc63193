"""``--mf-save-baseline``: Keep this run's record in the cache folder under a name that --mf-baseline takes."""

from __future__ import annotations

import pytest
from inner_run import ONE_CELL, two_layers

from pytest_modelformats.measure.two_sides import interleaved

PARITY = ("--mf-suites", "parity", *ONE_CELL)
KEPT = "cache-here/baselines/release/results.jsonl"


def save(run, tiny, *more, **kwargs):
    options = ("--mf-model", tiny, *PARITY, "--mf-cache=cache-here", "--mf-save-baseline", "release", *more)
    return run(*options, cache=False, inprocess=True, **kwargs)


def test_the_record_is_kept_and_replacing_it_is_said(run, tiny, pytester):
    first = save(run, tiny)
    assert first.status == 0, first.text
    assert (pytester.path / KEPT).read_text() == (first.folder / "results.jsonl").read_text()
    assert "kept as the baseline 'release'" in first.text
    assert "in place of the run" not in first.text
    second = save(run, tiny)
    assert "in place of the run of 20" in " ".join(second.text.split())
    assert (pytester.path / KEPT).read_text() == (second.folder / "results.jsonl").read_text()


def test_files_of_the_users_own_are_kept_with_it(run, tiny, pytester):
    """A candidate is in no cache: the next release overwrites it."""
    two_layers(pytester.path / "ours.onnx")
    content = (pytester.path / "ours.onnx").read_bytes()
    ran = save(run, tiny, "--mf-candidate", "ours.onnx")
    assert ran.status == 0, ran.text
    (copy,) = (pytester.path / KEPT).parent.glob("artifacts/*/ours.onnx")
    assert copy.read_bytes() == content


def test_an_incomplete_run_is_not_kept(run, tiny, pytester):
    (pytester.path / "test_stop.py").write_text("def test_stop(mf_parity):\n    raise KeyboardInterrupt\n")
    options = ("--mf-model", tiny, *ONE_CELL, "--mf-cache=cache-here", "--mf-save-baseline", "release", "test_stop.py")
    ran = run(*options, cache=False)
    assert ran.status != 0
    assert "the run is incomplete, so it was not kept" in " ".join(ran.text.split())
    assert not (pytester.path / KEPT).exists()


def test_a_name_that_means_something_else_is_refused(refusal, tiny):
    assert "'latest' cannot be a baseline's name" in refusal(
        "--mf-model", tiny, *PARITY, "--mf-save-baseline", "latest"
    )


@pytest.mark.slow
def test_the_files_of_then_are_measured_beside_those_of_now(run, tiny, pytester, monkeypatch):
    """The candidate and the source are overwritten by the next release; what runs beside them is the copy."""
    import onnx

    monkeypatch.setattr(interleaved, "compare_latency", interleaved.compare_latency)  # as it was, afterwards
    two_layers(pytester.path / "ours.onnx")
    options = ("--mf-model", tiny, "--mf-candidate", "ours.onnx", *ONE_CELL, "--mf-cache=cache-here")
    suites = ("--mf-suites", "latency", "--mf-time-budget", "0.05")
    run(*options, *suites, "--mf-save-baseline", "release", cache=False, inprocess=True)
    for path in (tiny, pytester.path / "ours.onnx"):
        model = onnx.load(str(path))
        model.doc_string = "another release"
        onnx.save(model, str(path))
    quick = {"plugins": ["quick_comparing"], "cache": False, "inprocess": True}
    ran = run(*options, *suites, "--mf-baseline", "release", **quick)
    for cell in ("tiny-onnx-fp32-onnxruntime@cpu", "tiny~ours-onnx-fp32-onnxruntime@cpu"):
        found = ran.checks[cell, "comparison"]["data"]["comparisons"]
        (latency,) = (c for c in found if c["metric"] == "latency")
        assert latency["how"] == "interleaved", latency["sentence"]
        assert latency["blocks"] > 0


def test_without_a_copy_the_stored_samples_are_what_is_left(run, tiny, pytester):
    options = ("--mf-model", tiny, *ONE_CELL, "--mf-suites", "latency", "--mf-time-budget", "0.05")
    run(*options, inprocess=True)
    two_layers(tiny, seed=1)
    ran = run(*options, "--mf-baseline", "latest", inprocess=True)
    found = ran.checks["tiny-onnx-fp32-onnxruntime@cpu", "comparison"]["data"]["comparisons"]
    (latency,) = (c for c in found if c["metric"] == "latency")
    assert latency["how"] == "stored"
    assert "its file is another one since" in latency["sentence"]
