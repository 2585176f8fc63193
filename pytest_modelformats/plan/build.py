"""Declarations -> every cell with a decision and a reason. Pure: converts nothing, opens nothing."""

from __future__ import annotations

import fnmatch
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_modelformats.errors import ConfigurationError
from pytest_modelformats.plan.graph import Path, artifacts
from pytest_modelformats.schema import PRECISIONS, Backend, Cell, Decision, Outcome, Plan, PlannedCell, registry
from pytest_modelformats.schema.names import suggest
from pytest_modelformats.settings import environments
from pytest_modelformats.settings.machine import installed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from pytest_modelformats.schema import Source
    from pytest_modelformats.settings.nouns import Settings
    from pytest_modelformats.source.identify import Candidate


class _Lane(NamedTuple):
    """A cell before it has a model: everything that depends on the source's format alone."""

    path: Path
    precision: str
    backend: str
    device: str
    decision: Decision
    environment: str = ""


def build_plan(
    settings: Settings,
    sources: Sequence[Source],
    candidates: Sequence[Candidate],
    machine: Mapping[str, Any],
    is_installed: Callable[[str], bool] = installed,
) -> Plan:
    """Every cell of every source and candidate, selected by the settings, each with its decision.

    Raises: ConfigurationError for an unknown name, an ambiguous chain, or when nothing is left.
    """
    _check_names(settings)
    lanes: dict[tuple[str, str], list[_Lane]] = {}
    cells: list[PlannedCell] = []
    for source in sources:
        kind = source.format, source.precision
        if kind not in lanes:
            lanes[kind] = list(_lanes(source.format, settings, machine, is_installed, source.precision))
        for lane in lanes[kind]:
            where = lane.backend, lane.device, lane.environment
            cell = Cell(source.name, lane.path.node[0], lane.precision, *where, lane.path.route)
            cells.append(PlannedCell(cell, lane.path.steps, lane.path.node[1], lane.decision))
        for candidate in candidates:
            if source.name in candidate.sources:
                cells.extend(_candidate_cells(source, candidate, settings, machine, is_installed))
    if sources and not cells:
        raise ConfigurationError(_nothing_left(settings, sources))
    return Plan(selected(cells, settings.cells) if settings.cells else tuple(cells))


def selected(cells: Sequence[PlannedCell], globs: Sequence[str]) -> tuple[PlannedCell, ...]:
    """The cells whose ids one of the globs matches.

    Raises: ConfigurationError for a glob that matches none.
    """
    ids = {planned.cell.id for planned in cells}
    matched = set(globs) & ids
    for glob in globs:
        found = {glob} if glob in ids else set(fnmatch.filter(ids, glob))
        if not found:
            near = suggest(glob, ids)
            hint = near if "did you mean" in near else "; 'modelformats plan MODEL' shows their ids"
            msg = f"--mf-cells: '{glob}' matches none of the {len(ids)} planned cells{hint}"
            raise ConfigurationError(msg)
        matched |= found
    return tuple(planned for planned in cells if planned.cell.id in matched)


def absent(source_format: str) -> list[tuple[str, str]]:
    """Combinations that are no cells at all, and why: for ``modelformats plan`` to print."""
    reached = {path.node for path in artifacts(source_format)}
    reasons = []
    for backend in registry.backends().values():
        for name, held in backend.precisions:
            if (name, held) not in reached:
                reasons.append(
                    (f"{name} at {held} on {backend.name}", f"no chain of converters leads from {source_format} there")
                )
        for name in sorted({f for f, _ in backend.precisions}):
            runs = {p for (f, _), ps in backend.precisions.items() if f == name for p in ps}
            reasons.extend(
                (f"{name} at {precision} on {backend.name}", f"{backend.name} does not declare {precision} for {name}")
                for precision in ("fp32", "fp16", "bf16")
                if precision not in runs
            )
    return reasons


def _check_names(settings: Settings) -> None:
    formats, backends = registry.formats(), registry.backends()
    routes = {f"{c.target}.{c.route}" for c in registry.converters().values()}
    devices = {d for b in backends.values() for d in b.devices}
    for kind, names, known in (
        ("format", settings.formats, {*formats, *routes}),
        ("precision", settings.precisions, set(PRECISIONS)),
        ("backend", settings.backends, set(backends)),
        ("device", settings.devices, devices),
        (
            "name to require",
            settings.require,
            {*formats, *routes, *PRECISIONS, *backends, *devices, *(e.name for e in settings.environments)},
        ),
    ):
        for name in names:
            if name not in known:
                msg = f"unknown {kind} '{name}'{suggest(name, known)}"
                raise ConfigurationError(msg)
    environments.check_met(settings.environments, tuple(backends.values()))


def _environments(settings: Settings, backend: Backend) -> Iterator[tuple[str, Backend]]:
    """Where a backend runs: in pytest's own environment, then in each that has other versions of what it stands on.

    What such an environment lacks is not known before it is made: its cells then say so.
    """
    yield "", backend
    for name in environments.meeting(settings.environments, backend):
        yield name, replace(backend, requires=())


def _lanes(
    source_format: str,
    settings: Settings,
    machine: Mapping[str, Any],
    is_installed: Callable[[str], bool],
    held: str,
) -> Iterator[_Lane]:
    """``held`` is the precision that the source's numbers are written down in."""
    order = {name: i for i, name in enumerate(registry.formats())}
    steps = {name: i for i, name in enumerate(PRECISIONS)}
    backends = {name: i for i, name in enumerate(registry.backends())}
    found = []
    for path in artifacts(source_format, held):
        if not _format_selected(path, settings):
            continue
        for backend in registry.backends().values():
            for precision in _runnable(backend, path, settings):
                for device in _devices(backend, precision, settings):
                    for name, there in _environments(settings, backend):
                        form = path.node[0]
                        decision = _decide(there, path, form, precision, device, settings, machine, is_installed)
                        decision = _too_fine(precision, held) or decision
                        found.append(_Lane(path, precision, backend.name, device, decision, name))
    found.sort(
        key=lambda n: (order[n.path.node[0]], n.path.route, steps[n.precision], backends[n.backend], n.device != "cpu")
    )
    seen = set()
    for lane in found:
        key = (lane.path.node[0], lane.path.route, lane.precision, lane.backend, lane.device, lane.environment)
        if key not in seen:
            seen.add(key)
            yield lane


