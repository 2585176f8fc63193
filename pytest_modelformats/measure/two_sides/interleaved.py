"""Comparing two latencies: both measured now, in turns, in two fresh processes on the same cores, and again in others.

A regression is reported only when all of this holds, an improvement by the same rule on the other side:

1. the whole 95 % interval of the ratio over all pairs of processes lies beyond the margin (``ratio.py``);
2. it *recurred*: in at least two pairs of fresh processes, started in different orders, the pair's own estimate lies
   beyond the margin by more than its standard error, and in none on the other side (with the pairs' own 95 % intervals
   instead, 33 of 50 slow-downs of synthetic restless sessions were found for 47, and as many false alarms raised);
3. the machine left enough rounds undisturbed to say so.

``same`` needs the whole interval within the margin. Everything else is ``inconclusive``: a difference larger than the
margin is neither shown nor excluded. Measuring goes on until the answer is clear or the budget is spent, and is looked
at after 6, 9, 13, 19 and 28 rounds of a pair only, since every look is a chance to be wrong.

The sides change places every few milliseconds. What a virtual machine's neighbours do to its core (a shared cache, the
other half of the core, the clock) doubles latencies for tens of milliseconds at a time, and nothing in here says so:
only sides that change places faster than that meet the same of it.

Between rounds both sides open their sessions anew, where that is quick: where a session's arrays happen to lie makes it
faster or slower for as long as it lives (Mytkowicz et al., 2009), and only layouts that are drawn again and again
average out (Curtsinger & Berger, 2013, "Stabilizer: statistically sound performance evaluation").

A quad (four blocks) is disturbed where more than a twentieth of a block's calls were interrupted by other work on the
core, and more than a twentieth of its time was lost to that: only then does its median move. Disturbed quads are set
aside, and rounds of which less than half is left, by that evidence and never by their ratio, so that the rule favours
neither side. A side that is interrupted again and again
while the other one is not does that to itself (more threads than cores), and counts.
"""

from __future__ import annotations

import math
import random
import time
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Protocol

from pytest_modelformats.measure.two_sides import ratio
from pytest_modelformats.measure.two_sides.decision import Measured, beyond, decide, finding, leans
from pytest_modelformats.measure.two_sides.ratio import Round
from pytest_modelformats.measure.two_sides.stored_samples import compare_samples
from pytest_modelformats.schema import Change

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pytest_modelformats.measure.two_sides.ratio import Within

__all__ = ["Measured", "Pair", "Side", "compare_latency", "compare_samples", "control", "judge", "undisturbed"]

# Many short blocks narrow the interval faster than few long ones where blocks differ more than calls do (Kalibera &
# Jones, 2013, section 5). On a virtual machine whose neighbours doubled latencies at times, 12 pairs of processes of
# four models, measured for 4 s: standard error of the ratio 0.5 to 3.7 % (median 1.9 %) with blocks of 50 ms, 0.3 to
# 1.9 % (0.9 %) with 10 ms, 0.25 to 1.6 % (0.5 %) with 3 ms. Shorter still is mostly changing places.
BLOCK_S = 0.003
# The median of so many calls at least.
CALLS = 3
ROUND_S = 0.12
# Seconds of opening sessions anew for one of measuring, at most. Identical PyTorch sessions in the same two processes,
# opened five times: an encoder's ratio was 0.92 to 1.09 (standard deviation 3.5 %, as much as with other processes), at
# 0.02 to 0.15 s each time; a fresh pair of processes takes 1.7 to 3.5 s.
RENEWALS = 2.0
LOOKS = (6, 9, 13, 19, 28)
MIN_ROUNDS = LOOKS[0]
MAX_PAIRS = 6
# Half of what processes differ by: more rounds of the same pair would narrow the whole interval by a tenth at most, and
# the time is better spent on another pair (Kalibera & Jones, 2013: repeat at the level that varies most for its cost).
NARROW = ratio.PAIR_SPREAD / 2
# An unclear suspicion gets the budget twice: identical code hardly ever needs it, and is none the worse for it.
FOLLOW_UP = 2
# Alone on its core a process waits for it for less than 1 % of the time; sharing it with another one, for half.
DELAYED = 0.05
# Delays that come from elsewhere hit both sides: that all of the first five hit one has a probability of 1 in 16.
ONE_SIDED = 5
OTHER_SIDE = 0.1
# So much of a round must be left when disturbed quads are set aside.
LEFT = 0.5


class Side(Protocol):
    """One of the two sides, in a process of its own that is idle while nobody asks.

    A side may also have ``delay``, the share of its last block that was lost to other work on its core, and
    ``least_s``, the shortest block that is worth changing places for, in seconds. With ``renew()`` it opens its session
    anew, warmed up, and says how many seconds that took; infinity where it takes too long to be tried.
    """

    def block(self, seconds: float) -> list[int]:
        """Samples of one block, in nanoseconds."""
        ...


