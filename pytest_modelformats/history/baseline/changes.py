"""What changed between two findings of one cell, metric by metric; and what a family of comparisons holds together."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pytest_modelformats.schema import Change, Comparison, FailureKind, Outcome, Verdict, numbers
from pytest_modelformats.schema.metrics import LEAST_RATIO, METRICS, ONLY_WHEN_ASKED, SMALLEST, Margin, Metric, fraction
from pytest_modelformats.schema.outcome import FAILURES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_modelformats.measure.two_sides.interleaved import Measured
    from pytest_modelformats.record.index import Facts

LEVEL = 0.05
MISSING = "missing"
_NOT_NOW = "it was not looked at now, or not to the end"
_WRITE = {"ns": numbers.duration, "bytes": numbers.size, "/s": numbers.rate, "": numbers.ratio}


@dataclass(frozen=True, slots=True)
class Found:
    """A comparison as it stands alone; its two p-values go into the families, ``None`` where nothing is random."""

    comparison: Comparison
    p_slower: float | None = None
    p_faster: float | None = None


def of_measured(cell: str, measured: Measured, how: str, whats: tuple[str, str], margin: float, why: str = "") -> Found:
    """The comparison of latencies that were measured; ``why`` says what makes it the weaker kind."""
    p_value = measured.p_value_faster if measured.change is Change.IMPROVEMENT else measured.p_value
    weaker = f"; not measured beside one another, because {why}" if why else ""
    disturbed = f" Disturbed: {measured.disturbed}." if measured.disturbed else ""
    medians = f"{numbers.duration(_finite(measured.before_ns))} to {numbers.duration(_finite(measured.after_ns))}"
    comparison = Comparison(
        cell=cell,
        metric="latency",
        unit="ns",
        change=measured.change,
        sentence=f"Median latency {medians}: {measured.finding}; {measured.grounds}{weaker}.{disturbed}",
        before_what=whats[0],
        after_what=whats[1],
        before=_finite(measured.before_ns),
        after=_finite(measured.after_ns),
        ratio=_finite(measured.ratio),
        ratio_low=_finite(measured.ratio_low),
        ratio_high=_finite(measured.ratio_high),
        margin=margin,
        p_value=p_value,
        how=how,
        recurred=measured.recurred,
        blocks=measured.blocks,
        seconds=measured.seconds,
    )
    return Found(comparison, measured.p_value, measured.p_value_faster)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def of_facts(before: Facts, after: Facts, asked: Sequence[Margin], whats: tuple[str, str]) -> Iterator[Comparison]:
    """Every metric but latency that the run before has, also what the later one did not come to."""
    yield from _parity(before, after, fraction("parity", asked), whats)
    yield from _lost(before, after, whats)
    for metric, label, old, new in _readings(before, after):
        judged = metric.name not in ONLY_WHEN_ASKED or metric.name in {m.metric for m in asked}
        one = _reading(after.cell, metric, label, (old, new), fraction(metric.name, asked), whats, judged=judged)
        yield _of_like_sessions(one, before, after) if metric.name == "memory" else one


def missing(cell: str, change: Change, sentence: str, whats: tuple[str, str]) -> Comparison:
    """A cell that is on one side only."""
    return Comparison(cell, "cell", "", change, sentence, *whats, how="exact")


def has_both(comparison: Comparison) -> bool:
    """Whether there was something on both sides, or what was there before broke."""
    there = comparison.change is not Change.APPEARED and comparison.how != MISSING
    return there or comparison.change is Change.REGRESSION


def base_metric(metric: str) -> str:
    """``throughput`` for ``throughput, batch 8``."""
    return metric.partition(",")[0]


def controlled(found: Sequence[Found]) -> list[Comparison]:
    """The comparisons with the false discoveries among all of them controlled.

    Source: Benjamini & Hochberg (1995), once over what is slower and once over what is faster: at most 5 % of what is
    called a regression is expected to be none, and the same of improvements.
    """
    family = [f for f in found if f.p_slower is not None and f.p_faster is not None]
    if not family:
        return [f.comparison for f in found]
    from pytest_modelformats.measure.two_sides.interleaved import control

    slower = control([float(f.p_slower or 0.0) for f in family], LEVEL)
    faster = control([float(f.p_faster or 0.0) for f in family], LEVEL)
    kept = {id(f): (s, q) for f, s, q in zip(family, slower, faster, strict=True)}
    return [in_family(f.comparison, kept.get(id(f)), len(family)) for f in found]


def in_family(comparison: Comparison, discovered: tuple[bool, bool] | None, size: int) -> Comparison:
    """A comparison among ``size``; what does not stand there as (slower, faster) is inconclusive."""
    if discovered is None or comparison.change not in {Change.REGRESSION, Change.IMPROVEMENT}:
        return comparison
    if discovered[comparison.change is Change.IMPROVEMENT]:
        return comparison
    alone = (
        f"{comparison.sentence} Alone it would count as {comparison.change.value}; among {size:,} comparisons one such "
        f"is expected by chance (Benjamini–Hochberg, {numbers.share(LEVEL)})."
    )
    return replace(comparison, change=Change.INCONCLUSIVE, sentence=alone)


def verdict(comparisons: Sequence[Comparison], asked: Sequence[Margin]) -> Verdict:
    """Failed where something that was asked for is worse; inconclusive where that cannot be told."""
    metrics = {m.metric for m in asked}
    counted = [c for c in comparisons if base_metric(c.metric) in metrics]
    worse = [c for c in counted if c.change is Change.REGRESSION]
    if worse:
        return Verdict(Outcome.FAILED, FailureKind.REGRESSION, " ".join(c.sentence for c in worse))
    unclear = [c for c in counted if c.change is Change.INCONCLUSIVE]
    if unclear:
        return Verdict(Outcome.INCONCLUSIVE, None, " ".join(c.sentence for c in unclear))
    changed = [c for c in comparisons if c.change in {Change.REGRESSION, Change.IMPROVEMENT}]
    said = " ".join(f"{c.sentence} ({c.change.value}; it does not fail the run)" for c in changed)
    return Verdict(Outcome.PASSED, None, said or "Nothing got worse.")


def _parity(before: Facts, after: Facts, margin: float, whats: tuple[str, str]) -> Iterator[Comparison]:
    """The outcome and the noise ratio in one comparison, the flips in another."""
    if before.outcome is None:
        return
    if after.outcome is None:
        said = f"Parity was {before.outcome.value}; {_NOT_NOW}."
        yield _missing_now(after.cell, "parity", Change.INCONCLUSIVE, said, whats)
        return
    old, new = (f.parity.noise_ratio if f.parity else None for f in (before, after))
    ratio = new / old if old and new is not None else None
    change, said = _exactness(before.outcome, after.outcome, old, new, margin)
    yield Comparison(
        after.cell, "parity", "", change, said, *whats, before=old, after=new, ratio=ratio, margin=margin, how="exact"
    )
    flips = tuple(f.parity.flips if f.parity else None for f in (before, after))
    if flips[0] is not None and flips[1] is not None:
        yield _flips(after.cell, flips[0], flips[1], whats)


def _lost(before: Facts, after: Facts, whats: tuple[str, str]) -> Iterator[Comparison]:
    """What was measured before and has no figure now; that it broke is worse, that nobody looked cannot be judged."""
    if before.latency and before.latency.samples_ns and not (after.latency and after.latency.samples_ns):
        broken = after.timed in FAILURES
        said = f"it ended as {after.timed.value}" if after.timed else _NOT_NOW
        change = Change.REGRESSION if broken else Change.INCONCLUSIVE
        yield _missing_now(after.cell, "latency", change, f"The latency was measured; now {said}.", whats)
    rates = _throughput(after)
    for label in _throughput(before):
        if label != "throughput" and label not in rates:
            said = f"{label[:1].upper()}{label[1:]} was measured; {_NOT_NOW}."
            yield _missing_now(after.cell, label, Change.INCONCLUSIVE, said, whats)


def _missing_now(cell: str, metric: str, change: Change, sentence: str, whats: tuple[str, str]) -> Comparison:
    return Comparison(cell, metric, METRICS[base_metric(metric)].unit, change, sentence, *whats, how=MISSING)


def _exactness(was: Outcome, now: Outcome, old: float | None, new: float | None, margin: float) -> tuple[Change, str]:
    broken = now in FAILURES, was in FAILURES
    if broken[0] != broken[1]:
        change = Change.REGRESSION if broken[0] else Change.IMPROVEMENT
        return change, f"Parity was {was.value} and is {now.value}."
    if old is None or new is None:
        said = f"Parity was {was.value} and is {now.value}; there is no noise ratio to compare."
        return _without_ratio(was, now), said
    said = f"The noise ratio went from {numbers.ratio(old)} to {numbers.ratio(new)}"
    if new > LEAST_RATIO and new > old * (1 + margin):
        return Change.REGRESSION, f"{said}, more than {numbers.share(margin)} up: less exact."
    if old > LEAST_RATIO and old > new * (1 + margin):
        return Change.IMPROVEMENT, f"{said}: more exact."
    return Change.SAME, f"{said}."


def _without_ratio(was: Outcome, now: Outcome) -> Change:
    """What was checked and is no longer, or not to an end, is neither worse nor the same."""
    if was == now:
        return Change.SAME
    return Change.IMPROVEMENT if now is Outcome.PASSED else Change.INCONCLUSIVE


def _flips(cell: str, old: float, new: float, whats: tuple[str, str]) -> Comparison:
    change = Change.REGRESSION if new > old else Change.IMPROVEMENT if new < old else Change.SAME
    said = f"The share of changed decisions went from {numbers.share(old)} to {numbers.share(new)}."
    return Comparison(
        cell, "flips", "", change, said, *whats, before=old, after=new, ratio=None, margin=0.0, how="exact"
    )


def _readings(before: Facts, after: Facts) -> Iterator[tuple[Metric, str, float, float]]:
    """(metric, label, before, after) of every single number that both have."""
    if before.latency and after.latency:
        for name, key in (
            ("load", "load_ns"),
            ("first_inference", "first_inference_ns"),
            ("convert", "convert_ns"),
            ("size", "size_bytes"),
        ):
            old, new = getattr(before.latency, key), getattr(after.latency, key)
            if old and new:
                yield METRICS[name], name, old, new
        above = [_above_idle(f) for f in (before, after)]
        if above[0] is not None and above[1] is not None:
            yield METRICS["memory"], "memory", above[0], above[1]
    old_rows, new_rows = (_throughput(f) for f in (before, after))
    for label in new_rows:
        if label in old_rows:
            yield METRICS["throughput"], label, old_rows[label], new_rows[label]


def _of_like_sessions(memory: Comparison, before: Facts, after: Facts) -> Comparison:
    """The first session of a process pays for what the runtime keeps; beside a later one it says nothing."""
    firsts = [f.latency.first_session if f.latency else None for f in (before, after)]
    if memory.change is Change.SAME or None in firsts or firsts[0] == firsts[1]:
        return memory
    told = " and ".join("the first of its process" if first else "a later one" for first in firsts)
    why = f"the session was {told}, and the first one pays for what the runtime keeps, so nobody can tell"
    return replace(memory, change=Change.INCONCLUSIVE, sentence=f"{memory.sentence.rstrip('.')}; {why}.")


def _above_idle(facts: Facts) -> float | None:
    found = facts.latency
    if found is None or found.peak_rss_bytes is None or found.idle_rss_bytes is None:
        return None
    return max(0.0, found.peak_rss_bytes - found.idle_rss_bytes)


def _throughput(facts: Facts) -> dict[str, float]:
    """What was delivered per second, by how it was asked for."""
    found: dict[str, float] = {}
    if facts.latency and facts.latency.items_per_s:
        found["throughput"] = facts.latency.items_per_s
    for row in facts.throughput:
        rate: Any = row.get("items_per_s") if not row.get("unusable") else None
        if isinstance(rate, (int, float)) and rate > 0:
            label = f"throughput, batch {row.get('batch')}, {row.get('concurrency')} × {row.get('mode')}"
            found[label] = float(rate)
    return found


def _reading(
    cell: str,
    metric: Metric,
    label: str,
    values: tuple[float, float],
    margin: float,
    whats: tuple[str, str],
    *,
    judged: bool,
) -> Comparison:
    """One number before and after, with what reruns differ by granted on top of the margin."""
    old, new = values
    ratio = new / old if old else None
    comparison = Comparison(
        cell, label, metric.unit, Change.SAME, "", *whats, before=old, after=new, ratio=ratio, margin=margin,
        how="exact" if metric.kind == "exact" else "reading",
    )  # fmt: skip
    said = _said(comparison)
    if not judged:
        why = f"one reading each, which vary up to {1 + metric.allowance:g}-fold: not judged unless asked for"
        return replace(comparison, change=Change.INCONCLUSIVE, sentence=f"{said} ({why}).", how="not judged")
    worse = (old / new if new else math.inf) if metric.more_is_better else (new / old if old else math.inf)
    if abs(new - old) <= SMALLEST.get(metric.name, 0.0):
        worse = 1.0
    change = _beyond(worse, margin, metric.allowance)
    granted = f"; reruns differ by up to {numbers.share(metric.allowance)}, granted on top" if metric.allowance else ""
    return replace(comparison, change=change, sentence=f"{said} (margin {numbers.share(margin)}{granted}).")


def _beyond(worse: float, margin: float, allowance: float) -> Change:
    """Beyond the margin and the allowance it is a change, within the margin none; between the two nobody can tell."""
    limit = 1 + margin
    sure = limit * (1 + allowance)
    if worse > sure:
        return Change.REGRESSION
    if worse * sure < 1:
        return Change.IMPROVEMENT
    return Change.SAME if 1 / limit <= worse <= limit else Change.INCONCLUSIVE


def _said(c: Comparison) -> str:
    write = _WRITE[c.unit]
    metric = METRICS[base_metric(c.metric)]
    title = metric.title if c.metric == metric.name else f"{metric.title}{c.metric.removeprefix(metric.name)}"
    change = "" if c.ratio is None else f", {percent(c.ratio)}"
    return f"{title[:1].upper()}{title[1:]}: {write(c.before)} to {write(c.after)}{change}"


def percent(ratio: float) -> str:
    """A ratio as a signed change in percent: 1.062 is +6.2 %."""
    change = (ratio - 1) * 100
    return f"{change:+.1f} %" if abs(change) < 1000 else f"× {ratio:.3g}"  # noqa: PLR2004 - beyond ten-fold a factor reads better
