"""Environments as they are asked for: names, requirements, and which backends they are about. Nothing is made here."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from pytest_modelformats.errors import ConfigurationError
from pytest_modelformats.schema.names import suggest
from pytest_modelformats.settings.nouns import EnvironmentEntry
from pytest_modelformats.settings.place import Place, check_keys, read_text, read_texts, refusal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pytest_modelformats.schema import Backend

# What runs the workers of every environment; everything else comes from the requirements.
ALWAYS = "numpy"
NONE = "none"
# It ends a cell's id, and stands in the globs of expectations and in pytest's -k.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")
# Between two requirements: a space or comma outside of brackets, before the letter that a package's name begins with.
_BETWEEN = re.compile(r"[\s,]+(?=[A-Za-z])(?![^\[]*\])")
_EXAMPLE = "--mf-env 'ort-1.26=onnxruntime==1.26.0'"


def read_entry(text: str, place: Place) -> EnvironmentEntry:
    """Read ``NAME=REQUIREMENTS``, or ``NAME`` alone for an environment of the configuration.

    Raises: ConfigurationError.
    """
    name, equals, rest = (part.strip() for part in text.partition("="))
    if rest.startswith("=") or name[-1:] in "<>!~":
        msg = f"{place.where}: '{text}' names no environment but a requirement; write NAME={text}, as in {_EXAMPLE}"
        raise ConfigurationError(msg)
    if not equals:
        return EnvironmentEntry(name if name == NONE else _checked_name(name, place))
    if not rest:
        msg = f"{place.where}: '{text}' has no requirements; write {name or 'NAME'}=PACKAGE==VERSION, as in {_EXAMPLE}"
        raise ConfigurationError(msg)
    # Markers and addresses have spaces of their own.
    texts = [rest] if ";" in rest or "@" in rest else _BETWEEN.split(rest)
    return EnvironmentEntry(_checked_name(name, place), requirements(texts, place))


def requirements(texts: Sequence[str], place: Place) -> tuple[str, ...]:
    """The requirements as ``packaging`` writes them; raises ConfigurationError for what is none, or named twice."""
    found: dict[str, str] = {}
    for text in texts:
        try:
            requirement = Requirement(text)
        except InvalidRequirement as error:
            why = str(error).splitlines()[0].strip()
            msg = (
                f"{place.where}: '{text}' is no requirement ({why}); write it as pip does, such as onnxruntime==1.26.0"
            )
            raise ConfigurationError(msg) from None
        name = canonicalize_name(requirement.name)
        if name in found:
            msg = f"{place.where}: {name} is required twice ({found[name]}, {requirement}); keep one"
            raise ConfigurationError(msg)
        found[name] = str(requirement)
    return tuple(found.values())


def selected(table: Mapping[str, Any], place: Place, chosen: Mapping[str, Any]) -> tuple[EnvironmentEntry, ...]:
    """The environments of a run: those that ``env`` names or describes, or else all of ``[environments]``.

    Raises: ConfigurationError.
    """
    declared = {entry.name: entry for entry in _declared(table, place)}
    wanted: Sequence[EnvironmentEntry] = chosen.get("env", tuple(declared.values()))
    names = [entry.name for entry in wanted]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigurationError(f"--mf-env: the environment '{twice}' is asked for twice; keep one of them")
    if NONE in names:
        if len(names) > 1:
            raise ConfigurationError(f"--mf-env: '{NONE}' runs no environment, and others are named beside it")
        return ()
    found = tuple(entry if entry.requirements else _lookup(entry.name, declared) for entry in wanted)
    if found and chosen.get("isolate") == "none":
        raise ConfigurationError(
            "--mf-isolate none runs everything in pytest's own process, which has one version of everything; "
            f"leave it out, or run without environments (--mf-env {NONE})"
        )
    return found


def meeting(entries: Iterable[EnvironmentEntry], backend: Backend) -> tuple[str, ...]:
    """The names of the environments that hold a version of their own of what a backend stands on."""
    stands_on = {canonicalize_name(library) for library in backend.libraries}
    return tuple(entry.name for entry in entries if stands_on & set(distributions(entry)))


def check_met(entries: Iterable[EnvironmentEntry], backends: Sequence[Backend]) -> None:
    """Every environment is about some backend; raises ConfigurationError with what backends stand on."""
    for entry in entries:
        if not any(meeting([entry], backend) for backend in backends):
            known = sorted({library for backend in backends for library in backend.libraries})
            named = ", ".join(entry.requirements)
            msg = (
                f"no backend stands on what the environment '{entry.name}' requires ({named}), so no cell would run "
                f"there; backends stand on {', '.join(known)}"
            )
            raise ConfigurationError(msg)


def distributions(entry: EnvironmentEntry) -> tuple[str, ...]:
    """The distributions that an environment's requirements name, normalised."""
    return tuple(canonicalize_name(Requirement(text).name) for text in entry.requirements)


def complete(entry: EnvironmentEntry) -> tuple[str, ...]:
    """What is to be installed, sorted: the requirements, and numpy where they do not name it."""
    more = () if ALWAYS in distributions(entry) else (ALWAYS,)
    return tuple(sorted((*entry.requirements, *more)))


def _declared(table: Mapping[str, Any], place: Place) -> Iterable[EnvironmentEntry]:
    at = place.at("environments")
    tables = table.get("environments", {})
    if not isinstance(tables, dict):
        raise refusal(at, tables, "a table, one [environments.NAME] for each")
    for name, value in tables.items():
        own = place.at(f"environments.{name}")
        if not isinstance(value, dict):
            raise refusal(own, value, 'a table, such as {requirements = ["onnxruntime==1.26.0"]}')
        check_keys(value, ("requirements", "python", "interpreter"), own.where)
        texts = read_texts(value.get("requirements", []), own.at("requirements"), "a text such as onnxruntime==1.26.0")
        if not texts:
            msg = f'{own.where} has no requirements; add requirements = ["onnxruntime==1.26.0"]'
            raise ConfigurationError(msg)
        if "python" in value and "interpreter" in value:
            msg = (
                f"{own.where} has both 'python', on which an environment is made, and 'interpreter', the one of an "
                "environment that is there; keep one"
            )
            raise ConfigurationError(msg)
        paths = {key: _program(value[key], own.at(key)) for key in ("python", "interpreter") if key in value}
        yield EnvironmentEntry(_checked_name(name, own), requirements(texts, own.at("requirements")), **paths)


def _program(value: object, place: Place) -> str:
    """An absolute path, or a command that ``PATH`` leads to."""
    text = read_text(value, place, "the path of an interpreter")
    if "/" not in text:
        return text
    return str((place.base / Path(text).expanduser()).absolute())


def _lookup(name: str, declared: Mapping[str, EnvironmentEntry]) -> EnvironmentEntry:
    if name not in declared:
        known = suggest(name, declared) if declared else "; none is declared there."
        msg = f"--mf-env: the configuration has no environment '{name}'{known} Say what is in it, as in {_EXAMPLE}"
        raise ConfigurationError(msg)
    return declared[name]


def _checked_name(name: str, place: Place) -> str:
    if _NAME.fullmatch(name) is None or name == NONE:
        msg = (
            f"{place.where}: '{name}' is no name for an environment: it begins with a letter or digit and has up to 40 "
            f"letters, digits, '.', '_' and '-' ('{NONE}' is taken), as in {_EXAMPLE}"
        )
        raise ConfigurationError(msg)
    return name
