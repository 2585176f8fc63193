"""A reproduction bundle for a check that failed: which runs show the failure, and against what they are judged.

The bundle is a folder that needs nothing of this package: ``checks/bundle/files.py`` writes it,
``checks/bundle/script.py`` is the ``repro.py`` in it. Nothing is evaluated or run for it: all that goes
in has been there when the check ended.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pytest_modelformats.checks import batch as batches
from pytest_modelformats.checks import stress_failure, training_mode
from pytest_modelformats.checks.bundle import laws
from pytest_modelformats.checks.bundle.laws import TWO_RUNS
from pytest_modelformats.checks.bundle.nouns import Case, Submodel
from pytest_modelformats.checks.bundle.script import NO_LIMIT
from pytest_modelformats.checks.contract import LOST
from pytest_modelformats.compare import stress, usability
from pytest_modelformats.compare.floating import FAITHFUL_LOW, POINT_LIMIT
from pytest_modelformats.errors import (
    ConvertError,
    ModelFormatsError,
    OutOfMemory,
    RunError,
    WorkerCrashed,
    WorkerTimeout,
)
from pytest_modelformats.schema import PRECISIONS, FailureKind, Outcome, Verdict, registry

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np

    from pytest_modelformats.checks.bundle.nouns import RunFacts
    from pytest_modelformats.checks.cell import Stages
    from pytest_modelformats.checks.further_sizes import AtSize
    from pytest_modelformats.compare.noise import Noise
    from pytest_modelformats.schema import PlannedCell, Precision

FAILURES = frozenset({Outcome.FAILED, Outcome.FALLBACK})
ERRORS = (ConvertError, RunError, WorkerCrashed, WorkerTimeout, OutOfMemory)
_SAMPLES = ("parity", "outputs")
_KNOWN = {"contract", "parity", "batch", "determinism", laws.FUZZ, *laws.LAWS}
# What is judged by the runs of an artifact among themselves, at the precision that runs.
_OWN_RUNS = {"batch", "determinism", laws.FUZZ, *laws.LAWS}


def case_of(
    run: RunFacts, planned: PlannedCell, check: str, stage: str, ended: Verdict | ModelFormatsError
) -> Case | None:
    """The case that a failed check makes, ``None`` where there is nothing to reproduce in a runtime.

    ``stage`` is the fixture's stage in which it failed.
    """
    stages = run.stages
    if isinstance(ended, Verdict):
        if ended.outcome not in FAILURES:
            return None
        if training_mode.STATED in ended.statement:
            return _in_training_mode(planned, check, ended)
        known = stage in _KNOWN and (stage != laws.FUZZ or planned.cell.id in stages.fuzzer.shown)
        case = Case(planned.cell.id, check, stage if known else "other", ended.outcome.value, ended.sentence)
        return _judged(stages, planned, _with_runs(run, planned, stage, case, ended), ended)
    if not isinstance(ended, ERRORS) or stages.models.is_own(planned.cell.model, ended):
        return None
    opened = bool(stages.cells.job)
    if not opened and not planned.chain:
        return None
    case = Case(planned.cell.id, check, "run" if opened else "convert", ended.outcome, str(ended))
    return _with_runs(run, planned, stage, case, ended) if opened else case


def _in_training_mode(planned: PlannedCell, check: str, verdict: Verdict) -> Case:
    """The case of a file that holds nodes in training mode: nothing is run for it."""
    allowed = verdict.statement[training_mode.STATED]["of_source"]
    sentence = verdict.sentence
    return Case(planned.cell.id, check, "training", verdict.outcome.value, sentence, training_nodes_allowed=allowed)


def _with_runs(run: RunFacts, planned: PlannedCell, stage: str, case: Case, ended: Verdict | ModelFormatsError) -> Case:
    """The case with the runs that the stage makes."""
    stages, models, model = run.stages, run.stages.models, planned.cell.model
    if stage in laws.LAWS or (stage == laws.FUZZ and planned.cell.id in stages.fuzzer.shown):
        return laws.with_runs(stages, planned, stage, case, ended, run.settings.threads)
    if stage == "contract":
        return replace(case, dimensions=tuple(ended.statement.get(LOST, ()))) if isinstance(ended, Verdict) else case
    samples = models.samples(model)
    if stage == "batch":
        return laws.after_samples(stages, planned, _batches(stages, planned, case, ended), ended)
    if stage == "determinism":
        groups = [
            {"what": what, "left": [[run, None]], "right": [[0, None]], "wide": TWO_RUNS}
            for run, what in ((1, "the second run"), (2, "a fresh session"))
        ]
        return replace(case, feeds=(models.rows(model, 0, 1),), runs=((0, 0), (0, 0), (0, 1)), groups=tuple(groups))
    if stage == "timing":
        return replace(case, feeds=(models.rows(model, 0, 1),), runs=((0, 0),))
    at = stages.at_size.get(planned.cell.id) if stage == "parity" else None
    if at is not None:
        case, samples = _at_size(planned, case, at), replace(samples, feeds=tuple(map(dict, at.feeds)))
    runs = tuple((feed, 0) for feed in range(len(samples.feeds)))
    group = {
        "what": f"inputs of {at.where}" if at else "the samples",
        "left": [[run, None] for run, _ in runs],
        "right": None,
        "wide": (1.0, 1.0),
    }
    return replace(case, feeds=samples.feeds, runs=runs, groups=(group,))


def _at_size(planned: PlannedCell, case: Case, at: AtSize) -> Case:
    """The case with the truth and the limits of a cell that is right at the sizes of its samples, and not at these."""
    precision = PRECISIONS[planned.cell.precision]
    return replace(case, expected=tuple(at.truths), limits=tuple(_limits(noise, precision) for noise in at.noise))


def _limits(noise: Noise, precision: Precision, widened: float = 1.0) -> dict[str, float]:
    """What an output may be off by; ``widened`` is how much wider than usual the limit of the worst element is."""
    return {
        "noise_rms": noise.rms,
        "noise_max": noise.max,
        "limit_rms": precision.limit * noise.rms,
        "limit_max": POINT_LIMIT.get(precision.yardstick, POINT_LIMIT["fp32"]) * widened * noise.max,
        "allowed_flips": precision.limit * noise.flips,
    }


def _batches(stages: Stages, planned: PlannedCell, case: Case, ended: Verdict | ModelFormatsError) -> Case:
    """Each row alone, then the batches, as the batch stage runs them, with the source's truth and noise of the same."""
    models, model = stages.models, planned.cell.model
    wanted = batches.spans(models.samples(model).rows)
    if not isinstance(ended, Verdict):
        feeds = tuple(models.rows(model, *span) for span in wanted)
        return replace(case, feeds=feeds, runs=tuple((i, 0) for i in range(len(feeds))))
    yardstick = _running(stages, planned, "batch").yardstick
    source = batches.of_source(models, model, yardstick)
    wanted = [span for span in wanted if span in source.truths]
    run = {span: number for number, span in enumerate(wanted)}
    groups: list[dict[str, Any]] = []
    for size in source.sizes:
        floors = batches.floors(models, model, source, size, yardstick)[yardstick]
        alone = [run[i, i + 1] for i in range(size) if (i, i + 1) in run]
        for wide, outputs in _widths(floors, models.reference(model).noise[yardstick]).items():
            judged = [i for i in outputs if i not in source.left_out]
            by_rows = [i for i in outputs if source.by_rows[i]] if 1 < size == len(alone) else []
            if judged:
                what = f"batch {size} against {source.said}"
                group = {"what": what, "left": [[run[0, size], None]], "right": None, "wide": wide, "outputs": judged}
                groups.append(group)
            if by_rows:
                what = f"rows of batch {size} against themselves alone"
                left, right = [[run[0, size], i] for i in range(size)], [[number, None] for number in alone]
                both = tuple(one * two for one, two in zip(wide, TWO_RUNS, strict=True))
                groups.append({"what": what, "left": left, "right": right, "wide": both, "outputs": by_rows})
    return replace(
        case,
        feeds=tuple(models.rows(model, *span) for span in wanted),
        runs=tuple((i, 0) for i in range(len(wanted))),
        groups=tuple(groups),
        expected=tuple(source.truths[span] for span in wanted),
    )


