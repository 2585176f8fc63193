"""Where a value was written, and what is said of one that cannot be used."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_modelformats.errors import ConfigurationError
from pytest_modelformats.schema.names import suggest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_KINDS = {str: "text", bool: "true or false", int: "a whole number", float: "a number", list: "a list", dict: "a table"}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value was found, for messages; ``base`` is where its relative paths start.

    ``typed``: the value comes from TOML, where a number is not written as text.
    """

    where: str
    base: Path
    typed: bool = True

    def at(self, key: str) -> Place:
        """The place of a key within this one."""
        return Place(f"{self.where}: '{key}'", self.base, self.typed)


def refusal(place: Place, found: object, expected: str) -> ConfigurationError:
    """The error in the one form that all of these have: where, what was found, what is expected."""
    kind = f" ({_KINDS.get(type(found), type(found).__name__)})" if place.typed else ""
    shown = f"'{found}'" if isinstance(found, str) else f"{found!r}".replace("True", "true").replace("False", "false")
    return ConfigurationError(f"{place.where} is {shown}{kind}; expected {expected}")


def check_keys(table: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    """Every key of ``table`` is a known one; raises ConfigurationError with the one that was probably meant."""
    known = tuple(known)
    for key in table:
        if key not in known:
            msg = f"{where}: '{key}' is not a key{suggest(key.replace('-', '_'), known)}"
            raise ConfigurationError(msg)


def read_text(value: object, place: Place, expected: str) -> str:
    """A text that is not blank."""
    if not isinstance(value, str) or not value.strip():
        raise refusal(place, value, expected)
    return value.strip()


def read_texts(value: object, place: Place, expected: str) -> tuple[str, ...]:
    """Texts that are not blank, from a list or from a single one."""
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list | tuple):
        raise refusal(place, value, f"a list, each {expected}")
    return tuple(read_text(item, place, expected) for item in items)


def default_folder() -> Path:
    """Where artifacts are kept unless ``--mf-cache`` says otherwise."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("modelformats", appauthor=False))
