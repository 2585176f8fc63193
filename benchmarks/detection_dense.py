"""Large outputs: one broken element among up to a million, one wrong channel among channels of other scales."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from detection_cells import UNIT, onnx_bytes, run_openvino, runs
from torch import nn

from pytest_modelformats.compare import noise_profile

if TYPE_CHECKING:
    from collections.abc import Callable

ROWS, AGAIN = 8, 3
ELEMENTS = (5.0, 8.0, 12.0, 20.0, 50.0)
CHANNELS = (2.0, 4.0, 8.0, 50.0)


@dataclass
class Dense:
    """A network with a large output of 8 rows.

    Shapes: truth, noise and errors are the output's, [row, ..., channel] with the channels last.
    """

    kind: str
    truth: np.ndarray
    noise: np.ndarray
    again: np.ndarray
    faithful: list[np.ndarray]


class Scaled(nn.Module):
    """Channels of scales from 1e-3 to 1e3, or all of them 10."""

    def __init__(self, channels: int, seed: int | None) -> None:
        """Draw the scales."""
        super().__init__()
        exponents = np.random.default_rng(seed).permutation(np.linspace(-3, 3, channels))
        exponents = np.ones(channels) if seed is None else exponents
        self.scale = nn.Parameter(torch.from_numpy(10.0**exponents).float())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run it."""
        return x * self.scale


class Last(nn.Module):
    """Channels last."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run it."""
        return x.movedim(1, -1)


def _maps(*after: nn.Module) -> tuple[nn.Module, tuple[int, ...]]:
    body = [nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.GELU()]
    return nn.Sequential(*body, nn.Conv2d(32, 16, 3, padding=1), Last(), *after), (3, 64, 64)


def _tokens(*after: nn.Module) -> tuple[nn.Module, tuple[int, ...]]:
    body = [nn.Linear(32, 128), nn.LayerNorm(128), nn.GELU(), nn.Linear(128, 1024)]
    return nn.Sequential(*body, *after), (64, 32)


KINDS: dict[str, Callable[[int], tuple[nn.Module, tuple[int, ...]]]] = {
    "map": lambda _: _maps(),
    "map, sigmoid": lambda _: _maps(nn.Sigmoid()),
    "map, channel scales 1e-3 to 1e3": lambda seed: _maps(Scaled(16, seed)),
    "tokens": lambda _: _tokens(),
    "tokens, softmax": lambda _: _tokens(nn.Softmax(-1)),
    "tokens, peaked softmax": lambda _: _tokens(Scaled(1024, None), nn.Softmax(-1)),
    "tokens, channel scales 1e-3 to 1e3": lambda seed: _tokens(Scaled(1024, seed)),
}


def collect(kind: str, seed: int) -> Dense:
    """Run one of them everywhere."""
    torch.manual_seed(seed)
    module, shape = KINDS[kind](seed)
    module = module.eval()
    inputs = torch.randn(ROWS, *shape)
    with torch.no_grad():
        wide = module.double()
        truth = wide(inputs.double()).numpy().copy()
        moved = [_moved(inputs, [seed, time]) for time in range(AGAIN)]
        truths = [wide(m.double()).numpy().copy() for m in moved]
        module.float()
        noise = module(inputs).double().numpy() - truth
        again = np.stack([module(m).double().numpy() - t for m, t in zip(moved, truths, strict=True)])
    faithful = [y.reshape(truth.shape).astype(np.float64) - truth for y in runs(module, inputs).values()]
    return Dense(kind, truth, noise, again, faithful)


def _moved(inputs: torch.Tensor, seed: list[int]) -> torch.Tensor:
    signs = torch.from_numpy(np.random.default_rng(seed).choice([-1.0, 1.0], tuple(inputs.shape)))
    return (inputs * (1 + 2 * UNIT * signs)).float()


# --- the statistics: each prepares what it needs of the source once, and returns a function of the error


def _over_rows(noise: np.ndarray, truth: np.ndarray) -> np.ndarray:
    floor = np.sqrt(np.mean(truth**2, 0, keepdims=True)) * UNIT / 3**0.5
    return np.maximum(np.sqrt(np.mean(noise**2, 0, keepdims=True)), floor)


def _largest(sigma: np.ndarray, dense: Dense) -> Callable[[np.ndarray], float]:
    own = float((np.abs(dense.noise) / sigma).max())
    return lambda e: float((np.abs(e) / sigma).max()) / own


def largest(dense: Dense) -> Callable[[np.ndarray], float]:
    """The largest error over the largest rounding error."""
    return _largest(np.ones(1), dense)


def _product(dense: Dense) -> Callable[[np.ndarray], noise_profile.Local]:
    """What the product measures."""
    own = float(np.sqrt(np.mean(dense.noise**2)))
    profile = noise_profile.measure([dense.truth], [dense.truth + dense.noise], own, UNIT)
    return lambda e: noise_profile.compare(profile, own, [dense.truth], [dense.truth + e])


