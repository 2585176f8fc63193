"""The miniature model: ``x [N, 12]`` to ``logits [N, 7]``, ``gate [N, 7]`` and ``best [N]``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np

FEATURES, HIDDEN, CLASSES = 12, 32, 7
WEIGHTS = ("w1", "b1", "w2", "b2", "w3")


def write(path: Path, seed: int) -> None:
    """Write a seeded network in the format "mini"."""
    import numpy as np

    random = np.random.default_rng(seed)
    arrays = {
        "w1": random.normal(size=(FEATURES, HIDDEN)) / FEATURES**0.5,
        "b1": random.normal(size=HIDDEN) / 4,
        "w2": random.normal(size=(HIDDEN, CLASSES)) / HIDDEN**0.5,
        "b2": random.normal(size=CLASSES) / 4,
        "w3": random.normal(size=(HIDDEN, CLASSES)) / HIDDEN**0.5,
    }
    save(path, {name: a.astype(np.float32) for name, a in arrays.items()} | {"activation": np.array("tanh")}, "mini")


def save(path: Path, arrays: Mapping[str, np.ndarray], mark: str) -> None:
    """Write arrays with the member that tells the format; the file is called exactly ``path``."""
    import numpy as np

    with path.open("wb") as handle:
        np.savez(handle, **arrays, **{mark: np.array(1)})


def load(path: Path) -> dict[str, np.ndarray]:
    """Read what :func:`save` wrote."""
    import numpy as np

    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def rounded(array: np.ndarray, precision: str) -> np.ndarray:
    """The values as the precision holds them: float64 or fp32 in their own dtype, fp16 and bf16 in float32."""
    import numpy as np

    if precision == "float64":
        return array.astype(np.float64)
    single = array.astype(np.float32)
    if precision == "fp16":
        return single.astype(np.float16).astype(np.float32)
    if precision == "bf16":
        # To nearest, ties to even: bfloat16 is the upper half of a float32.
        bits = single.view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)).view(np.float32)
    return single


def tf32(array: np.ndarray) -> np.ndarray:
    """The values with TF32's 10 bits of mantissa, to nearest, ties away from zero as CUTLASS rounds them."""
    import numpy as np

    bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
    return ((bits + 0x1000) & np.uint32(0xFFFFE000)).view(np.float32)


def forward(model: Mapping[str, np.ndarray], x: np.ndarray, precision: str, *, backwards: bool = False) -> list:
    """The three outputs, every result rounded to the precision.

    ``backwards`` sums in the other order: the same model, differently rounded.
    """
    import numpy as np

    step = -1 if backwards else 1
    w1, b1, w2, b2, w3 = (rounded(model[name], precision) for name in WEIGHTS)
    activate = {"tanh": np.tanh, "relu": lambda a: np.maximum(a, 0)}[str(model["activation"])]

    def product(a: np.ndarray, w: np.ndarray) -> np.ndarray:
        if precision == "tf32":
            a, w = tf32(a), tf32(w)
        return rounded(a[:, ::step] @ w[::step], precision)

    h = rounded(activate(rounded(product(rounded(x, precision), w1) + b1, precision)), precision)
    logits = rounded(product(h, w2) + b2, precision)
    gate = rounded(1 / (1 + np.exp(-product(h, w3))), precision)
    return [logits, gate, logits.argmax(-1).astype(np.int64)]
