"""Identical cells compared with themselves, under a load that comes and goes: what is found is a false alarm."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.speed import cells, recording, rules
from benchmarks.speed.load import load

if TYPE_CHECKING:
    from benchmarks.speed.run import Kept
    from pytest_modelformats.run.sides import Opening

# The narrower margin needs more; at the wider one the same blocks are judged again, as far as they would have gone.
MARGIN, WIDER = 0.02, 0.05


def rows(arguments: Kept) -> list[dict[str, Any]]:
    """One row per comparison; those of an earlier run are kept."""
    done = len(arguments.kept("aa"))
    if done >= arguments.count:
        return arguments.kept("aa")
    with (
        tempfile.TemporaryDirectory(prefix="bench-speed-") as folder,
        cells.ready(Path(folder)) as ready,
        load(arguments.seed * 1000 + done, wanted=not arguments.no_load),
    ):
        names = sorted(ready.openings)
        for number in range(done, arguments.count):
            opening = ready.openings[names[number % len(names)]]
            row = compared(ready, (opening, opening), MARGIN, arguments.budget, arguments.seed + number)
            arguments.keep("aa", row)
            tell("aa", number, arguments.count, row)
    return arguments.kept("aa")


def compared(
    ready: cells.Ready, sides: tuple[Opening, Opening], margin: float, budget_s: float, seed: int
) -> dict[str, Any]:
    """One comparison as a row: what ours says at both margins, and what the other rules say of the same samples."""
    from pytest_modelformats.measure.two_sides.interleaved import compare_latency
    from pytest_modelformats.run.sides import pair_of

    recorder = recording.Recorder(pair_of(ready.pool, *sides))
    found = compare_latency(recorder.open, margin=margin, budget_s=budget_s, seed=seed, clock=recorder.clock)
    wider = recording.replay(recorder.pairs, WIDER, budget_s, seed)
    return {
        "cell": sides[0].what,
        "margin": margin,
        "budget": budget_s,
        "seed": seed,
        "change": found.change.value,
        "ratio": found.ratio,
        "low": found.ratio_low,
        "high": found.ratio_high,
        "recurred": found.recurred,
        "disturbed": found.disturbed,
        "pairs": found.pairs,
        "pair_ratios": list(found.pair_ratios),
        "blocks": found.blocks,
        "seconds": found.seconds,
        "before_ns": found.before_ns,
        "wider": {"change": wider.change.value, "seconds": wider.seconds},
        "rules": {
            **rules.said(*recorder.sequential, "one run after the other"),
            **rules.said(*recorder.interleaved, "interleaved"),
        },
        "rounds": [[round(one.log_ratio, 5) for one in recording.rounds(p["blocks"])] for p in recorder.pairs],
    }


def tell(part: str, number: int, count: int, row: dict[str, Any]) -> None:
    """One line of progress."""
    others = ", ".join(name for name, alarm in row["rules"].items() if alarm)
    print(
        f"{part} {number + 1}/{count} {row['cell']}: {row['change']} {row['ratio']:.3f} "
        f"[{row['low']:.3f}, {row['high']:.3f}] {row['pairs']} pairs {row['seconds']:.1f} s"
        + (f"; slower by {others}" if others else ""),
        flush=True,
    )
