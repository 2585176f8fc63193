"""What an engineer would write by hand instead of running the tool: the same steps in one process, once.

``python benchmarks/handwritten.py WORK.json``, where WORK.json names the model file, its recipe, the
folder to write to, the threads, the number of samples of parity, and per lane how many times it is timed:
the numbers that the tool itself took, so that both sides measure as often. Nothing of the tool is imported.
"""

# What one writes for oneself, to run it once, has no annotations.
# ruff: noqa: ANN001, ANN002, ANN201, ANN202, ANN204, D102, D103, D105, D107, SLF001, FBT003, PERF401
from __future__ import annotations

import copy
import gc
import hashlib
import importlib.util
import json
import os
import sys
import time
import warnings
from pathlib import Path
from statistics import median
from types import MethodType

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

BATCHES = (1, 2, 3, 7)
HALF = {"fp16": torch.float16, "bf16": torch.bfloat16}
HINTS = {"fp32": "f32", "fp16": "f16", "bf16": "bf16", "fp16-weights": "f32"}
REAL_ROWS = 256


class Rounding(TorchDispatchMode):
    """Every operator's result is rounded."""

    def __init__(self, dtype):
        super().__init__()
        self.dtype = dtype

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        alias = func._schema.returns[0].alias_info if func._schema.returns else None
        if not isinstance(out, torch.Tensor) or out.dtype is not torch.float32:
            return out
        if alias is None:
            return out.to(self.dtype).float()
        return out.copy_(out.to(self.dtype)) if alias.is_write else out


class Lifting(TorchDispatchMode):
    """Every operator sees float64 where the model's code says float32."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        def lift(value):
            if isinstance(value, torch.Tensor):
                return value.double() if value.dtype is torch.float32 else value
            return torch.float64 if value is torch.float32 else value

        args, kwargs = torch.utils._pytree.tree_map(lift, (args, kwargs or {}))
        return torch.utils._pytree.tree_map(lift, func(*args, **kwargs))


class HalfInside(torch.nn.Module):
    """The model at a narrower precision, with float32 inputs and outputs."""

    def __init__(self, module, dtype, names):
        super().__init__()
        self.module, self.dtype = copy.deepcopy(module).to(dtype), dtype
        # Tracing and exporting name their inputs after the parameters of forward.
        source = f"def forward(self, {', '.join(names)}):\n    return self.compute({', '.join(names)})"
        scope = {}
        exec(source, scope)
        self.forward = MethodType(scope["forward"], self)

    def compute(self, *args):
        cast = [a.to(self.dtype) if a.is_floating_point() else a for a in args]
        return self.module(*cast).float()


def main(work):
    """Do all of it and print where the time went."""
    os.environ.setdefault("OMP_NUM_THREADS", str(work["threads"]))
    torch.set_num_threads(work["threads"])
    torch.set_num_interop_threads(1)
    torch.backends.mha.set_fastpath_enabled(False)
    warnings.simplefilter("ignore")
    for entry in work["models"]:
        results = one_model(entry, Path(work["folder"]) / entry["name"], work["threads"])
        (Path(work["folder"]) / f"{entry['name']}.json").write_text(json.dumps(results, indent=1))


def one_model(entry, folder, threads):
    folder.mkdir(parents=True)
    recipe = load_recipe(entry["recipe"])
    module = recipe.build().eval()
    module.load_state_dict(torch.load(entry["file"], weights_only=True))
    module.requires_grad_(False)
    (name, shape, dtype), high = parse(recipe.INPUTS[0])
    feed = samples(recipe, shape, dtype, high, entry["rows"])
    truth, noise = reference(module, feed)
    example = feed[:2].copy()
    artifacts = convert_all(
        module, name, torch.from_numpy(example), folder, {(c["format"], c["precision"]) for c in entry["cells"]}
    )
    results = []
    for cell in entry["cells"]:
        results.append({**cell, **check(cell, module, name, artifacts, feed, truth, noise, threads)})
    return results


def load_recipe(path):
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    recipe = importlib.util.module_from_spec(spec)
    sys.modules[Path(path).stem] = recipe
    spec.loader.exec_module(recipe)
    return recipe


def parse(text):
    """``image:float32[N,1,8,8]`` or ``ids:int64[N,128]{0..99}``."""
    name, _, rest = text.partition(":")
    dtype, _, rest = rest.partition("[")
    dims, _, bounds = rest.partition("]")
    shape = [d if not d.strip().isdigit() else int(d) for d in dims.split(",")]
    high = int(bounds.strip("{}").split("..")[1]) if bounds else None
    return (name, shape, dtype), high


def samples(recipe, shape, dtype, high, rows):
    if getattr(recipe, "DATA", ""):
        data = getattr(recipe, recipe.DATA)()
        return np.ascontiguousarray(next(v for k, v in data.items() if k != "labels")[:rows])
    dims = [rows if i == 0 else d if isinstance(d, int) else 16 for i, d in enumerate(shape)]
    rng = np.random.default_rng(0)
    return rng.integers(0, high + 1, dims, dtype=dtype) if high else rng.standard_normal(dims).astype(dtype)


def reference(module, feed):
    """The float64 truth, and the rms of what each precision's rounding costs."""
    x = torch.from_numpy(feed)
    half = {}
    with torch.no_grad():
        wide = copy.deepcopy(module).double()
        with Lifting():
            truth = wide(x.double() if x.is_floating_point() else x).numpy()
        half["fp32"] = copy.deepcopy(module)(x).numpy()
        rounded = copy.deepcopy(module).half().float()
        with Rounding(torch.float16):
            half["fp16"] = rounded(x.half().float() if x.is_floating_point() else x).numpy()
        half["bf16"] = copy.deepcopy(module).bfloat16()(x.bfloat16() if x.is_floating_point() else x).float().numpy()
        half["fp16-weights"] = copy.deepcopy(module).half().float()(x).numpy()
    return truth, {p: rms(y - truth) for p, y in half.items()}


