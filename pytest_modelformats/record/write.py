"""JSON lines: a header, one line per model, cell and check, a footer.

The border at which everything becomes plain: what crosses pytest-xdist or goes into JSON
holds no numpy scalar, no path, no enum and no NaN.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_modelformats import __version__
from pytest_modelformats.compare.reference import word
from pytest_modelformats.record.packed_samples import pack
from pytest_modelformats.schema import SCHEMA_VERSION, Outcome
from pytest_modelformats.schema.outcome import FAILURES, awaits_parity, cell_outcome
from pytest_modelformats.schema.plain import plain

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_modelformats.compare.reference import Reference
    from pytest_modelformats.schema import Description, PlannedCell, Source, Timing, Verdict
    from pytest_modelformats.settings.nouns import Settings
    from pytest_modelformats.source.sizes import Sizes

TIMED_WHERE_READABLE = (
    *("device_memory_bytes", "device_memory_source", "host_to_device_ns", "compute_ns", "device_to_host_ns"),
    *("energy_j", "energy_source", "memory_growth_bytes", "first_session", "sizes"),
)


def dumps(line: Mapping[str, Any]) -> str:
    """One line of the record."""
    return json.dumps(plain(line), allow_nan=False, separators=(",", ":"))


def now() -> str:
    """The time, in UTC, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def header_line(
    run: str, command: Sequence[str], machine: Mapping[str, Any], versions: Mapping[str, str], settings: Settings
) -> dict[str, Any]:
    """Who ran what, where, and with which versions."""
    options = {
        name: getattr(settings, name)
        for name in (
            "threads",
            "samples",
            "seed",
            "time_budget_s",
            "timeout_s",
            "isolate",
            "ort_optimization",
            "static",
        )
    }
    return {
        "kind": "header",
        "schema": SCHEMA_VERSION,
        "run": run,
        "started": now(),
        "tool": __version__,
        "command": list(command),
        "machine": machine,
        "versions": dict(sorted(versions.items())),
        "options": options | {"opset": settings.opset, "memory_bytes": settings.memory_bytes},
    }


def cell_line(planned: PlannedCell, *, parity_asked: bool) -> dict[str, Any]:
    """A planned cell, its decision, and whether the parity check is among the tests that were selected for it."""
    cell = planned.cell
    return {
        "kind": "cell",
        "cell": cell.id,
        "model": cell.model,
        "format": cell.format,
        "route": cell.route,
        "precision": cell.precision,
        "backend": cell.backend,
        "device": cell.device,
        "environment": cell.environment,
        "candidate": cell.candidate,
        "chain": [f"{s.converter}:{s.precision}" for s in planned.chain],
        "decision": "run" if planned.decision.outcome is None else planned.decision.outcome.value,
        "reason": planned.decision.reason,
        "install": planned.decision.install,
        "parity_asked": parity_asked,
    }


def model_line(
    source: Source, description: Description, rows: int, origin: str, reference: Reference, sizes: Sizes | None = None
) -> dict[str, Any]:
    """A source whose reference was evaluated, with its noise floors and the sizes of what it leaves free."""
    names = [s.name for s in description.outputs]
    noise = [
        {"output": n, "precision": p, "noise_rms": v.rms, "noise_max": v.max, "method": reference.methods.get(p, "")}
        | {"how": word(reference.methods.get(p, ""))}
        for p, values in reference.noise.items()
        for n, v in zip(names, values, strict=True)
    ]
    return {
        "kind": "model",
        "model": source.name,
        "source": Path(source.location).name,
        "format": source.format,
        "source_kind": source.kind,
        "sha256": source.sha256,
        "inputs": [str(s) for s in description.inputs],
        "outputs": [str(s) for s in description.outputs],
        "samples": rows,
        "input_origin": origin,
        "truth_method": reference.methods.get("float64", ""),
        "truth_how": word(reference.methods.get("float64", "")),
        "noise": noise,
        "noise_missing": [{"precision": p, "reason": why} for p, why in reference.missing.items()],
        **sizes_data(sizes),
        **({"notes": list(description.notes)} if description.notes else {}),
    }


def sizes_data(sizes: Sizes | None) -> dict[str, Any]:
    """What a model line says of sizes; nothing where no dimension is free."""
    if sizes is None or not sizes.dimensions:
        return {}
    found: dict[str, Any] = {"sizes": [one.to_json() for one in sizes.dimensions]}
    if sizes.tried:
        found |= {"further_sizes": [sizes.named(one) for one in sizes.further], "pin": list(sizes.pin)}
    return found


