"""A reproduction bundle for a check that failed: which runs show the failure, and against what they are judged.

The bundle is a folder that needs nothing of this package: ``bundle_files.py`` writes it,
``bundle_script.py`` is the ``repro.py`` in it. Nothing is evaluated or run for it: all that goes
in has been there when the check ended.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pytest_modelformats import bundle_laws, laws, registry, training_mode
from pytest_modelformats.bundle_laws import TWO_RUNS
from pytest_modelformats.compare import FAITHFUL_LOW, POINT_LIMIT
from pytest_modelformats.errors import (
    ConvertError,
    ModelFormatsError,
    OutOfMemory,
    RunError,
    WorkerCrashed,
    WorkerTimeout,
)
from pytest_modelformats.schema import PRECISIONS, Outcome, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np

    from pytest_modelformats.campaign import Campaign
    from pytest_modelformats.schema import PlannedCell, Precision
    from pytest_modelformats.stages import Stages

FAILURES = frozenset({Outcome.FAILED, Outcome.FALLBACK})
ERRORS = (ConvertError, RunError, WorkerCrashed, WorkerTimeout, OutOfMemory)
_SAMPLES = ("parity", "outputs")
_KNOWN = {"contract", "parity", "batch", "determinism", bundle_laws.FUZZ, *bundle_laws.LAWS}
# What is judged by the runs of an artifact among themselves, at the precision that runs.
_OWN_RUNS = {"batch", "determinism", bundle_laws.FUZZ, *bundle_laws.LAWS}


@dataclass(frozen=True)
class Case:
    """What fails, and how it is shown.

    ``runs`` are (feed, session), both numbers. A group compares its ``left`` runs (run, row or
    ``None`` for all rows) with its ``right`` ones, or with ``expected`` where that is ``None``;
    ``wide`` widens the limits on rms and largest difference, ``order`` takes the right rows in another order,
    ``outputs`` says which outputs count, ``or_expected`` is another feed whose truth is right too.

    ``before`` are feeds that are run first, ``layouts`` [feed] say how they lie in memory, ``threads`` [session] are
    their numbers where they differ, ``together`` says with which feeds threads call a session at once, and ``limits``
    [output] replace the usual ones.

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


def case_of(
    campaign: Campaign, planned: PlannedCell, check: str, stage: str, ended: Verdict | ModelFormatsError
) -> Case | None:
    """The case that a failed check makes, ``None`` where there is nothing to reproduce in a runtime.

    ``stage`` is the fixture's stage in which it failed.
    """
    stages = campaign.stages
    if isinstance(ended, Verdict):
        if ended.outcome not in FAILURES:
            return None
        if training_mode.STATED in ended.statement:
            return _in_training_mode(planned, check, ended)
        known = stage in _KNOWN and (stage != bundle_laws.FUZZ or planned.cell.id in stages.fuzzer.shown)
        case = Case(planned.cell.id, check, stage if known else "other", ended.outcome.value, ended.sentence)
        return _judged(stages, planned, _with_runs(campaign, planned, stage, case, ended), ended)
    if not isinstance(ended, ERRORS) or stages.models.is_own(planned.cell.model, ended):
        return None
    opened = bool(stages.cells.job)
    if not opened and not planned.chain:
        return None
    case = Case(planned.cell.id, check, "run" if opened else "convert", ended.outcome, str(ended))
    return _with_runs(campaign, planned, stage, case, ended) if opened else case


def _in_training_mode(planned: PlannedCell, check: str, verdict: Verdict) -> Case:
    """The case of a file that holds nodes in training mode: nothing is run for it."""
    allowed = verdict.statement[training_mode.STATED]["of_source"]
    sentence = verdict.sentence
    return Case(planned.cell.id, check, "training", verdict.outcome.value, sentence, training_nodes_allowed=allowed)


def _with_runs(
    campaign: Campaign, planned: PlannedCell, stage: str, case: Case, ended: Verdict | ModelFormatsError
) -> Case:
    """The case with the runs that the stage makes."""
    stages, models, model = campaign.stages, campaign.stages.models, planned.cell.model
    if stage in bundle_laws.LAWS or (stage == bundle_laws.FUZZ and planned.cell.id in stages.fuzzer.shown):
        return bundle_laws.with_runs(stages, planned, stage, case, ended, campaign.settings.threads)
    if stage == "contract":
        return case
    samples = models.samples(model)
    if stage == "batch":
        return bundle_laws.after_samples(stages, planned, _batches(stages, model, case), ended)
    if stage == "determinism":
        groups = [
            {"what": what, "left": [[run, None]], "right": [[0, None]], "wide": TWO_RUNS}
            for run, what in ((1, "the second run"), (2, "a fresh session"))
        ]
        return replace(case, feeds=(models.rows(model, 0, 1),), runs=((0, 0), (0, 0), (0, 1)), groups=tuple(groups))
    if stage == "timing":
        return replace(case, feeds=(models.rows(model, 0, 1),), runs=((0, 0),))
    runs = tuple((feed, 0) for feed in range(len(samples.feeds)))
    group = {"what": "the samples", "left": [[run, None] for run, _ in runs], "right": None, "wide": (1.0, 1.0)}
    return replace(case, feeds=samples.feeds, runs=runs, groups=(group,))


