"""One value of an option or a key, checked: text from the command line, typed from TOML."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_modelformats.errors import ConfigurationError
from pytest_modelformats.schema import PRECISIONS, TensorSpec
from pytest_modelformats.schema import metrics as margins
from pytest_modelformats.schema.names import suggest
from pytest_modelformats.schema.redact import redacted
from pytest_modelformats.schema.registry import backends
from pytest_modelformats.settings.nouns import CandidateEntry
from pytest_modelformats.settings.place import Place, read_text, read_texts, refusal
from pytest_modelformats.settings.references import locate

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_modelformats.schema.metrics import Margin
    from pytest_modelformats.settings.options import Option

CANDIDATE_KEYS = ("precision", "device", "model")
_LOCATIONS = frozenset({"model", "arch", "data"})
DATABASES = ("postgresql", "postgres", "sqlite")
_SIZE = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[KMGT])(?P<binary>i?)B", re.IGNORECASE)
_NUMBER = re.compile(r"\d*\.?\d+(e[+-]?\d+)?", re.IGNORECASE)


def read(option: Option, value: object, place: Place) -> Any:
    """The value as ``Settings`` holds it.

    Raises: ConfigurationError.
    """
    return _READERS[option.kind](option, value, place)


def read_flag(value: object, place: Place) -> bool:
    """A boolean."""
    if not isinstance(value, bool):
        raise refusal(place, value, "true or false")
    return value


def read_number(value: object, place: Place, expected: str, *, zero: bool = False) -> float:
    """A finite number above zero (with ``zero``: or zero)."""
    number = math.nan
    if isinstance(value, str):
        numeric = not place.typed and _NUMBER.fullmatch(value.strip()) is not None
    else:
        numeric = isinstance(value, int | float) and not isinstance(value, bool)
    if numeric and isinstance(value, str | int | float):
        number = float(value)
    if not (0 <= number < math.inf) or (number == 0 and not zero):
        raise refusal(place, value, expected)
    return number


def read_spec(text: str, place: Place) -> TensorSpec:
    """An input specification."""
    try:
        return TensorSpec.parse(text)
    except ConfigurationError as error:
        msg = f"{place.where}: {error}"
        raise ConfigurationError(msg) from error


def read_candidate(text: str, place: Place) -> CandidateEntry:
    """Read ``FILE[,precision=..][,device=..][,model=..]``.

    Raises: ConfigurationError for an unknown key, precision or device, or an empty value.
    """
    parts = text.split(",")
    facts: dict[str, str] = {}
    while len(parts) > 1 and "=" in parts[-1]:
        key, _, value = (piece.strip() for piece in parts.pop().partition("="))
        if key not in CANDIDATE_KEYS:
            msg = f"{place.where}: '{text}' says '{key}', which a candidate does not have{suggest(key, CANDIDATE_KEYS)}"
            raise ConfigurationError(msg)
        if not value or key in facts:
            msg = f"{place.where}: '{text}' must give '{key}' one value, once"
            raise ConfigurationError(msg)
        facts[key] = value
    if facts.get("precision", "fp32") not in PRECISIONS:
        msg = f"{place.where}: '{text}' has an unknown precision{suggest(facts['precision'], PRECISIONS)}"
        raise ConfigurationError(msg)
    if "device" in facts:
        devices = {device for backend in backends().values() for device in backend.devices}
        if facts["device"] not in devices:
            msg = f"{place.where}: '{text}' has an unknown device{suggest(facts['device'], devices)}"
            raise ConfigurationError(msg)
    return CandidateEntry(_path(",".join(parts), place), **facts)


def _path(text: str, place: Place) -> Path:
    return (place.base / Path(text).expanduser()).absolute()


def _read_text(option: Option, value: object, place: Place) -> str:
    text = read_text(value, place, f"text such as {option.metavar}")
    return locate(text, place.base) if option.key in _LOCATIONS else text


def _read_texts(option: Option, value: object, place: Place) -> tuple[Any, ...]:
    texts = read_texts(value, place, f"a text such as {option.metavar}")
    if option.key == "input":
        return tuple(read_spec(text, place) for text in texts)
    if option.key == "candidate":
        return tuple(read_candidate(text, place) for text in texts)
    if option.key == "env":
        from pytest_modelformats.settings.environments import read_entry

        return tuple(read_entry(text, place) for text in texts)
    return tuple(locate(text, place.base) for text in texts)


def _read_names(option: Option, value: object, place: Place) -> tuple[str, ...]:
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, list | tuple) or not all(isinstance(item, str) for item in items):
        raise refusal(place, value, "a list of names")
    names = tuple(dict.fromkeys(item.strip() for item in items if item.strip()))
    if not names:
        raise refusal(place, value, f"at least one name; leave it out for the default ({option.default_text})")
    return names


def _read_integer(option: Option, value: object, place: Place) -> int:
    number = value
    if isinstance(value, str) and not place.typed and re.fullmatch(r"[+-]?\d{1,18}", value.strip()):
        number = int(value)
    if isinstance(number, bool) or not isinstance(number, int) or number < option.minimum:
        raise refusal(place, value, f"a whole number of at least {option.minimum}")
    return number


def _read_integers(option: Option, value: object, place: Place) -> tuple[int, ...]:
    """Whole numbers, each once, in rising order."""
    items = value.split(",") if isinstance(value, str) else value if isinstance(value, list | tuple) else [value]
    expected = f"whole numbers of at least {option.minimum}, such as 1,8,32"
    try:
        # The numbers of a list that is one text are text too, also in a file.
        loose = Place(place.where, place.base, typed=place.typed and not isinstance(value, str))
        found = {_read_integer(option, item, loose) for item in items}
    except ConfigurationError:
        raise refusal(place, value, expected) from None
    if not found:
        raise refusal(place, value, expected)
    return tuple(sorted(found))


def _read_seconds(option: Option, value: object, place: Place) -> float:
    expected = "a number of seconds, 0 for none" if option.off else "a number of seconds above 0, such as 2.5"
    return read_number(value, place, expected, zero=option.off)


def _read_size(_option: Option, value: object, place: Place) -> int:
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None or float(match["number"]) == 0:
        raise refusal(place, value, "a size with its unit, such as 8GB or 512MiB")
    step = 1024 if match["binary"] else 1000
    return int(float(match["number"]) * step ** ("KMGT".index(match["unit"].upper()) + 1))


def _read_folder(_option: Option, value: object, place: Place) -> Path:
    path = _path(read_text(value, place, "the path of a folder"), place)
    if path.exists() and not path.is_dir():
        raise refusal(place, value, "a folder, and this is a file")
    return path


def _read_database(_option: Option, value: object, place: Place) -> str:
    text = read_text(value, place, "a file, postgresql://user@host/database, or none")
    if text == "none":
        return text
    if "://" in text:
        if text.partition("://")[0].partition("+")[0] not in DATABASES:
            raise refusal(place, redacted(text), "a file, postgresql://user@host/database, or none")
        return text
    path = _path(text, place)
    if path.is_dir():
        raise refusal(place, value, f"a file, and this is a folder; write {text.rstrip('/')}/history.sqlite")
    return str(path)


def _read_paths(_option: Option, value: object, place: Place) -> tuple[Path, ...]:
    return tuple(_path(text, place) for text in read_texts(value, place, "the path of a file"))


def _read_files(option: Option, value: object, place: Place) -> tuple[Path, ...]:
    paths = _read_paths(option, value, place)
    for path in paths:
        if not path.is_file():
            raise refusal(place, value, f"a file that exists, and there is no {path}")
    return paths


def _read_choice(option: Option, value: object, place: Place) -> str:
    if value not in option.choices:
        raise refusal(place, value, " or ".join(option.choices))
    return str(value)


def _read_margins(option: Option, value: object, place: Place) -> tuple[Margin, ...]:
    return margins.read(_read_names(option, value, place), place.where)


_READERS: dict[str, Callable[[Option, object, Place], Any]] = {
    "text": _read_text,
    "texts": _read_texts,
    "names": _read_names,
    "flag": lambda _, value, place: read_flag(value, place),
    "integer": _read_integer,
    "integers": _read_integers,
    "seconds": _read_seconds,
    "size": _read_size,
    "folder": _read_folder,
    "file": lambda option, value, place: _read_files(option, value, place)[0],
    "files": _read_files,
    "paths": _read_paths,
    "choice": _read_choice,
    "database": _read_database,
    "margins": _read_margins,
}
