"""What the user named and no planned cell has: a candidate, a name to require. Said, never dropped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_modelformats.errors import ConfigurationError
from pytest_modelformats.schema import registry

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from pytest_modelformats.schema import Backend, Cell, PlannedCell
    from pytest_modelformats.settings.nouns import Settings
    from pytest_modelformats.source.identify import Candidate

# The options that leave cells of a candidate out: its format and precision are its own.
_NARROWS = ("backends", "devices")


def check_candidates(settings: Settings, candidates: Iterable[Candidate], said: Collection[str]) -> None:
    """Every candidate has a backend that takes it, on a device that was asked for.

    ``said`` are the options of the command line. One that narrows leaves out the candidates of the
    configuration file as it leaves out other cells; a candidate beside it on the command line contradicts it.

    Raises: ConfigurationError, naming what leaves the candidate without a cell.
    """
    if "candidate" not in said and any(key in said for key in _NARROWS):
        return
    for candidate in candidates:
        why = _left_out(settings, candidate)
        if why:
            msg = f"the candidate '{candidate.path.name}' gets no cell: {why}"
            raise ConfigurationError(msg)


def _left_out(settings: Settings, candidate: Candidate) -> str:
    """Why no backend runs a candidate, "" where one does."""
    form, wanted = candidate.format, candidate.precision
    takes = [b for b in registry.backends().values() if any(f == form for f, _ in b.precisions)]
    if not takes:
        return f"it is a model in {form}, and no backend runs that"
    able = [backend for backend in takes if wanted in _runs(backend, form)]
    if not able:
        known = list(dict.fromkeys(p for backend in takes for p in _runs(backend, form)))
        return (
            f"{_names(takes)} {_verb(takes)} {form} at {', '.join(known)}, and not at {wanted}; "
            "say the precision that it has, as ,precision=fp16"
        )
    chosen = [backend for backend in able if not settings.backends or backend.name in settings.backends]
    if not chosen:
        return (
            f"it is {form} at {wanted}, which {_names(able)} {_verb(able)}, and --mf-backends is "
            f"{','.join(settings.backends)}; add {able[0].name} there"
        )
    devices = list(dict.fromkeys(device for backend in chosen for device in backend.runs_on(wanted)))
    if candidate.device and candidate.device not in devices:
        return (
            f"{_names(chosen)} {_verb(chosen)} {form} at {wanted} on {', '.join(devices)}, and not on "
            f"{candidate.device}; say another device"
        )
    asked = [device for device in devices if candidate.device in {"", device}]
    if settings.devices and not set(asked) & set(settings.devices):
        return f"it runs on {', '.join(asked)}, and --mf-devices is {','.join(settings.devices)}; add {asked[0]} there"
    return ""


def _runs(backend: Backend, form: str) -> list[str]:
    return [p for (f, _), precisions in backend.precisions.items() if f == form for p in precisions]


def _names(backends: Sequence[Backend]) -> str:
    return " and ".join(backend.name for backend in backends)


def _verb(backends: Sequence[Backend]) -> str:
    return "runs" if len(backends) == 1 else "run"


def names(cell: Cell) -> set[str]:
    """What ``--mf-require`` may call a cell by."""
    return {cell.format, cell.variant, cell.precision, cell.backend, cell.device, cell.environment} - {""}


def required(names_: Iterable[str], cells: Iterable[PlannedCell]) -> list[str]:
    """Those of the required names that none of the cells has."""
    there: set[str] = set()
    for planned in cells:
        there |= names(planned.cell)
    return [name for name in names_ if name not in there]


def require_complaints(settings: Settings, cells: Sequence[PlannedCell], said: Collection[str]) -> list[str]:
    """What is wrong with a run that was to look at something that it has no cell of.

    A command line that narrows may leave out what the configuration file requires, and not what it requires itself.
    """
    from pytest_modelformats.settings.options import NARROWS

    narrowing = [f"--mf-{key.replace('_', '-')}" for key in said if key in NARROWS and key not in {"model", "env"}]
    if narrowing and "require" not in said:
        return []
    because = f" with {' and '.join(narrowing)}" if narrowing else ""
    return [
        f"--mf-require {name}: no planned cell has it{because}, so it did not run; "
        "'modelformats plan MODEL' shows which cells there are"
        for name in required(settings.require, cells)
    ]