def _batches(stages: Stages, model: str, case: Case) -> Case:
    """Each row alone, then the batches, as the batch stage runs them."""
    samples = stages.models.samples(model)
    alone = min(max(laws.BATCHES), samples.rows)
    sizes = [b for b in laws.BATCHES if 1 < b <= samples.rows]
    spans = [(i, i + 1) for i in range(alone)] + [(0, size) for size in sizes]
    feeds = tuple(stages.models.rows(model, *span) for span in spans)
    groups: list[dict[str, Any]] = [
        {"what": f"batch {spans[run][1]} against the source", "left": [[run, None]], "right": None, "wide": (1.0, 1.0)}
        for run in (0, *range(alone, len(spans)))
    ]
    outputs = stages.models.description(model).outputs
    if all(s.shape is not None and samples.batch_symbol in s.shape[:1] for s in outputs):
        for number, size in enumerate(sizes):
            what = f"rows of batch {size} against themselves alone"
            left, right = [[alone + number, i] for i in range(size)], [[i, None] for i in range(size)]
            groups.append({"what": what, "left": left, "right": right, "wide": TWO_RUNS})
    return replace(case, feeds=feeds, runs=tuple((i, 0) for i in range(len(feeds))), groups=tuple(groups))


def _judged(stages: Stages, planned: PlannedCell, case: Case, verdict: Verdict) -> Case:
    """The case with what is right and what may be: truth, noise floors and limits."""
    if case.law in {"contract", "unmodified"}:
        return case
    model = planned.cell.model
    reference, description = stages.models.reference(model), stages.models.description(model)
    precision = _running(stages, planned, case.law)
    own = {"fp16": ["float16"], "bf16": ["bfloat16"]}.get(precision.name, [])
    tolerances = stages._tolerances(planned) if case.law == "parity" else {}  # noqa: SLF001 - what parity judged by
    # The limit of the worst element is widened as the one of the rms was (compare.judge).
    widened, outputs = precision.limit / PRECISIONS[precision.name].limit, []
    for index, spec in enumerate(description.outputs):
        noise = reference.noise[precision.yardstick][index]
        judged = next((o for o in verdict.outputs if o.name == spec.name), None)
        error = None if judged is None else judged.error_rms
        finer = judged is not None and judged.outcome is Outcome.FALLBACK and (error or 0.0) < noise.rms
        tolerance = tolerances.get(spec.name) or tolerances.get("*")
        output = {
            "name": spec.name,
            "dtypes": [spec.dtype, *own, *(["float32"] if spec.dtype == "bfloat16" else [])],
            "noise_rms": noise.rms,
            "noise_max": noise.max,
            "limit_rms": precision.limit * noise.rms,
            "limit_max": POINT_LIMIT.get(precision.yardstick, POINT_LIMIT["fp32"]) * widened * noise.max,
            "low_rms": FAITHFUL_LOW * noise.rms if finer else 0.0,
            "allowed_flips": precision.limit * noise.flips,
            "error_rms_when_made": error,
            "tolerance": None if tolerance is None else {"rtol": tolerance.rtol, "atol": tolerance.atol},
        }
        outputs.append({**output, **(case.limits[index] if case.limits else {})})
    case = replace(case, outputs=tuple(outputs), expected=case.expected or _expected(stages, model, case))
    if case.law in bundle_laws.LAWS:
        return bundle_laws.seen(case, verdict)
    if case.law in _SAMPLES:
        case = replace(case, observed=tuple(stages.outputs(planned)))
        return case if _is_seen(case, verdict) else _by_bits(stages, planned, case, verdict)
    return case


def _running(stages: Stages, planned: PlannedCell, law: str) -> Precision:
    """The precision that the check judges by: after a fallback, laws hold at the one that ran."""
    asked = PRECISIONS[planned.cell.precision]
    return asked if law not in _OWN_RUNS else stages._running(planned)  # noqa: SLF001 - as these laws do


