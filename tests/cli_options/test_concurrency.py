"""``--mf-concurrency``: Numbers of requests in flight on one session whose throughput is measured."""

from __future__ import annotations

from inner_run import ONE_CELL

CELL = "tiny-onnx-fp32-onnxruntime@cpu"


def test_requests_in_flight_are_measured_by_threads_and_by_the_runtimes_own_mode(run, tiny):
    chosen = ("--mf-suites", "throughput", "--mf-time-budget", "0.1", *ONE_CELL)
    ran = run("--mf-model", tiny, *chosen, "--mf-concurrency", "2,1", inprocess=True)
    assert ran.status == 0, ran.text
    lines = [line for line in ran.of("check") if line["check"] == "throughput"]
    assert [line["test"].rpartition("-")[2] for line in lines] == ["concurrency1]", "concurrency2]"]
    alone, together = (line["data"]["throughput"] for line in lines)
    assert [(f["concurrency"], f["mode"]) for f in alone] == [(1, "sync")]
    assert [(f["concurrency"], f["mode"]) for f in together] == [(2, "threads"), (2, "async")]
    assert all(f["items_per_s"] > 0 and f["wall_s"] > 0 and f["batch"] == 1 for f in together)
    assert together[1]["stated"] == {
        "requests": 2,
        "intra_op_threads": 3,
        "pool_threads": 2,
        "allow_spinning": False,
    }


def test_what_is_no_number_of_requests_is_refused(refusal, tiny):
    for wrong in ("0", "two", ","):
        sentence = refusal("--mf-model", tiny, "--mf-concurrency", wrong)
        assert f"--mf-concurrency is '{wrong}'; expected whole numbers of at least 1" in sentence
