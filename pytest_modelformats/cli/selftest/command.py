"""``modelformats selftest``: how small a slow-down a run on this machine can detect, and how often it cries wolf."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click  # noqa: TID253 - a command, imported by the command line alone

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_modelformats.cli.selftest.measure import Workload

FEWEST_PAIRS = 2
# What a comparison may take where nothing else is said.
BUDGET_S = 10.0


@click.command()
@click.option("--budget", default=BUDGET_S, show_default=True, type=click.FloatRange(min=1), metavar="SECONDS",
              help="What one comparison may take in your runs; twice and four times that are shown, too.")  # fmt: skip
@click.option("--pairs", default=6, show_default=True, type=click.IntRange(min=FEWEST_PAIRS),
              help="Pairs of fresh processes to measure per workload; two make one comparison.")  # fmt: skip
@click.option("--backend", default="", metavar="NAME",
              help="numpy, onnxruntime, openvino or torch. Default: numpy and the first installed one.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Write everything as JSON.")
def selftest(budget: float, pairs: int, backend: str, *, as_json: bool) -> None:
    """Measure this machine against itself: the smallest slow-down that a run here detects, and its false alarms."""
    from pytest_modelformats.cli.selftest import measure as measuring
    from pytest_modelformats.run.workers.pool import Pool

    names = measuring.chosen(backend)
    shown = sys.stderr.isatty() and not as_json

    def tell(what: str) -> None:
        if shown:
            click.echo(f"\r\x1b[K  {what} …", nl=False, err=True)

    before = measuring.machine_state()
    pool = Pool(memory_bytes=0, threads=1, isolate="process")
    try:
        workloads = [measuring.measure(pool, name, pairs=pairs, budget_s=budget, tell=tell) for name in names]
    finally:
        pool.close()
    if shown:
        click.echo("\r\x1b[K", nl=False, err=True)
    state = {"before": before, "after": measuring.machine_state()}
    if as_json:
        click.echo(json.dumps(measuring.plain(workloads, state, budget), indent=1))
        return
    click.echo("\n".join(lines(workloads)))
    load = " to ".join("unknown" if s["load"] is None else f"{s['load']:.1f}" for s in state.values())
    click.echo(f"Load {load}, governor {before['governor'] or 'not readable'}, cores {before['measured_core']}.\n")
    click.echo(measuring.sentence(workloads, budget))


def lines(workloads: Sequence[Workload]) -> Iterator[str]:
    """What was measured, and the table of what can be detected."""
    from pytest_modelformats.measure.two_sides.detectable import FOUND, TRIALS

    for one in workloads:
        yield (
            f"{one.name}: {one.latency_ns / 1e6:.3g} ms; {one.alarms} of {one.comparisons} comparisons of identical "
            f"code gave an alarm; interval ±{one.interval:.1%}"
        )
        yield (
            f"  a round varied by {one.round_spread:.1%} and took {one.round_s:.2f} s, a pair of processes "
            f"by {one.pair_spread:.1%} and started in {one.start_s:.1f} s; {one.disturbed:.0%} of the rounds disturbed"
        )
        yield f"  margin   seconds   detected in {FOUND} of {TRIALS}   false alarms (95 % confidence)"
        for row in one.detectable:
            least = "none" if row.slowdown is None else f"{row.slowdown:.1%} slower"
            alarms = f"{row.alarms} of {row.trials}, at most {row.at_most:.1%}"
            yield f"  {row.margin:>6.0%}   {row.budget_s:>7g}   {least:>20}   {alarms:>30}"
        yield ""