def _expected(stages: Stages, model: str, case: Case) -> tuple[Sequence[np.ndarray], ...]:
    """The truth of every feed, as far as it is judged against the truth."""
    truths = stages.models.reference(model).truths
    if case.law == "determinism" or case.law in bundle_laws.LAWS:
        return ()
    if case.law != "batch":
        return truths
    symbol = stages.models.samples(model).batch_symbol
    batched = [s.shape is not None and symbol in s.shape[:1] for s in stages.models.description(model).outputs]
    alone = min(max(laws.BATCHES), stages.models.samples(model).rows)
    spans = [slice(run, run + 1) if run < alone else slice(0, _rows(case.feeds[run])) for run, _ in case.runs]
    return tuple([t[span] if has else t for t, has in zip(truths[0], batched, strict=True)] for span in spans)


def _rows(feed: Mapping[str, np.ndarray]) -> int:
    return max(int(array.shape[0]) for array in feed.values() if array.ndim)


def _is_seen(case: Case, verdict: Verdict) -> bool:
    """Whether the script's own numbers show the failure: the verdict knows statistics that the script does not.

    Lost accuracy, stressed inputs, a slice or element beyond its own noise, a systematic part: a limit on the whole
    that tells these from a right artifact does not exist.
    """
    if not verdict.outputs:
        return True
    for output, judged in zip(case.outputs, verdict.outputs, strict=False):
        error = judged.error_rms
        if judged.outcome in FAILURES and (
            error is None
            or output["tolerance"]
            or error > output["limit_rms"]
            or (judged.error_max or 0.0) > output["limit_max"]
            or error < output["low_rms"]
        ):
            return True
    return False


def _by_bits(stages: Stages, planned: PlannedCell, case: Case, verdict: Verdict) -> Case:
    """The case told by its outputs, bit for bit: on the samples and, where they were run, on the stressed inputs."""
    feeds, observed = list(case.feeds), list(case.observed)
    stressed = stages.models.stress(planned.cell.model)
    if stressed is not None and any(output.stress_ratio is not None for output in verdict.outputs):
        feeds += stressed.feeds
        observed += stages.cells.once(
            "stress", planned, lambda: [stages.cells.run(planned, feed) for feed in stressed.feeds]
        )
    note = (
        "It failed by a statistic that repro.py does not compute. The bug is taken to exist while every output is, bit "
        "for bit, what came out when it failed; where they differ, repro.py is undecided: judge by pytest."
    )
    runs = tuple((feed, 0) for feed in range(len(feeds)))
    return replace(case, law="other", feeds=tuple(feeds), runs=runs, observed=tuple(observed), notes=(note,))


def settings_of(campaign: Campaign, planned: PlannedCell, case: Case) -> dict[str, Any]:
    """What the script opens (or converts) with: the job of the cell's session, or the steps of its chain."""
    models, model = campaign.stages.models, planned.cell.model
    description = models.description(model)
    common = {
        "format": planned.cell.format,
        "precision": planned.cell.precision,
        "device": planned.cell.device,
        "inputs": [s.to_json() for s in description.inputs],
        "outputs": [s.to_json() for s in description.outputs],
    }
    if case.law != "convert":
        entry = registry.backends()[planned.cell.backend].entry
        return {**common, **campaign.stages.cells.job, "entry": entry, "steps": []}
    source = models.source(model)
    options: dict[str, Any] = {"opset": campaign.settings.opset, "dynamic": not campaign.settings.static}
    steps, held = [], "fp32"
    for step in planned.chain:
        converter = registry.converters()[step.converter]
        target = registry.formats()[converter.target]
        job = {
            "input_precision": held,
            "precision": step.precision,
            "options": {name: options[name] for name in converter.options},
            "checker": target.module,
        }
        steps.append({"entry": converter.entry, "name": f"model{target.suffix}", "job": job})
        held = step.precision
    return {**common, "source": source.to_json(), "artifact": source.location, "steps": steps}


def keep(
    campaign: Campaign,
    planned: PlannedCell,
    check: str,
    stage: str,
    ended: Verdict | ModelFormatsError,
    folder: Path,
    submodel: Submodel | None = None,
) -> Path | None:
    """Write the bundle of a failed check below ``folder``; returns where it is, ``None`` where there is none to write.

    ``submodel`` is the smallest part of the model that still fails, where it is known.
    Raises: whatever reading and writing files does.
    """
    from pytest_modelformats import bundle_files

    case = case_of(campaign, planned, check, stage, ended)
    if case is None:
        return None
    target = folder / bundle_files.folder_name(planned.cell.id, check)
    settings = settings_of(campaign, planned, case)
    bundle_files.write(target, case, settings, planned, campaign)
    if submodel is not None:
        bundle_files.add_submodel(target, submodel, case, settings, planned, campaign)
    bundle_files.pack(target)
    return target
