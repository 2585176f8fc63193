"""Large outputs: one broken element among up to a million, one wrong channel among channels of other scales."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from detection_cells import UNIT, runs
from torch import nn

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
    """Channels of scales from 1e-3 to 1e3."""

    def __init__(self, channels: int, seed: int) -> None:
        super().__init__()
        exponents = np.random.default_rng(seed).permutation(np.linspace(-3, 3, channels))
        self.scale = nn.Parameter(torch.from_numpy(10.0**exponents).float())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale


class Last(nn.Module):
    """Channels last."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
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


def _profile(noise: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The noise of every element as the product of what every axis contributes."""
    whole = np.sqrt(np.mean(noise**2))
    sigma = np.full([1] * noise.ndim, whole)
    for axis in range(noise.ndim):
        others = tuple(a for a in range(noise.ndim) if a != axis)
        along = np.sqrt(np.mean(noise**2, others, keepdims=True))
        floor = np.sqrt(np.mean(truth**2, others, keepdims=True)) * UNIT / 3**0.5
        sigma = sigma * np.maximum(along, floor) / whole
    return sigma


def _over_rows(noise: np.ndarray, truth: np.ndarray) -> np.ndarray:
    floor = np.sqrt(np.mean(truth**2, 0, keepdims=True)) * UNIT / 3**0.5
    return np.maximum(np.sqrt(np.mean(noise**2, 0, keepdims=True)), floor)


def _largest(sigma: np.ndarray, dense: Dense) -> Callable[[np.ndarray], float]:
    own = float((np.abs(dense.noise) / sigma).max())
    return lambda e: float((np.abs(e) / sigma).max()) / own


def largest(dense: Dense) -> Callable[[np.ndarray], float]:
    """The largest error over the largest rounding error."""
    return _largest(np.ones(1), dense)


def by_axes(dense: Dense) -> Callable[[np.ndarray], float]:
    """The same, every element in units of its noise from the profiles of the axes."""
    return _largest(_profile(dense.noise, dense.truth), dense)


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


def worst_slice(dense: Dense) -> Callable[[np.ndarray], float]:
    """The largest noise ratio of a slice along any axis."""

    def along(a: np.ndarray) -> np.ndarray:
        axes = range(a.ndim)
        return np.concatenate([np.sqrt(np.mean(a**2, tuple(o for o in axes if o != axis))) for axis in axes])

    own = np.maximum(along(dense.noise), along(dense.truth) * UNIT / 3**0.5)
    return lambda e: float((along(e) / own).max())


def rms_by_axes(dense: Dense) -> Callable[[np.ndarray], float]:
    """The rms of every error in units of its noise from the profiles of the axes."""
    sigma = _profile(dense.noise, dense.truth)
    own = np.sqrt(np.mean((dense.noise / sigma) ** 2))
    return lambda e: float(np.sqrt(np.mean((e / sigma) ** 2)) / own)


STATISTICS = {
    "r": ratio,
    "rms by axes": rms_by_axes,
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
