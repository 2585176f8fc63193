"""The nouns of a reproduction bundle: what fails and how it is shown, its smallest part, and the run it is from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np

    from pytest_modelformats.checks.cell import Stages
    from pytest_modelformats.settings.nouns import Settings


@dataclass(frozen=True)
class Case:
    """What fails, and how it is shown.

    ``runs`` are (feed, session), both numbers. A group compares its ``left`` runs (run, row or
    ``None`` for all rows) with its ``right`` ones, or with ``expected`` where that is ``None``;
    ``wide`` widens the limits on rms and largest difference, ``order`` takes the right rows in another order,
    ``outputs`` says which outputs count, ``or_expected`` is another feed whose truth is right too.

    ``before`` are feeds that are run first, ``layouts`` [feed] say how they lie in memory, ``threads`` [session] are
    their numbers where they differ, ``together`` says with which feeds threads call a session at once, and ``limits``
    [output] replace the usual ones. ``dimensions`` are the inputs and outputs, as sentences have them, whose stated
    dimensions are what failed.

    Shapes: ``feeds`` [feed] name -> array; ``expected`` [feed][output]; ``observed`` [run][output].
    """

    cell: str
    check: str
    law: str
    outcome: str
    sentence: str
    feeds: tuple[Mapping[str, np.ndarray], ...] = ()
    runs: tuple[tuple[int, int], ...] = ()
    groups: tuple[Mapping[str, Any], ...] = ()
    expected: tuple[Sequence[np.ndarray], ...] = ()
    outputs: tuple[dict[str, Any], ...] = ()
    observed: tuple[Sequence[np.ndarray], ...] = ()
    notes: tuple[str, ...] = field(default=())
    before: tuple[int, ...] = ()
    layouts: tuple[Mapping[str, str], ...] = ()
    threads: tuple[int, ...] = ()
    together: Mapping[str, Any] | None = None
    limits: tuple[Mapping[str, float], ...] = ()
    training_nodes_allowed: int = 0
    dimensions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Submodel:
    """The smallest part of a model that still fails: a model, and ``.npy`` files with (name, path).

    ``expected`` is the float64 truth. ``noise`` is what rounding makes of an output (rms, largest), where it was
    measured.
    """

    model: Path
    inputs: tuple[tuple[str, Path], ...]
    expected: tuple[tuple[str, Path], ...]
    sentence: str = ""
    noise: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RunFacts:
    """The run that a bundle is from: its stages and settings, the command as it was typed, and the versions it had."""

    stages: Stages
    settings: Settings
    command: tuple[str, ...]
    versions: Mapping[str, Any]
