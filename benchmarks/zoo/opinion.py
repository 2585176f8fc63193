"""A second opinion on converted models, by a script that knows nothing of the product: numpy and the runtimes alone.

``python opinion.py request.json answer.json``: the request names the source, its inputs and the cells with their
artifacts; the answer holds, per cell, the signal-to-noise ratio of the artifact's outputs against the source's.

The source runs in its own framework in fp32 (ONNX Runtime with every optimisation off, or eager PyTorch); each
artifact in the plain runtime, on rows that the product does not see. Three words come out:

- ``same``: at least 60 dB at fp32, 30 dB at fp16 and fp16-weights, 20 dB at bf16. Rounding alone leaves about 6 dB per
  mantissa bit (Widrow and Kollar, Quantization Noise, 2008, §1): 138, 60 and 42 dB, less what depth costs, and half of
  that (in dB) is left to it.
- ``destroyed``: below 40, 15, 15 and 10 dB, another shape, or NaN and Inf where the source has numbers.
- ``unclear``: between the two, where the source itself gives no numbers, and where it is as far from itself once its
  inputs move by one unit in their last place: then fp32 does not know the outputs, and no comparison in it does.
"""

from __future__ import annotations

import importlib.util
import json
import math
import re
import sys
import traceback
import zlib
from pathlib import Path
from typing import Any

import numpy as np

ROWS, SEED = 4, 20261130
SAME = {"fp32": 60.0, "default": 60.0, "fp16": 30.0, "fp16-weights": 30.0, "bf16": 20.0}
DESTROYED = {"fp32": 40.0, "default": 40.0, "fp16": 15.0, "fp16-weights": 15.0, "bf16": 10.0}
FLIPS = 0.01  # of whole numbers that may differ: near-ties
STEADY_DB = 10.0  # two errors of one origin: a few times apart
EXACT_DB = 200.0  # no error at all, or one beyond what float32 can show
SPEC = re.compile(
    r"^(?P<name>.+):(?P<dtype>\w+)\[(?P<dims>[^\]]*)\](\{(?P<low>-?[\d.e+-]+?)\.\.(?P<high>-?[\d.e+-]+)\})?$"
)


def feed_of(specs: list[str]) -> dict[str, np.ndarray]:
    """Rows for the inputs ``name:dtype[dims]{low..high}``; a letter among the dimensions is the batch."""
    feed = {}
    for text in specs:
        found = SPEC.match(text)
        if found is None:
            raise ValueError(f"{text} is no input")
        dims = [part.strip() for part in found["dims"].split(",") if part.strip()]
        shape = [int(part) if part.lstrip("-").isdigit() else ROWS for part in dims]
        drawn = np.random.default_rng([SEED, zlib.crc32(found["name"].encode())])
        low, high = found["low"], found["high"]
        if found["dtype"] == "bool":
            values = drawn.integers(0, 2, shape).astype(bool)
        elif found["dtype"].startswith(("int", "uint")):
            values = drawn.integers(int(low or 0), int(high or 1), shape, endpoint=True).astype(found["dtype"])
        elif low is not None:
            values = drawn.uniform(float(low), float(high), shape).astype(found["dtype"])
        else:
            values = drawn.standard_normal(shape).astype(found["dtype"])
        feed[found["name"]] = np.array(values, order="C")  # a scalar stays one
    return feed


