"""The cells of the study of detection power: small networks on real runtimes, and the same with small faults.

A faithful cell is measured: one network, one runtime, its outputs minus the float64 truth. A
faulty cell is a faithful one plus what the fault changes in float64: the rounding of a model
that is wrong by little is the rounding of the right one (``check_addition`` in
``detection_power.py`` compares it with exported faults).
"""

from __future__ import annotations

import copy
import io
import sys
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

sys.path[:0] = [str(Path(__file__).parent.parent / "fixtures"), str(Path(__file__).parent.parent / "fixtures/models")]
import random_networks  # noqa: E402 - found on the path that is set above

if TYPE_CHECKING:
    from collections.abc import Callable

DRAWS, ROWS = 16, 8
NORMAL = DRAWS * ROWS * 2
REROLLED, TIMES = 8, 8
SCALES = (-23, -16, -12, -8)
MOVED_WEIGHTS = 2
UNIT = 2.0**-24
STRESS = ("large", "huge", "small", "zeros", "sparse", "constant", "negative", "positive")
DIALS = (0.5, 1.0, 2.0, 4.0, 8.0)


@dataclass
class Network:
    """One network with its inputs, its float64 truth and the errors of everything that ran it.

    Shapes: every array is [row, output]; ``slices`` says which rows are which inputs.
    ``faults`` hold the difference of the faulty function to the right one in float64;
    ``weights`` what moving every weight by up to one rounding unit changes, [time, row, output].
    """

    name: str
    slices: dict[str, slice]
    truth: np.ndarray
    noise: np.ndarray
    weights: np.ndarray
    faithful: dict[str, np.ndarray]
    faults: dict[str, np.ndarray] = field(default_factory=dict)


