"""``--mf-batch``: Batch sizes whose throughput is measured."""

from __future__ import annotations

from inner_run import ONE_CELL

CELL = "tiny-onnx-fp32-onnxruntime@cpu"


def test_every_batch_size_is_measured_once_and_in_order(run, tiny):
    chosen = ("--mf-suites", "throughput", "--mf-time-budget", "0.05", *ONE_CELL)
    ran = run("--mf-model", tiny, *chosen, "--mf-batch", "8,1,8", inprocess=True)
    assert ran.status == 0, ran.text
    lines = [line for line in ran.of("check") if line["check"] == "throughput"]
    assert [line["test"].rpartition("@")[2] for line in lines] == ["cpu-batch1]", "cpu-batch8]"]
    assert {line["cell"] for line in lines} == {CELL}
    for batch, line in zip((1, 8), lines, strict=True):
        (figure,) = line["data"]["throughput"]
        assert (figure["batch"], figure["concurrency"], figure["mode"]) == (batch, 1, "sync")
        assert figure["items_per_s"] > 0
        assert figure["samples"] >= 6


def test_it_brings_the_throughput_suite_into_a_run_of_all(collected, tiny):
    def suites(*more):
        return {line.split("::")[1] for line in collected("--mf-model", tiny, *ONE_CELL, *more)}

    assert suites("--mf-batch", "2") - suites() == {"throughput"}


def test_a_named_suite_measures_batches_of_1_and_8_and_two_in_flight(collected, tiny):
    found = collected("--mf-model", tiny, *ONE_CELL, "--mf-suites", "throughput")
    assert [line.rpartition("-")[2] for line in found if "::throughput::" in line] == [
        "batch1]",
        "batch8]",
        "concurrency2]",
    ]


def test_the_file_may_hold_a_list_a_text_or_a_number(collected, tiny, pytester):
    for written in ("[4, 2]", '"2,4"', "2"):
        (pytester.path / "modelformats.toml").write_text(f"batch = {written}\n")
        found = [x for x in collected("--mf-model", tiny, *ONE_CELL) if "::throughput::" in x]
        assert [line.rpartition("-")[2] for line in found] == ["batch2]", "batch4]"][: len(found)]
        assert len(found) == (1 if written == "2" else 2)


def test_what_is_no_batch_size_is_refused(refusal, tiny):
    for wrong in ("0", "1,x", "1,,2", "-1", "1.5"):
        sentence = refusal("--mf-model", tiny, f"--mf-batch={wrong}")
        assert f"--mf-batch is '{wrong}'; expected whole numbers of at least 1, such as 1,8,32" in sentence