def _too_fine(precision: str, held: str) -> Decision | None:
    """The decision on a cell whose results are finer than what the source's file is written in."""
    asked = PRECISIONS[precision]
    # Where weights alone are narrow they are what the file has to hold; the results were never in it.
    bits = asked.mantissa_bits if asked.weights_only else asked.result_bits
    if held == "fp32" or bits <= PRECISIONS[held].mantissa_bits:
        return None
    reason = (
        f"the file holds {held}, so nothing that is made of it can be {precision}; its cell at {held} runs it as it is"
    )
    return Decision(Outcome.UNSUPPORTED, reason)


def _format_selected(path: Path, settings: Settings) -> bool:
    name = path.node[0]
    if path.route:
        return settings.all_routes or f"{name}.{path.route}" in settings.formats
    return not settings.formats or name in settings.formats or _is_default_route(path, settings)


def _is_default_route(path: Path, settings: Settings) -> bool:
    """``onnx.dynamo`` names the default route too; its cells keep the plain id."""
    known = registry.converters()
    return any(
        f"{known[s.converter].target}.{known[s.converter].route}" in settings.formats
        for s in path.steps
        if known[s.converter].target == path.node[0]
    )


def _runnable(backend: Backend, path: Path, settings: Settings) -> Iterable[str]:
    for precision in backend.precisions.get(path.node, ()):
        if settings.precisions:
            if precision in settings.precisions:
                yield precision
        elif precision not in backend.opt_in_precisions:
            yield precision


def _devices(backend: Backend, precision: str, settings: Settings) -> Iterable[str]:
    if settings.backends and backend.name not in settings.backends:
        return ()
    return [d for d in backend.runs_on(precision) if not settings.devices or d in settings.devices]


def _decide(
    backend: Backend,
    path: Path,
    form: str,
    precision: str,
    device: str,
    settings: Settings,
    machine: Mapping[str, Any],
    is_installed: Callable[[str], bool],
) -> Decision:
    """``form`` is the format whose library is needed: the artifact's own, or that of a candidate's source."""
    needs: list[Any] = [
        *(registry.converters()[s.converter] for s in path.steps),
        registry.formats()[form],
        backend,
    ]
    for part in needs:
        for module in part.requires:
            if not is_installed(module):
                reason = f"{part.name} needs the Python package '{module}', which is not installed"
                return Decision(Outcome.MISSING_DEPENDENCY, reason, part.install)
    if device != "cpu" and not machine["gpu"]:
        reason = f"no {device} device on this machine (no NVIDIA driver was found)"
        return Decision(Outcome.NO_DEVICE, reason, "run on a machine with an NVIDIA GPU, or choose --mf-devices cpu")
    flags = backend.needs_cpu_flags.get(precision, ()) if device == "cpu" else ()
    if flags and not settings.slow and not set(flags) & set(machine["cpu_flags"]):
        reason = (
            f"{precision} arithmetic: this CPU has none of {', '.join(flags)}, so it is emulated, "
            "convolutions up to 40 times slower"
        )
        return Decision(Outcome.UNSUPPORTED, reason, "add --mf-slow to run it all the same")
    return Decision()


def _candidate_cells(
    source: Source,
    candidate: Candidate,
    settings: Settings,
    machine: Mapping[str, Any],
    is_installed: Callable[[str], bool],
) -> Iterator[PlannedCell]:
    """The cells of an artifact that the user already has, run at the precision it was declared with."""
    wanted = candidate.precision
    for backend in registry.backends().values():
        held = [h for (f, h), runs in backend.precisions.items() if f == candidate.format and wanted in runs]
        if not held:
            continue
        # An artifact that holds the precision comes before one that reaches it by a hint.
        node = (candidate.format, wanted if wanted in held else held[0])
        for device in _devices(backend, wanted, settings):
            if candidate.device and device != candidate.device:
                continue
            path = Path(node, ())
            # A file that is there needs its runtime; the model that it is judged against needs its framework.
            for name, there in _environments(settings, backend):
                decision = _decide(there, path, source.format, wanted, device, settings, machine, is_installed)
                cell = Cell(source.name, candidate.format, wanted, backend.name, device, name, candidate=candidate.stem)
                yield PlannedCell(cell, (), node[1], decision, str(candidate.path), candidate.kind)


def _nothing_left(settings: Settings, sources: Sequence[Source]) -> str:
    backends = [backend.precisions for backend in registry.backends().values()]
    chosen = [
        f"--mf-{name} {','.join(values)}"
        for name, values in (
            ("formats", settings.formats),
            ("precisions", settings.precisions),
            ("backends", settings.backends),
            ("devices", settings.devices),
        )
        if values
    ]
    kinds = ", ".join(sorted({s.format for s in sources}))
    if not settings.candidates and not any(node[0] in {s.format for s in sources} for b in backends for node in b):
        return f"nothing runs a model in {kinds} by itself; name the artifact to judge with --mf-candidate FILE"
    return (
        f"no cell is left to run for a model in {kinds} with {' '.join(chosen) or 'the default selection'}; "
        "'modelformats plan MODEL' shows which cells there are"
    )
