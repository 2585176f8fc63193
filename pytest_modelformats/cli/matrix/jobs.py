"""A plan as jobs for several machines: every cell in exactly one, and for each the options that select its cells.

What a job needs is said by the declarations of its cells alone, so a machine that has none of the runtimes can plan
for those that will install them.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any

from pytest_modelformats.errors import ConfigurationError
from pytest_modelformats.plan import unmet
from pytest_modelformats.schema import registry
from pytest_modelformats.settings.options import OPTIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from pytest_modelformats.schema import PlannedCell
    from pytest_modelformats.settings.nouns import Settings

    Planner = Callable[[Settings], Sequence[PlannedCell]]

# How cells can be put together. A job has one device in any case, for it has one machine.
BY: dict[str, Callable[[PlannedCell], str]] = {
    "backend": lambda planned: planned.cell.backend,
    "format": lambda planned: planned.cell.variant,
    "precision": lambda planned: planned.cell.precision,
    "environment": lambda planned: planned.cell.environment or "installed",
    "cell": lambda planned: planned.cell.id,
}
# Source: docs.github.com, "Running variations of jobs in a workflow": at most 256 jobs per matrix; "Passing
# information between jobs": outputs of a job are at most 1 MB, and are counted as UTF-16, two bytes per character.
MOST_JOBS = 256
MOST_CHARACTERS = 500_000
# Source: execve(2), MAX_ARG_STRLEN: one argument has at most 32 pages of 4096 bytes.
LONGEST_ARGUMENT = 130_000
_AXES = ("backends", "formats", "precisions", "devices")
_EXTRAS = re.compile(r"pytest-modelformats\[([\w,-]+)\]")


@dataclass(frozen=True, slots=True)
class Job:
    """Cells that one machine runs.

    ``select`` are the words of a pytest command line that select exactly these cells. ``extras`` are extras of
    this package to install, ``packages`` other packages, as the declarations of the cells name them.
    """

    name: str
    device: str
    cells: tuple[str, ...]
    extras: tuple[str, ...]
    packages: tuple[str, ...]
    select: tuple[str, ...]


def jobs(
    cells: Sequence[PlannedCell],
    formats: Mapping[str, str],
    settings: Settings,
    plan_of: Planner,
    given: Mapping[str, Any],
    *,
    by: str = "backend",
    shards: int = 0,
) -> list[Job]:
    """Every cell in exactly one job; ``formats`` is the source's format by the model's name.

    With ``shards`` that many jobs of as many cells as can be, and ``by`` is not looked at. ``given`` is what the
    command line said; ``plan_of`` plans with other settings, and is asked whether a selection is exact.
    Cells that will not run go along with others of their device, for a run that runs nothing fails.

    Raises: ConfigurationError where no cell runs, or there are too few shards or cells.
    """
    groups = _shards(cells, shards) if shards else _groups(cells, by)
    return [
        Job(
            name,
            device,
            tuple(planned.cell.id for planned in group),
            *_needed(group, formats),
            _selection(group, cells, settings, plan_of, given),
        )
        for (name, device), group in groups.items()
    ]


def _groups(cells: Sequence[PlannedCell], by: str) -> dict[tuple[str, str], list[PlannedCell]]:
    groups: dict[tuple[str, str], list[PlannedCell]] = {}
    for planned in cells:
        device, value = planned.cell.device, BY[by](planned)
        name = value if by == "cell" else f"{value}@{device}"
        groups.setdefault((name, device), []).append(planned)
    running = {key: group for key, group in groups.items() if any(p.decision.runs for p in group)}
    for key, group in groups.items():
        if key not in running:
            _host(running, key[1], group).extend(group)
    return running


def _host(
    running: Mapping[tuple[str, str], list[PlannedCell]], device: str, group: Sequence[PlannedCell]
) -> list[PlannedCell]:
    """The smallest group of the device that runs something."""
    hosts = [cells for key, cells in running.items() if key[1] == device]
    if not hosts:
        planned = group[0]
        msg = (
            f"no cell on {device} can run, so there is nothing for a job to do; {planned.cell.id}, for one: "
            f"{planned.decision.reason}; {planned.decision.install}"
        )
        raise ConfigurationError(msg)
    return min(hosts, key=len)


def _shards(cells: Sequence[PlannedCell], shards: int) -> dict[tuple[str, str], list[PlannedCell]]:
    """Neighbours of the plan stay together, for they are made of the same conversions."""
    devices: dict[str, list[PlannedCell]] = {}
    for planned in cells:
        devices.setdefault(planned.cell.device, []).append(planned)
    running = {device: sum(p.decision.runs for p in group) for device, group in devices.items()}
    for device, group in devices.items():
        if not running[device]:
            _host({}, device, group)
    if not len(devices) <= shards <= sum(running.values()):
        msg = (
            f"--shards {shards}: at least {len(devices)}, one for each device ({', '.join(devices)}), and at most "
            f"{sum(running.values())}, one for each cell that runs"
        )
        raise ConfigurationError(msg)
    parts = dict.fromkeys(devices, 1)
    for _ in range(shards - len(devices)):  # each further one goes where the shards are largest
        parts[max(parts, key=lambda device: running[device] / parts[device])] += 1
    found: dict[tuple[str, str], list[PlannedCell]] = {}
    for device, group in devices.items():
        for part in _cut(group, parts[device]):
            found[f"shard-{len(found) + 1}-of-{shards}", device] = part
    return found


def _cut(group: Sequence[PlannedCell], parts: int) -> Iterator[list[PlannedCell]]:
    """Parts that differ by at most one in how many of their cells run; what does not run stays with its neighbour."""
    total = sum(planned.decision.runs for planned in group)
    edges = iter(total * (part + 1) // parts for part in range(parts))
    part: list[PlannedCell] = []
    seen, edge = 0, next(edges)
    for planned in group:
        if planned.decision.runs:
            if seen == edge:
                yield part
                part, edge = [], next(edges)
            seen += 1
        part.append(planned)
    yield part


def _needed(group: Iterable[PlannedCell], formats: Mapping[str, str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The extras of this package and the other packages that the declarations of the cells ask for."""
    hints = set()
    for planned in group:
        parts: list[Any] = [registry.formats()[name] for name in (formats[planned.cell.model], planned.cell.format)]
        parts += [registry.converters()[step.converter] for step in planned.chain]
        parts.append(registry.backends()[planned.cell.backend])
        hints |= {part.install for part in parts if part.install}
    extras: set[str] = set()
    packages: set[str] = set()
    for hint in hints:
        own = _EXTRAS.search(hint)
        if own:
            extras |= set(own[1].split(","))
        else:
            packages |= set(shlex.split(hint.removeprefix("pip install ")))
    return tuple(sorted(extras)), tuple(sorted(packages))


