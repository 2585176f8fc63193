"""A run as one self-contained page: no network, no build step, readable from a folder."""

from __future__ import annotations

import shlex
from collections import Counter
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING
from urllib.parse import quote

from pytest_modelformats.record.nouns import INTERRUPTED, REMARKS, UNCHECKED
from pytest_modelformats.report import comparisons
from pytest_modelformats.report.facts import changed, environments, executed, sizes
from pytest_modelformats.report.matrix import matrix
from pytest_modelformats.report.measurements import measurements, throughput_table
from pytest_modelformats.schema import PRECISIONS, Outcome, numbers
from pytest_modelformats.schema.outcome import FAILURES, RUN
from pytest_modelformats.schema.sizes import written

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_modelformats.record.nouns import Latency
    from pytest_modelformats.record.read import Run

MEANINGS = {
    "passed": "Every check that ran holds.",
    "failed": "A check does not hold; its kind stands beside it.",
    "crashed": "The worker process died; the signal is named.",
    "out-of-memory": "The worker reached its memory limit.",
    "timeout": "No answer within the time-out; the worker was killed.",
    "convert-error": "A converter, or the checker of its format, raised.",
    "fallback": "One precision or device was asked for, another one ran.",
    "inconclusive": "The evidence decides neither way.",
    "expected-failure": "It failed as the expectation file says, with its reason.",
    "unsupported": "The format or runtime does not have this operator, precision or feature.",
    "missing-dependency": "A library is not installed.",
    "no-device": "This machine does not have the device.",
    "not-measured": "Nothing was checked, or parity was not, so nothing is claimed.",
    INTERRUPTED: "The run ended before its turn, so nothing is claimed.",
}

_GROUPS = {
    "Latency per call": (
        ("p50", "latency_p50_ns", numbers.duration),
        ("p50 interval, low", "latency_p50_low_ns", numbers.duration),
        ("p50 interval, high", "latency_p50_high_ns", numbers.duration),
        ("mean", "latency_mean_ns", numbers.duration),
        ("standard deviation", "latency_std_ns", numbers.duration),
        ("variation", "variation", numbers.share),
        ("p90", "latency_p90_ns", numbers.duration),
        ("p95", "latency_p95_ns", numbers.duration),
        ("p99", "latency_p99_ns", numbers.duration),
        ("throughput, one at a time", "items_per_s", numbers.rate),
    ),
    "Before the first answer": (
        ("conversion", "convert_ns", numbers.duration),
        ("load", "load_ns", numbers.duration),
        ("first inference", "first_inference_ns", numbers.duration),
    ),
    "Footprint": (
        ("artifact", "size_bytes", numbers.size),
        ("memory, idle", "idle_rss_bytes", numbers.size),
        ("memory, peak", "peak_rss_bytes", numbers.size),
        ("memory, peak above idle", "memory_above_idle_bytes", numbers.memory),
    ),
    "How it was measured": (
        ("batch", "batch", numbers.count),
        ("threads", "threads", numbers.count),
        ("warm-up runs", "warmup_runs", numbers.count),
        ("samples", "samples", numbers.count),
        ("far-out samples", "outliers", numbers.share),
        ("drift", "drift", numbers.signed_share),
        ("median may be off by", "median_uncertainty", numbers.share),
    ),
}
# Shown where something was read.
_WHERE_READABLE = {
    "Footprint": (
        ("memory grows per call", "memory_growth_bytes", numbers.size),
        ("device memory", "device_memory_bytes", numbers.size),
        ("energy per call, idle share included", "energy_j", numbers.energy),
    ),
    "Latency per call": (
        ("host to device", "host_to_device_ns", numbers.duration),
        ("compute", "compute_ns", numbers.duration),
        ("device to host", "device_to_host_ns", numbers.duration),
    ),
}

_BINS = 48
# The axis ends so many interquartile ranges above the upper quartile: one slow call must not flatten the rest.
_AXIS_END = 5