def by_axes(dense: Dense) -> Callable[[np.ndarray], float]:
    """The same, every element in units of its noise from the profiles of the axes, as the product has it."""
    local = _product(dense)
    return lambda e: local(e).point_ratio


def worst_slice(dense: Dense) -> Callable[[np.ndarray], float]:
    """The largest noise ratio of a slice along any axis, as the product has it."""
    local = _product(dense)
    return lambda e: local(e).slice_ratio


def by_channel(dense: Dense) -> Callable[[np.ndarray], float]:
    """The same, every element in units of its channel's noise."""
    axes = tuple(range(dense.noise.ndim - 1))
    floor = np.sqrt(np.mean(dense.truth**2, axes)) * UNIT / 3**0.5
    return _largest(np.maximum(np.sqrt(np.mean(dense.noise**2, axes)), floor), dense)


def by_element(dense: Dense) -> Callable[[np.ndarray], float]:
    """The same, every element in units of its own noise over the eight rows."""
    return _largest(_over_rows(dense.noise, dense.truth), dense)


def by_element_again(dense: Dense) -> Callable[[np.ndarray], float]:
    """The same, its own noise over eight re-rolls of the source."""
    every = np.concatenate([dense.noise[None], dense.again])
    own = np.maximum(np.sqrt(np.mean(every**2, 0)), np.abs(dense.truth) * UNIT / 3**0.5)
    return _largest(own, dense)


def ratio(dense: Dense) -> Callable[[np.ndarray], float]:
    """The noise ratio r."""
    own = np.sqrt(np.mean(dense.noise**2))
    return lambda e: float(np.sqrt(np.mean(e**2)) / own)


STATISTICS = {
    "r": ratio,
    "worst slice": worst_slice,
    "largest": largest,
    "largest by axes": by_axes,
    "largest by channel": by_channel,
    "largest by element, 8 rows": by_element,
    "largest by element, 8 re-rolls": by_element_again,
}


def faults(dense: Dense, error: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """The error with one element, or the channel of the smallest noise, off by multiples of its noise."""
    random = np.random.default_rng(seed)
    channels = np.sqrt(np.mean(dense.noise**2, tuple(range(dense.noise.ndim - 1))))
    where = tuple(int(random.integers(size)) for size in error.shape)
    found = {}
    for times in ELEMENTS:
        found[f"one element, {times:g} x its channel's noise"] = changed = error.copy()
        changed[where] += times * channels[where[-1]]
    least = int(np.argmin(channels))
    for times in CHANNELS:
        found[f"least channel, {times:g} x its noise"] = changed = error.copy()
        changed[..., least] += times * channels[least] * random.standard_normal(error.shape[:-1])
    return found


def narrow(seeds: int) -> dict[str, list[tuple[str, float, float, float]]]:
    """The kind, r, slice and point ratio of faithful bf16 and fp16 runs, as the product measures them."""
    from pytest_modelformats.systems.torch.reference import numerics

    found: dict[str, list[tuple[str, float, float, float]]] = {}
    for kind, make in KINDS.items():
        for seed in range(seeds):
            torch.manual_seed(seed)
            module, shape = make(seed)
            inputs = torch.randn(ROWS, *shape)
            feeds = [{"input": inputs.numpy()}]
            truth = numerics.evaluate(module.eval(), feeds, "float64")[0][0][0]
            with torch.no_grad():
                runs_at = {
                    "bf16": run_openvino(onnx_bytes(module, inputs), inputs, "bf16").reshape(truth.shape),
                    "fp16": module.half()(inputs.half()).float().numpy(),
                }
            module.float()
            for precision, bits in (("bf16", 7), ("fp16", 10)):
                rounded = numerics.evaluate(module, feeds, precision)[0][0][0]
                own = float(np.sqrt(np.mean((rounded - truth) ** 2)))
                profile = noise_profile.measure([truth], [rounded], own, 2.0 ** -(bits + 1))
                local = profile and noise_profile.compare(profile, own, [truth], [runs_at[precision]])
                if local:
                    ratio = float(np.sqrt(np.mean((runs_at[precision] - truth) ** 2)) / own)
                    found.setdefault(precision, []).append((kind, ratio, local.slice_ratio, local.point_ratio))
    return found


def measure(seeds: int) -> dict[str, dict[str, dict[str, list[float]]]]:
    """The values of every statistic by kind of network and fault; the faithful ones under ""."""
    found: dict[str, dict[str, dict[str, list[float]]]] = {}
    for kind in KINDS:
        by_fault = found.setdefault(kind, {})
        for seed in range(seeds):
            dense = collect(kind, seed)
            prepared = {name: make(dense) for name, make in STATISTICS.items()}
            for lane, error in enumerate(dense.faithful):
                for fault, wrong in {"": error, **faults(dense, error, seed * 10 + lane)}.items():
                    values = by_fault.setdefault(fault, {})
                    for name, statistic in prepared.items():
                        values.setdefault(name, []).append(statistic(wrong))
    return found