def _selection(
    group: Sequence[PlannedCell],
    cells: Sequence[PlannedCell],
    settings: Settings,
    plan_of: Planner,
    given: Mapping[str, Any],
) -> tuple[str, ...]:
    """The options that leave exactly the group of a plan: the fewest axes that do, or else its cells by their ids.

    Names to require are handed on to the jobs whose cells have them. Candidates of the command line stay
    whole, for an option that leaves one without a cell contradicts it: their ids alone do not.
    """
    wanted = {planned.cell.id for planned in group}
    if "require" in given:
        there = set().union(*(unmet.names(planned.cell) for planned in group))
        given = {**given, "require": tuple(name for name in settings.require if name in there)}
    if "candidate" in given and not {p.cell.candidate for p in cells} <= {"", *(p.cell.candidate for p in group)}:
        return _words({**given, "cells": tuple(planned.cell.id for planned in group)})
    axes = {axis: tuple(dict.fromkeys(_value(planned, axis) for planned in group)) for axis in _AXES}
    others = (planned for planned in cells if planned.cell.id not in wanted)
    if not any(all(_value(planned, axis) in axes[axis] for axis in _AXES) for planned in others):
        for count in range(len(_AXES) + 1):
            for narrowed in combinations(_AXES, count):
                changes: dict[str, Any] = {axis: axes[axis] for axis in narrowed}
                if "formats" in narrowed and "all_routes" in given:
                    changes["all_routes"] = False  # it would bring the routes of every format
                if _ids(plan_of, replace(settings, **changes)) == wanted:
                    return _words({**given, **changes})
    return _words({**given, "cells": tuple(planned.cell.id for planned in group)})


def _value(planned: PlannedCell, axis: str) -> str:
    cell = planned.cell
    return {"formats": cell.variant, "precisions": cell.precision, "backends": cell.backend, "devices": cell.device}[
        axis
    ]


def _ids(plan_of: Planner, settings: Settings) -> set[str]:
    try:
        return {planned.cell.id for planned in plan_of(settings)}
    except ConfigurationError:
        return set()  # nothing is left, or a glob of the user's own matches nothing any more


def _words(chosen: Mapping[str, Any]) -> tuple[str, ...]:
    """The options as a command line writes them, in the order of their table."""
    words: list[str] = []
    for option in OPTIONS:
        value = chosen.get(option.key)
        if not value:
            continue
        if option.kind == "flag":
            words.append(option.flag)
        elif option.repeatable:
            for each in value:
                words += [option.flag, str(each)]
        else:
            words += [option.flag, value if isinstance(value, str) else ",".join(value)]
    return tuple(words)


def github(matrix: Sequence[Mapping[str, Any]]) -> str:
    """The matrix as GitHub's ``fromJSON`` reads it, on one line.

    Raises: ConfigurationError beyond what GitHub takes.
    """
    import json

    if len(matrix) > MOST_JOBS:
        msg = (
            f"the matrix has {len(matrix)} jobs, and GitHub runs at most {MOST_JOBS} of one; "
            f"use --shards {MOST_JOBS} or fewer, or --by backend"
        )
        raise ConfigurationError(msg)
    text = json.dumps({"include": list(matrix)}, ensure_ascii=False)
    longest = max((len(job["select"]) for job in matrix), default=0)
    if len(text) > MOST_CHARACTERS or longest > LONGEST_ARGUMENT:
        msg = (
            f"the matrix is {len(text):,} characters long and its longest selection {longest:,}; GitHub hands on "
            f"{MOST_CHARACTERS:,} and a command line takes {LONGEST_ARGUMENT:,}: print one matrix per model, or use "
            "--by backend"
        )
        raise ConfigurationError(msg)
    return text
