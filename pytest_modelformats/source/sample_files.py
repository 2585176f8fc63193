"""Arrays by name, read from an .npz, a folder of .npy, or a callable."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_modelformats.errors import SourceError
from pytest_modelformats.settings.references import split_reference

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy as np


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
