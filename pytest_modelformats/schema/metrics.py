"""What is compared between two runs, in which unit, and from which margin on it counts: ``--mf-fail-on``.

Standard library only: the configuration is read with it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_modelformats.errors import ConfigurationError
from pytest_modelformats.schema.names import suggest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_WRITTEN = re.compile(r"(?P<metric>[a-z_]+)(?::\s*(?P<percent>\d+(?:\.\d+)?)\s*%)?")
NONE = "none"


@dataclass(frozen=True, slots=True)
class Metric:
    """Something that two runs are compared by.

    ``margin`` is the change, as a fraction, from which on it counts where nobody says otherwise. ``allowance`` is what
    reruns of one and the same cell differ by, as a fraction; it is granted on top of the margin. ``kind`` is
    ``sampled`` (many samples, an interval), ``reading`` (one number per run) or ``exact`` (does not vary).
    """

    name: str
    title: str
    unit: str
    margin: float
    kind: str
    allowance: float = 0.0
    more_is_better: bool = False


# The margins: 5 % of latency is what the interleaved comparison is made for; sizes do not vary: 1 % is a real change;
# of 240 faithful fp32 cells the noise ratio had a median of 1.15 and a 95th percentile of 1.9 (design §5): a faithful
# runtime may differ from another one by a factor of 1.65, and twice as much is more than that.
# The allowances are the largest reading over the smallest, less one, of 8 reruns with an empty cache of 5 cells (digits
# CNN, five runtimes) on a machine of two cores that was doing other work (2026-11-23). Peak memory above idle: 1.022
# for cells above 40 MB, 0.8 MB for those below. Load 5.1, first inference 7.5, conversion 4.4, delivered items per
# second 4.6: one reading of these says little, so they are judged only when asked for. Size and noise ratio: equal.
METRICS: dict[str, Metric] = {
    m.name: m
    for m in (
        Metric("latency", "median latency", "ns", 0.05, "sampled"),
        Metric("throughput", "throughput", "/s", 0.50, "reading", 3.6, more_is_better=True),
        Metric("load", "load time", "ns", 0.50, "reading", 4.1),
        Metric("first_inference", "first inference", "ns", 0.50, "reading", 6.5),
        Metric("convert", "conversion time", "ns", 0.50, "reading", 3.4),
        Metric("size", "artifact size", "bytes", 0.01, "exact"),
        Metric("memory", "peak memory above idle", "bytes", 0.10, "reading", 0.025),
        Metric("parity", "noise ratio", "", 1.00, "exact"),
        Metric("flips", "changed decisions", "", 0.0, "exact"),
    )
}
ONLY_WHEN_ASKED = frozenset({"throughput", "load", "first_inference", "convert"})
# A difference below this is none, however large the ratio: see above for memory; a noise ratio below 1 is less than
# rounding alone explains.
SMALLEST: Mapping[str, float] = {"memory": 1e6}
LEAST_RATIO = 1.0


@dataclass(frozen=True, slots=True)
class Margin:
    """A metric that fails the run, and the change as a fraction beyond which it does."""

    metric: str
    fraction: float

    def __str__(self) -> str:
        """As ``--mf-fail-on`` takes it."""
        return f"{self.metric}:{self.fraction * 100:g}%" if self.fraction else self.metric


FAIL = ("latency", "memory", "size", "parity")
DEFAULT: tuple[Margin, ...] = tuple(Margin(name, METRICS[name].margin) for name in FAIL)


def read(texts: Sequence[str], where: str) -> tuple[Margin, ...]:
    """What fails a run, of texts such as ``latency:5%``; empty for ``none``.

    Raises: ConfigurationError, with the known metrics and the one that was probably meant.
    """
    if NONE in texts:
        if len(texts) > 1:
            msg = f"{where}: 'none' stands alone; leave it out, or leave out {', '.join(t for t in texts if t != NONE)}"
            raise ConfigurationError(msg)
        return ()
    found: dict[str, Margin] = {}
    for text in texts:
        margin = _one(text, where)
        if margin.metric in found:
            raise ConfigurationError(f"{where}: '{margin.metric}' is named twice; say its margin once")
        found[margin.metric] = margin
    return tuple(found.values())


def _one(text: str, where: str) -> Margin:
    name, colon, rest = (part.strip() for part in text.partition(":"))
    if name not in METRICS:
        hint = suggest(name, (*METRICS, NONE))
        near = hint if "did you mean" in hint else ""
        raise ConfigurationError(f"{where}: '{name}' is not a metric (known: {', '.join(METRICS)}, none){near}")
    match = _WRITTEN.fullmatch(f"{name}:{rest}" if colon else name)
    if match is None or (colon and not rest):
        example = f"{name}:{METRICS[name].margin * 100 or 5:g}%"
        raise ConfigurationError(f"{where}: '{text}' has no margin in percent; write '{example}', or '{name}' alone")
    percent = match["percent"]
    return Margin(name, METRICS[name].margin if percent is None else float(percent) / 100)


def fraction(metric: str, chosen: Iterable[Margin]) -> float:
    """The change from which on a metric counts: the chosen margin, or its own."""
    return next((m.fraction for m in chosen if m.metric == metric), METRICS[metric].margin)
