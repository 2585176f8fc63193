"""A reproduction bundle as files: artifact, inputs, what is right, what is allowed, and the script that looks.

repro.py            runs with numpy and the runtime alone
case.json           what it runs, and the limits it judges by
environment.json    versions, machine and session settings with which it failed
README.txt          what failed, in words, and what lies here
artifact/           the model (for a conversion that failed: the source)
inputs/<feed>/      one .npy per input, in the order of case.json
expected/<feed>/    the float64 truth, one .npy per output
training_nodes.py   reads which nodes of a file are in training mode, where that is what failed
observed/<run>/     what came out when it failed, where that was kept
submodel/           the smallest part of the model that still fails, a bundle of its own
"""

from __future__ import annotations

import importlib
import inspect
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_modelformats import __version__
from pytest_modelformats.checks.bundle import script as bundle_script
from pytest_modelformats.errors import CacheError
from pytest_modelformats.run.workers import calls
from pytest_modelformats.schema import Outcome, registry
from pytest_modelformats.schema.dtypes import in_dtypes, own_dtypes
from pytest_modelformats.schema.plain import plain
from pytest_modelformats.schema.redact import redacted
from pytest_modelformats.settings import machine
from pytest_modelformats.source.companions import companions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

    from pytest_modelformats.checks.bundle.nouns import Case, RunFacts, Submodel
    from pytest_modelformats.schema import PlannedCell

# A ResNet-50 in fp32 is 102 MB; above this, an artifact stays where it is and the README says where.
COPIED_BYTES = 200_000_000
# Arrays above this are no bundle that anybody sends.
ARRAY_BYTES = 200_000_000
# What may be attached somewhere is smaller still; beyond this, the zip would only cost time and disk.
ZIPPED_BYTES = 100_000_000
# A sum of a thousand terms carries √1000 units of rounding.
ESTIMATED_UNITS = 32
_UNSAFE = re.compile(r"[^A-Za-z0-9_.@~+-]")
_MARKS = (
    "# --- how the artifact is opened\n",
    "# --- how it is called\n",
    "# --- the rest is the same for every runtime\n",
)


def folder_name(cell: str, check: str) -> str:
    """``<cell>-<check>``, with nothing in it that a file system minds."""
    return _UNSAFE.sub("_", f"{cell}-{check}")[:180]


def write(
    target: Path,
    case: Case,
    settings: Mapping[str, Any],
    planned: PlannedCell,
    run: RunFacts,
    model: Path | None = None,
) -> None:
    """Write the folder; what an earlier run left there is replaced.

    ``model`` is the artifact where it is not the one of ``settings``. Raises: CacheError where the arrays are too
    large, OSError.
    """
    arrays = [a for feed in case.feeds for a in feed.values()]
    arrays += [a for part in (*case.expected, *case.observed) for a in part]
    size = sum(a.nbytes for a in arrays)
    if size > ARRAY_BYTES:
        msg = f"the inputs and outputs of {case.cell} are {size / 1e6:.0f} MB, more than a bundle may hold"
        raise CacheError(msg)
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    example: dict[str, str] = {}
    if case.law == "convert":
        feed = run.stages.models.rows(planned.cell.model, 0, 2)
        _save(target / "inputs" / "example", list(feed.values()))
        example = {name: f"inputs/example/{i}.npy" for i, name in enumerate(feed)}
    for number, feed in enumerate(case.feeds):
        _save(target / "inputs" / str(number), [feed[s["name"]] for s in settings["inputs"]])
    outputs = _save_expected(target, case)
    for number, results in enumerate(case.observed):
        _save(target / "observed" / str(number), results)
    copied = _artifact(target, settings, planned, model)
    told = _case(case, planned, run, outputs) | {"settings": {**settings, **copied, "example": example}}
    (target / "case.json").write_text(_json(told), encoding="utf-8")
    (target / "environment.json").write_text(_json(_environment(run, settings, planned)), encoding="utf-8")
    (target / "repro.py").write_text(_script(planned, case), encoding="utf-8")
    if case.law == "training":
        function = importlib.import_module(registry.formats()[planned.cell.format].module).training_nodes
        shutil.copyfile(inspect.getfile(function), target / "training_nodes.py")
    (target / "README.txt").write_text(_readme(target, case, told), encoding="utf-8")


