"""Finding the sizes of a model's free dimensions: as they are stated, by its samples, or by running the source."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pytest_modelformats.errors import RunError, WorkerCrashed
from pytest_modelformats.schema.sizes import DATA
from pytest_modelformats.source import sizes
from pytest_modelformats.source.samples import make_samples

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np

    from pytest_modelformats.schema import Description
    from pytest_modelformats.source.samples import Samples
    from pytest_modelformats.source.sizes import Sizes

    Feed = Mapping[str, np.ndarray]
    # Sizes by name, and samples of them.
    AtSizes = tuple[dict[str, int], tuple[dict[str, np.ndarray], ...]]

# Rows at each further size: they are there to show what depends on the size, not to measure noise.
ROWS = 2
# What a source that does not take such inputs ends in; time, memory and operators that are missing are other matters.
_REFUSED = (RunError, WorkerCrashed)


def find(
    model: str,
    description: Description,
    data: str,
    samples: Callable[[], Samples],
    evaluate: Callable[[Sequence[Feed]], Sequence[Sequence[np.ndarray]]],
    seed: int,
) -> Sizes:
    """The sizes of the free dimensions: of the user's samples, where ``data`` names them; as stated; or as tried.

    ``evaluate(feeds)`` runs the source and returns [feed][output].

    Raises: SourceError where no inputs can be drawn; RunError where the source takes no size that is tried;
    Unsupported, WorkerTimeout, OutOfMemory.
    """
    inputs = description.inputs
    if data and sizes.unstated(inputs, ()):
        detail = Path(data.partition(":")[0]).name
        pinned = sizes.only_pinned(description.sizes)
        return sizes.of_feed(inputs, samples().feeds[0], DATA, detail, pinned)
    if not sizes.unstated(inputs, description.sizes):
        return sizes.Sizes(description.sizes)

    names = [spec.name for spec in description.outputs]
    found: dict[tuple[int, ...], tuple[str, str]] = {}

    def look(dims: Mapping[str, int]) -> tuple[str, str]:
        """Why the source does not run at such sizes, and why what it returns there is nothing."""
        try:
            (outputs,) = evaluate(make_samples(inputs, 1, seed, dims).feeds[:1])
        except _REFUSED as error:
            return str(error), ""
        return "", _empty_handed(names, outputs)

    def seen(dims: Mapping[str, int]) -> tuple[str, str]:
        key = tuple(dims.values())
        if key not in found:
            found[key] = look(dims)
        return found[key]

    try:
        return sizes.tried(model, inputs, description.sizes, lambda dims: "; ".join(filter(None, seen(dims))))
    except RunError:
        if all(refused for refused, _ in found.values()):
            raise
        # What returns nothing at any size does so for the values: no size is to blame.
        return sizes.tried(model, inputs, description.sizes, lambda dims: seen(dims)[0])


def _empty_handed(names: Sequence[str], outputs: Sequence[np.ndarray]) -> str:
    """Where a source returns, but nothing that could be compared: it has not taken such a size either; else "".

    A mean over a dimension that its strides have used up is NaN and raises nothing.
    """
    import numpy as np

    for name, array in zip(names, outputs, strict=False):
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).any():
            what = "is NaN or Inf in every element" if array.size else "is empty"
            return f"the output '{name}' of the model itself {what} there"
    return ""


def further(description: Description, found: Sizes, seed: int) -> list[AtSizes]:
    """A few samples at each of the further sizes, with these by name."""
    drawn = ((one, make_samples(description.inputs, ROWS, seed, one)) for one in found.further)
    return [(found.named(one), samples.feeds[:ROWS]) for one, samples in drawn]
