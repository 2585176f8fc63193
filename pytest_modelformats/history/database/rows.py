"""From a run's record to what the history keeps of it: every number and outcome of every check of every cell."""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from pytest_modelformats.errors import ConfigurationError
from pytest_modelformats.schema import registry
from pytest_modelformats.schema.outcome import RUN, worst
from pytest_modelformats.settings import machine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pytest_modelformats.record.nouns import CellRecord, Check, Header
    from pytest_modelformats.record.read import Run

OUTCOME = "outcome"
# So much of a damaged text is shown.
_QUOTED = 40
_UNITS = {"_ns": "ns", "_bytes": "bytes", "_per_s": "/s", "_j": "J"}
# Numbers of a check that say how it was measured, not what.
_NO_METRICS = frozenset(
    {
        *("batch", "threads", "warmup_runs", "samples", "seed", "concurrency", "wall_s", "remeasured"),
        *("latency_p50_low_ns", "latency_p50_high_ns"),
    }
)


class DamagedText(ValueError):
    """A text of the history that is not the JSON which was written there."""


@dataclass(frozen=True, slots=True)
class Versions:
    """What a cell stood on: the libraries of its runtime, and what else could change its numbers."""

    runtime: Mapping[str, str] = field(default_factory=dict)
    beside: Mapping[str, str] = field(default_factory=dict)

    @property
    def all(self) -> dict[str, str]:
        """Everything by name."""
        return {**self.beside, **self.runtime}

    def to_text(self) -> str:
        """One text per set of versions."""
        return json.dumps([dict(self.runtime), dict(self.beside)], separators=(",", ":"))

    @classmethod
    def from_text(cls, text: str) -> Versions:
        """Undo :meth:`to_text`; raises DamagedText."""
        found = decoded(text, "the versions of a run", lambda said: [type(part) for part in said] == [dict, dict])
        return cls(*found)


@dataclass(frozen=True, slots=True)
class Measurement:
    """One metric of one check of one cell; ``check`` is "" for what is said of the cell as a whole."""

    cell: str
    check: str
    metric: str
    unit: str
    outcome: str
    versions: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    disturbed: str = ""
    samples: int | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """A run as the history keeps it; ``key`` is the same for the same run, ``started`` in seconds since 1970."""

    key: str
    run: str
    started: int
    tool: str
    command: tuple[str, ...]
    identity: str
    facts: Mapping[str, Any]
    versions: Mapping[str, str]
    complete: bool
    checks: int
    measurements: tuple[Measurement, ...]


def entry_of(run: Run) -> Entry:
    """What the history keeps of a run.

    Raises: ConfigurationError for a joined record of several kinds of machine: no cell of it says on which it ran.
    """
    header = run.header
    kinds = {about.get("machine", {}).get("identity") for about in header.merged.values()}
    if len(kinds) > 1:
        msg = f"the record {header.run} was joined from {len(kinds)} kinds of machine; add the records it was made of"
        raise ConfigurationError(msg)
    facts = {k: v for k, v in header.machine.items() if k != "cpu_flags"}
    identity = str(header.machine.get("identity") or machine.identity(header.machine))
    said = [header.run, header.started, list(header.command), identity, dict(header.versions)]
    found: dict[tuple[str, str, str], Measurement] = {}
    for cell in run.cells:
        for m in _of_cell(cell, _versions(cell, header).to_text()):
            found[m.cell, m.check, m.metric] = m
    return Entry(
        key=hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest(),
        run=header.run,
        started=seconds_of(header.started),
        tool=header.tool,
        command=header.command,
        identity=identity,
        facts=facts,
        versions={k: str(v) for k, v in header.versions.items()},
        complete=run.complete,
        checks=sum(len(cell.checks) for cell in run.cells),
        measurements=tuple(found.values()),
    )


def decoded(text: str, what: str, fits: Callable[[Any], bool]) -> Any:
    """The JSON that a text of the history holds; raises DamagedText where it is none, or not of the form that fits."""
    with contextlib.suppress(ValueError, TypeError, RecursionError):
        found = json.loads(text)
        if fits(found):
            return found
    raise DamagedText(f"{what} are damaged ({text[:_QUOTED]!r})")