def stress_row(kind: str, shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    """One row that exercises what ordinary rows do not."""
    normal = generator.standard_normal(shape)
    return {
        "large": lambda: normal * 8,
        "huge": lambda: normal * 64,
        "small": lambda: normal * 2.0**-10,
        "zeros": lambda: np.zeros(shape),
        "sparse": lambda: normal * (generator.random(shape) < 1 / 8),
        "constant": lambda: np.full(shape, generator.standard_normal()),
        "negative": lambda: -np.abs(normal),
        "positive": lambda: np.abs(normal),
    }[kind]()


def pool(shape: tuple[int, ...], seed: int, real: np.ndarray | None) -> tuple[torch.Tensor, dict[str, slice]]:
    """Ordinary rows, stress rows and re-rolled ones, and where each are; ``real`` rows in place of random ones."""
    generator = np.random.default_rng(seed)
    scales = np.exp2(generator.uniform(-1, 1, NORMAL)).reshape(-1, *[1] * len(shape))
    normal = (generator.standard_normal((NORMAL, *shape)) * scales).astype(np.float32)
    normal = normal if real is None else real[:NORMAL]
    slices, parts, at = {"normal": slice(0, NORMAL)}, [normal], NORMAL
    for kind in STRESS:
        rows = np.stack([stress_row(kind, shape, generator) for _ in range(DRAWS)]).astype(np.float32)
        slices[kind], at = slice(at, at + DRAWS), at + DRAWS
        parts.append(rows)
    for scale in SCALES:
        signs = generator.choice([-1.0, 1.0], (TIMES, REROLLED, *shape))
        parts.append((normal[:REROLLED] * (1 + 2.0**scale * signs)).astype(np.float32).reshape(-1, *shape))
        slices[f"moved by 2^{scale}"], at = slice(at, at + TIMES * REROLLED), at + TIMES * REROLLED
    return torch.from_numpy(np.ascontiguousarray(np.concatenate(parts))), slices


def run64(module: nn.Module, inputs: torch.Tensor) -> np.ndarray:
    """The outputs in float64."""
    with torch.no_grad():
        return copy.deepcopy(module).double()(inputs.double()).flatten(1).numpy()


def onnx_bytes(module: nn.Module, inputs: torch.Tensor) -> bytes:
    """The exported graph, by the exporter that traces."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module, (inputs[:2],), buffer, input_names=["x"], output_names=["y"], dynamic_axes={"x": {0: "N"}},
            dynamo=False,
        )  # fmt: skip
    return buffer.getvalue()


def run_onnxruntime(graph: bytes, inputs: torch.Tensor, *, optimised: bool) -> np.ndarray:
    """The outputs of ONNX Runtime on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimised else levels.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": inputs.numpy()})[0].reshape(len(inputs), -1)


def run_openvino(graph: bytes, inputs: torch.Tensor, precision: str = "f32") -> np.ndarray:
    """The outputs of OpenVINO's CPU plugin on one thread, told its precision."""
    import openvino

    core = openvino.Core()
    model = core.read_model(io.BytesIO(graph))
    compiled = core.compile_model(
        model, "CPU", {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
    )
    return np.array(compiled(inputs.numpy())[0]).reshape(len(inputs), -1)


def run_torchscript(module: nn.Module, inputs: torch.Tensor) -> np.ndarray:
    """The outputs of the traced, frozen and optimised module."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.optimize_for_inference(torch.jit.freeze(torch.jit.trace(module, inputs[:2])))
        return traced(inputs).flatten(1).numpy()


def runs(module: nn.Module, inputs: torch.Tensor) -> dict[str, np.ndarray]:
    """The faithful outputs by runtime."""
    graph = onnx_bytes(module, inputs)
    return {
        "onnxruntime": run_onnxruntime(graph, inputs, optimised=True),
        "onnxruntime-plain": run_onnxruntime(graph, inputs, optimised=False),
        "openvino": run_openvino(graph, inputs),
        "torchscript": run_torchscript(module, inputs),
    }


# --- the faults: each takes a copy of the module, changes it, and returns it, or None where there is nothing to change


def _tensors(module: nn.Module) -> list[torch.Tensor]:
    return [p.data for p in module.parameters() if p.ndim > 1]


def _tensor(module: nn.Module, random: np.random.Generator) -> torch.Tensor:
    tensors = _tensors(module)
    return tensors[int(random.integers(len(tensors)))]


def _change(change: Callable[[torch.Tensor, np.random.Generator], torch.Tensor]) -> Callable[..., nn.Module]:
    def fault(module: nn.Module, random: np.random.Generator, inputs: torch.Tensor) -> nn.Module:  # noqa: ARG001
        tensor = _tensor(module, random)
        tensor.copy_(change(tensor, random))
        return module

    return fault


def _zeroed(tensor: torch.Tensor, random: np.random.Generator) -> torch.Tensor:
    changed = tensor.clone()
    changed.view(-1)[int(random.integers(tensor.numel()))] = 0
    return changed


def _one_scaled(tensor: torch.Tensor, random: np.random.Generator) -> torch.Tensor:
    changed = tensor.clone()
    changed.view(-1)[int(random.integers(tensor.numel()))] *= 1.001
    return changed


def _one_to_fp16(tensor: torch.Tensor, random: np.random.Generator) -> torch.Tensor:
    changed = tensor.clone().view(-1)
    index = int(random.integers(tensor.numel()))
    changed[index] = changed[index].half().float()
    return changed.view(tensor.shape)


def _swapped(old: type, new: Callable[[Any], nn.Module | None]) -> Callable[..., nn.Module | None]:
    """Every module of a class replaced, or the first one where ``new`` says so."""

    def fault(module: nn.Module, random: np.random.Generator, inputs: torch.Tensor) -> nn.Module | None:  # noqa: ARG001
        found = [(m, n, c) for m in module.modules() for n, c in m.named_children() if isinstance(c, old)]
        changed = [(m, n, made) for m, n, c in found if (made := new(c)) is not None]
        for parent, name, made in changed:
            setattr(parent, name, made)
        return module if changed else None

    return fault


def _epsilon(module: nn.Module) -> nn.Module:
    module.eps = 1e-4
    return module


def _padding(module: nn.Conv2d) -> nn.Conv2d | None:
    if module.padding == (0, 0):
        return None
    module.padding_mode = "replicate"
    module._reversed_padding_repeated_twice = [p for p in reversed(module.padding) for _ in range(2)]  # noqa: SLF001
    return module


class Wrapped(nn.Module):
    """The module with something wrong before or after it."""

    def __init__(self, inner: nn.Module, before: Callable | None = None, after: Callable | None = None) -> None:
        """Keep what is called."""
        super().__init__()
        self.inner, self.before, self.after = inner, before, after

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run it."""
        y = self.inner(x if self.before is None else self.before(x))
        return y if self.after is None else self.after(x, y)


def _input_clipped(module: nn.Module, random: np.random.Generator, inputs: torch.Tensor) -> nn.Module:  # noqa: ARG001
    top = float(inputs[:NORMAL].abs().max())
    return Wrapped(module, before=lambda x: x.clamp(-top, top))


def _activation_clipped(module: nn.Module, random: np.random.Generator, inputs: torch.Tensor) -> nn.Module | None:  # noqa: ARG001
    """The first activation is clipped at the largest value that 256 ordinary rows give it."""
    kinds = (nn.ReLU, nn.SiLU, nn.ELU, nn.Hardswish, nn.GELU)
    found = [(m, n, c) for m in module.modules() for n, c in m.named_children() if isinstance(c, kinds)]
    if not found:
        return None
    parent, name, inner = found[0]
    seen = []
    handle = inner.register_forward_hook(lambda *given: seen.append(float(given[2].max())))
    with torch.no_grad():
        module(inputs[:NORMAL])
    handle.remove()
    setattr(parent, name, Wrapped(inner, after=lambda _, y: y.clamp(max=seen[0])))
    return module


def _one_row_in_64(module: nn.Module, random: np.random.Generator, inputs: torch.Tensor) -> nn.Module:  # noqa: ARG001
    first = inputs[:NORMAL].flatten(1).double().mean(1)
    limit = float(first.quantile(1 - 1 / 64))
    return Wrapped(
        module, after=lambda x, y: y * torch.where(x.flatten(1).double().mean(1) > limit, 1.0001, 1)[:, None]
    )


def _when_negative(module: nn.Module, random: np.random.Generator, inputs: torch.Tensor) -> nn.Module:  # noqa: ARG001
    return Wrapped(module, after=lambda x, y: torch.where((x <= 0).flatten(1).all(1)[:, None], y * 1.0001, y))


def _when_zero(module: nn.Module, random: np.random.Generator, inputs: torch.Tensor) -> nn.Module:  # noqa: ARG001
    return Wrapped(module, before=lambda x: torch.where(x == 0, 1e-4, x))


def _channel(module: nn.Module, random: np.random.Generator, inputs: torch.Tensor) -> nn.Module:  # noqa: ARG001
    last = [m for m in module.modules() if isinstance(m, nn.Linear)][-1]
    index = int(random.integers(last.out_features))
    last.weight.data[index] *= 1 + 1e-5
    return module


FAULTS: dict[str, Callable[..., nn.Module | None]] = {
    "one tensor to fp16": _change(lambda t, _: t.half().float()),
    "one tensor to bf16": _change(lambda t, _: t.bfloat16().float()),
    "one tensor x 1.01": _change(lambda t, _: t * 1.01),
    "one tensor x 1.001": _change(lambda t, _: t * 1.001),
    "one tensor x 1.00001": _change(lambda t, _: t * 1.00001),
    "one weight zeroed": _change(_zeroed),
    "one weight x 1.001": _change(_one_scaled),
    "one weight to fp16": _change(_one_to_fp16),
    "epsilon 1e-5 to 1e-4": _swapped((nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm), _epsilon),
    "GELU by tanh": _swapped(nn.GELU, lambda _: nn.GELU(approximate="tanh")),
    "ReLU6 without the 6": _swapped(nn.ReLU6, lambda _: nn.ReLU()),
    "padding replicates": _swapped(nn.Conv2d, _padding),
    "one output channel x 1.00001": _channel,
    "one row in 64 x 1.0001": _one_row_in_64,
    "input clipped at its maximum": _input_clipped,
    "activation clipped at its maximum": _activation_clipped,
    "x 1.0001 for negative rows": _when_negative,
    "zeros read as 1e-4": _when_zero,
}


def dialled(module: nn.Module, inputs: torch.Tensor, truth: np.ndarray, size: float, seed: int) -> np.ndarray:
    """One tensor scaled so that ordinary rows change by ``size`` rms; the difference in float64."""
    changed = copy.deepcopy(module).double()
    tensor = _tensor(changed, np.random.default_rng(seed))
    tensor *= 1 + 1e-6
    difference = run64(changed, inputs) - truth
    rms = float(np.sqrt(np.mean(difference[:NORMAL] ** 2)))
    return difference * (size / rms if rms else 0.0)


def _weights_moved(module: nn.Module, inputs: torch.Tensor, truth: np.ndarray, seed: int) -> np.ndarray:
    """What moving every weight by up to one rounding unit changes in float64."""
    moved = copy.deepcopy(module).double()
    random = torch.Generator().manual_seed(seed)
    for weight in moved.parameters():
        weight.data *= 1 + UNIT * (2 * torch.rand(weight.shape, generator=random, dtype=torch.float64) - 1)
    return run64(moved, inputs) - truth


def collect(name: str, module: nn.Module, shape: tuple[int, ...], seed: int, real: np.ndarray | None = None) -> Network:
    """Run everything on one network."""
    inputs, slices = pool(shape, seed, real)
    truth = run64(module, inputs)
    with torch.no_grad():
        noise = module(inputs).flatten(1).double().numpy() - truth
    weights = np.stack([_weights_moved(module, inputs, truth, time) for time in range(MOVED_WEIGHTS)])
    network = Network(name, slices, truth, noise, weights, {k: y - truth for k, y in runs(module, inputs).items()})
    for index, (fault, inject) in enumerate(FAULTS.items()):
        with torch.no_grad():
            broken = inject(copy.deepcopy(module), np.random.default_rng([seed, index]), inputs)
        if broken is not None:
            network.faults[fault] = run64(broken.eval(), inputs) - truth
    own = float(np.sqrt(np.mean(noise[:NORMAL] ** 2)))
    with torch.no_grad():
        for dial in DIALS:
            network.faults[f"dial {dial:g}"] = dialled(module, inputs, truth, dial * own, seed)
    return network


def digits() -> tuple[nn.Module, np.ndarray]:
    """The CNN trained on digits, and its held-out images."""
    import tempfile

    import digits_cnn

    with tempfile.TemporaryDirectory() as folder:
        digits_cnn.train(f"{folder}/digits.pth")
        model = digits_cnn.build()
        model.load_state_dict(torch.load(f"{folder}/digits.pth", weights_only=True))
    return model.eval(), digits_cnn.load_data()["image"]


def networks(seeds: int) -> list[Network]:
    """Every network of every family, and the trained one on real and on random rows."""
    torch.set_num_threads(1)
    found = []
    for family in random_networks.FAMILIES:
        for seed in range(seeds):
            shape = random_networks._shape(family, random_networks._generator(family, seed))  # noqa: SLF001
            found.append(collect(f"{family}_{seed}", random_networks.make(family, seed), shape, seed))
        print(f"  {family}: {seeds} networks", file=sys.stderr, flush=True)
    model, images = digits()
    found.append(collect("digits, real rows", model, (1, 8, 8), 0, images))
    found.append(collect("digits, random rows", model, (1, 8, 8), 0))
    return found
