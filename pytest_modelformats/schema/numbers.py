"""Numbers as a person reads them: three significant digits, the unit beside them, a dash where there is none."""

from __future__ import annotations

import json
import math
from datetime import datetime, timezone
from typing import Any

from pytest_modelformats.schema.metrics import SMALLEST

ABSENT = "\N{EN DASH}"

_DURATIONS = ((1.0, "ns"), (1e3, "µs"), (1e6, "ms"), (1e9, "s"))
_SIZES = ((1.0, "B"), (1e3, "KB"), (1e6, "MB"), (1e9, "GB"))
_FREQUENCIES = ((1.0, "Hz"), (1e3, "kHz"), (1e6, "MHz"), (1e9, "GHz"))
_ENERGIES = ((1e-9, "nJ"), (1e-6, "µJ"), (1e-3, "mJ"), (1.0, "J"))
_MINUTES_FROM_NS = 120e9
_SCIENTIFIC_FROM = 1e5
_SCIENTIFIC_BELOW = 1e-3


def significant(value: float, digits: int = 3) -> str:
    """``value`` rounded to so many significant digits, without an exponent, integers never shortened."""
    if value == 0:
        return "0"
    exponent = math.floor(math.log10(abs(value)))
    if exponent < digits - 1 and abs(round(value, digits - 1 - exponent)) >= 10 ** (exponent + 1):
        exponent += 1  # 9.996 rounds up into the next decade
    return f"{value:.{max(0, digits - 1 - exponent)}f}"


def _scaled(value: float, units: tuple[tuple[float, str], ...]) -> str:
    scale, unit = units[0]
    for candidate, name in units[1:]:
        # The rounded value decides, so that 999.7 µs reads 1.00 ms and not 1000 µs.
        if float(significant(abs(value) / scale)) < float(significant(candidate / scale)):
            break
        scale, unit = candidate, name
    whole = scale == 1.0 and float(value).is_integer()
    return f"{int(value)} {unit}" if whole else f"{significant(value / scale)} {unit}"


def duration(ns: float | None) -> str:
    """A time span in ns, µs, ms, s, or minutes and seconds.

    Units: the argument is in nanoseconds.
    """
    if ns is None:
        return ABSENT
    if ns >= _MINUTES_FROM_NS:
        minutes, seconds = divmod(round(ns / 1e9), 60)
        return f"{minutes} min {seconds} s"
    return _scaled(ns, _DURATIONS)


def seconds(value: float | None) -> str:
    """:func:`duration` of a number of seconds."""
    return ABSENT if value is None else duration(value * 1e9)


def size(count: float | None) -> str:
    """A number of bytes in B, KB, MB or GB, each 1000 of the one before."""
    return ABSENT if count is None else _scaled(count, _SIZES)


def memory(count: float | None) -> str:
    """A reading of resident memory: :func:`size`, and no digits below what two readings of one session differ by.

    Source: the reruns at ``margins.SMALLEST``, 0.8 MB.
    """
    return "< 1 MB" if count is not None and count < SMALLEST["memory"] else size(count)


def energy(joules: float | None) -> str:
    """An amount of energy in nJ, µJ, mJ or J."""
    if joules is None:
        return ABSENT
    return "0 J" if joules == 0 else _scaled(joules, _ENERGIES)


def frequencies(hertz: list[float]) -> str:
    """Frequencies in Hz, kHz, MHz or GHz, one after the other."""
    return ", ".join(_scaled(value, _FREQUENCIES) for value in hertz) or "none"


def ratio(value: float | None) -> str:
    """A plain number such as the noise ratio: 0.87, 23.1, 561, 3.1e5."""
    if value is None:
        return ABSENT
    if value != 0 and not _SCIENTIFIC_BELOW <= abs(value) < _SCIENTIFIC_FROM:
        return _scientific(value)
    return significant(value)


def magnitude(value: float | None) -> str:
    """An error or a noise in the output's own unit, as 1.2e-6."""
    if value is None:
        return ABSENT
    return "0" if value == 0 else _scientific(value)


def _scientific(value: float) -> str:
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def share(fraction: float | None) -> str:
    """A fraction in percent; a share that is not zero never reads 0 %."""
    if fraction is None:
        return ABSENT
    percent = fraction * 100
    return f"{percent:.1g} %" if 0 < percent < 0.1 else f"{round(percent, 1):g} %"  # noqa: PLR2004 - one digit after the point


def signed_share(fraction: float | None) -> str:
    """A change in percent with its sign."""
    if fraction is None:
        return ABSENT
    return f"{fraction * 100:+.1f} %"


def rate(items_per_s: float | None) -> str:
    """A throughput in items per second, with thin groups of three above 10,000."""
    if items_per_s is None:
        return ABSENT
    text = f"{items_per_s:,.0f}" if items_per_s >= 1000 else significant(items_per_s)  # noqa: PLR2004 - where three digits end
    return f"{text} /s"


def count(value: float | None) -> str:
    """A whole number with its thousands apart."""
    return ABSENT if value is None else f"{value:,.0f}"


def plural(number: int, noun: str) -> str:
    """``1 cell``, ``3 cells``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def moment(iso: str) -> str:
    """A time stamp as ``2026-11-23 16:15:00 UTC``; what is not one stays as it is."""
    try:
        stamp = datetime.fromisoformat(iso)
    except ValueError:
        return iso
    if stamp.tzinfo is None:
        return f"{stamp:%Y-%m-%d %H:%M:%S}"
    return f"{stamp.astimezone(timezone.utc):%Y-%m-%d %H:%M:%S} UTC"


def fact(name: str, value: Any) -> tuple[str, str]:
    """A key and a value of a record's free part as words: ``memory_bytes`` is "memory" in GB."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    for suffix, write in (("_bytes", size), ("_ns", duration), ("_s", seconds), ("_share", share)):
        if number and name.endswith(suffix):
            return name.removesuffix(suffix).replace("_", " "), write(value)
    if name.endswith("_hz") and isinstance(value, list) and all(isinstance(item, (int, float)) for item in value):
        return name.removesuffix("_hz").replace("_", " "), frequencies(value)
    return name.replace("_", " "), _plain(value)


def _plain(value: Any) -> str:
    if value is None:
        return ABSENT
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(_plain(item) for item in value) or "none"
    if isinstance(value, dict):
        return "; ".join(f"{key}: {_plain(item)}" for key, item in value.items()) or "none"
    return value if isinstance(value, str) else json.dumps(value)