def seconds_of(stamp: str) -> int:
    """Seconds since 1970 of a time stamp; 0 where it is none."""
    try:
        moment = datetime.fromisoformat(stamp)
    except ValueError:
        return 0
    return int((moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp())


def _of_cell(cell: CellRecord, versions: str) -> Iterator[Measurement]:
    if not cell.interrupted:
        yield Measurement(cell.cell, "", OUTCOME, "", cell.outcome.value, versions)
    by_check: dict[str, list[Check]] = {}
    for check in cell.checks:
        by_check.setdefault(check.check, []).append(check)
    for name, checks in by_check.items():
        of_check = worst(RUN, (check.outcome for check in checks)).value
        yield Measurement(cell.cell, name, OUTCOME, "", of_check, versions)
        for check in checks:
            if not check.reused:  # shown again from an earlier run, which the history has
                yield from _of_check(check, versions)


def _of_check(check: Check, versions: str) -> Iterator[Measurement]:
    latency, data = check.latency, check.data
    disturbed = latency.disturbed if latency else str(data.get("disturbed") or "")
    samples = latency.samples if latency else None

    def row(metric: str, value: float, low: Any = None, high: Any = None) -> Measurement:
        unit = unit_of(metric)
        return Measurement(
            *(check.cell, check.check, metric, unit, check.outcome.value, versions),
            # What disturbs a clock changes no size.
            *(float(value), low, high, "" if unit == "bytes" else disturbed, samples),
        )

    for name, value in data.items():
        if _number(value) and name not in _NO_METRICS:
            bounds = (data.get("latency_p50_low_ns"), data.get("latency_p50_high_ns"))
            yield row(name, value, *(bounds if name == "latency_p50_ns" else ()))
    if check.parity and check.parity.flips is not None:
        yield row("flips", check.parity.flips)
    throughput = data.get("throughput")
    for point in throughput if isinstance(throughput, list) else []:
        yield from _of_throughput(check, point, versions)


def _of_throughput(check: Check, point: object, versions: str) -> Iterator[Measurement]:
    if not isinstance(point, dict):
        return
    where = f"[batch={point.get('batch')},concurrency={point.get('concurrency')},{point.get('mode')}]"
    for name, value in point.items():
        if _number(value) and name not in _NO_METRICS:
            yield Measurement(
                *(check.cell, check.check, name + where, unit_of(name), check.outcome.value, versions, float(value)),
                disturbed=str(point.get("disturbed") or ""),
                samples=point.get("samples") if isinstance(point.get("samples"), int) else None,
            )


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def unit_of(metric: str) -> str:
    """The unit that a metric's name ends with, "" for a plain number."""
    name = metric.partition("[")[0]
    return next((unit for ending, unit in _UNITS.items() if name.endswith(ending)), "")


def _versions(cell: CellRecord, header: Header) -> Versions:
    """The versions that a cell's numbers depend on, those of its own environment where it has one."""
    own = header.environments.get(cell.environment, {}) if cell.environment else {}
    there = {**header.versions, **own.get("versions", {})}
    backend = registry.backends().get(cell.backend)
    libraries = backend.libraries if backend else (cell.backend,)
    steps = (registry.converters().get(step.partition(":")[0]) for step in cell.chain)
    converting = {library for step in steps if step for library in step.libraries} - set(libraries)
    beside = {name: str(header.versions[name]) for name in sorted(converting) if name in header.versions}
    facts = {
        "numpy": there.get("numpy"),
        "Python": own.get("python") or header.machine.get("python"),
        "system": header.machine.get("os"),
        "GPU driver": header.machine.get("gpu_driver") if cell.device != "cpu" else "",
        "pytest-modelformats": header.tool,
    }
    beside |= {name: str(value) for name, value in facts.items() if value}
    return Versions({name: str(there[name]) for name in libraries if name in there}, beside)
