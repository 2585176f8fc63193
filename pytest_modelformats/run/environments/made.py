"""Environments with other versions: made on request, kept by what is in them, never the user's own."""

from __future__ import annotations

import re
import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from pytest_modelformats.errors import CacheError, ConfigurationError, EnvironmentUnavailable
from pytest_modelformats.run.environments import install
from pytest_modelformats.run.environments import store as environment_store
from pytest_modelformats.run.once import remember
from pytest_modelformats.schema import Environment
from pytest_modelformats.settings import environments
from pytest_modelformats.settings.nouns import EnvironmentEntry as Declared

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
    from pathlib import Path

    from pytest_modelformats.settings.nouns import Settings

    Progress = Callable[[str], Callable[[float], None] | None]

# What a version may hold and the name of an environment may not, such as the + of a local version; and so much of a
# name that a number still fits behind it.
_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9._-]")
_LONGEST = 36


@dataclass(frozen=True, slots=True)
class Ready:
    """An environment that is there. ``versions`` is everything installed in it, ``made`` whether it was made just now.

    ``folder`` is where it was made, ``None`` where it is one of the user's that is used as it is.
    """

    name: str
    requirements: tuple[str, ...]
    interpreter: str
    python: str
    versions: Mapping[str, str]
    folder: Path | None = None
    made: bool = False
    seconds: float = 0.0

    @property
    def environment(self) -> Environment:
        """The interpreter that workers run under."""
        return Environment(self.name, self.interpreter)

    def stated(self) -> dict[str, Any]:
        """What a record says of it."""
        return {"requirements": list(self.requirements), "versions": dict(self.versions), "python": self.python}

    def requires(self, name: str) -> bool:
        """Whether its requirements name a distribution."""
        return canonicalize_name(name) in {canonicalize_name(Requirement(text).name) for text in self.requirements}

    def has(self, versions: Mapping[str, str]) -> bool:
        """Whether it holds exactly these versions."""
        own = {canonicalize_name(name): version for name, version in self.versions.items()}
        return all(own.get(canonicalize_name(name)) == version for name, version in versions.items())


@dataclass(frozen=True, slots=True)
class Made:
    """A folder of the cache with an environment; ``whole`` is false for a half-made or changed one."""

    folder: Path
    whole: bool
    requirements: tuple[str, ...] = ()
    python: str = ""


class Environments:
    """The environments of a run, each made when it is first asked for; one that cannot be made is not tried again."""

    def __init__(self, settings: Settings, progress: Progress) -> None:
        """Make nothing yet."""
        self._settings = settings
        self._progress = progress
        self._memo: dict[str, Any] = {}

    def ready(self, name: str) -> Ready:
        """One that is there, made if need be; raises ConfigurationError."""
        return remember(self._memo, name, lambda: ready(self._settings, name, self._progress))

    def of(self, name: str) -> Environment:
        """The interpreter for a cell's environment, pytest's own for ""; raises ConfigurationError."""
        return self.ready(name).environment if name else Environment()

    def required(self, name: str) -> dict[str, str]:
        """The versions there of what its requirements name, numpy among them; none where it is not there."""
        if not name:
            return {}
        entry = _entry(self._settings, name)
        stated = self._stated(name)["versions"]
        versions: dict[str, str] = {canonicalize_name(found): version for found, version in stated.items()}
        named = sorted({environments.ALWAYS, *environments.distributions(entry)})
        return {distribution: versions[distribution] for distribution in named if distribution in versions}

    def stated(self, names: Iterable[str]) -> dict[str, Any]:
        """What the record's header says of each; ``problem`` where one cannot be made, which is its cells' affair."""
        found: dict[str, Any] = {}
        for name in sorted({name for name in names if name}):
            found[name] = self._stated(name)
        return found

    def _stated(self, name: str) -> dict[str, Any]:
        try:
            return self.ready(name).stated()
        except (ConfigurationError, CacheError) as error:
            required = environments.complete(_entry(self._settings, name))
            return {
                "requirements": [*map(install.without_secrets, required)],
                "versions": {},
                "python": "",
                "problem": str(error),
            }


def declared(settings: Settings) -> tuple[Declared, ...]:
    """The environments that the command line or the configuration ask for."""
    return settings.environments


def ready(settings: Settings, name: str, progress: Progress | None = None) -> Ready:
    """One of the declared environments is there, made if need be.

    Raises: ConfigurationError (offline, no such version, a broken interpreter …), CacheError.
    """
    return prepared(settings, _entry(settings, name), progress)


def prepared(settings: Settings, entry: Declared, progress: Progress | None = None) -> Ready:
    """An environment is there, made if need be; it need not be declared.

    Raises: ConfigurationError, CacheError.
    """
    if entry.interpreter:
        return _existing(entry)
    required = environments.complete(entry)
    folder = environment_store.folder_of(settings, entry)
    found = environment_store.read(folder)
    if found is not None:
        return _ready(entry, folder, found)
    show = (
        progress(f"making the environment {entry.name}: {install.without_secrets(', '.join(required))}")
        if progress
        else None
    )
    started = time.monotonic()
    with environment_store.locked(folder, settings.timeout_s, show):
        found = environment_store.read(folder)
        if found is not None:
            return _ready(entry, folder, found)
        environment_store.make(settings, entry, required, folder, show)
        found = environment_store.read(folder)
    if found is None:
        raise environment_store.unavailable(entry, "pip", f"{folder} is not whole after it was made")
    return _ready(entry, folder, found, made=True, seconds=time.monotonic() - started)


