"""Samples that the user gave: read from where they are, and held against what the model takes."""

from __future__ import annotations

import importlib.util
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_modelformats.errors import SourceError
from pytest_modelformats.schema.names import suggest
from pytest_modelformats.settings.references import split_reference
from pytest_modelformats.source.batch_axes import ANONYMOUS, batch

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy as np

    from pytest_modelformats.schema import TensorSpec


def read_arrays(data: str, search_path: Sequence[str]) -> tuple[dict[str, np.ndarray], str]:
    """The arrays by name, and what messages call the place they come from.

    Raises: SourceError.
    """
    path = Path(data)
    if path.is_dir():
        return _from_folder(path), path.name
    if path.is_file():
        return _from_archive(path), path.name
    reference = split_reference(data)
    if reference is None:
        msg = f"there is no file or folder {data}; give --mf-data an .npz, a folder of <input>.npy or module:callable"
        raise SourceError(msg)
    return _from_callable(*reference, search_path), f"{Path(reference[0]).name}:{reference[1]}"


def _from_archive(path: Path) -> dict[str, np.ndarray]:
    import zipfile
    import zlib

    import numpy as np

    try:
        if not zipfile.is_zipfile(path):
            msg = f"{path.name} is no .npz archive; write one with numpy.savez(path, **arrays), one array per input"
            raise SourceError(msg)
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, KeyError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        msg = f"{path.name} cannot be read as arrays: {error}; write it again with numpy.savez"
        raise SourceError(msg) from error
    return _only_arrays(arrays, path.name)


def _from_folder(path: Path) -> dict[str, np.ndarray]:
    import numpy as np

    try:
        arrays = {file.stem: np.load(file, allow_pickle=False) for file in sorted(path.glob("*.npy"))}
    except (OSError, ValueError, EOFError, MemoryError) as error:
        msg = f"the .npy files of {path} cannot be read as arrays: {error}; write them again with numpy.save"
        raise SourceError(msg) from error
    if not arrays:
        msg = f"the folder {path} holds no .npy file; save one <input>.npy per input there"
        raise SourceError(msg)
    return _only_arrays(arrays, path.name)


def _from_callable(module: str, attribute: str, search_path: Sequence[str]) -> dict[str, np.ndarray]:
    name = f"{module}:{attribute}"
    with _importing_from(search_path):
        try:
            target: Any = _module(module)
            for part in attribute.split("."):
                target = getattr(target, part)
            arrays = target()
        except MemoryError:
            raise  # an outcome of its own
        except Exception as error:  # the user's own code may raise anything
            msg = f"the samples of {name} could not be loaded: {type(error).__name__}: {error}"
            raise SourceError(msg) from error
    if not isinstance(arrays, dict):
        msg = f"{name} returned a {type(arrays).__name__}; it has to return a dict with one array per input"
        raise SourceError(msg)
    return _only_arrays(arrays, name)


def _module(module: str) -> Any:
    """The module, by its name or from its file; a file is not registered, so two of one name do not clash."""
    if not module.endswith(".py"):
        return importlib.import_module(module)
    spec = importlib.util.spec_from_file_location(Path(module).stem, module)
    if spec is None or spec.loader is None:
        msg = f"there is no Python file {module}"
        raise ImportError(msg)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@contextmanager
def _importing_from(folders: Sequence[str]) -> Iterator[None]:
    before = list(sys.path)
    sys.path[:0] = [folder for folder in folders if folder not in before]
    try:
        yield
    finally:
        sys.path[:] = before


def _only_arrays(arrays: Mapping[str, Any], origin: str) -> dict[str, np.ndarray]:
    import numpy as np

    found = {}
    for name, value in arrays.items():
        array = np.asarray(value)
        if array.dtype.kind not in "biuf" and name != "labels":
            msg = f"{origin}: '{name}' holds {array.dtype.name}; only numbers and booleans can be fed to a model"
            raise SourceError(msg)
        found[str(name)] = array
    return found


def checked_feed(arrays: Mapping[str, np.ndarray], specs: Sequence[TensorSpec], origin: str) -> dict[str, np.ndarray]:
    """One array per input, in the model's order, each what its input takes.

    With a fixed batch, the first dimension may be a multiple of the stated one. Raises: SourceError.
    """
    names = [spec.name for spec in specs]
    for name in arrays:
        if name not in names:
            msg = f"{origin} has an array '{name}', which is no input of the model{suggest(name, names)}"
            raise SourceError(msg)
    for spec in specs:
        if spec.name not in arrays:
            held = ", ".join(arrays) or "no array"
            msg = f"{origin} has no array for the input {spec}; it holds {held}"
            raise SourceError(msg)
    feed = {spec.name: _native(arrays[spec.name], spec, origin) for spec in specs}
    _check_shapes(feed, specs, origin)
    return feed


def row_count(feed: Mapping[str, np.ndarray], axes: Mapping[str, tuple[int, ...]], origin: str) -> int:
    """The number of samples, the same for every input that carries the batch; raises SourceError."""
    counts = {name: int(feed[name].shape[along[0]]) for name, along in axes.items()}
    if len(set(counts.values())) > 1 or not all(counts.values()):
        shown = ", ".join(f"'{name}' {count}" for name, count in counts.items())
        msg = f"{origin} has to hold the same number of samples, at least 1, for every input; it holds {shown}"
        raise SourceError(msg)
    return next(iter(counts.values()))


