"""From a worker's samples to the measurement of a cell; one that is too disturbed to use is made once more."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pytest_modelformats.measure.sampling import statistics
from pytest_modelformats.schema import Timing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pytest_modelformats.convert.chain import Artifact
    from pytest_modelformats.run.cells import Opened

REPETITIONS = 1


def measure(
    measured: Callable[[], Mapping[str, Any]],
    opened: Opened,
    artifact: Artifact,
    batch: int,
    sizes: Mapping[str, int] | None = None,
) -> Timing:
    """What ``measured`` (the worker's ``op_measure``) says; of a disturbed one and its repetition, the better one.

    ``sizes`` are those of the inputs' free dimensions.
    """
    best = replace(_timing(measured(), opened, artifact, batch), sizes=dict(sizes or {}))
    tries = 0
    while best.unusable and tries < REPETITIONS:
        tries += 1
        again = replace(_timing(measured(), opened, artifact, batch), sizes=best.sizes)
        best = min(best, again, key=lambda t: (bool(t.unusable), t.median_uncertainty or 0.0))
    return best if not tries else _with_tries(best, tries)


def _with_tries(timing: Timing, tries: int) -> Timing:
    again = ", and so it was when measured again" if timing.unusable else ""
    return replace(timing, remeasured=tries, unusable=f"{timing.unusable}{again}")


def _timing(answer: Mapping[str, Any], opened: Opened, artifact: Artifact, batch: int) -> Timing:
    sampled, memory = answer["sampled"], answer["memory"]
    return Timing(
        **statistics(sampled["samples_ns"], batch, sampled),
        threads=sampled["threads"],
        warmup_runs=sampled["warmup_runs"],
        load_ns=opened.load_ns,
        first_inference_ns=answer["first_run_ns"],
        convert_ns=artifact.convert_ns,
        size_bytes=artifact.size_bytes,
        idle_rss_bytes=opened.idle_rss_bytes,
        peak_rss_bytes=memory.get("peak_bytes"),
        first_session=opened.number == 1,
        pinned=tuple(sampled["pinned"]),
        **answer.get("device", {}),
        **answer.get("phases", {}),
        **answer.get("energy", {}),
        **answer.get("growth", {}),
    )