def render(run: Run) -> str:
    """The page."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    for write in (numbers.duration, numbers.seconds, numbers.size, numbers.ratio, numbers.magnitude, numbers.share):
        environment.filters[write.__name__] = write
    environment.filters |= {"moment": numbers.moment, "count": numbers.count, "anchor": anchor, "tone": tone}
    source = resources.files("pytest_modelformats.report").joinpath("page.html.j2").read_text("utf-8")
    return environment.from_string(source).render(
        run=run,
        by_model=[(name, *_model(run, name)) for name in run.model_names],
        meanings={word: MEANINGS[word] for word in run.totals},
        limits=[p for p in PRECISIONS.values() if p.yardstick == p.name],
        command=shlex.join(run.header.command),
        histogram=histogram,
        measured=measured,
        unchecked=UNCHECKED,
        measurements=measurements,
        throughput_table=throughput_table,
        fact=numbers.fact,
        executed=executed,
        sizes=sizes,
        changed_by=changed,
        environments=environments(run.header),
        plural=numbers.plural,
        compared=comparisons.table(run),
        change_tones={"regression": "bad", "improvement": "good", "inconclusive": "unsure"},
    )


def _model(run: Run, name: str) -> tuple[object, ...]:
    known = next((model for model in run.models if model.model == name), None)
    cells = [cell for cell in run.cells if cell.model == name]
    # A column of which nothing was to run (no GPU, say) stands under "Not run, and why", not in everybody's way.
    columns = sorted({cell.column for cell in cells if cell.decision == RUN})
    return known, cells, matrix(cells, columns or None)


def anchor(cell: str) -> str:
    """The cell's place in the page, safe as an id and after ``#``; different for different cells."""
    return "cell-" + quote(cell, safe="@+~").replace("%", ":")


def tone(word: str) -> str:
    """The family of an outcome, with or without its kind, which decides its colour and sign."""
    word = word.partition(" (")[0]
    if word == Outcome.PASSED.value:
        return "good"
    if word in {o.value for o in FAILURES}:
        return "bad"
    return "unsure" if word in {o.value for o in REMARKS} else "none"


def measured(latency: Latency) -> dict[str, list[tuple[str, str]]]:
    """Every column of a measurement under its heading, as (label, value with unit)."""
    groups = {
        title: [(label, write(getattr(latency, name))) for label, name, write in columns]
        for title, columns in _GROUPS.items()
    }
    for title, columns in _WHERE_READABLE.items():
        found = ((label, write, getattr(latency, name)) for label, name, write in columns)
        groups[title] += [(label, write(value)) for label, write, value in found if value is not None]
    if latency.machine_state:
        groups["The machine meanwhile"] = [numbers.fact(name, value) for name, value in latency.machine_state.items()]
    cores = ", ".join(str(core) for core in latency.pinned) or numbers.ABSENT
    groups["How it was measured"].append(("pinned to cores", cores))
    if latency.sizes:
        groups["How it was measured"].append(("sizes", written(latency.sizes)))
    return groups


@dataclass(frozen=True, slots=True)
class Histogram:
    """Bars of (x, height) on a canvas of ``width`` times ``height``, and the median's place.

    ``beyond`` samples lie right of ``high_ns``, where the axis ends.
    """

    bars: tuple[tuple[float, float], ...]
    bar_width: float
    width: float
    height: float
    low_ns: float
    high_ns: float
    median_x: float
    beyond: int


def histogram(samples_ns: Sequence[float], width: float = 480, height: float = 64) -> Histogram | None:
    """How the samples spread; nothing to draw below two of them."""
    if len(samples_ns) < 2:  # noqa: PLR2004 - one sample has no spread
        return None
    ordered = sorted(samples_ns)
    lower, median, upper = (ordered[len(ordered) * quarter // 4] for quarter in (1, 2, 3))
    end = upper + _AXIS_END * (upper - lower) if upper > lower else ordered[-1]
    low, high = ordered[0], min(ordered[-1], end)
    step = (high - low) / _BINS or 1.0
    counts = Counter(min(_BINS - 1, int((sample - low) / step)) for sample in ordered if sample <= high)
    tallest = max(counts.values())
    bars = tuple(
        (round(width * i / _BINS, 1), max(1.0, round(height * n / tallest, 1))) for i, n in sorted(counts.items())
    )
    beyond = sum(sample > high for sample in ordered)
    middle = width * min(1.0, (median - low) / step / _BINS)
    return Histogram(bars, width / _BINS - 1, width, height, low, high, round(middle, 1), beyond)
