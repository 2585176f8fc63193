"""``--mf-slow``: Also run precisions that this CPU only emulates, such as fp16 without fp16 instructions."""

from __future__ import annotations

from inner_run import ONE_CELL


def test_an_emulated_precision_runs_only_when_asked_for(run, tiny, imaginary):
    imaginary()
    chosen = (
        "--mf-model",
        tiny,
        *ONE_CELL[:4],
        "--mf-backends",
        "imaginary",
        "--mf-devices",
        "cpu",
        "--mf-suites",
        "parity",
    )
    cell = "tiny-onnx-fp32-imaginary@cpu"
    quick = run(*chosen)
    assert quick.outcomes == {(cell, "availability"): "unsupported"}
    assert "unheard_of" in quick.of("cell")[0]["reason"]
    slow = run(*chosen, "--mf-slow")
    assert slow.outcomes == {(cell, "parity"): "passed"}, slow.text


def test_a_value_other_than_true_or_false_is_refused(refusal, tiny, pytester):
    (pytester.path / "modelformats.toml").write_text("slow = 0.5")
    assert "'slow' is 0.5 (a number); expected true or false" in refusal("--mf-model", tiny)
