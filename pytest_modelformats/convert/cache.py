"""Content-addressed artifacts, shared by processes and runs.

An entry is a folder named by the SHA-256 of everything that decides its content. It is
written aside and moved into place, verified when it is read, and built once even when
several processes want it at the same moment (a lock file per key).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import uuid
import warnings
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from pytest_modelformats.errors import CacheError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

METADATA = "metadata.json"
_READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Entry:
    """A finished entry: its folder, its provenance, and whether it was made just now."""

    key: str
    folder: Path
    metadata: Mapping[str, Any]
    made: bool
    damaged: str = ""


def key_of(parts: Mapping[str, Any]) -> str:
    """SHA-256 over plain values, independent of the order of keys."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while chunk := handle.read(_READ_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


class Cache:
    """A folder of entries."""

    def __init__(self, folder: Path, *, write: bool = True) -> None:
        """Make sure that the folder can be written, unless it is only read; raises CacheError."""
        self.folder = folder
        if not write:
            return
        probe = folder / f".probe-{uuid.uuid4().hex}"
        try:
            (folder / "tmp").mkdir(parents=True, exist_ok=True)
            (folder / "locks").mkdir(exist_ok=True)
            probe.write_bytes(b"x" * 4096)
            probe.unlink()
        except OSError as error:
            with contextlib.suppress(OSError):
                probe.unlink()
            raise _unusable(folder, error) from None

    def compiled(self, cpu_flags: Iterable[str]) -> Path:
        """The absolute folder of what compilers inside the runtimes make: machine code, so one per kind of CPU."""
        kind = hashlib.sha256(" ".join(cpu_flags).encode()).hexdigest()[:16]
        return self.folder.absolute() / "compiled" / kind

    def get_or_make(self, key: str, provenance: Mapping[str, Any], make: Callable[[Path], Mapping[str, Any]]) -> Entry:
        """The entry for a key; ``make`` fills a folder and returns facts if there is none yet.

        Raises: CacheError when the folder cannot be written; whatever ``make`` raises.
        """
        entry, damaged = self._read(key)
        if entry is not None:
            return entry
        import filelock

        with filelock.FileLock(str(self.folder / "locks" / f"{key}.lock")):
            entry, damage_seen_again = self._read(key)
            if entry is not None:
                return entry
            return self._make(key, provenance, make, damaged or damage_seen_again)

    def find(self, key: str) -> Entry | None:
        """The entry for a key, verified; ``None`` where it is not there or damaged."""
        return self._read(key)[0]

    def look(self, key: str) -> tuple[Entry | None, str]:
        """As :meth:`find`, and what is wrong with the entry; "" where it is whole or not there."""
        return self._read(key)

    def entries(self) -> Iterator[Entry]:
        """Every entry by what its metadata says, its files not verified; ``damaged`` where that cannot be read."""
        for path in sorted((self.folder / "artifacts").glob(f"*/*/{METADATA}")):
            folder = path.parent
            try:
                metadata = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError, RecursionError) as error:
                yield Entry(folder.name, folder, {}, made=False, damaged=f"{type(error).__name__}: {error}")
                continue
            if isinstance(metadata, dict):
                yield Entry(folder.name, folder, metadata, made=False)
            else:
                yield Entry(folder.name, folder, {}, made=False, damaged=f"{METADATA} holds no object")

    def _path(self, key: str) -> Path:
        return self.folder / "artifacts" / key[:2] / key

    def _read(self, key: str) -> tuple[Entry | None, str]:
        """The entry if it is there and whole; otherwise what is wrong with it ("" if it is just absent)."""
        folder = self._path(key)
        if not folder.exists():
            return None, ""
        try:
            metadata = json.loads((folder / METADATA).read_text(encoding="utf-8"))
            for name, digest in metadata["files"].items():
                if sha256_of(folder / name) != digest:
                    return None, f"{name} does not have the content it was written with"
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            return None, f"{type(error).__name__}: {error}"
        return Entry(key, folder, metadata, made=False), ""

    def _make(
        self, key: str, provenance: Mapping[str, Any], make: Callable[[Path], Mapping[str, Any]], damaged: str
    ) -> Entry:
        aside = self.folder / "tmp" / uuid.uuid4().hex
        final = self._path(key)
        try:
            aside.mkdir(parents=True)
            try:
                facts = make(aside)
            except Exception as error:
                self._blame_the_disk(error)
                raise
            files = {str(p.relative_to(aside)): sha256_of(p) for p in sorted(aside.rglob("*")) if p.is_file()}
            made_at = datetime.now(timezone.utc).isoformat(timespec="seconds")
            metadata = {"key": key, "made_at": made_at, **provenance, "facts": dict(facts), "files": files}
            (aside / METADATA).write_text(json.dumps(metadata, indent=2, allow_nan=False), encoding="utf-8")
            final.parent.mkdir(parents=True, exist_ok=True)
            if final.exists():
                shutil.rmtree(final)
            aside.rename(final)
        except OSError as error:
            raise _unusable(self.folder, error) from error
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        if damaged:
            warnings.warn(
                f"a damaged entry of the cache was discarded and made again: {final}: {damaged}", stacklevel=4
            )
        return Entry(key, final, metadata, made=True, damaged=damaged)

    def _blame_the_disk(self, error: Exception) -> None:
        """A converter that could not write says so in many ways; a full disk is the one cause to name."""
        free = shutil.disk_usage(self.folder).free
        if free < _READ_BYTES or "No space left" in str(error):
            raise _unusable(self.folder, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))) from error


def _unusable(folder: Path, error: OSError) -> CacheError:
    if error.errno == errno.ENOSPC:
        return CacheError(
            f"the cache folder {folder} is on a full disk; free some space or choose another folder with --mf-cache DIR"
        )
    why = (error.strerror or str(error)).lower()
    return CacheError(f"the cache folder {folder} cannot be written ({why}); choose another folder with --mf-cache DIR")
