"""What is this file? Decided by its content, never by its name; nothing is executed or loaded."""

from __future__ import annotations

import hashlib
import importlib
from collections import Counter
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_modelformats.errors import ConfigurationError, SourceError
from pytest_modelformats.schema import Source, registry
from pytest_modelformats.schema.names import suggest
from pytest_modelformats.settings.references import importable, safe_name, split_reference
from pytest_modelformats.source.companions import companions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from pytest_modelformats.settings.nouns import ModelEntry, Settings

HEAD_BYTES = 4096
_READ_BYTES = 1 << 20
# What the first bytes say of files that are often given by mistake.
_LOOKS: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "a Git LFS pointer, not the model itself; run 'git lfs pull'"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes it"),
    (b"GGUF", "a GGUF file"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"PK\x03\x04", "a zip archive without a model that is known here"),
    (b"\x1f\x8b", "a gzip archive; unpack it first"),
    (b"BZh", "a bzip2 archive; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive; unpack it first"),
    (b"\x7fELF", "an ELF program or library"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"%PDF", "a PDF document"),
    (b"<!DOCTYPE html", "an HTML page, as a failed download leaves it"),
    (b"<html", "an HTML page, as a failed download leaves it"),
)


@dataclass(frozen=True, slots=True)
class Candidate:
    """An artifact that the user already has, and the names of the sources it is judged against.

    ``stem`` is unique among the candidates. ``device`` is "" where any will do.
    """

    path: Path
    stem: str
    format: str
    kind: str
    precision: str
    device: str
    sources: tuple[str, ...]


def find_sources(settings: Settings) -> tuple[Source, ...]:
    """Every model of the settings, in their order, each with a name of its own; ``sha256`` is left "".

    Raises: SourceError.
    """
    return tuple(source for source, _ in _found(settings))


def find_data(settings: Settings) -> dict[str, str]:
    """Where the samples of each source come from by its name: what ``inputs.load_samples`` takes, or ""."""
    return {source.name: entry.data for source, entry in _found(settings)}


def _found(settings: Settings) -> tuple[tuple[Source, ModelEntry], ...]:
    seen: dict[tuple[object, ...], tuple[Source, ModelEntry]] = {}
    for entry in settings.models:
        for source in _sources(entry, settings):
            key = (source.location, entry.name, source.arch, source.inputs, entry.data)
            seen.setdefault(key, (source, entry))
    given = [source.name if entry.name else "" for source, entry in seen.values()]
    names = _unique([source.name for source, _ in seen.values()], taken=given)
    return tuple(
        (replace(source, name=name), entry) for (source, entry), name in zip(seen.values(), names, strict=True)
    )


def _sources(entry: ModelEntry, settings: Settings) -> Iterator[Source]:
    arch, arch_path = importable(entry.arch)
    common: dict[str, Any] = {"arch": arch, "trust": entry.trust, "inputs": entry.inputs}
    reference = split_reference(entry.location)
    if reference and not Path(entry.location).exists():
        location, first = importable(entry.location)
        search = tuple(dict.fromkeys((*first, *arch_path, *settings.search_path)))
        name = entry.name or safe_name(reference[1].rpartition(".")[2])
        yield Source(name, location, "factory", "pytorch", search_path=search, **common)
        return
    search = tuple(dict.fromkeys((*arch_path, *settings.search_path)))
    path = Path(entry.location)
    files = _models_in(path) if path.is_dir() else [(path, *identify(path))]
    for file, form, kind in files:
        stem = safe_name(file.stem)
        name = stem if not entry.name else entry.name if len(files) == 1 else f"{entry.name}_{stem}"
        if entry.golden and form != "golden":
            msg = f"--mf-golden: {path} is no golden bundle but a model in {form}; give it by --mf-model"
            raise SourceError(msg)
        yield Source(name, str(file), kind, form, search_path=search, precision=_precision(file, form), **common)


def _precision(path: Path, form: str) -> str:
    """The precision that the numbers of a file are written down in."""
    stated = getattr(importlib.import_module(registry.formats()[form].module), "precision", None)
    if stated is None:
        return "fp32"
    status = path.stat()
    return _precision_of(stated, str(path), status.st_size, status.st_mtime_ns)


@cache
def _precision_of(stated: Callable[[Path], str], path: str, _size: int, _mtime_ns: int) -> str:
    return stated(Path(path))


def _unique(names: Sequence[str], taken: Iterable[str] = ()) -> list[str]:
    """The names, repeated ones numbered from 2; those in ``taken`` (by position) keep theirs.

    Raises: ConfigurationError where two of ``taken`` are the same.
    """
    fixed = list(taken) or [""] * len(names)
    twice = [name for name, count in Counter(filter(None, fixed)).items() if count > 1]
    if twice:
        msg = f"two models are called '{twice[0]}'; give one of them another name"
        raise ConfigurationError(msg)
    used = set(filter(None, fixed))
    result = []
    for name, own in zip(names, fixed, strict=True):
        unique, number = name, 2
        while not own and unique in used:
            unique, number = f"{name}_{number}", number + 1
        used.add(unique)
        result.append(unique)
    return result