def _widths(floors: Sequence[Noise], usual: Sequence[Noise]) -> dict[tuple[float, float], list[int]]:
    """How much wider limits are by some noise than by the usual one (rms, largest), and of which outputs."""
    found: dict[tuple[float, float], list[int]] = {}
    for index, (own, known) in enumerate(zip(floors, usual, strict=True)):
        rms, largest = own.rms / known.rms if known.rms else 1.0, own.max / known.max if known.max else 1.0
        found.setdefault((rms, largest), []).append(index)
    return found


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
            **_limits(noise, precision, widened),
            "low_rms": FAITHFUL_LOW * noise.rms if finer else 0.0,
            "error_rms_when_made": error,
            "tolerance": None if tolerance is None else {"rtol": tolerance.rtol, "atol": tolerance.atol},
        }
        if judged is not None and judged.failure_kind is FailureKind.PRECISION:
            output["limit_rms"] = usability.largest_error(judged)
        outputs.append({**output, **(case.limits[index] if case.limits else {})})
    case = replace(case, outputs=tuple(outputs), expected=case.expected or _expected(stages, model, case))
    if case.law in laws.LAWS:
        return laws.seen(case, verdict)
    if case.law in _SAMPLES:
        at = stages.at_size.get(planned.cell.id) if case.law == "parity" else None
        case = replace(case, observed=tuple(stages.outputs(planned) if at is None else at.outputs))
        shown = _with_stress(stages, planned, case, verdict)
        if shown is not None:
            return shown
        return case if _is_seen(case, verdict) else _by_bits(stages, planned, case, verdict)
    return case


