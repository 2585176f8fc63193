"""The format "rare" and runtimes that are wrong only on inputs that samples hardly ever hold.

The model takes ``ids [N, S]`` and ``x [N, 12]``, and gives ``logits [N, 5]``: an embedding's mean
beside the floats, one hidden layer. Of the 5000 token ids, eight samples hold a few.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from miniatures.network import load, rounded, save
from pytest_modelformats.errors import RunError, Unsupported
from pytest_modelformats.schema import Backend, Description, Format, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np

    from pytest_modelformats.schema import Source
    from pytest_modelformats.schema.contract import Feed, SessionJob

VOCABULARY, EMBEDDING, FEATURES, HIDDEN, CLASSES = 5000, 8, 12, 16, 5
FORMAT = Format(
    name="rare",
    title="rare miniature",
    module="miniatures.rare",
    suffix=".rare.npz",
    precisions=("fp32",),
    requires=("numpy",),
    named_inputs=True,
    named_outputs=True,
)
INPUTS = (
    TensorSpec("ids", "int64", ("N", "S"), 0, VOCABULARY - 1),
    TensorSpec("x", "float32", ("N", FEATURES)),
)
OUTPUTS = (TensorSpec("logits", "float32", ("N", CLASSES)),)
# What the runtimes of this module are called; the first two are right.
RUNTIMES = (
    "right",
    "flushes_denormals",
    "wrong_for_batches_of_five",
    "wrong_for_odd_lengths",
    "wrong_for_the_last_token",
    "wrong_for_negative_inputs",
    "wrong_for_denormals",
    "wrong_for_large_values",
    "ignores_strides",
    "refuses_batches_of_one",
    "dies_of_the_last_token",
    "wrong_now_and_then",
)


def write(path: Path, seed: int = 0) -> None:
    """Write a seeded model."""
    import numpy as np

    random = np.random.default_rng(seed)
    arrays = {
        "table": random.normal(size=(VOCABULARY, EMBEDDING)),
        "w1": random.normal(size=(FEATURES + EMBEDDING, HIDDEN)) / 4,
        "b1": random.normal(size=HIDDEN) / 4,
        "w2": random.normal(size=(HIDDEN, CLASSES)) / 4,
    }
    save(path, {name: a.astype(np.float32) for name, a in arrays.items()}, "rare")


def sniff(path: Path, head: bytes) -> str | None:
    """Return ``rare`` for an .npz that says so."""
    mine = head.startswith(b"PK") and zipfile.is_zipfile(path) and "rare.npy" in zipfile.ZipFile(path).namelist()
    return "rare" if mine else None


def describe(source: Source) -> Description:
    """State the interface."""
    return Description(INPUTS, OUTPUTS, source.sha256)


def check(artifact: Path) -> None:
    """Accept everything."""


def evaluate(source: Source, feeds: Sequence[Feed], precision: str) -> tuple[list[list[np.ndarray]], str]:
    """Run the model at a precision."""
    if precision == "fp16-weights":
        raise Unsupported("miniatures know no rounding of weights alone")
    model = load(Path(source.location))
    return [[forward(model, feed, precision)] for feed in feeds], f"{precision}: every result rounded"


def forward(model: Mapping[str, np.ndarray], feed: Feed, precision: str, *, backwards: bool = False) -> np.ndarray:
    """The logits, every result rounded to the precision; ``backwards`` sums in the other order."""
    import numpy as np

    step = -1 if backwards else 1
    table, w1, b1, w2 = (rounded(model[name], precision) for name in ("table", "w1", "b1", "w2"))
    embedded = rounded(table[feed["ids"][:, ::step]].mean(1, dtype=table.dtype), precision)
    both = np.concatenate([rounded(feed["x"], precision), embedded], 1)
    h = rounded(np.tanh(rounded(rounded(both[:, ::step] @ w1[::step], precision) + b1, precision)), precision)
    return rounded(h[:, ::step] @ w2[::step], precision)


@dataclass
class RareSession:
    """An opened model; ``alter`` gets the logits and the feed."""

    model: dict[str, np.ndarray]
    alter: Callable[[np.ndarray, Feed], np.ndarray]
    before: Callable[[Feed], Feed]
    inputs: tuple[TensorSpec, ...] = INPUTS
    outputs: tuple[TensorSpec, ...] = OUTPUTS
    statement: Mapping[str, Any] = field(default_factory=dict)

    def run(self, feed: Feed) -> list[np.ndarray]:
        """Run once."""
        return [self.alter(forward(self.model, self.before(feed), "fp32", backwards=True), feed)]

    def bind(self, feed: Feed) -> Callable[[], object]:
        """Hand the inputs over."""
        return lambda: self.run(feed)

    def close(self) -> None:
        """Let go of the weights."""


def _session(job: SessionJob, alter: Any = lambda y, feed: y, before: Any = lambda feed: feed) -> RareSession:
    return RareSession(load(job.artifact), alter, before, statement={"version": "0"})


def right(job):
    """Right on everything."""
    return _session(job)


def _flushed(feed):
    import numpy as np

    return {**feed, "x": np.where(abs(feed["x"]) < np.finfo(np.float32).tiny, np.float32(0), feed["x"])}


def flushes_denormals(job):
    """Numbers below the smallest normal one are zero: a choice that a runtime may make."""
    return _session(job, before=_flushed)


def _where(wrong):
    """The logits one per cent too large where ``wrong(feed)`` holds."""
    return lambda y, feed: y * type(y.flat[0])(1.01) if wrong(feed) else y


def wrong_for_batches_of_five(job):
    """A kernel for four rows and a rest of one reads beyond the end; the batches that everyone tests are fine."""
    return _session(job, _where(lambda feed: len(feed["x"]) == 5))


def wrong_for_odd_lengths(job):
    """Two tokens at a time, and the last of an odd number is forgotten."""
    return _session(job, _where(lambda feed: feed["ids"].shape[1] % 2))


def wrong_for_the_last_token(job):
    """The table was copied without its last row."""
    return _session(job, _where(lambda feed: (feed["ids"] == VOCABULARY - 1).any()))


def wrong_for_negative_inputs(job):
    """A maximum over the batch that starts at zero instead of at minus infinity."""
    return _session(job, _where(lambda feed: (feed["x"] < 0).all()))


def wrong_for_denormals(job):
    """x · (1 / x) where 1 / x is infinite."""

    def alter(y: np.ndarray, feed: Feed) -> np.ndarray:
        import numpy as np

        tiny = (feed["x"] != 0) & (abs(feed["x"]) < 1e-38)
        return np.where(tiny.any(), np.float32("nan"), y)

    return _session(job, alter)


def wrong_for_large_values(job):
    """A hyperbolic tangent made of exponentials: infinite over infinite."""

    def alter(y: np.ndarray, feed: Feed) -> np.ndarray:
        import numpy as np

        return np.where((abs(feed["x"]) > 44).any(1, keepdims=True), np.float32("nan"), y)

    return _session(job, alter)


def ignores_strides(job):
    """Reads the memory behind the array as if it lay in order."""

    def before(feed: Feed) -> Feed:
        import numpy as np

        x = feed["x"]
        if x.flags.c_contiguous or min(x.strides) < 0:
            return feed
        in_order = (x.itemsize * x.shape[1], x.itemsize)
        return {**feed, "x": np.array(np.lib.stride_tricks.as_strided(x, x.shape, in_order))}

    return _session(job, before=before)


def refuses_batches_of_one(job):
    """An error where the source has a result."""

    def before(feed: Feed) -> Feed:
        if len(feed["x"]) == 1:
            raise RunError("Got invalid dimensions for input: x")
        return feed

    return _session(job, before=before)


def dies_of_the_last_token(job):
    """Reading beyond the table ends the process."""

    def before(feed: Feed) -> Feed:
        from miniatures import hazards

        if (feed["ids"] == VOCABULARY - 1).any():
            hazards.read_address_zero()
        return feed

    return _session(job, before=before)


def wrong_now_and_then(job):
    """Every twentieth call is wrong, whatever it is given."""
    calls = [0]

    def alter(y: np.ndarray, _: Feed) -> np.ndarray:
        calls[0] += 1
        return y if calls[0] % 20 else y * y.dtype.type(1.01)

    return _session(job, alter)


def __getattr__(name: str) -> Backend:
    kind, _, runtime = name.partition("_")
    if kind == "backend" and runtime in RUNTIMES:
        return Backend(
            name=runtime.replace("_", "-"),
            title=runtime.replace("_", " "),
            worker="rare",
            precisions={("rare", "fp32"): ("fp32",)},
            devices=("cpu",),
            entry=f"miniatures.rare:{runtime}",
            requires=("numpy",),
        )
    msg = f"miniatures.rare has no '{name}'"
    raise AttributeError(msg)


def entry_points() -> str:
    """The ``entry_points.txt`` of a package that holds this module's systems alone."""
    lines = ["[modelformats.formats]", "rare = miniatures.rare:FORMAT", "[modelformats.backends]"]
    lines += [f"{name.replace('_', '-')} = miniatures.rare:backend_{name}" for name in RUNTIMES]
    return "\n".join(lines) + "\n"
