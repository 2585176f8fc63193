"""The format "minimap": a large output whose 16 channels have scales from 1e-3 to 1e3, and the runtimes of it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from miniatures import mini, network
from pytest_modelformats.errors import Unsupported
from pytest_modelformats.schema import Description, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import numpy as np

    from pytest_modelformats.schema import Source
    from pytest_modelformats.schema.contract import Feed, SessionJob

FORMAT = replace(mini.FORMAT, name="minimap", title="miniature map", module="miniatures.minimap", suffix=".minimap.npz")
CHANNELS, PLACES = 16, 1024
INPUTS = (TensorSpec("x", "float32", ("N", network.FEATURES)),)
OUTPUTS = (TensorSpec("map", "float32", ("N", CHANNELS, PLACES)),)


def write(path: Path, seed: int) -> None:
    """Write a seeded network in the format "minimap"."""
    import numpy as np

    random = np.random.default_rng(seed)
    arrays = {
        "w1": random.normal(size=(network.FEATURES, network.HIDDEN)) / network.FEATURES**0.5,
        "w2": random.normal(size=(network.HIDDEN, CHANNELS * PLACES)) / network.HIDDEN**0.5,
        "scale": 10.0 ** np.linspace(-3, 3, CHANNELS).reshape(CHANNELS, 1),
    }
    network.save(path, {name: a.astype(np.float32) for name, a in arrays.items()}, "minimap")


def sniff(path: Path, head: bytes) -> str | None:
    """Return ``minimap`` for an .npz that says so."""
    return "minimap" if mini.marked(path, head, "minimap") else None


def describe(source: Source) -> Description:
    """State the interface."""
    return Description(INPUTS, OUTPUTS, source.sha256, summary="a miniature with a large output")


def evaluate(source: Source, feeds: Sequence[Feed], precision: str) -> tuple[list[list[np.ndarray]], str]:
    """Run the model at a precision; raises Unsupported for fp16-weights."""
    from pathlib import Path

    if precision not in {"float64", "fp32", "fp16", "bf16"}:
        raise Unsupported(f"miniatures know no {precision}")
    model = network.load(Path(source.location))
    return [[forward(model, feed["x"], precision)] for feed in feeds], f"{precision}: every result rounded"


def check(artifact: Path) -> None:
    """Return: what is not there is seen when it runs."""


def forward(model: Mapping[str, np.ndarray], x: np.ndarray, precision: str, *, backwards: bool = False) -> np.ndarray:
    """The map, every result rounded; ``backwards`` sums in the other order."""
    import numpy as np

    step = -1 if backwards else 1
    x, w1, w2, scale = (network.rounded(a, precision) for a in (x, model["w1"], model["w2"], model["scale"]))
    hidden = network.rounded(np.tanh(network.rounded(x[:, ::step] @ w1[::step], precision)), precision)
    made = network.rounded(hidden[:, ::step] @ w2[::step], precision)
    return network.rounded(made.reshape(len(x), CHANNELS, PLACES) * scale, precision)


@dataclass
class MapSession:
    """An opened map; ``alter`` is what a fault does to the output."""

    model: dict[str, np.ndarray]
    alter: Callable[[np.ndarray], np.ndarray] = lambda y: y
    inputs: tuple[TensorSpec, ...] = INPUTS
    outputs: tuple[TensorSpec, ...] = OUTPUTS
    statement: Mapping[str, Any] = field(default_factory=dict)

    def run(self, feed: Feed) -> list[np.ndarray]:
        """Run once."""
        return [self.alter(forward(self.model, feed["x"], "fp32", backwards=True))]

    def bind(self, feed: Feed) -> Callable[[], object]:
        """Hand the inputs over."""
        return lambda: self.run(feed)

    def close(self) -> None:
        """Let go of the weights."""
        self.model.clear()


def right(job: SessionJob) -> MapSession:
    """Nothing is wrong."""
    return MapSession(network.load(job.artifact))


def one_element(job: SessionJob) -> MapSession:
    """One of 131072 elements is off by 1.5e-5; its channel is of order 1, the loudest of order 1000."""

    def alter(y: np.ndarray) -> np.ndarray:
        y[-1, CHANNELS // 2, 77] += 1.5e-5
        return y

    return MapSession(network.load(job.artifact), alter)


def small_channel(job: SessionJob) -> MapSession:
    """The channel of scale 1e-3 is off by 1e-5 of itself, a hundred-thousandth of the loudest channel's noise."""

    def alter(y: np.ndarray) -> np.ndarray:
        y[:, 0] *= 1 + 1e-5
        return y

    return MapSession(network.load(job.artifact), alter)


RUNTIMES = {"right": right, "one_element": one_element, "small_channel": small_channel}