def split(
    feed: Mapping[str, np.ndarray], specs: Sequence[TensorSpec], origin: str
) -> tuple[dict[str, np.ndarray], ...]:
    """Feeds of the fixed batch; an input that already has its stated shape is in all of them. Raises SourceError."""
    parts = {
        spec.name: feed[spec.name].shape[0] // spec.shape[0]
        for spec in specs
        if spec.shape and isinstance(spec.shape[0], int) and feed[spec.name].shape[0] != spec.shape[0]
    }
    if len(set(parts.values())) > 1:
        shown = ", ".join(f"{count} for '{name}'" for name, count in parts.items())
        msg = f"{origin} has a different number of batches for each input: {shown}; make them equal"
        raise SourceError(msg)
    sizes = {name: len(feed[name]) // count for name, count in parts.items()}
    return tuple(
        {
            name: array[part * sizes[name] : (part + 1) * sizes[name]] if name in sizes else array
            for name, array in feed.items()
        }
        for part in range(next(iter(parts.values()), 1))
    )


def _native(array: np.ndarray, spec: TensorSpec, origin: str) -> np.ndarray:
    """The array in native byte order; its dtype, rank and values are what the input takes."""
    import numpy as np

    wanted = "float32" if spec.dtype == "bfloat16" else spec.dtype
    if array.dtype.name != wanted:
        msg = (
            f"{origin}: '{spec.name}' is {array.dtype.name}, the model takes {spec.dtype}; "
            f"save it with .astype('{wanted}')"
        )
        raise SourceError(msg)
    if array.ndim != len(spec.shape or ()):
        raise _wrong_shape(array, spec, origin)
    if spec.low is not None and spec.high is not None and array.size:
        low, high = array.min(), array.max()
        if low < spec.low or high > spec.high:
            msg = f"{origin}: '{spec.name}' has values from {low} to {high}, the model takes {spec}"
            raise SourceError(msg)
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("=")).reshape(array.shape)


def _check_shapes(feed: Mapping[str, np.ndarray], specs: Sequence[TensorSpec], origin: str) -> None:
    bound: dict[str, tuple[int, str]] = {}
    batched = not batch(specs)[0]
    for spec in specs:
        array = feed[spec.name]
        for axis, (dim, size) in enumerate(zip(spec.shape or (), array.shape, strict=True)):
            if isinstance(dim, int):
                if size != dim and not (batched and axis == 0 and size and size % dim == 0):
                    raise _wrong_shape(array, spec, origin)
            elif dim not in ANONYMOUS:
                known, name = bound.setdefault(dim, (size, spec.name))
                if known != size:
                    msg = f"{origin}: the dimension {dim} is {known} in '{name}' and {size} in '{spec.name}'"
                    raise SourceError(msg)


def _wrong_shape(array: np.ndarray, spec: TensorSpec, origin: str) -> SourceError:
    return SourceError(f"{origin}: '{spec.name}' has the shape {list(array.shape)}, the model takes {spec}")


def whole_labels(labels: np.ndarray, count: int, origin: str) -> np.ndarray:
    """The labels of ``count`` samples as whole numbers; those of one column, or one-hot, keep their shape.

    Raises: SourceError.
    """
    import numpy as np

    if not labels.ndim or len(labels) != count:
        msg = f"{origin} has labels of shape {list(labels.shape)} for {count} samples; give one per sample"
        raise SourceError(msg)
    number = labels.dtype.kind in "biuf" and bool(np.all(np.isfinite(labels)))
    if not number or bool(np.any(labels != np.trunc(labels))):
        what = f"such as {labels.flat[0]!s:.40}" if labels.size else labels.dtype.name
        kinds = {"f": "numbers that are not whole", "U": "text", "S": "text"}
        what = f"{kinds.get(labels.dtype.kind, labels.dtype.name)}, {what}"
        msg = f"{origin}: 'labels' holds {what}; give the number of each sample's class, counted from 0"
        raise SourceError(msg)
    return labels.astype(np.int64)


def class_labels(labels: np.ndarray, classes: int, origin: str) -> np.ndarray:
    """One class per sample, of those that a classifier's output has; one-hot rows become the class that they mark.

    Shapes: ``labels`` [rows], [rows, 1] or [rows, classes]; the result [rows].

    Raises: SourceError.
    """
    rows = len(labels)
    if labels.shape[1:] == (classes,) and classes > 1:
        if bool((labels.sum(1) != 1).any() or labels.min() < 0):
            msg = f"{origin}: labels of shape {list(labels.shape)} that are not one-hot; give one class per sample"
            raise SourceError(msg)
        return labels.argmax(1)  # type: ignore[no-any-return]
    if labels.size != rows:
        msg = (
            f"{origin}: labels of shape {list(labels.shape)} for a model of {classes} classes; give one class per "
            f"sample, or one-hot rows of {classes}"
        )
        raise SourceError(msg)
    flat = labels.reshape(rows)
    if rows and (flat.min() < 0 or flat.max() >= classes):
        msg = (
            f"{origin}: labels from {flat.min()} to {flat.max()}, and the model's {classes} classes are counted "
            f"from 0 to {classes - 1}; correct them"
        )
        raise SourceError(msg)
    return flat
