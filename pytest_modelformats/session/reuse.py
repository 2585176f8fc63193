"""Passes and measurements of earlier runs that nothing has changed under since: ``--mf-reuse``.

Off unless asked for. The precedent is ``go test``, which shows an unchanged package's pass as
"(cached)", and Bazel, which does the same: what passed once passes again as long as everything
that decides it is the same. Here that is the model's content, the samples, the tool's own code,
every installed distribution, the machine, the settings and the environment variables that
runtimes read. Only passes and undisturbed measurements are kept: what did not pass runs again.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import uuid
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_modelformats.convert.cache import key_of, sha256_of
from pytest_modelformats.record import write as record
from pytest_modelformats.schema import Outcome, OutputParity, Timing, Verdict, package, registry
from pytest_modelformats.schema.plain import plain
from pytest_modelformats.settings import machine
from pytest_modelformats.source.identify import content_hash

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pytest_modelformats.run.environments.made import Environments
    from pytest_modelformats.run.models import Models
    from pytest_modelformats.schema import PlannedCell
    from pytest_modelformats.settings.nouns import Settings

# The stages whose result is small and says all. Generated inputs are among them: one seed generates the same ones.
REUSABLE = frozenset(
    {
        *("contract", "parity", "batch", "determinism", "timing"),
        *("permutation", "unmodified", "concurrency", "history", "threads", "fuzz"),
    }
)
# What says where things lie, which cells there are or how a finished stage is judged as a whole: no stage's
# result depends on it, or what does is in the key by its content (models, samples, candidates).
_INDEPENDENT = frozenset(
    {
        *("rootdir", "cache", "report_dir", "config_file", "search_path", "expectations", "budgets", "reuse"),
        *("models", "candidates", "formats", "precisions", "backends", "devices", "suites", "all_routes", "slow"),
        *("cells", "require", "timeout_s", "memory_bytes", "environments", "history", "batch", "concurrency"),
        *("baseline", "save_baseline", "fail_on", "remeasure"),
    }
)
_VARIABLES = (
    "CUDA",
    "DNNL",
    "GOMP",
    "KMP",
    "LD_",
    "MKL",
    "NVIDIA",
    "OMP",
    "ONEDNN",
    "OPENBLAS",
    "OPENVINO",
    "ORT",
    "OV_",
    "PYTORCH",
    "TF_",
    "TORCH",
)


@dataclass(frozen=True, slots=True)
class Kept:
    """What a stage came to in an earlier run: its result, the model's line where it has one, and when that was."""

    result: Verdict | Timing
    line: Mapping[str, Any] | None
    at: str


class Reuse:
    """The folder of what passed, and the key under which a stage of a cell is kept there."""

    def __init__(self, settings: Settings, models: Models, environments: Environments | None = None) -> None:
        """Nothing is read before a stage is asked for."""
        self._environments = environments
        self._settings = settings
        self._models = models
        self._folder = settings.cache / "passes"

    def find(self, stage: str, planned: PlannedCell) -> Kept | None:
        """What the stage came to when everything was as it is now; ``None`` where that is not known."""
        if stage not in REUSABLE:
            return None
        path = self._path(stage, planned)
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            make = _timing if data["noun"] == "timing" else _verdict
            return Kept(make(data["result"]), data["line"], data["at"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None  # not there, or damaged: it runs again and is written again

    def keep(self, stage: str, planned: PlannedCell, result: object, line: Mapping[str, Any] | None) -> None:
        """A pass, or a measurement that was not disturbed, is there for later runs."""
        passed = isinstance(result, Verdict) and result.passed
        if stage not in REUSABLE or not (passed or (isinstance(result, Timing) and not result.disturbed)):
            return
        path = self._path(stage, planned)
        noun = "timing" if isinstance(result, Timing) else "verdict"
        aside = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
        text = json.dumps(plain({"noun": noun, "result": result, "line": line, "at": record.now()}), allow_nan=False)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            aside.write_text(text, encoding="utf-8")
            aside.replace(path)
        except OSError:
            aside.unlink(missing_ok=True)  # a full disk costs the next run some time, and this one nothing

    def _path(self, stage: str, planned: PlannedCell) -> Path:
        cell = planned.cell
        parts = {
            "surroundings": self._surroundings,
            "model": self._models.identity(cell.model),
            "cell": plain(asdict(replace(planned, candidate_path=Path(planned.candidate_path).name))),
            "candidate": self._candidate(planned),
            "stage": stage,
        }
        if cell.environment and self._environments is not None:
            parts["environment"] = self._environments.ready(cell.environment).stated()
        key = key_of(parts)
        return self._folder / key[:2] / f"{key}.json"

    def _candidate(self, planned: PlannedCell) -> str:
        if not planned.candidate_path:
            return ""
        source = self._models.source(planned.cell.model)
        form, kind = planned.cell.format, planned.candidate_kind
        return content_hash(replace(source, location=planned.candidate_path, format=form, kind=kind))

    @cached_property
    def _surroundings(self) -> str:
        """Everything that a result depends on besides the model and the cell."""
        settings = {f.name: getattr(self._settings, f.name) for f in fields(self._settings)}
        return key_of(
            {
                "code": _code(),
                "distributions": _distributions(),
                "machine": plain(machine.machine()),
                "interpreter": [sys.version, platform.platform()],
                "settings": plain({k: v for k, v in settings.items() if k not in _INDEPENDENT}),
                "variables": {k: v for k, v in os.environ.items() if k.startswith(_VARIABLES)},
            }
        )


def _code() -> dict[str, str]:
    """The tool's own files, and those of every registered system that comes from elsewhere."""
    parts: Iterable[str] = (
        *(b.entry for b in registry.backends().values()),
        *(c.entry for c in registry.converters().values()),
        *(f.module for f in registry.formats().values()),
    )
    modules = (sys.modules.get(part.partition(":")[0]) for part in parts)
    outside = {Path(m.__file__).resolve() for m in modules if m is not None and m.__file__}
    return {
        str(path): sha256_of(path) for path in sorted({*package.folder().rglob("*.py"), *outside}) if path.is_file()
    }


def _distributions() -> list[str]:
    from importlib.metadata import distributions

    return sorted({f"{found.metadata['Name']}=={found.version}" for found in distributions()})


def _verdict(data: Mapping[str, Any]) -> Verdict:
    outputs = tuple(OutputParity(**{**o, "outcome": Outcome(o["outcome"])}) for o in data["outputs"])
    verdict = Verdict(**{**data, "outcome": Outcome(data["outcome"]), "failure_kind": None, "outputs": outputs})
    if not verdict.passed:
        raise ValueError("only passes are kept")
    return verdict


def _timing(data: Mapping[str, Any]) -> Timing:
    return Timing(**{**data, "samples_ns": tuple(data["samples_ns"]), "pinned": tuple(data["pinned"])})