def add_submodel(
    target: Path,
    part: Submodel,
    case: Case,
    settings: Mapping[str, Any],
    planned: PlannedCell,
    run: RunFacts,
) -> None:
    """Put a bundle of the smallest failing part below ``submodel/``; raises OSError, ValueError."""
    import numpy as np

    def loaded(files: Sequence[tuple[str, Path]]) -> dict[str, np.ndarray]:
        return {name: np.load(path, allow_pickle=False) for name, path in files}

    inputs, expected = loaded(part.inputs), loaded(part.expected)
    smaller = replace(
        case,
        law="parity",
        sentence=part.sentence or case.sentence,
        feeds=(inputs,),
        runs=((0, 0),),
        groups=({"what": "the sub-model", "left": [[0, None]], "right": None, "wide": (1.0, 1.0)},),
        expected=(list(expected.values()),),
        outputs=tuple(_limits(part, planned, name, truth) for name, truth in expected.items()),
        observed=(),
        # What the whole was fed before, and how it lay in memory, is none of the part's.
        before=(),
        layouts=(),
        limits=(),
        notes=() if part.noise else (f"The limits are {ESTIMATED_UNITS} units of rounding of each output's rms.",),
    )
    own = {"inputs": _specs(inputs), "outputs": _specs(expected)}
    write(target / "submodel", smaller, {**settings, **own}, planned, run, part.model)


def _specs(arrays: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    return [
        {"name": name, "dtype": array.dtype.name, "shape": list(array.shape), "low": None, "high": None}
        for name, array in arrays.items()
    ]


def _limits(part: Submodel, planned: PlannedCell, name: str, truth: np.ndarray) -> dict[str, Any]:
    """What an output of a sub-model may be off by: its measured noise, or an estimate where that is not known."""
    import numpy as np

    from pytest_modelformats.compare.floating import POINT_LIMIT
    from pytest_modelformats.schema import PRECISIONS

    precision = PRECISIONS[planned.cell.precision]
    values = np.abs(truth.astype(np.float64))
    values = values[np.isfinite(values)]
    unit = ESTIMATED_UNITS * 2.0 ** -(precision.mantissa_bits + 1)
    estimate = (
        unit * float(np.sqrt(np.mean(values**2) if values.size else 0.0)),
        unit * float(values.max(initial=0.0)),
    )
    rms, largest = part.noise.get(name, estimate)
    return {
        "name": name,
        "dtypes": [],
        "noise_rms": rms,
        "noise_max": largest,
        "limit_rms": precision.limit * rms,
        "limit_max": POINT_LIMIT.get(precision.yardstick, POINT_LIMIT["fp32"]) * largest,
        "low_rms": 0.0,
        "allowed_flips": 0.0,
        "error_rms_when_made": None,
        "tolerance": None,
    }


def pack(target: Path) -> None:
    """Write ``<folder>.zip`` beside the folder, unless it would be large: then the README says so."""
    size = sum(file.stat().st_size for file in target.rglob("*") if file.is_file())
    if size <= ZIPPED_BYTES:
        shutil.make_archive(str(target), "zip", target.parent, target.name)
        return
    with (target / "README.txt").open("a", encoding="utf-8") as file:
        file.write(f"\nThis folder is {size / 1e6:.0f} MB, so no .zip was made of it.\n")


def _save(folder: Path, arrays: Sequence[np.ndarray]) -> None:
    import numpy as np

    folder.mkdir(parents=True)
    for index, array in enumerate(arrays):
        np.save(folder / f"{index}.npy", np.asarray(array), allow_pickle=False)


def _save_expected(target: Path, case: Case) -> list[dict[str, Any]]:
    """Write the truth; where it is sampled (a golden bundle's may be), its values and their positions."""
    import numpy as np

    outputs = [dict(output) for output in case.outputs]
    for number, truths in enumerate(case.expected):
        _save(target / "expected" / str(number), [getattr(t, "values", t) for t in truths])
        for index, truth in enumerate(truths):
            positions = getattr(truth, "positions", None)
            if positions is not None and "positions" not in outputs[index]:
                outputs[index]["positions"] = f"expected/positions-{index}.npy"
                np.save(target / "expected" / f"positions-{index}.npy", positions, allow_pickle=False)
    return outputs


def _artifact(target: Path, settings: Mapping[str, Any], planned: PlannedCell, model: Path | None) -> dict[str, Any]:
    """Copy the artifact with everything that belongs to it; what of the settings changes with that.

    It is a copy, not a link: somebody will put another file in its place, and the cache must not notice.
    """
    location = str(model or settings["artifact"])
    source = {"source_is_artifact": settings["source"]["location"] == location}
    path = Path(location)
    if not path.is_file():
        return {**source, "artifact_is": "callable"}
    form = planned.cell.format if settings["steps"] == [] else settings["source"]["format"]
    files = [path, *companions(path, form)]
    if sum(file.stat().st_size for file in files) > COPIED_BYTES:
        return {**source, "artifact_is": "file elsewhere", "artifact": location}
    for file in files:
        place = target / "artifact" / file.relative_to(path.parent)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, place)
    return {**source, "artifact_is": "file", "artifact": f"artifact/{path.name}"}


