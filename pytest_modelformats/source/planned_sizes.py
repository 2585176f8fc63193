"""The sizes of free dimensions as they can be told before anything is run: what ``modelformats plan`` says of them."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_modelformats.errors import ModelFormatsError
from pytest_modelformats.schema import registry
from pytest_modelformats.source import metadata_sizes, sizes, stated_inputs
from pytest_modelformats.source.free_dimensions import candidates, free

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_modelformats.schema import Source, TensorSpec
    from pytest_modelformats.schema.sizes import Dimension


def told(source: Source, data: str) -> str:
    """The sizes of a model's free dimensions and who states them, or what a run will try; "" where none is known.

    ``data`` is where the user's samples are. A format that is read in a worker only (PyTorch's) is known by what
    ``--mf-input`` says.
    """
    try:
        inputs, stated = _stated(source)
    except (ModelFormatsError, OSError):
        return ""  # what is wrong with the file is the run's to tell
    open_ = sizes.unstated(inputs, stated)
    said = [sizes.said(stated)] if stated else []
    if not open_:
        return "; ".join(said)
    titles = sizes.titles(sizes.placed(open_))
    if data:
        return "; ".join([*said, f"{titles}: those of the samples"])
    known = {d.symbol: d.size for d in stated if d.symbol in free(inputs)}
    tried = candidates(inputs, known)
    named = {symbol: sizes.placed({symbol: place})[0].name for symbol, place in open_.items()}
    first = "; ".join(", ".join(f"{named[s]} {size}" for s, size in one.items()) for one in tried[:4])
    pin = sizes.options(sizes.pins(inputs, {**known, **tried[0]}))
    said.append(
        f"nothing states the size of {titles}: a run tries {first} and larger ones, judges at those that the source "
        f"takes, and measures no latency; say which sizes count, as in {pin}"
    )
    return "; ".join(said)


def _stated(source: Source) -> tuple[Sequence[TensorSpec], tuple[Dimension, ...]]:
    """The inputs, and the sizes that the file or ``--mf-input`` states."""
    module = importlib.import_module(registry.formats()[source.format].module)
    read = getattr(module, "stated", None)
    if read is None:
        return source.inputs, ()
    own: Sequence[TensorSpec]
    metadata: Mapping[str, str]
    own, metadata = read(Path(source.location))
    merged, _ = stated_inputs.apply(source.name, own, (), source.inputs)
    return merged, (*sizes.pinned(own, merged), *metadata_sizes.dimensions(merged, metadata))