def rms(error):
    return float(np.sqrt(np.mean(np.square(error, dtype=np.float64))))


def convert_all(module, name, example, folder, wanted):
    """Every artifact that a lane needs, each checked by its format's own checker, kept under its hash."""
    made = {}
    for form, precision in sorted(wanted):
        if form == "pt2":
            made[form, precision] = to_pt2(module, precision, name, example, folder / f"{precision}.pt2")
        if form == "torchscript":
            made[form, precision] = to_torchscript(module, precision, name, example, folder / f"{precision}.ts")
    if any(form == "onnx" for form, _ in wanted):
        made["onnx", "fp32"] = to_onnx(module, name, example, folder / "fp32.onnx")
    if ("onnx", "fp16") in wanted:
        made["onnx", "fp16"] = to_onnx_half(made["onnx", "fp32"], folder / "fp16.onnx")
    if any(form == "openvino" for form, _ in wanted):
        path = to_openvino(module, name, example, folder / "fp32.xml")
        made.update({("openvino", p): path for p in ("fp32", "fp16", "bf16")})
    if ("openvino", "fp16-weights") in wanted:
        made["openvino", "fp16-weights"] = to_openvino_half(path, folder / "fp16-weights.xml")
    (folder / "sha256.json").write_text(json.dumps({p.name: digest(p) for p in sorted(folder.iterdir())}))
    return made


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def half_inside(module, precision, name):
    return module if precision == "fp32" else HalfInside(module, HALF[precision], [name])


def to_pt2(module, precision, name, example, path):
    with torch.no_grad():
        dims = ({0: torch.export.Dim("N", min=1)},)
        torch.export.save(
            torch.export.export(half_inside(module, precision, name), (example,), dynamic_shapes=dims), path
        )
    torch.export.load(path).graph_module.graph.lint()
    return path


def to_torchscript(module, precision, name, example, path):
    with torch.no_grad():
        torch.jit.save(torch.jit.trace(half_inside(module, precision, name), (example,), check_trace=False), path)
    torch.jit.load(path).inlined_graph.lint()
    return path


def to_onnx(module, name, example, path):
    import onnx

    torch.onnx.export(
        module, (example,), str(path), input_names=[name], output_names=["output"],
        dynamic_shapes=({0: "N"},), external_data=False, dynamo=True, verbose=False,
    )  # fmt: skip
    onnx.checker.check_model(str(path), full_check=True)
    return path


def to_onnx_half(source, path):
    import onnx
    from onnxconverter_common import float16

    onnx.save(float16.convert_float_to_float16(onnx.load(source), keep_io_types=True), str(path))
    onnx.checker.check_model(str(path), full_check=True)
    return path