def having(settings: Settings, versions: Mapping[str, str]) -> Ready | None:
    """A declared or already made environment in which those distributions have exactly those versions, if there is one.

    A declared one whose requirements allow them is made for it. Raises: CacheError.
    """
    if not versions:
        return None
    for folder in environment_store.folders(settings):
        found = environment_store.read(folder)
        if found is not None:
            name = next((e.name for e in settings.environments if is_in(settings, e, folder)), folder.name[:12])
            there = _ready(Declared(name, tuple(found["requirements"])), folder, found)
            if there.has(versions):
                return there
    for entry in settings.environments:
        if _allows(entry, versions):
            try:
                there = ready(settings, entry.name)
            except ConfigurationError:
                continue
            if there.has(versions):
                return there
    return None


def none_has(settings: Settings, versions: Mapping[str, str]) -> str:
    """Why :func:`having` finds none, and the option with which the next run has one; makes nothing."""
    if not versions:
        return "no version of its runtime is recorded"
    named = ", ".join(f"{name} {version}" for name, version in versions.items())
    allowing = next((entry for entry in settings.environments if _allows(entry, versions)), None)
    if allowing is not None:
        return (
            f"{named} is not installed here, and the declared environment '{allowing.name}', which allows it, has "
            "another version or cannot be made; 'modelformats env create' says which"
        )
    why = f"{named} is not installed here, nor in a declared environment"
    option = _option({entry.name for entry in settings.environments}, versions)
    return f"{why}; add {option} and it is measured there, now" if option else why


def _option(taken: Collection[str], versions: Mapping[str, str]) -> str:
    """``--mf-env 'onnxruntime-1.26.0=onnxruntime==1.26.0'``; nothing for a version that pip would not understand.

    The versions come from a record, and the option goes into a shell: both halves are what ``packaging`` has read.
    """
    try:
        required = [str(Requirement(f"{name}=={Version(version)}")) for name, version in versions.items()]
    except (InvalidRequirement, InvalidVersion):
        return ""
    package, version = next(iter(versions.items()))
    name = _NOT_IN_A_NAME.sub(".", f"{package}-{version}")[:_LONGEST]
    name = next(n for n in (name, *(f"{name}-{more}" for more in range(2, len(taken) + 3))) if n not in taken)
    return f"--mf-env '{name}={' '.join(required)}'"


def made(settings: Settings) -> Iterator[Made]:
    """Every environment in the cache, also those that are half-made."""
    for folder in environment_store.folders(settings):
        found = environment_store.read(folder)
        if found is None:
            yield Made(folder, whole=False)
        else:
            yield Made(folder, whole=True, requirements=tuple(found["requirements"]), python=found["python"])


def remove(settings: Settings, folder: Path) -> None:
    """The environment is no longer in the cache; raises CacheError."""
    with environment_store.locked(folder, settings.timeout_s, None):
        (folder / environment_store.MARKER).unlink(
            missing_ok=True
        )  # first, so that what is left of it is known to be no whole one
        shutil.rmtree(folder, ignore_errors=True)


def is_in(settings: Settings, entry: Declared, folder: Path) -> bool:
    """Whether a folder of the cache is a declared environment's; one whose interpreter does not start has none."""
    try:
        return not entry.interpreter and environment_store.folder_of(settings, entry) == folder
    except ConfigurationError:
        return False


def is_made(settings: Settings, entry: Declared) -> bool:
    """Whether an environment is there; nothing is made, raises nothing."""
    if entry.interpreter:
        return shutil.which(entry.interpreter) is not None
    try:
        return environment_store.read(environment_store.folder_of(settings, entry)) is not None
    except ConfigurationError:
        return False


def _entry(settings: Settings, name: str) -> Declared:
    found = next((entry for entry in settings.environments if entry.name == name), None)
    if found is None:
        known = ", ".join(entry.name for entry in settings.environments) or "none"
        raise ConfigurationError(f"there is no environment '{name}' (declared are: {known}); declare it with --mf-env")
    return found


def _existing(entry: Declared) -> Ready:
    """An environment of the user's, used as it is; raises EnvironmentUnavailable where it is not what was asked for."""
    python = shutil.which(entry.interpreter) or entry.interpreter
    try:
        version, versions = install.look(python, environment_store.INSTALLED)
    except install.Failed as failed:
        msg = f"the environment '{entry.name}' cannot be used: {failed}; correct its 'interpreter'"
        raise EnvironmentUnavailable(msg) from None
    found = Ready(entry.name, entry.requirements, python, version, versions)
    own = {canonicalize_name(name): text for name, text in versions.items()}
    for text in environments.complete(entry):
        wanted = Requirement(text)
        has = own.get(canonicalize_name(wanted.name))
        if has is None or not wanted.specifier.contains(has, prereleases=True):
            what = f"has {wanted.name} {has}" if has else f"has no {wanted.name}"
            msg = f"the environment '{entry.name}' ({python}) {what} where {text} is asked for; install it there"
            raise EnvironmentUnavailable(f"{msg}: {python} -m pip install '{text}'")
    return found


def _allows(entry: Declared, versions: Mapping[str, str]) -> bool:
    """Whether the requirements name one of the distributions, and none of them in another version."""
    wanted = {canonicalize_name(name): version for name, version in versions.items()}
    named = [r for r in map(Requirement, entry.requirements) if canonicalize_name(r.name) in wanted]
    return bool(named) and all(r.specifier.contains(wanted[canonicalize_name(r.name)], prereleases=True) for r in named)


def _ready(
    entry: Declared, folder: Path, facts: Mapping[str, Any], *, made: bool = False, seconds: float = 0.0
) -> Ready:
    interpreter = str(folder / "bin" / "python")
    required = tuple(facts["requirements"])
    return Ready(entry.name, required, interpreter, facts["python"], facts["versions"], folder, made, seconds)
