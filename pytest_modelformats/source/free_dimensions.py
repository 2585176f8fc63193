"""The dimensions of a model's inputs that may vary, the batch aside, and the sizes that are tried for them."""

from __future__ import annotations

import ast
from itertools import islice
from typing import TYPE_CHECKING

from pytest_modelformats.source.batch_axes import batch

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pytest_modelformats.schema import TensorSpec

    Sizes = dict[str, int]
    Dim = int | str

# Height and width, the fewest pixels first. 224, 320 and 640 are what classifiers and detectors are trained on, 64 is
# small and a multiple of every usual stride up to 32; 64 x 96 shows a height that was taken for a width. Recognisers
# of text have their height fixed at 32 (CRNN, PP-OCR to v2) or 48 (PP-OCRv3 and later), and widths of 320 or more.
IMAGES = ((64, 64), (64, 96), (32, 320), (48, 320), (32, 480), (48, 480), (224, 224), (320, 320), (640, 640))
HEIGHTS = (32, 48, 64, 96, 224, 320, 640)
WIDTHS = (64, 96, 224, 320, 640)
# Tokens and frames go by 16 and its multiples, or by 24, which is no power of two; voice activity detectors take 256,
# 512 or 576 samples of sound and no others, and 16000 are a second of it.
OTHERS = (16, 24, 32, 64, 128, 256, 512, 576, 1024, 4096, 16000)
# Of images and other dimensions in one model: each of the former with each of the latter would be 77.
MOST_TRIES = 24
LONGEST_TERM = 200

_HEIGHT, _WIDTH = frozenset({"h", "height", "image_height"}), frozenset({"w", "width", "image_width"})
_CHANNELS = frozenset({1, 2, 3, 4})
_RANK = len(("N", "C", "H", "W"))


def free(specs: Sequence[TensorSpec]) -> dict[str, tuple[str, int]]:
    """The symbols of the dimensions that are free, each with the first input and axis where it stands.

    The batch is none of them, nor is a term of others (``past + 1``), whose size follows from theirs.
    """
    _, axes = batch(specs)
    found: dict[str, tuple[str, int]] = {}
    for spec in specs:
        for axis, dim in enumerate(spec.shape or ()):
            if isinstance(dim, str) and axis not in axes.get(spec.name, ()):
                found.setdefault(dim, (spec.name, axis))
    names = {name: 2 for name in found if name.isidentifier()}
    return {symbol: place for symbol, place in found.items() if symbol in names or term(symbol, names) is None}


def term(text: str, sizes: Mapping[str, int]) -> int | None:
    """The size of a dimension that is written as a term of others; ``None`` where it is none, or below 1."""
    if text in sizes:
        return sizes[text]
    try:
        value = _value(ast.parse(text, mode="eval").body, sizes) if len(text) <= LONGEST_TERM else None
    except (SyntaxError, ValueError, KeyError, ZeroDivisionError, RecursionError, MemoryError):
        return None
    return value if value is not None and value > 0 else None


def _value(node: ast.expr, sizes: Mapping[str, int]) -> int:
    if isinstance(node, ast.Name):
        return sizes[node.id]
    if isinstance(node, ast.Constant) and isinstance(node.value, int) and not isinstance(node.value, bool):
        return node.value
    if isinstance(node, ast.BinOp):
        left, right = _value(node.left, sizes), _value(node.right, sizes)
        if isinstance(node.op, ast.Add):
            return left + right
        if isinstance(node.op, ast.Sub):
            return left - right
        if isinstance(node.op, ast.Mult):
            return left * right
        if isinstance(node.op, ast.FloorDiv):
            return left // right
    raise ValueError("no term of sizes")


def images(specs: Sequence[TensorSpec]) -> list[tuple[str, int, int]]:
    """(Input, axis of its height, axis of its width) of every input that is like images, or names the two."""
    found = []
    for spec in specs:
        shape = spec.shape or ()
        named = [
            next((i for i, dim in enumerate(shape) if isinstance(dim, str) and dim.lower() in names), None)
            for names in (_HEIGHT, _WIDTH)
        ]
        if named[0] is not None and named[1] is not None:
            found.append((spec.name, named[0], named[1]))
        elif len(shape) == _RANK and shape[1] in _CHANNELS:
            found.append((spec.name, 2, 3))
        elif len(shape) == _RANK and shape[3] in _CHANNELS:
            found.append((spec.name, 1, 2))
    return found


def candidates(specs: Sequence[TensorSpec], known: Mapping[str, int]) -> list[Sizes]:
    """What is tried for the free dimensions that are not ``known``, the smallest first."""
    open_ = [symbol for symbol in free(specs) if symbol not in known]
    shapes = {spec.name: [known.get(d, d) if isinstance(d, str) else d for d in spec.shape or ()] for spec in specs}
    pairs = [(shapes[name][high], shapes[name][wide]) for name, high, wide in images(specs)]
    pairs = [pair for pair in pairs if any(dim in open_ for dim in pair)]
    symbols = {dim for pair in pairs for dim in pair if isinstance(dim, str)}
    of_images = _together([_of_image(*pair) for pair in pairs])
    of_others = _of_others([symbol for symbol in open_ if symbol not in symbols])
    return list(islice(_each_with_each(of_images, of_others), MOST_TRIES))


def _of_image(high: Dim, wide: Dim) -> list[Sizes]:
    if isinstance(high, str) and isinstance(wide, str):
        if high == wide:
            return [{high: side} for side, other in IMAGES if side == other]
        return [{high: h, wide: w} for h, w in IMAGES]
    return [{high: h} for h in HEIGHTS] if isinstance(high, str) else [{str(wide): w} for w in WIDTHS]


def _together(lists: Sequence[Sequence[Sizes]]) -> list[Sizes]:
    """The sizes of several images, those at the same place together; what stands in two of them is the first's."""
    longest = max(map(len, lists), default=0)
    return [
        {symbol: size for several in reversed(lists) for symbol, size in several[min(i, len(several) - 1)].items()}
        for i in range(longest)
    ]


def _of_others(symbols: Sequence[str]) -> list[Sizes]:
    """All at one size; second, each at another, so that one that was taken for another is seen."""
    if not symbols:
        return []
    equal = [dict.fromkeys(symbols, size) for size in OTHERS]
    if len(symbols) == 1:
        return equal
    return [equal[0], {symbol: OTHERS[i % 4] for i, symbol in enumerate(symbols)}, *equal[1:]]


def _each_with_each(one: Sequence[Sizes], other: Sequence[Sizes]) -> Iterator[Sizes]:
    if not one or not other:
        yield from (*one, *other)
        return
    for total in range(len(one) + len(other) - 1):
        yield from (one[i] | other[total - i] for i in range(len(one)) if 0 <= total - i < len(other))