def to_openvino(module, name, example, path):
    import openvino

    shape = [-1, *example.shape[1:]]
    kind = openvino.Type(example.numpy().dtype)
    with torch.no_grad():
        model = openvino.convert_model(module, example_input=(example,), input=[(shape, kind)])
    model.inputs[0].get_tensor().set_names({name})
    model.outputs[0].get_tensor().set_names({"output"})
    openvino.save_model(model, str(path), compress_to_fp16=False)
    openvino.Core().read_model(str(path)).validate_nodes_and_infer_types()
    return path


def to_openvino_half(source, path):
    import openvino

    openvino.save_model(openvino.Core().read_model(str(source)), str(path), compress_to_fp16=True)
    openvino.Core().read_model(str(path)).validate_nodes_and_infer_types()
    return path


def open_lane(cell, module, name, artifacts, threads):
    """(run(array) -> array, bind(array) -> call to be timed, close) of a lane."""
    backend, precision = cell["backend"], cell["precision"]
    path = artifacts.get((cell["format"], precision))
    if backend == "onnxruntime":
        return open_onnxruntime(path, name, threads)
    if backend == "openvino":
        return open_openvino(path, precision, threads)
    if backend in {"torch", "torch-compile"}:
        opened = half_inside(module, precision, name)
        opened = torch.compile(opened, dynamic=True) if backend == "torch-compile" else opened
    elif backend == "torch-export":
        opened = torch.export.load(path).module()
    else:
        opened = torch.jit.load(path).eval()
    return open_torch(opened, backend == "torch-compile")


def open_torch(opened, compiled):
    def call(tensor):
        with torch.inference_mode():
            return opened(tensor)

    def bind(array):
        tensor = torch.from_numpy(array.copy())
        return lambda: call(tensor)

    close = torch._dynamo.reset if compiled else lambda: None
    return lambda array: call(torch.from_numpy(array.copy())).numpy(), bind, close


def open_onnxruntime(path, name, threads):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def bind(array):
        binding = session.io_binding()
        binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(array, "cpu", 0))
        binding.bind_output("output", "cpu")
        return lambda: session.run_with_iobinding(binding)

    return lambda array: session.run(None, {name: array})[0], bind, lambda: None


def open_openvino(path, precision, threads):
    import openvino

    hints = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"}
    core = openvino.Core()
    model = core.read_model(str(path))
    compiled = core.compile_model(model, "CPU", {**hints, "INFERENCE_PRECISION_HINT": HINTS[precision]})

    def bind(array):
        request = compiled.create_infer_request()
        request.set_input_tensor(0, openvino.Tensor(array))
        return request.infer

    def run(array):
        request = compiled.create_infer_request()
        request.set_input_tensor(0, openvino.Tensor(array))
        request.infer()
        return request.get_output_tensor(0).data.copy()

    return run, bind, lambda: None


def check(cell, module, name, artifacts, feed, truth, noise, threads):
    """Parity, batches and rows, determinism with a fresh session, latency."""
    run, _, close = open_lane(cell, module, name, artifacts, threads)
    floor = noise[cell["precision"]]
    ratio = rms(run(feed) - truth) / floor
    rows = min(max(BATCHES), len(feed))
    alone = [run(feed[i : i + 1]) for i in range(rows)]
    apart = 0.0
    for size in (b for b in BATCHES if 1 < b <= rows):
        got = run(np.ascontiguousarray(feed[:size]))
        apart = max(apart, rms(got - np.concatenate(alone[:size])) / floor, rms(got - truth[:size]) / floor)
    first, again = run(feed[:1]), run(feed[:1])
    close()
    del run
    run, bind, close = open_lane(cell, module, name, artifacts, threads)
    fresh = run(feed[:1])
    same = bool(np.array_equal(first, again) and np.array_equal(first, fresh))
    latency = measure(bind(feed[:1].copy()), cell["warmup"], cell["samples"])
    close()
    return {"ratio": ratio, "batches": apart, "same": same, "latency_p50_ns": latency}


def measure(call, warmup, count):
    """The median of ``count`` calls after ``warmup`` ones, pinned to one core, with the collector off."""
    allowed = os.sched_getaffinity(0)
    gc.disable()
    os.sched_setaffinity(0, {min(allowed)})
    try:
        for _ in range(1 + warmup):
            call()
        taken = []
        for _ in range(count):
            started = time.perf_counter_ns()
            call()
            taken.append(time.perf_counter_ns() - started)
    finally:
        os.sched_setaffinity(0, allowed)
        gc.enable()
    return median(taken)


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