def _running(stages: Stages, planned: PlannedCell, law: str) -> Precision:
    """The precision that the check judges by: after a fallback, laws hold at the one that ran."""
    asked = PRECISIONS[planned.cell.precision]
    return asked if law not in _OWN_RUNS else stages._running(planned)  # noqa: SLF001 - as these laws do


def _expected(stages: Stages, model: str, case: Case) -> tuple[Sequence[np.ndarray], ...]:
    """The truth of every feed, as far as it is judged against the truth."""
    truths = stages.models.reference(model).truths
    if case.law == "determinism" or case.law in laws.LAWS:
        return ()
    return truths


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


def _with_stress(stages: Stages, planned: PlannedCell, case: Case, verdict: Verdict) -> Case | None:
    """The case with the stress rows, each judged by its own noise; ``None`` where it is not they that failed."""
    found = stress_failure.failure(stages, planned, verdict)
    if found is None or not _same_positions(case.expected, found.truths):
        return None
    first, groups = len(case.feeds), []
    for index, limits in enumerate(found.limits):
        rows = [(first + feed, row) for feed, truths in enumerate(found.truths) for row in range(len(truths[index]))]
        if limits is None or len(rows) != limits.noise.size or not case.outputs[index]["limit_rms"]:
            continue
        judged = [place for place, counts in enumerate(limits.judged) if counts]
        rms, largest = (case.outputs[index][key] for key in ("limit_rms", "limit_max"))
        group = {
            "what": "unusual inputs, in units of each row's noise",
            "left": [list(rows[place]) for place in judged],
            "right": None,
            "scales": [1 / float(limits.noise[place]) for place in judged],
            "may_overflow": PRECISIONS[planned.cell.precision].mantissa_bits < stress.FP32_BITS,
            # One limit, on the whole: no element has one of its own.
            "wide": (limits.limit / rms, NO_LIMIT / max(largest, 1e-90)),
            "outputs": [index],
        }
        groups.append(group)
    feeds = (*case.feeds, *found.samples.feeds)
    return replace(
        case,
        feeds=feeds,
        runs=tuple((feed, 0) for feed in range(len(feeds))),
        groups=(*case.groups, *groups),
        expected=(*case.expected, *found.truths),
        observed=(*case.observed, *found.outputs),
    )


def _same_positions(expected: Sequence[Sequence[Any]], stressed_truths: Sequence[Sequence[Any]]) -> bool:
    """Whether truths that are sampled (a golden bundle's may be) are so in the same places: a bundle holds one set."""
    import numpy as np

    for usual, other in zip(expected[0], stressed_truths[0], strict=True):
        one, two = getattr(usual, "positions", None), getattr(other, "positions", None)
        if one is None and two is None:
            continue
        if one is None or two is None or not np.array_equal(one, two):
            return False
    return True


def _by_bits(stages: Stages, planned: PlannedCell, case: Case, verdict: Verdict) -> Case:
    """The case told by its outputs, bit for bit: on the samples and, where they were run, on the stressed inputs."""
    feeds, observed = list(case.feeds), list(case.observed)
    unusual = stages.models.stress(planned.cell.model)
    if unusual is not None and any(output.stress_ratio is not None for output in verdict.outputs):
        feeds += unusual.feeds
        observed += stages.cells.once(
            "stress", planned, lambda: [stages.cells.run(planned, feed) for feed in unusual.feeds]
        )
    note = (
        "It failed by a statistic that repro.py does not compute. The bug is taken to exist while every output is, bit "
        "for bit, what came out when it failed; where they differ, repro.py is undecided: judge by pytest."
    )
    runs = tuple((feed, 0) for feed in range(len(feeds)))
    return replace(case, law="other", feeds=tuple(feeds), runs=runs, observed=tuple(observed), notes=(note,))


def settings_of(run: RunFacts, planned: PlannedCell, case: Case) -> dict[str, Any]:
    """What the script opens (or converts) with: the job of the cell's session, or the steps of its chain."""
    models, model = run.stages.models, planned.cell.model
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
        return {**common, **run.stages.cells.job, "entry": entry, "steps": []}
    source = models.source(model)
    options: dict[str, Any] = {"opset": run.settings.opset, "dynamic": not run.settings.static}
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
    run: RunFacts,
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
    from pytest_modelformats.checks.bundle import files as bundle_files

    case = case_of(run, planned, check, stage, ended)
    if case is None:
        return None
    target = folder / bundle_files.folder_name(planned.cell.id, check)
    settings = settings_of(run, planned, case)
    bundle_files.write(target, case, settings, planned, run)
    if submodel is not None:
        bundle_files.add_submodel(target, submodel, case, settings, planned, run)
    bundle_files.pack(target)
    return target
