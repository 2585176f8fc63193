"""What was asked of a run, as one object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_modelformats.schema import TensorSpec
    from pytest_modelformats.schema.limits import Budget, Tolerance
    from pytest_modelformats.schema.metrics import Margin


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """A model as it was asked for; ``name`` is "" where it is to be made from the file's.

    ``location`` is an absolute path (a file or a folder), ``module:callable`` or
    ``<absolute path>.py:callable``, and so are ``arch`` and ``data`` where they are not "".
    ``golden``: it has to be a golden bundle.
    """

    name: str
    location: str
    arch: str = ""
    inputs: tuple[TensorSpec, ...] = ()
    data: str = ""
    trust: bool = False
    golden: bool = False


@dataclass(frozen=True, slots=True)
class CandidateEntry:
    """A candidate as it was asked for; ``model`` is "" where it was not named, ``device`` "" for any."""

    path: Path
    precision: str = "fp32"
    device: str = ""
    model: str = ""


@dataclass(frozen=True, slots=True)
class EnvironmentEntry:
    """An environment as it was asked for.

    ``python`` is the interpreter that it is based on ("" for pytest's own), ``interpreter`` the one of an environment
    that is there already and is used as it is ("" where one is made).
    """

    name: str
    requirements: tuple[str, ...] = ()
    python: str = ""
    interpreter: str = ""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the command line and the configuration file come to.

    An empty ``formats``, ``precisions``, ``backends``, ``devices``, ``cells`` or ``suites`` means all of them.
    """

    rootdir: Path
    cache: Path
    report_dir: Path
    memory_bytes: int
    config_file: Path | None = None
    search_path: tuple[str, ...] = ()
    models: tuple[ModelEntry, ...] = ()
    candidates: tuple[CandidateEntry, ...] = ()
    environments: tuple[EnvironmentEntry, ...] = ()
    formats: tuple[str, ...] = ()
    precisions: tuple[str, ...] = ()
    backends: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    cells: tuple[str, ...] = ()
    suites: tuple[str, ...] = ()
    all_routes: bool = False
    require: tuple[str, ...] = ()
    opset: int | None = None
    static: bool = False
    threads: int = 1
    samples: int = 8
    seed: int = 0
    fuzz: int | None = None
    fuzz_budget_s: float = 60.0
    batch: tuple[int, ...] = ()
    concurrency: tuple[int, ...] = ()
    time_budget_s: float = 2.0
    localise_budget_s: float = 20.0
    slow: bool = False
    timeout_s: float = 600.0
    isolate: str = "process"
    ort_optimization: str = "all"
    reuse: bool = False
    history: str = ""
    bundles: int = 10
    expectations: tuple[Path, ...] = ()
    update_expectations: bool = False
    tolerances: tuple[Tolerance, ...] = ()
    budgets: tuple[Budget, ...] = ()
    baseline: str = ""
    save_baseline: str = ""
    # None: the default of schema/metrics.py.
    fail_on: tuple[Margin, ...] | None = None
    remeasure: bool = False
