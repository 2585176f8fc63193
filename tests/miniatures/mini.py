"""The format "mini": an .npz with the weights of the miniature model."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING

from miniatures import network
from pytest_modelformats.errors import ConvertError, Unsupported
from pytest_modelformats.schema import Description, Format, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np

    from pytest_modelformats.schema import Source
    from pytest_modelformats.schema.contract import Feed

FORMAT = Format(
    name="mini",
    title="miniature",
    module="miniatures.mini",
    suffix=".mini.npz",
    precisions=("fp32",),
    requires=("numpy",),
    named_inputs=True,
    named_outputs=True,
)
INPUTS = (TensorSpec("x", "float32", ("N", network.FEATURES)),)
OUTPUTS = (
    TensorSpec("logits", "float32", ("N", network.CLASSES)),
    TensorSpec("gate", "float32", ("N", network.CLASSES)),
    TensorSpec("best", "int64", ("N",)),
)
METHODS = {"float64": "float64: every operation", "fp32": "fp32: native"}


def marked(path: Path, head: bytes, mark: str) -> bool:
    """Whether the file is an archive with a member of that name."""
    return head.startswith(b"PK") and zipfile.is_zipfile(path) and f"{mark}.npy" in zipfile.ZipFile(path).namelist()


def sniff(path: Path, head: bytes) -> str | None:
    """Return ``mini`` for an .npz that says so."""
    return "mini" if marked(path, head, "mini") else None


def describe(source: Source) -> Description:
    """State the interface, which is the same for every miniature."""
    return Description(INPUTS, OUTPUTS, source.sha256, summary="a miniature")


def evaluate(source: Source, feeds: Sequence[Feed], precision: str) -> tuple[list[list[np.ndarray]], str]:
    """Run the model at a precision; raises Unsupported for fp16-weights, which no miniature asks for."""
    from pathlib import Path

    if precision == "fp16-weights":
        raise Unsupported("miniatures know no rounding of weights alone")
    model = network.load(Path(source.location))
    if precision == "tf32":
        return [network.forward(model, feed["x"], precision) for feed in feeds], "tf32: operands of products rounded"
    method = METHODS.get(precision, f"{precision}: weights and every result rounded")
    return [network.forward(model, feed["x"], precision) for feed in feeds], method


def check(artifact: Path) -> None:
    """Return where all weights are there; raises ConvertError."""
    try:
        missing = set(network.WEIGHTS) - set(network.load(artifact))
    except OSError as error:
        raise ConvertError(f"the artifact cannot be read: {error}") from error
    if missing:
        raise ConvertError(f"the artifact lacks {', '.join(sorted(missing))}")
