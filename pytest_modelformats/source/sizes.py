"""The sizes of a model's free dimensions in a run: who states them, or what was tried where nobody does."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pytest_modelformats.errors import RunError
from pytest_modelformats.schema.sizes import ARCHITECTURE, BUNDLE, DATA, METADATA, PINNED, TRIED, Dimension
from pytest_modelformats.source.free_dimensions import candidates, free, images, term

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import numpy as np

    from pytest_modelformats.schema import TensorSpec

# Sizes at which parity is judged besides the first, where nothing states which one counts.
FURTHER = 2
_BY = {
    PINNED: "by --mf-input",
    DATA: "by the samples",
    METADATA: "by the file's metadata",
    ARCHITECTURE: "by the architecture",
    BUNDLE: "by the golden bundle",
    TRIED: "stated nowhere, the smallest tried that the source takes",
}


@dataclass(frozen=True, slots=True)
class Sizes:
    """Every free dimension of a model's inputs at the size that a run uses; none where all are fixed.

    ``further`` are other sizes that the source takes, where nothing states which one counts. ``pin`` are the
    ``--mf-input`` specifications that state them.
    """

    dimensions: tuple[Dimension, ...] = ()
    further: tuple[Mapping[str, int], ...] = ()
    pin: tuple[str, ...] = ()

    @property
    def by_symbol(self) -> dict[str, int]:
        """The sizes of the symbols that are free; what ``--mf-input`` has pinned is not any more."""
        return {d.symbol: d.size for d in self.dimensions if d.by != PINNED}

    @property
    def tried(self) -> tuple[Dimension, ...]:
        """The dimensions whose size nothing states."""
        return tuple(d for d in self.dimensions if d.by == TRIED)

    def named(self, sizes: Mapping[str, int]) -> dict[str, int]:
        """Further sizes by the names that a reader knows."""
        return {d.name: sizes[d.symbol] for d in self.dimensions if d.symbol in sizes}


def said(dimensions: Iterable[Dimension]) -> str:
    """Sizes and who states them: ``height 320, width 320 (by the file's metadata: imgsz [320, 320])``."""
    groups: dict[tuple[str, str], list[Dimension]] = {}
    for one in dimensions:
        groups.setdefault((one.by, one.detail), []).append(one)
    return "; ".join(
        f"{', '.join(f'{d.name} {d.size}' for d in group)} ({_BY[by]}{f': {detail}' if detail else ''})"
        for (by, detail), group in groups.items()
    )


def of_feed(
    specs: Sequence[TensorSpec],
    feed: Mapping[str, np.ndarray],
    by: str,
    detail: str,
    others: tuple[Dimension, ...] = (),
) -> Sizes:
    """The sizes that samples have, after ``others``."""
    found = (Dimension(s, n, i, int(feed[n].shape[i]), by, detail) for s, (n, i) in free(specs).items())
    return Sizes((*others, *found))


def only_pinned(stated: Iterable[Dimension]) -> tuple[Dimension, ...]:
    """What ``--mf-input`` states: nothing else comes before the user's samples."""
    return tuple(d for d in stated if d.by == PINNED)


def unstated(specs: Sequence[TensorSpec], stated: Iterable[Dimension]) -> dict[str, tuple[str, int]]:
    """The free dimensions whose size nobody states, each with its input and axis."""
    known = {d.symbol for d in stated}
    return {symbol: place for symbol, place in free(specs).items() if symbol not in known}


def placed(places: Mapping[str, tuple[str, int]]) -> list[Dimension]:
    """Dimensions that have no size yet."""
    return [Dimension(symbol, name, axis, 0, TRIED) for symbol, (name, axis) in places.items()]


def tried(
    model: str, specs: Sequence[TensorSpec], stated: Sequence[Dimension], why_not: Callable[[Mapping[str, int]], str]
) -> Sizes:
    """The stated sizes, and for the other dimensions the smallest ones that the source takes.

    ``why_not(sizes)`` runs the source at such sizes and returns "" or why it does not take them.

    Raises: RunError where it takes none of those that are tried.
    """
    known = {d.symbol: d.size for d in stated if d.by != PINNED}
    taken: list[dict[str, int]] = []
    refused = []
    for sizes in candidates(specs, known):
        # A size that is just large enough for a source may be one at which a layer of it has nothing to work on: a
        # further one is nowhere below the first (PP-OCR's classifier of 32 x 320 pools over a height of 1).
        if taken and any(size < taken[0][symbol] for symbol, size in sizes.items()):
            continue
        reason = why_not({**known, **sizes})
        if reason:
            refused.append((sizes, reason))
        else:
            taken.append(sizes)
        if len(taken) > FURTHER:
            break
    dimensions = placed(unstated(specs, stated))
    if taken:
        dimensions = [replace(one, size=taken[0][one.symbol]) for one in dimensions]
    if not taken:
        shown = Sizes(tuple(dimensions))
        listed = "; ".join(", ".join(f"{n} {v}" for n, v in shown.named(sizes).items()) for sizes, _ in refused)
        pin = pins(specs, {**known, **refused[0][0]})
        raise RunError(
            f"nothing states the size of {titles(dimensions)}, and the model {model} itself takes none of those that "
            f"were tried ({listed}): {refused[0][1].rstrip('.')}. Next: state the sizes, as in {options(pin)}"
        )
    order = list(free(specs))
    every = sorted((*stated, *dimensions), key=lambda d: order.index(d.symbol) if d.symbol in order else -1)
    further = tuple({**known, **sizes} for sizes in taken[1:])
    return Sizes(tuple(every), further, pins(specs, {**known, **taken[0]}))


def of_images(specs: Sequence[TensorSpec], found: Sizes) -> dict[str, tuple[int, ...]]:
    """The sizes in use of each free height and width: others may be ones that a source takes and nobody means."""
    shapes = {spec.name: spec.shape or () for spec in specs}
    sides = {shapes[name][axis] for name, *axes in images(specs) for axis in axes}
    return {
        symbol: tuple(sorted({size, *(one[symbol] for one in found.further if symbol in one)}))
        for symbol, size in found.by_symbol.items()
        if symbol in sides
    }


def titles(dimensions: Sequence[Dimension]) -> str:
    """The dimensions in words: ``'height' and 'width'``."""
    *first, last = [d.title for d in dimensions]
    return f"{', '.join(first)} and {last}" if first else last


def notice(model: str, sizes: Sizes) -> str:
    """The sentence that a run begins with where nothing states the sizes; "" where all are stated."""
    if not sizes.tried:
        return ""
    first = ", ".join(f"{d.name} {d.size}" for d in sizes.tried)
    others = [", ".join(f"{n} {v}" for n, v in sizes.named(one).items()) for one in sizes.further]
    judged = f"at {'; '.join([first, *others])}" if others else "there alone, for the source took no other"
    return (
        f"{model}: nothing states the size of {titles(sizes.tried)}; {first} is the smallest tried that the source "
        f"takes, so parity is judged {judged}, and no latency is measured: {_todo(sizes)} with the sizes that count"
    )


def why_no_latency(sizes: Sizes) -> str:
    """Why a latency would not be the model's; "" where all sizes are stated."""
    if not sizes.tried:
        return ""
    return (
        f"nothing states the size of {titles(sizes.tried)}, and a figure at "
        f"{', '.join(f'{d.name} {d.size}' for d in sizes.tried)}, which was only tried, would not be the model's; "
        f"{_todo(sizes)} with the sizes that count"
    )


def _todo(sizes: Sizes) -> str:
    """What states the sizes: an option, or for what a golden bundle holds, one of its export."""
    bundle = next((d.detail for d in sizes.tried if d.detail), "")
    todo = options(sizes.pin)
    return f"export {bundle} again with {todo}" if bundle else f"add {todo}"


def pins(specs: Sequence[TensorSpec], sizes: Mapping[str, int]) -> tuple[str, ...]:
    """The ``--mf-input`` specifications that state these sizes."""
    shapes = ((spec, tuple(_sized(dim, sizes) or dim for dim in spec.shape or ())) for spec in specs)
    return tuple(str(replace(spec, shape=shape).writable) for spec, shape in shapes if shape != (spec.shape or ()))


def options(pin: Iterable[str]) -> str:
    """The options to paste into a shell that state these specifications."""
    return " ".join(f"--mf-input {shlex.quote(spec)}" for spec in pin)


def _sized(dim: int | str, sizes: Mapping[str, int]) -> int | None:
    return term(dim, sizes) if isinstance(dim, str) else None


def pinned(own: Sequence[TensorSpec], merged: Sequence[TensorSpec]) -> tuple[Dimension, ...]:
    """The dimensions that a file leaves free and ``--mf-input`` has fixed."""
    now = {spec.name: spec.shape or () for spec in merged}
    return tuple(
        Dimension(symbol, name, axis, size, PINNED)
        for symbol, (name, axis) in free([s for s in own if s.shape]).items()
        if isinstance(size := now[name][axis], int)
    )
