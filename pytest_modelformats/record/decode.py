"""One JSON object of a record, turned into its noun; what does not fit is refused with the key's name."""

from __future__ import annotations

from dataclasses import MISSING, fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

from pytest_modelformats.record.nouns import Check, Latency, Localisation, NoiseFloor, Parity, ThroughputFigure
from pytest_modelformats.record.packed_samples import unpack
from pytest_modelformats.schema import Change, Comparison, FailureKind, Outcome, OutputParity
from pytest_modelformats.schema.outcome import RUN
from pytest_modelformats.schema.sizes import Dimension

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

T = TypeVar("T")

# 1e999 is JSON and infinite to Python: beyond what anybody measured, and beyond what can be formatted.
_LARGEST = 1e300


class MalformedLineError(ValueError):
    """A line that is JSON but not what a record may say; the message continues "line 7 …"."""


def decode(noun: type[T], data: Mapping[str, Any]) -> T:
    """The noun that ``data`` holds; keys it does not know are left out, a newer writer may have added them.

    Raises: Malformed, naming the key that is missing or of the wrong type.
    """
    values: dict[str, Any] = {}
    for spec in fields(noun):  # type: ignore[arg-type]  # every noun is a dataclass
        if spec.name in data and str(spec.type) in _READERS:
            values[spec.name] = _READERS[str(spec.type)](spec.name, data[spec.name])
        elif spec.default is MISSING and spec.default_factory is MISSING:
            msg = f"has no '{spec.name}'"
            raise MalformedLineError(msg)
    return noun(**values)


def decode_check(data: Mapping[str, Any]) -> Check:
    """A check, with the numbers of parity and the measurement where its data holds them."""
    check = decode(Check, data)
    parity = decode(Parity, check.data) if "outputs" in check.data and "noise_ratio" in check.data else None
    latency = decode(Latency, check.data) if "latency_p50_ns" in check.data else None
    localisation = decode(Localisation, found) if isinstance(found := check.data.get("localisation"), dict) else None
    busy = check.data.get("throughput")
    figures = _each(_noun(ThroughputFigure))("throughput", busy) if busy is not None else ()
    compared = _each(_noun(Comparison))("comparisons", check.data.get("comparisons") or [])
    check = replace(check, throughput=figures, comparisons=compared)
    return replace(check, parity=parity, latency=latency, localisation=localisation)


def _wrong(name: str, value: Any, expected: str) -> MalformedLineError:
    return MalformedLineError(f"has {str(value)[:60]!r} for '{name}', which is not {expected}")


def _typed(expected: str, *types: type) -> Callable[[str, Any], Any]:
    def read(name: str, value: Any) -> Any:
        # bool is an int to Python, and never a number to a record
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            raise _wrong(name, value, expected)
        if isinstance(value, (int, float)) and abs(value) > _LARGEST:
            raise _wrong(name, value, expected)
        return value

    return read


def _each(read: Callable[[str, Any], Any]) -> Callable[[str, Any], Any]:
    def read_all(name: str, value: Any) -> Any:
        if not isinstance(value, list):
            raise _wrong(name, value, "a list")
        return tuple(read(name, item) for item in value)

    return read_all


def _noun(noun: type[Any]) -> Callable[[str, Any], Any]:
    def read(name: str, value: Any) -> Any:
        if not isinstance(value, dict):
            raise _wrong(name, value, "an object")
        return decode(noun, value)

    return read


def _outcome(name: str, value: Any) -> Outcome:
    try:
        return Outcome(value)
    except ValueError:
        raise _wrong(name, value, "an outcome") from None


def _change(name: str, value: Any) -> Change:
    try:
        return Change(value)
    except ValueError:
        raise _wrong(name, value, "a change") from None


def _failure_kind(name: str, value: Any) -> FailureKind | None:
    try:
        return None if value is None else FailureKind(value)
    except ValueError:
        raise _wrong(name, value, "a kind of failure") from None


def _decision(name: str, value: Any) -> str:
    return RUN if value == RUN else _outcome(name, value).value


def _samples(name: str, value: Any) -> tuple[float, ...]:
    if not isinstance(value, (list, dict)):
        raise _wrong(name, value, "a list, or packed samples")
    try:
        unpacked = unpack(value)
    except ValueError as error:
        raise _wrong(name, value, f"readable: {error}") from None
    return tuple(_number(name, item) for item in unpacked)


_text = _typed("a text", str)
_number = _typed("a number", int, float)

# Keyed by the annotation as it is written in the noun: the noun is the only place that states a type.
# A field whose annotation is not here (a cell's checks) is filled from other lines.
_READERS: dict[str, Callable[[str, Any], Any]] = {
    "str": _text,
    "Decision": _decision,
    "bool": _typed("true or false", bool),
    "bool | None": _typed("true, false or null", bool, type(None)),
    "int": _typed("a whole number", int),
    "int | None": _typed("a whole number or null", int, type(None)),
    "float": _number,
    "Change": _change,
    "float | None": _typed("a number or null", int, float, type(None)),
    "tuple[str, ...]": _each(_text),
    "tuple[int, ...]": _each(_typed("a whole number", int)),
    "SamplesNs": _samples,
    "Mapping[str, Any]": _typed("an object", dict),
    "Outcome": _outcome,
    "FailureKind | None": _failure_kind,
    "tuple[NoiseFloor, ...]": _each(_noun(NoiseFloor)),
    "tuple[OutputParity, ...]": _each(_noun(OutputParity)),
    "tuple[Dimension, ...]": _each(_noun(Dimension)),
    "tuple[Mapping[str, Any], ...]": _each(_typed("an object", dict)),
}
