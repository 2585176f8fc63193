"""The sizes that the metadata of a model file state for its free dimensions.

Sources: ultralytics' exporter writes ``imgsz`` (height, width); the preprocessors of Hugging Face ``size`` and
``crop_size``, with ``height`` and ``width`` or ``shortest_edge``; ``input_shape`` and its like are what exporters of
projects write, a size for each dimension with the batch or without.
"""

from __future__ import annotations

import ast
import json
import re
from typing import TYPE_CHECKING, Any

from pytest_modelformats.schema.sizes import METADATA, Dimension
from pytest_modelformats.source.batch_axes import batch
from pytest_modelformats.source.free_dimensions import free, images

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pytest_modelformats.schema import TensorSpec

# The first that fits counts: what an image is cropped to comes after what it is resized to before.
KEYS = (
    *("imgsz", "imgsize", "imagesize", "inputshape", "inputshapes", "inputsize", "inputdims", "inputresolution"),
    *("imageshape", "cropsize", "targetsize", "size"),
)
# "size" of the whole may be anything (the file's, the batch's): it counts inside of something.
_INSIDE = frozenset({"size"})
# A value of a description, not a document: a longer one is not looked into.
LONGEST = 100_000
_DEPTH = 4
_LARGEST = 1 << 20
_NUMBERS = re.compile(r"\d+(\s*[x×,]\s*\d+){1,4}")


def dimensions(inputs: Sequence[TensorSpec], metadata: Mapping[str, str]) -> tuple[Dimension, ...]:
    """The free dimensions of the inputs whose sizes the metadata state; ``metadata`` is text by key."""
    specs = [spec for spec in inputs if spec.shape is not None]
    places = free(specs)
    found = stated(specs, metadata) if places and metadata else {}
    return tuple(Dimension(symbol, *places[symbol], size, METADATA, by) for symbol, (size, by) in found.items())


def stated(specs: Sequence[TensorSpec], metadata: Mapping[str, str]) -> dict[str, tuple[int, str]]:
    """Of each free dimension that is stated: its size, and the key with the value that state it."""
    symbols = free(specs)
    entries = list(_entries((), {str(k): _read(str(v)) for k, v in metadata.items()}, _DEPTH))
    found: dict[str, tuple[int, str]] = {}
    for path, value in entries:
        symbol = next((s for s in symbols if s.lower() == path[-1].lower() and s.isidentifier()), None)
        of_another = len(path) > 1 and _key(path[-2]) in KEYS  # the height of a crop is the crop's to say
        if symbol is not None and _size(value) and not of_another:
            found[symbol] = int(value), f"{path[-1]} {value}"
    for wanted in KEYS:
        for path, value in entries:
            if _key(path[-1]) == wanted and (wanted not in _INSIDE or len(path) > 1):
                _take(found, [s for s in specs if s.shape], path[-1], value)
            elif len(path) > 1 and _key(path[-2]) == wanted:
                _take(found, [s for s in specs if s.shape and s.name == path[-1]], path[-1], value)
    return {symbol: said for symbol, said in found.items() if symbol in symbols}


def _take(found: dict[str, tuple[int, str]], specs: Sequence[TensorSpec], key: str, value: Any) -> None:
    for spec in specs:
        for symbol, size in _fitted(spec, specs, _dims(value)).items():
            found.setdefault(symbol, (size, f"{key} {json.dumps(value)[:60]}"))


def _fitted(spec: TensorSpec, specs: Sequence[TensorSpec], dims: Sequence[Any]) -> dict[str, int]:
    """The sizes by symbol, {} where the numbers are not those of such an input."""
    shape = spec.shape or ()
    image = next(((high, wide) for name, high, wide in images(specs) if name == spec.name), None)
    axes: tuple[int, ...]
    if len(dims) in {len(shape), len(shape) - 1} and len(dims) > 1:
        axes = tuple(range(len(shape) - len(dims), len(shape)))
    elif image and len(dims) in {1, 2}:
        axes, dims = image, [*dims, dims[0]][:2]
    else:
        return {}
    _, along = batch(specs)
    pairs = [(shape[axis], dim) for axis, dim in zip(axes, dims, strict=True) if axis not in along.get(spec.name, ())]
    if any(isinstance(dim, float) or (isinstance(own, int) and _size(dim) and own != dim) for own, dim in pairs):
        return {}
    return {own: dim for own, dim in pairs if isinstance(own, str) and _size(dim)}


def _dims(value: Any) -> list[Any]:
    if isinstance(value, dict):
        sides = [value.get("height"), value.get("width")]
        return sides if all(map(_size, sides)) else [value.get("shortest_edge")]
    if isinstance(value, (list, tuple)):
        return list(value[0]) if len(value) == 1 and isinstance(value[0], (list, tuple)) else list(value)
    return [value]


def _size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= _LARGEST


def _key(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


def _entries(path: tuple[str, ...], value: Any, depth: int) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every value with the keys that lead to it; a JSON inside of a text was read before."""
    if path:
        yield path, value
    if isinstance(value, dict) and depth:
        for key, inside in value.items():
            yield from _entries((*path, str(key)), inside, depth - 1)


def _read(text: str) -> Any:
    """A value of text as what it writes: JSON, a Python literal, ``640x640``; else the text."""
    text = text.strip()
    if len(text) > LONGEST or not text or text[0] not in "[{(0123456789":
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        pass
    return [int(n) for n in re.findall(r"\d+", text)] if _NUMBERS.fullmatch(text) else text