def find_candidates(settings: Settings) -> tuple[Candidate, ...]:
    """Every candidate of the settings, each with the sources that it is judged against.

    Raises: SourceError; ConfigurationError where it is not clear which model it is.
    """
    if not settings.candidates:
        return ()
    sources = tuple(source.name for source in find_sources(settings))
    stems = _unique([safe_name(entry.path.stem) for entry in settings.candidates])
    found = []
    for entry, stem in zip(settings.candidates, stems, strict=True):
        name = entry.path.name
        if not sources:
            msg = f"the candidate '{name}' has no model to be judged against; add --mf-model"
            raise ConfigurationError(msg)
        if entry.model and entry.model not in sources:
            msg = f"the candidate '{name}' names an unknown model '{entry.model}'{suggest(entry.model, sources)}"
            raise ConfigurationError(msg)
        if not entry.model and len(sources) > 1:
            msg = (
                f"the candidate '{name}' could be any of {', '.join(sources)}; "
                f"say which: --mf-candidate {name},model={sources[0]}"
            )
            raise ConfigurationError(msg)
        form, kind = identify(entry.path)
        judged = (entry.model,) if entry.model else sources
        found.append(Candidate(entry.path, stem, form, kind, entry.precision, entry.device, judged))
    return tuple(found)


def _models_in(folder: Path) -> list[tuple[Path, str, str]]:
    """The models that lie in a folder, by name; other files are passed over.

    Raises: SourceError where there is none, or where one is damaged.
    """
    models = []
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        msg = f"the folder {folder} cannot be read: {error.strerror}"
        raise SourceError(msg) from error
    for path in paths:
        if path.is_file() and not path.name.startswith(".") and path.stat().st_size:
            found = _sniff(path, _head(path))
            if found:
                models.append((path, *found))
    if not models:
        msg = f"the folder {folder} holds no model; accepted are {accepted()}"
        raise SourceError(msg)
    return models


def identify(path: Path) -> tuple[str, str]:
    """The format and the source kind of a file.

    Raises: SourceError, in one sentence that says what the file looks like and what is accepted.
    """
    if not path.exists():
        link = " (a link that points nowhere)" if path.is_symlink() else ""
        msg = f"there is no file {path}{link}; give a file, a folder of models or module:callable"
        raise SourceError(msg)
    if not path.is_file():
        msg = f"{path} is {'a folder' if path.is_dir() else 'no regular file'}; give a file"
        raise SourceError(msg)
    head = _head(path)
    if not head:
        msg = f"{path} is empty (0 bytes); export or copy the model again"
        raise SourceError(msg)
    found = _sniff(path, head)
    if found is None:
        msg = f"{path} looks like {_looks_like(head)}; accepted are {accepted()}"
        raise SourceError(msg)
    return found


def accepted() -> str:
    """The formats that a source may have, in words."""
    return ", ".join(form.title for form in registry.formats().values())


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(HEAD_BYTES)
    except OSError as error:
        msg = f"{path} cannot be read: {error.strerror}"
        raise SourceError(msg) from error


def _sniff(path: Path, head: bytes) -> tuple[str, str] | None:
    """The format and kind that a format's file claims, ``None`` where none does."""
    claims = []
    for form in registry.formats().values():
        kind = importlib.import_module(form.module).sniff(path, head)
        if kind:
            claims.append((form.name, kind))
    if len(claims) > 1:
        msg = f"{path} is claimed by several formats: {', '.join(name for name, _ in claims)}; report this as a bug"
        raise SourceError(msg)
    return claims[0] if claims else None


def _looks_like(head: bytes) -> str:
    """What a file looks like from its first bytes, in words."""
    for magic, words in _LOOKS:
        if head.startswith(magic):
            return words
    if head[4:8] == b"TFL3":
        return "a TensorFlow Lite model"
    if not head.strip(b"\0"):
        return "a file of zero bytes, as an interrupted download leaves it"
    text = head[:-3].decode("utf-8", "replace") if len(head) == HEAD_BYTES else head.decode("utf-8", "replace")
    if all(character.isprintable() or character in "\r\n\t" for character in text):
        first = (text.strip().splitlines() or [""])[0]
        return f"text that begins with '{first[:40]}'"
    return f"binary data that begins with {head[:8].hex(' ')}"


def content_hash(source: Source) -> str:
    """SHA-256 of everything in the source's files, "" for a factory.

    For a single file it is what ``sha256sum`` prints; companions (an OpenVINO ``.bin``, ONNX
    external data) enter by name and content.

    Raises: SourceError where a companion is missing or lies outside the model's folder.
    """
    if source.kind == "factory":
        return ""
    path = Path(source.location)
    others = companions(path, source.format)
    if not others:
        return _file_hash(path)
    digest = hashlib.sha256(_file_hash(path).encode())
    for other in others:
        digest.update(f"\n{other.relative_to(path.parent).as_posix()}\0{_file_hash(other)}".encode())
    return digest.hexdigest()


def _file_hash(path: Path) -> str:
    try:
        status = path.stat()
        return _hash_of(str(path), status.st_size, status.st_mtime_ns)
    except OSError as error:
        msg = f"{path} cannot be read: {error.strerror}"
        raise SourceError(msg) from error


@cache
def _hash_of(path: str, _size: int, _mtime_ns: int) -> str:
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while chunk := file.read(_READ_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
