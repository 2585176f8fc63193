"""A session's memory is its own: what sessions before it have left behind is neither hidden in it nor added to it."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import pytest

from pytest_modelformats.run.workers.pool import Pool
from pytest_modelformats.schema import Environment, Source

pytestmark = pytest.mark.alone

ENTRY = "pytest_modelformats.systems.onnxruntime.backend:open_session"
LAYERS, WIDTH = 24, 1024
WEIGHTS = LAYERS * WIDTH * WIDTH * 4


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """An ONNX file of 24 layers of 4 MB each: the C library keeps blocks of that size once it has freed some."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    draw = np.random.default_rng(0)
    weights = [draw.random((WIDTH, WIDTH), np.float32) - np.float32(0.5) for _ in range(LAYERS)]
    nodes = [helper.make_node("MatMul", [f"h{i}", f"w{i}"], [f"h{i + 1}"]) for i in range(LAYERS)]
    ends = [helper.make_tensor_value_info(f"h{i}", TensorProto.FLOAT, ["N", WIDTH]) for i in (0, LAYERS)]
    initialisers = [numpy_helper.from_array(w, f"w{i}") for i, w in enumerate(weights)]
    graph = helper.make_graph(nodes, "wide", ends[:1], ends[1:], initialisers)
    path = tmp_path_factory.mktemp("wide") / "wide.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), str(path))
    np.save(path.with_name("x.npy"), np.ones((1, WIDTH), np.float32))
    return path


@pytest.mark.parametrize("how", ["measure", "block"])
def test_a_session_after_others_is_not_free(how, wide):
    """Of five sessions, one after another in the same worker, none is free, and all need their weights and little more.

    What opening has freed (copies of the weights, of which the C library keeps a part that differs from time to time)
    is nobody's, whether the latency check reads it or a comparison that times two sides in blocks.
    """
    pytest.importorskip("onnxruntime")
    job = {
        "source": Source("wide", str(wide), "onnx", "onnx").to_json(), "artifact": str(wide), "format": "onnx",
        "artifact_precision": "fp32", "precision": "fp32", "device": "cpu", "threads": 1, "inputs": [], "outputs": [],
        "options": {},
    }  # fmt: skip
    asked = {
        "measure": {"budget_s": 0.1, "max_samples": 20, "device": "cpu"},
        "block": {"seconds": 0.02, "at_least": 3, "warmup_s": 0.02},
    }[how] | {"feed": {"h0": str(wide.with_name("x.npy"))}, "threads": 1}
    above = []
    with closing(Pool(memory_bytes=0, threads=1, isolate="process")) as pool:
        worker = pool.get(Environment(), "onnxruntime", ("onnxruntime",))
        for _ in range(5):
            opened = worker.request("open", 60.0, entry=ENTRY, job=job)
            memory = worker.request(how, 60.0, session=opened["session"], **asked)["memory"]
            worker.request("close", 60.0, session=opened["session"])
            if memory["peak_bytes"] is None:
                pytest.skip("this system does not let a process reset its peak of resident memory")
            above.append(memory["peak_bytes"] - opened["idle_rss_bytes"])
    assert min(above) > 0.9 * WEIGHTS
    assert max(above) < 1.3 * WEIGHTS
