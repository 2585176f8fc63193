"""Latencies that are not measured beside one another: those of an earlier run as it recorded them, or none at all."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pytest_modelformats.history.baseline import changes
from pytest_modelformats.schema import Change, Comparison
from pytest_modelformats.schema.sizes import written

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_modelformats.record.index import Facts
    from pytest_modelformats.record.nouns import Latency


def latencies(
    machines: tuple[Mapping[str, Any], Mapping[str, Any]],
    facts: tuple[Facts, Facts],
    whats: tuple[str, str],
    margin: float,
    why: str,
) -> list[changes.Found]:
    """The samples of two runs, on the machines of the two; nothing where one has none.

    ``why`` says why they were not measured beside one another.
    """
    from pytest_modelformats.measure.two_sides.interleaved import compare_samples

    before, after = facts[0].latency, facts[1].latency
    cell = facts[1].cell
    if before is None or after is None or not before.samples_ns or not after.samples_ns:
        return []
    other = _elsewhere(*machines) or _otherwise(before, after)
    if other:
        sentence = f"The stored latencies cannot be compared: {other}; and {why}."
        return [unknown(cell, sentence, whats, margin, (before.latency_p50_ns, after.latency_p50_ns))]
    old, new = ([round(s) for s in found.samples_ns] for found in (before, after))
    measured = compare_samples(old, new, margin=margin, pinned=bool(before.pinned and after.pinned))
    found = changes.of_measured(cell, measured, "stored", whats, margin, why)
    return [_unless_disturbed(found, before, after)]


def _unless_disturbed(found: changes.Found, before: Latency, after: Latency) -> changes.Found:
    """A change between two stored measurements of which one was disturbed is none that can be told.

    Of 66 pairs of identical runs beside a busy machine's other work, 35 had such a change, by up to 67 %; every one of
    the measurements concerned said that it was disturbed.
    """
    said = [(name, one.unusable or one.disturbed) for name, one in (("before", before), ("after", after))]
    told = [f"{name}: {text.rstrip('.')}" for name, text in said if text]
    if not told or found.comparison.change not in {Change.REGRESSION, Change.IMPROVEMENT}:
        return found
    sentence = f"{found.comparison.sentence} Not judged, because it was measured while disturbed ({'; '.join(told)})."
    return changes.Found(replace(found.comparison, change=Change.INCONCLUSIVE, sentence=sentence))


def unknown(
    cell: str,
    sentence: str,
    whats: tuple[str, str],
    margin: float,
    values: tuple[float | None, float | None] = (None, None),
) -> changes.Found:
    """A comparison of latencies that nothing can be said of."""
    before, after = values
    return changes.Found(
        Comparison(
            cell, "latency", "ns", Change.INCONCLUSIVE, sentence, *whats, before, after, margin=margin, how="stored"
        )
    )


def identical(after: Facts, whats: tuple[str, str], margin: float) -> changes.Found:
    """The comparison of a thing with itself, which was not made."""
    sentence = (
        "Identical: the same artifact, runtime, code and options as the baseline's, so the latency was not measured "
        "against itself; --mf-remeasure does it all the same."
    )
    p50 = after.latency.latency_p50_ns if after.latency else None
    return changes.Found(
        Comparison(
            after.cell, "latency", "ns", Change.SAME, sentence, *whats, None, p50, margin=margin, how="identical"
        )
    )


def _elsewhere(then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """In words where two machines are not the same one, "" where they may be."""
    if then.get("identity") and now.get("identity"):
        same = then["identity"] == now["identity"]
    else:
        same = all(then.get(key, now.get(key)) == now.get(key) for key in ("cpu", "cores", "architecture"))
    return "" if same else f"they are of another machine ({then.get('cpu')}, {then.get('cores')} cores)"


def _otherwise(then: Latency, now: Latency) -> str:
    """In words where two latencies were not measured alike."""
    for key in ("batch", "threads"):
        old, new = getattr(then, key), getattr(now, key)
        if old is not None and new is not None and old != new:
            return f"they were measured with {key} {old} and {new}"
    if then.sizes and now.sizes and then.sizes != now.sizes:
        return f"they were measured at {written(then.sizes)} and at {written(now.sizes)}"
    return ""