class Source:
    """The source model in its own framework; ``run`` gives its outputs, ``module`` the PyTorch module if it is one."""

    def __init__(self, path: str, specs: list[str]) -> None:
        """``path`` is an .onnx, a TorchScript file, or ``file.py:callable`` that builds a module."""
        self.names = [SPEC.match(text)["name"] for text in specs]  # type: ignore[index]
        self.path, self.module = path, None
        if ".py:" in path:
            self.module = built(path).eval()
        elif not path.endswith(".onnx"):
            import torch

            self.module = torch.jit.load(path, map_location="cpu").eval()

    def run(self, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
        """The outputs in fp32."""
        if self.module is not None:
            return torch_run(self.module, [feed[name] for name in self.names], None)
        return onnxruntime_run(self.path, feed, optimised=False)


def built(path: str) -> Any:
    """The module that ``file.py:callable`` builds."""
    file, _, name = path.rpartition(":")
    spec = importlib.util.spec_from_file_location(Path(file).stem, file)
    module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    sys.modules[Path(file).stem] = module
    spec.loader.exec_module(module)  # type: ignore[union-attr]
    return getattr(module, name)()


def onnxruntime_run(path: str, feed: dict[str, np.ndarray], *, optimised: bool) -> list[np.ndarray]:
    """The outputs of an ONNX file in ONNX Runtime."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    level = ort.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimised else level.ORT_DISABLE_ALL
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    wanted = {i.name: np.float16 if "float16" in i.type else None for i in session.get_inputs()}
    given = {n: feed[n].astype(kind) if kind and feed[n].dtype == np.float32 else feed[n] for n, kind in wanted.items()}
    return session.run(None, given)


def torch_run(module: Any, arrays: list[np.ndarray], dtype: str | None) -> list[np.ndarray]:
    """The outputs of a callable of PyTorch, flattened, bfloat16 and half as float32."""
    import torch
    from torch.utils import _pytree

    kind = getattr(torch, dtype) if dtype else None
    tensors = [torch.from_numpy(array.copy()) for array in arrays]
    tensors = [t.to(kind) if kind is not None and t.is_floating_point() else t for t in tensors]
    with torch.no_grad():
        out = module(*tensors)
    leaves = _pytree.tree_leaves(out.to_tuple() if hasattr(out, "to_tuple") else out)
    found = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    return [
        leaf.float().numpy() if leaf.is_floating_point() and leaf.dtype != torch.float64 else leaf.numpy()
        for leaf in found
    ]


def openvino_run(
    path: str, feed: dict[str, np.ndarray], names: list[str], precision: str
) -> tuple[list[np.ndarray], str]:
    """The outputs in OpenVINO, and the precision that most of its executed nodes state."""
    import openvino

    core = openvino.Core()
    hints = {"fp32": "f32", "fp16": "f16", "bf16": "bf16", "fp16-weights": "f32"}
    config = {"INFERENCE_PRECISION_HINT": hints[precision]} if precision in hints else {}
    compiled = core.compile_model(core.read_model(path), "CPU", {**config, "INFERENCE_NUM_THREADS": 1})
    given = {}
    for index, port in enumerate(compiled.inputs):
        given[index] = feed[next((n for n in port.get_names() if n in feed), names[index])]
    outputs = compiled(given)
    counts: dict[str, int] = {}
    for node in compiled.get_runtime_model().get_ordered_ops():
        info = node.get_rt_info()
        if info["layerType"].astype(str) in {"Convolution", "FullyConnected", "MatMul", "Deconvolution", "RNNSeq"}:
            kind = info["runtimePrecision"].astype(str)
            counts[kind] = counts.get(kind, 0) + 1
    return [np.array(outputs[port]) for port in compiled.outputs], max(counts, key=counts.__getitem__, default="")


def candidate(cell: dict[str, str], source: Source, feed: dict[str, np.ndarray]) -> tuple[list[np.ndarray], str]:
    """The outputs of a cell's artifact, and what the runtime says that it computed in ("" where it says nothing)."""
    arrays = [feed[name] for name in source.names]
    kind = {"fp16": "float16", "bf16": "bfloat16"}.get(cell["precision"])
    if cell["backend"] == "onnxruntime":
        return onnxruntime_run(cell["artifact"], feed, optimised=True), ""
    if cell["backend"] == "openvino":
        return openvino_run(cell["artifact"], feed, source.names, cell["precision"])
    import torch

    if cell["backend"] == "torch-export":
        return torch_run(torch.export.load(cell["artifact"]).module(), arrays, kind), ""
    if cell["backend"] == "torchscript":
        return torch_run(torch.jit.load(cell["artifact"], map_location="cpu"), arrays, kind), ""
    module = Source(source.path, [f"{n}:x[]" for n in source.names]).module
    module = module.to(getattr(torch, kind)) if kind else module
    return torch_run(torch.compile(module) if cell["backend"] == "torch-compile" else module, arrays, kind), ""


def _float_db(one: np.ndarray, other: np.ndarray) -> float | None:
    """Signal over noise in dB of one output; ``None`` where the source has no signal, minus infinity for NaN or Inf."""
    one, other = one.astype(np.float64), other.astype(np.float64)
    finite = np.isfinite(one)
    if not finite.any():
        return None
    if not np.isfinite(other[finite]).all():
        return -math.inf
    signal, noise = float(np.sum(one[finite] ** 2)), float(np.sum((other[finite] - one[finite]) ** 2))
    if signal == 0:
        return None if noise == 0 else -math.inf
    return EXACT_DB if noise == 0 else 10 * math.log10(signal / noise)


def steadiness(source: Source, feed: dict[str, np.ndarray], wanted: list[np.ndarray]) -> float:
    """How near the source is to itself, in dB, with every float moved by one unit in its last place."""
    drawn = np.random.default_rng(SEED)
    moved = {
        name: np.array(array * (1 + 2.0**-23 * drawn.choice([-1.0, 1.0], array.shape)), array.dtype, order="C")
        if array.dtype == np.float32
        else array
        for name, array in feed.items()
    }
    if all(np.array_equal(moved[name], array) for name, array in feed.items()):
        return EXACT_DB
    pairs = zip(wanted, source.run(moved), strict=True)
    ratios = [_float_db(one, other) for one, other in pairs if one.dtype.kind in "fc" and one.shape == other.shape]
    return min((ratio for ratio in ratios if ratio is not None), default=EXACT_DB)


def compared(
    cell: dict[str, str], wanted: list[np.ndarray], got: list[np.ndarray], steady: float = EXACT_DB
) -> dict[str, Any]:
    """The word, the smallest signal-to-noise ratio in dB over the outputs, and why."""
    if len(wanted) != len(got):
        return {"word": "destroyed", "why": f"{len(got)} outputs for {len(wanted)}"}
    pairs = list(zip(wanted, got, strict=True))
    changed = [(i, one, other) for i, (one, other) in enumerate(pairs) if one.shape != other.shape]
    if changed:
        index, one, other = changed[0]
        return {"word": "destroyed", "why": f"output {index}: shape {list(other.shape)} for {list(one.shape)}"}
    ratios = [_float_db(one, other) for one, other in pairs if one.dtype.kind in "fc"]
    known = [ratio for ratio in ratios if ratio is not None]
    whole = [float(np.mean(one != other)) for one, other in pairs if one.dtype.kind not in "fc" and one.size]
    flips = max(whole, default=0.0)
    if not known:
        why = f"{flips:.2%} of whole numbers differ" if whole else "no finite number other than zero"
        return {"word": "same" if whole and flips <= FLIPS else "unclear", "why": why}
    lowest, precision = min(known), cell["precision"]
    if lowest == -math.inf:
        return {"word": "destroyed", "why": "NaN, Inf or a signal where the source has none"}
    word = "same" if lowest >= SAME[precision] else "destroyed" if lowest < DESTROYED[precision] else "unclear"
    why = f"{lowest:.1f} dB"
    if word == "destroyed" and lowest >= steady - STEADY_DB:
        word, why = "unclear", f"{why}; the source is {steady:.1f} dB from itself"
    return {"word": word, "snr_db": round(lowest, 1), "flips": flips, "why": why}


def main(request: str, answer: str) -> None:
    """Judge every cell of the request; what fails is an answer too."""
    asked = json.loads(Path(request).read_text("utf-8"))
    for path in reversed(asked["search_path"]):
        sys.path.insert(0, path)
    found: dict[str, Any] = {}
    try:
        source = Source(asked["source"], asked["inputs"])
        feed = feed_of(asked["inputs"])
        wanted = source.run(feed)
        steady = steadiness(source, feed, wanted)
    except Exception as error:  # noqa: BLE001 - whatever a framework raises, it is the answer
        traceback.print_exc()
        Path(answer).write_text(json.dumps({"refused": f"{type(error).__name__}: {error}"[:500]}), "utf-8")
        return
    for cell in asked["cells"]:
        try:
            got, ran = candidate(cell, source, feed)
            found[cell["cell"]] = {**compared(cell, wanted, got, steady), "ran": ran}
        except Exception as error:  # noqa: BLE001 - likewise
            traceback.print_exc()
            found[cell["cell"]] = {"word": "none", "why": f"{type(error).__name__}: {error}"[:300], "ran": ""}
        Path(answer).write_text(json.dumps({"cells": found}), "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:3])
