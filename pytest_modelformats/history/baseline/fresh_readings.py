"""Load time and memory of two sides that were opened beside one another, in fresh processes, again and again.

One reading of a run says little of either: an opening takes up to five times as long as the fastest, and the first
session of a process pays for what the runtime keeps. Here both sides are read in the same state, in the same minutes.
A change must be there in every pair of fresh processes, and in two of them at least.
"""

from __future__ import annotations

from statistics import median, quantiles
from typing import TYPE_CHECKING

from pytest_modelformats.history.baseline.changes import percent
from pytest_modelformats.schema import Change, Comparison, numbers
from pytest_modelformats.schema.metrics import METRICS, SMALLEST, fraction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pytest_modelformats.measure.two_sides.interleaved import Pair
    from pytest_modelformats.run.sides import Readings
    from pytest_modelformats.schema.metrics import Margin

    Two = tuple[Sequence[float], Sequence[float]]

PAIRS = 2
# Fewer openings after the first one of a process have no quartiles to speak of.
FEWEST_LOADS = 4
# Where another pair is opened for the readings alone: so many openings of each side.
OPENINGS = 6


def of_pairs(
    cell: str, kept: Sequence[tuple[Readings, Readings]], asked: Sequence[Margin], whats: tuple[str, str]
) -> Iterator[Comparison]:
    """The comparisons of load time and memory; nothing of what a pair has not read on both sides."""
    loads = [(before.loads_ns[1:], after.loads_ns[1:]) for before, after in kept]
    if loads and all(min(map(len, pair)) >= FEWEST_LOADS for pair in loads):
        margin = fraction("load", asked)
        yield _comparison(cell, "load", loads, [_of_loads(pair, margin) for pair in loads], margin, whats)
    held = [(b.above_idle_bytes, a.above_idle_bytes) for b, a in kept]
    memory: list[Two] = [((b,), (a,)) for b, a in held if b is not None and a is not None]
    if memory and len(memory) == len(kept):
        margin = fraction("memory", asked)
        yield _comparison(cell, "memory", memory, [_of_memory(pair, margin) for pair in memory], margin, whats)


def suspects(kept: Sequence[tuple[Readings, Readings]], asked: Sequence[Margin]) -> bool:
    """Whether what fails the run leans to a change that only another pair of processes can confirm."""
    if not kept or len(kept) >= PAIRS:
        return False
    metrics = {m.metric for m in asked}
    return any(c.change is Change.INCONCLUSIVE and c.metric in metrics for c in of_pairs("", kept, asked, ("", "")))


def read_again(open_pair: Callable[[], Pair]) -> None:
    """Open both sides in fresh processes for their readings alone.

    Raises: what opening a pair or calling a side raises.
    """
    with open_pair() as pair:
        for side in pair:
            side.block(0.0)
        for _ in range(OPENINGS):
            for side in pair:
                side.renew()  # type: ignore[attr-defined]


def _of_loads(pair: Two, margin: float) -> int:
    """1 where the middle half of the later openings lies above that of the earlier ones and beyond the margin."""
    old, new = (quantiles(side, n=4, method="inclusive") for side in pair)
    ratio = new[1] / old[1]
    if ratio > 1 + margin and new[0] > old[2]:
        return 1
    return -1 if ratio * (1 + margin) < 1 and new[2] < old[0] else 0


def _of_memory(pair: Two, margin: float) -> int:
    """1 where one reading is beyond the margin and what two fresh processes differ by, and more than a trifle."""
    (old,), (new,) = pair
    limit = (1 + margin) * (1 + METRICS["memory"].allowance)
    if abs(new - old) <= SMALLEST["memory"]:
        return 0
    return int(new > old * limit) - int(old > new * limit)


def _comparison(
    cell: str, name: str, pairs: Sequence[Two], leans: Sequence[int], margin: float, whats: tuple[str, str]
) -> Comparison:
    """Same where no pair leans; a change where all of them do, and there are two."""
    metric = METRICS[name]
    old, new = (median([median(pair[which]) for pair in pairs]) for which in (0, 1))
    ratio = new / old if old else None
    change = Change.INCONCLUSIVE
    if not any(leans):
        change = Change.SAME
    elif len(set(leans)) == 1 and len(leans) >= PAIRS:
        change = Change.REGRESSION if leans[0] > 0 else Change.IMPROVEMENT
    write = numbers.duration if metric.unit == "ns" else numbers.size
    by = f", {percent(ratio)}" if ratio is not None else ""
    count = sum(map(len, (side for pair in pairs for side in pair)))
    grounds = f"{count} readings in {len(pairs)} pair{'s' if len(pairs) != 1 else ''} of fresh processes"
    unclear = "; beyond the margin, but not in every one of two pairs" if change is Change.INCONCLUSIVE else ""
    said = f"{metric.title[:1].upper()}{metric.title[1:]}: {write(old)} to {write(new)}{by}; {grounds}{unclear}"
    return Comparison(
        cell, name, metric.unit, change, f"{said} (margin {numbers.share(margin)}).", *whats, before=old, after=new,
        ratio=ratio, margin=margin, how="interleaved",
        recurred=None if not any(leans) else change is not Change.INCONCLUSIVE,
    )  # fmt: skip
