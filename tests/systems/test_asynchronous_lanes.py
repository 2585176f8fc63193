"""The asynchronous modes of the real runtimes give the results of single calls, with what they state set."""

from __future__ import annotations

import os

import pytest

CELL = "tiny-openvino-fp32-openvino@cpu"


@pytest.mark.slow
def test_openvino_has_a_stream_per_request(run, tiny):
    """Also after the same process has measured on one core alone, which OpenVINO does not forget."""
    chosen = ("--mf-formats", "openvino", "--mf-precisions", "fp32", "--mf-backends", "openvino", "--mf-devices", "cpu")
    more = ("--mf-suites", "throughput", "--mf-batch", "1", "--mf-concurrency", "2", "--mf-time-budget", "0.2")
    ran = run("--mf-model", tiny, *chosen, *more, inprocess=True)
    assert ran.status == 0, ran.text
    (line,) = [x for x in ran.of("check") if x["test"].endswith("concurrency2]")]
    threads, asynchronous = line["data"]["throughput"]
    assert threads["items_per_s"] > 0
    assert asynchronous["items_per_s"] > 0
    assert asynchronous["stated"]["performance_hint"] == "THROUGHPUT"
    cores = min(2, len(os.sched_getaffinity(0)))
    assert len(asynchronous["pinned"]) == cores
    if cores == 2:
        assert asynchronous["stated"]["num_streams"] == 2
        assert asynchronous["stated"]["inference_num_threads"] == 2


def test_several_requests_in_flight_without_a_worker_process(run, tiny):
    """``--mf-isolate none`` measures in the pytest process, for a debugger."""
    chosen = ("--mf-formats", "onnx", "--mf-precisions", "fp32", "--mf-backends", "onnxruntime", "--mf-devices", "cpu")
    more = ("--mf-suites", "throughput", "--mf-concurrency", "2", "--mf-time-budget", "0.1", "--mf-isolate", "none")
    ran = run("--mf-model", tiny, *chosen, *more)
    assert ran.status == 0, ran.text
    (line,) = [x for x in ran.of("check") if x["check"] == "throughput"]
    assert {f["mode"] for f in line["data"]["throughput"] if f["items_per_s"] > 0} == {"threads", "async"}


def test_under_xdist_nothing_is_measured(run, tiny):
    chosen = ("--mf-formats", "onnx", "--mf-precisions", "fp32", "--mf-backends", "onnxruntime", "--mf-devices", "cpu")
    ran = run(
        "--mf-model", tiny, *chosen, "--mf-suites", "throughput,contract", "--mf-batch", "1", "-n1", plugins=["xdist"]
    )
    assert ran.status == 0, ran.text
    (line,) = [x for x in ran.of("check") if x["check"] == "throughput"]
    assert line["outcome"] == "not-measured"
    assert "run the throughput suite without -n" in line["sentence"]