def _case(case: Case, planned: PlannedCell, run: RunFacts, outputs: list[dict[str, Any]]) -> dict[str, Any]:
    form = registry.formats()[planned.cell.format]
    limited = case.outcome == Outcome.OUT_OF_MEMORY
    return {
        "bundle": 1,
        "tool": __version__,
        "cell": case.cell,
        "check": case.check,
        "law": case.law,
        "outcome": case.outcome,
        "sentence": case.sentence,
        "install": _install(planned, case, run),
        "timeout_s": run.settings.timeout_s,
        "memory_bytes": run.settings.memory_bytes if limited else 0,
        "named": {"input": form.named_inputs, "output": form.named_outputs},
        "invented": run.stages.invented(planned),
        "runs": case.runs,
        "before": case.before,
        "layouts": case.layouts,
        "threads": case.threads,
        "together": case.together,
        "training_nodes_allowed": case.training_nodes_allowed,
        "dimensions": case.dimensions,
        "groups": case.groups,
        "outputs": outputs,
        "expected_shapes": [[list(t.shape) for t in truths] for truths in case.expected],
    }


def _alone(planned: PlannedCell, case: Case) -> Sequence[Any]:
    """The functions with which the cell's backend opens an artifact without this package."""
    if case.law == "convert":
        return ()
    module = registry.backends()[planned.cell.backend].entry.partition(":")[0]
    try:
        return tuple(getattr(importlib.import_module(module), "ALONE", ()))
    except ImportError:  # it lives in the environment of the cell alone
        return ()


def _install(planned: PlannedCell, case: Case, run: RunFacts) -> str:
    backend = registry.backends()[planned.cell.backend]
    found = machine.versions(("numpy", *backend.libraries))
    if case.law != "convert":  # what converts is pytest's own environment
        found |= run.stages.cells.environments.required(planned.cell.environment)
    wanted = [f"{name}=={version}" for name, version in found.items()]
    alone = f"pip install {' '.join(wanted)}"
    return alone if _alone(planned, case) else f"{alone} pytest-modelformats=={__version__}"


def _environment(run: RunFacts, settings: Mapping[str, Any], planned: PlannedCell) -> dict[str, Any]:
    command = ["pytest", *(redacted(str(arg)) for arg in run.command)]
    name = planned.cell.environment
    return {
        "tool": __version__,
        "command": command,
        "versions": dict(run.versions),
        "machine": machine.machine(),
        **({"environment": run.stages.cells.environments.stated([name])} if name else {}),
        "session": {k: settings.get(k) for k in ("precision", "device", "threads", "options", "artifact_precision")},
    }


def _script(planned: PlannedCell, case: Case) -> str:
    """``repro.py``, with the backend's own way of opening in the place that is marked for it."""
    text = inspect.getsource(bundle_script)
    functions = _alone(planned, case)
    if functions:
        text = _between(text, *_MARKS[:2], functions)
    called = (own_dtypes, in_dtypes, calls._laid_out, calls.laid_out, calls.copies)  # noqa: SLF001 - the script is to hold all of them
    return _between(text, *_MARKS[1:], (*called, calls.changed, calls.together))


def _between(text: str, start: str, end: str, functions: Sequence[Any]) -> str:
    """The text with functions in place of what stands between two marks."""
    before, _, rest = text.partition(start)
    _, _, after = rest.partition(end)
    return "".join([before, start, *(f"{inspect.getsource(f)}\n\n" for f in functions), end, after])


def _readme(target: Path, case: Case, told: Mapping[str, Any]) -> str:
    settings = told["settings"]
    lines = [f"{case.cell}: {case.check} ended in {case.outcome}.", "", case.sentence, ""]
    lines += ["  python repro.py     exits 1 while this is so, 0 when it no longer is", f"  {told['install']}", ""]
    if case.law == "convert" or not settings["artifact_is"].startswith("file"):
        lines += ["The model's own code is not in here: it is imported from where it was.", ""]
    if settings["artifact_is"] == "file elsewhere":
        lines += [
            f"The artifact is above {COPIED_BYTES / 1e6:.0f} MB and was not copied. It is {settings['artifact']};",
            "elsewhere, say where it is: python repro.py --artifact FILE",
            "",
        ]
    if settings["artifact_is"] == "file":
        lines += [f"The model is {settings['artifact']}. Put another one there to see whether it is right,", ""]
        lines[-2] += " or python repro.py --artifact FILE."
    named = {"inputs": settings["inputs"], "expected": told["outputs"]}
    for kind, specs in named.items():
        if (target / kind).is_dir():
            names = ", ".join(f"{i}.npy {spec['name']}" for i, spec in enumerate(specs))
            lines.append(f"{kind}/<feed>/: {names}")
    lines += [
        f"limits of '{o['name']}': {o['limit_rms']:.3g} rms, {o['limit_max']:.3g} at most "
        f"(rounding alone makes {o['noise_rms']:.3g} and {o['noise_max']:.3g})"
        for o in told["outputs"]
    ]
    lines += ["", *case.notes, "case.json says what is run; environment.json where it failed.", ""]
    return "\n".join(lines)


def _json(data: Any) -> str:
    return json.dumps(plain(data), indent=1, allow_nan=False) + "\n"