def verdict_data(verdict: Verdict) -> dict[str, Any]:
    """What a check line carries of a verdict."""
    worst = max(verdict.outputs, key=lambda o: o.noise_ratio or 0.0, default=None)
    return {
        "outputs": [asdict(o) for o in verdict.outputs],
        "noise_ratio": verdict.noise_ratio,
        "effective_precision": worst.effective_precision if worst else "",
        "statement": verdict.statement,
        **({"execution": verdict.execution} if verdict.execution else {}),
        **({"contradiction": verdict.contradiction} if verdict.contradiction else {}),
    }


def timing_data(timing: Timing) -> dict[str, Any]:
    """What a check line carries of a measurement."""
    data = asdict(timing)
    # What could not be read is not there: a record never says null or "" for it.
    absent = {name for name in TIMED_WHERE_READABLE if data[name] is None or data[name] == "" or data[name] == {}}
    data = {name: value for name, value in data.items() if name not in absent}
    return {**data, "samples": len(timing.samples_ns), "samples_ns": pack(timing.samples_ns)}


class Recorder:
    """Writes a run's lines as they come, and its footer at the end."""

    def __init__(self, report_dir: Path, started: str) -> None:
        """Create ``<report_dir>/<run>/results.jsonl``; nothing is written yet."""
        stamp = datetime.now(timezone.utc).strftime("%Y%m%d-%H%M%S")
        self.run = f"{stamp}-{os.urandom(2).hex()}"
        self.folder = report_dir / self.run
        self.folder.mkdir(parents=True, exist_ok=False)
        self.path = self.folder / "results.jsonl"
        self._handle = self.path.open("w", encoding="utf-8")
        self._started = started
        self._planned: dict[str, str] = {}
        self._asked: set[str] = set()
        self._heard: dict[str, list[tuple[str, Outcome]]] = {}
        self._models: set[str] = set()
        self.conversions: Counter[str] = Counter()
        self.expectations_met: Counter[str] = Counter()
        self.measured = 0
        self.closed = False

    def write(self, line: Mapping[str, Any]) -> None:
        """Append a line; it is on disk when this returns."""
        kind = line["kind"]
        if kind == "cell":
            self._planned[line["cell"]] = line["decision"]
            if line.get("parity_asked"):
                self._asked.add(line["cell"])
        elif kind == "check":
            outcome = Outcome(line["outcome"])
            self._heard.setdefault(line["cell"], []).append((line["check"], outcome))
            self.conversions.update(line.get("conversions") or {})
            if line.get("expectation"):
                self.expectations_met[line["expectation"]] += 1
            self.measured += outcome not in {Outcome.UNSUPPORTED, Outcome.MISSING_DEPENDENCY, Outcome.NO_DEVICE}
        elif kind == "model":
            if line["model"] in self._models:
                return
            self._models.add(line["model"])
        self._handle.write(dumps(line) + "\n")
        self._handle.flush()

    def outcomes(self) -> dict[str, Outcome | None]:
        """Every planned cell's one outcome; ``None`` where the cell was to run and nothing was heard of it."""
        found: dict[str, Outcome | None] = {}
        for cell, decision in self._planned.items():
            heard = self._heard.get(cell, [])
            unheard = decision == "run" and not heard
            found[cell] = None if unheard else cell_outcome(decision, heard, parity_asked=cell in self._asked)
        return found

    def _cut_short(self, cell: str, outcome: Outcome | None) -> bool:
        """Whether the run ended before a cell, or the parity check that decides it, had its turn."""
        if outcome is None:
            return True
        return outcome not in FAILURES and awaits_parity(self._heard.get(cell, []), asked=cell in self._asked)

    def close(self, *, interrupted: bool, exitstatus: int, duration_s: float) -> bool:
        """Write the footer; returns whether every planned cell has an outcome."""
        outcomes = self.outcomes()
        complete = not interrupted and not any(self._cut_short(cell, o) for cell, o in outcomes.items())
        known = {cell: o for cell, o in outcomes.items() if o is not None}
        self.write(
            {
                "kind": "footer",
                "finished": now(),
                "duration_s": round(duration_s, 3),
                "complete": complete,
                "totals": Counter(o.value for o in known.values()),
                "cells": known,
                "conversions": {"made": self.conversions["made"], "cached": self.conversions["cached"]},
                "exitstatus": exitstatus,
            }
        )
        self._handle.close()
        self.closed = True
        return complete


def point_latest(folder: Path) -> None:
    """Make ``latest`` beside a run's folder lead to it."""
    link = folder.parent / "latest"
    aside = folder.parent / f".latest-{os.getpid()}"
    try:
        aside.symlink_to(folder.name, target_is_directory=True)
        aside.replace(link)
    except OSError:
        aside.unlink(missing_ok=True)
        (folder.parent / "latest.txt").write_text(folder.name + "\n", encoding="utf-8")