Pair = AbstractContextManager[tuple[Side, Side]]


def compare_latency(
    open_pair: Callable[[], Pair],
    *,
    margin: float = 0.05,
    budget_s: float,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Measured:
    """Both sides are measured in turns, in as many pairs of fresh processes as the answer needs.

    ``budget_s`` is everything, the start of processes included. It is exceeded where one pair leaves the answer open,
    since then there is always a second one, and every pair gets its ``MIN_ROUNDS`` rounds. A suspicion is followed up:
    for a few rounds more where too many were disturbed, and for as long again where the estimate is beyond the margin
    and its interval is not.
    ``progress`` is told a sentence between rounds, never while one is measured.

    Units: seconds; latencies in nanoseconds.
    Raises: what opening a pair or calling a side raises.
    """
    started = clock()
    deadline = started + budget_s
    order = random.Random(seed)  # noqa: S311 - which side begins, not a secret
    heard: list[list[Round]] = []
    while True:
        opened = clock()
        with open_pair() as pair:
            ready = clock()
            # Half of what is left is for the pairs to come.
            until = ready + max(0.0, deadline - ready) / 2
            heard.append([])
            rounds = rounds_of(pair, heard, mirrored=order.random() < 1 / 2, progress=progress)
            _gather(rounds, heard, margin, seed, partial(_passed, until, clock))
        found = judge(heard, margin, seed)
        if found.change is not Change.INCONCLUSIVE or len(heard) == MAX_PAIRS:
            break
        if not 1 - margin <= found.ratio <= 1 + margin:
            deadline = started + FOLLOW_UP * budget_s
        if len(heard) > 1 and clock() + (ready - opened) + _shortest(heard) > deadline:
            break
    return replace(found, seconds=clock() - started)


def _passed(deadline: float, clock: Callable[[], float]) -> bool:
    return clock() >= deadline


def _shortest(heard: Sequence[Sequence[Round]]) -> float:
    """Seconds that ``MIN_ROUNDS`` rounds take, by the time that the calls of those so far took."""
    took = [r.samples / 2 * (r.before_ns + r.after_ns) / 1e9 for rounds in heard for r in rounds]
    return MIN_ROUNDS * median(took)


def rounds_of(
    pair: tuple[Side, Side],
    heard: Sequence[Sequence[Round]],
    *,
    mirrored: bool,
    progress: Callable[[str], None] | None = None,
) -> Iterator[Round]:
    """Rounds of one pair, every second quad mirrored; ``heard`` is for ``progress`` alone."""
    wanted, session, measured_s, renewed_s = 0, 0, 0.0, 0.0
    while True:
        if progress is not None:
            progress(f"comparing: pair {len(heard)}, round {len(heard[-1]) + 1}")
        quads: list[ratio.Quad] = []
        while len(quads) < max(1, wanted):
            quads.append(_quad(pair, mirrored=mirrored))
            mirrored = not mirrored
            wanted = wanted or quads_in_round(max(quads[0].before_ns, quads[0].after_ns), _block_s(pair))
        yield Round.of(quads, session)
        measured_s += max(ROUND_S, 4 * len(quads) * _block_s(pair))
        if renewed_s <= RENEWALS * measured_s:
            took = _renewal_s(pair)
            session += took < math.inf
            renewed_s += took


def _renewal_s(pair: tuple[Side, Side]) -> float:
    """The seconds that opening both sides anew took; infinity where one of them does not."""
    renewals = [getattr(side, "renew", None) for side in pair]
    return sum(math.inf if renewal is None else renewal() for renewal in renewals)


def quads_in_round(latency_ns: float, block_s: float = BLOCK_S) -> int:
    """How many quads of so slow a call, in so long blocks, a round has."""
    return max(1, round(ROUND_S / (4 * max(block_s, CALLS * latency_ns / 1e9))))


def _block_s(pair: tuple[Side, Side]) -> float:
    return max(BLOCK_S, *(getattr(side, "least_s", 0.0) for side in pair))


def _quad(pair: tuple[Side, Side], *, mirrored: bool) -> ratio.Quad:
    blocks: tuple[list[list[int]], list[list[int]]] = ([], [])
    delays: tuple[list[float], list[float]] = ([], [])
    seconds = _block_s(pair)
    for which in (1, 0, 0, 1) if mirrored else (0, 1, 1, 0):
        side = pair[which]
        blocks[which].append(side.block(seconds))
        delays[which].append(float(getattr(side, "delay", 0.0)))
    return ratio.quad(blocks[0], blocks[1], delays)


def _gather(
    rounds: Iterator[Round], heard: Sequence[list[Round]], margin: float, seed: int, late: Callable[[], bool]
) -> None:
    """Add rounds to the last of ``heard`` until they are clear, or the time for this pair is over."""
    looked = 0
    for one in rounds:
        heard[-1].append(one)
        usable, over = len(undisturbed(heard[-1])), late()
        if usable in LOOKS and usable > looked:
            looked = usable
            own = _says(heard, seed)[-1].interval()
            known = own.error < NARROW or usable == LOOKS[-1]
            if known or beyond(own, margin) or judge(heard, margin, seed).change is Change.SAME:
                return
        if over and len(heard[-1]) >= MIN_ROUNDS and not _waits_for_calm(heard[-1], margin, seed):
            return


def _waits_for_calm(rounds: Sequence[Round], margin: float, seed: int) -> bool:
    """Whether a suspicion only lacks undisturbed rounds; it gets at most twice as many more as it needs at least."""
    few = len(undisturbed(rounds)) < MIN_ROUNDS and len(rounds) < 3 * MIN_ROUNDS
    return few and beyond(_says([rounds], seed)[0].interval(), margin) != 0


def undisturbed(rounds: Sequence[Round]) -> list[Round]:
    """The rounds without the quads in which a side waited for its core; all of it, where one side delays itself."""
    quads = [q for one in rounds for q in one.quads]
    fewer, more = sorted((sum(q.before_delay > DELAYED for q in quads), sum(q.after_delay > DELAYED for q in quads)))
    if more == 0 or (more >= ONE_SIDED and fewer <= OTHER_SIDE * more):
        return list(rounds)
    left = [(one, [q for q in one.quads if max(q.before_delay, q.after_delay) <= DELAYED]) for one in rounds]
    return [
        one if len(calm) == len(one.quads) else Round.of(calm, one.session)
        for one, calm in left
        if len(calm) >= max(1, LEFT * len(one.quads))
    ]


def _used(rounds: Sequence[Round]) -> list[Round]:
    """The undisturbed rounds where they are enough, otherwise every one."""
    calm = undisturbed(rounds)
    return calm if len(calm) >= MIN_ROUNDS else list(rounds)


def _says(heard: Sequence[Sequence[Round]], seed: int) -> list[Within]:
    said = []
    for index, rounds in enumerate(heard):
        used = _used(rounds)
        said.append(ratio.within([r.log_ratio for r in used], seed + index, len({r.session for r in used})))
    return said


def judge(heard: Sequence[Sequence[Round]], margin: float, seed: int = 0) -> Measured:
    """What the rounds gathered so far say, by pair of processes; each has at least two.

    Raises: ValueError where a pair has fewer.
    """
    said = _says(heard, seed)
    over = ratio.over_pairs(said)
    total = sum(len(rounds) for rounds in heard)
    calm = [len(undisturbed(rounds)) for rounds in heard]
    disturbed = ""
    if min(calm) < MIN_ROUNDS <= min(len(rounds) for rounds in heard):
        disturbed = f"other work interrupted the calls in {total - sum(calm)} of {total} rounds"
    change, recurred = decide(over, [leans(one.interval(), margin) for one in said], margin, usable=not disturbed)
    used = [r for rounds in heard for r in _used(rounds)]
    return Measured(
        ratio=over.ratio,
        ratio_low=over.low,
        ratio_high=over.high,
        p_value=over.p_above(1 + margin),
        p_value_faster=over.p_below(1 - margin),
        before_ns=median(r.before_ns for r in used),
        after_ns=median(r.after_ns for r in used),
        change=change,
        recurred=recurred,
        blocks=4 * sum(len(r.quads) for rounds in heard for r in rounds),
        seconds=0.0,
        disturbed=disturbed,
        finding=finding(over, change, margin, recurred),
        grounds=_grounds(len(used), total, len(said), disturbed),
        pairs=len(said),
        pair_ratios=tuple(math.exp(one.centre) for one in said),
    )


def _grounds(used: int, total: int, pairs: int, disturbed: str) -> str:
    aside = f" ({total - used} more set aside, whose calls other work interrupted)" if used < total else ""
    processes = f"{pairs} pair{'s' if pairs != 1 else ''} of fresh processes"
    return f"{used} interleaved rounds{aside} in {processes}" + (f"; {disturbed}" if disturbed else "")


def control(p_values: Sequence[float], level: float = 0.05) -> list[bool]:
    """Which of a family of findings stand, so that at most ``level`` of those that stand are expected to be false.

    Source: Benjamini & Hochberg (1995), "Controlling the false discovery rate".
    """
    ordered = sorted(range(len(p_values)), key=lambda index: p_values[index])
    last = max(
        (rank for rank, index in enumerate(ordered, 1) if p_values[index] <= level * rank / len(p_values)), default=0
    )
    stand = set(ordered[:last])
    return [index in stand for index in range(len(p_values))]
