"""Says what ONNX Runtime makes of a file, in a process of its own: some fp16 graphs end the process that opens them."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_REFUSED = 3
# Above what a large model takes to be read; the request that asks for the conversion has its own time-out.
_TIMEOUT_S = 600
# Without optimisation: whether the graph holds together is asked, not how fast it will be.
_OPEN = f"""
import json, sys
sys.path[:] = json.loads(sys.argv[2])
import onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
options.log_severity_level = 4
options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
try:
    onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
except Exception as error:
    lines = [line for line in str(error).splitlines() if line.strip()]
    print(json.dumps([type(error).__name__, lines[0] if lines else ""]))
    sys.exit({_REFUSED})
"""
# The runtime has no kernel for an operator on this machine: nothing is wrong with the graph.
_NO_KERNEL = "NotImplemented"


def refusal(artifact: Path, source: Path) -> str:
    """What ONNX Runtime says against a graph whose source it opens; "" where it opens it, too.

    It also is "" where nothing can be told of the graph: ONNX Runtime is not installed, lacks a kernel, refuses the
    source as well, or ends its process (which the cells that open the artifact then show).
    """
    if importlib.util.find_spec("onnxruntime") is None:
        return ""
    kind, said = _opened(artifact)
    return said if said and kind != _NO_KERNEL and not _opened(source)[1] else ""


def _opened(path: Path) -> tuple[str, str]:
    """The class and first line of the error, both "" where there was none."""
    command = [sys.executable, "-c", _OPEN, str(path), json.dumps(sys.path)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return "", ""
    if done.returncode != _REFUSED:
        return "", ""
    kind, said = json.loads(done.stdout.splitlines()[-1])
    return str(kind), str(said)
