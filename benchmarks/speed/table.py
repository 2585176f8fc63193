"""The tables of the benchmark, as printed and as docs/speed.md holds them."""

from __future__ import annotations

import contextlib
import importlib
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Rows = Sequence[Mapping[str, Any]]

PAGE = Path(__file__).resolve().parents[2] / "docs" / "speed.md"
OURS = "pytest-modelformats"
ALARMS_AT_MOST = 0.01
COMPARISONS = 200
FOUND = {0.05: 0.95, 0.10: 0.99}
FOREWORD = """# Does a reported slow-down exist, and is an existing one reported?

{made}

## How two latencies are compared

Both sides are measured now, on this machine, in processes that were started for it and pinned to the same cores; only
one of them works at a time. They take turns in blocks of 3 ms (three calls at least): A B B A, then B A A B, and so on.
Four blocks, a *quad*, give one ratio, in which a machine that gets slower or faster meanwhile cancels out; the quads of
a tenth of a second are a *round*. Between rounds both sides open their sessions anew where that is quick, since where a
session's arrays happen to lie makes it faster or slower for as long as it lives. The rounds of a pair of processes are
summed up by their Hodges-Lehmann estimate, and whole rounds are resampled for its interval. One process may be faster
than another of the same code, too; the interval allows for that, and the longer the measuring goes on, the more pairs
of fresh processes it is spread over.

A regression is reported when the whole 95 % interval is beyond the margin **and** it recurred: in two pairs of fresh
processes, started in different orders, each pair's own estimate lies beyond the margin by more than its standard
error, and in no pair on the other side. An improvement is reported by
the same rule. Where the whole interval lies within the margin the verdict is `same`. Everything else is
`inconclusive`: more time (or a quieter machine) is needed, and nothing is claimed. A quad whose calls were interrupted
by other work is set aside, by the kernel's own count of interruptions and never by its ratio.

Over many cells, the false ones among the reported are kept below 5 % in expectation (Benjamini & Hochberg, 1995). The
tables below count single comparisons, before that.
"""
RULES_NOTE = """
The other rules were given two kinds of samples: those of the interleaved blocks that ours judged, and one run of each
side after the other in the same processes, as two runs of a benchmark would have taken them, only seconds instead of
days apart. pytest-benchmark's rule is `--benchmark-compare-fail=mean:5%`. asv calls a difference real where
Mann-Whitney's U gives p < 0.002 (`is_different` in `asv/_stats.py`), and a regression where the ratio also exceeds its
factor, 1.1 by default; samples are means over 10 ms, at most 20 of each side, as asv takes them. By construction
that factor finds no slow-down of 5 %.
"""

LOADED_NOTE = """
The same under the background load of the identical cells: a process that spins for 0.3 to 4 s and sleeps for 0.5 to
6 s, half of the times on the very core that is measured. No target: what is missed here is `inconclusive`, and says so.
"""
OWN_TABLES = {"aa", "power", "power_under_load"}


def show(found: Mapping[str, Any], *, write: bool) -> int:
    """Print every table, write the page where that is asked, and say by the status whether a target is missed."""
    targets = list(_targets(found["rows"]))
    body = _body(found, targets)
    print(f"\n{body}")
    if write:
        PAGE.write_text(f"{FOREWORD.format(made=made(found))}\n{body}", encoding="utf-8")
        print(f"written: {PAGE}")
    return int(any(not met for *_, met in targets))


def made(found: Mapping[str, Any]) -> str:
    """By which commands the rows were made, and what of the benchmark was not run."""
    from benchmarks.speed.run import PARTS, TAKES, parsed

    defaults = parsed([])
    usual = {part: [{name: getattr(defaults, name) for name in names}] for part, names in TAKES.items()}
    parts = [part for part in PARTS if found["rows"].get(part)]
    known = {part: found.get("arguments", {}).get(part) or [{}] for part in parts}
    said = f"{defaults.count} comparisons of identical cells, {defaults.count // 2} per planted slow-down"
    said = f"{said}, {defaults.budget:g} s asked for each"
    if parts == list(PARTS) and all(known[part] == usual[part] for part in TAKES):
        return f"Made by `make bench-speed` with its defaults: {said}."
    lines = [f"Made by what follows, and not by `make bench-speed` with its defaults ({said}):", ""]
    for part in parts:
        commands = [_command(part, arguments) for arguments in known[part]] if part in TAKES else [_command(part, {})]
        unknown = part in TAKES and {} in known[part]
        lines.append(f"- {', then '.join(commands)}{', with arguments that were not kept' if unknown else ''}")
    absent = [f"`{part}`" for part in PARTS if part not in parts]
    return "\n".join([*lines, *(["", f"Not run: {', '.join(absent)}."] if absent else [])])


def _command(part: str, arguments: Mapping[str, Any]) -> str:
    given = [
        f"--{name.replace('_', '-')}" + ("" if value is True else f" {value:g}")
        for name, value in arguments.items()
        if value is not False
    ]
    return f"`{' '.join(['python -m benchmarks.speed.run --parts', part, *given])}`"


def _body(found: Mapping[str, Any], targets: Sequence[tuple[str, str, bool]]) -> str:
    rows, machine = found["rows"], found["machine"]
    facts = machine["facts"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    minutes = sum(found["seconds"].values()) / 60
    parts = [
        (
            f"{found['date']}, {facts['cpu']}, {facts['cores']} cores, one thread, {facts['os']}. {versions}. "
            f"{minutes:.0f} minutes.\n"
        ),
        "## Targets\n",
        markdown(("target", "found", "met"), [(t, f, "yes" if met else "no") for t, f, met in targets]),
    ]
    if rows.get("aa"):
        parts += ["## False alarms: identical cells\n", _aa(rows["aa"]), RULES_NOTE, _by_cell(rows["aa"])]
    if rows.get("power"):
        parts += ["## Found: a slow-down planted inside the backend\n", _power(rows["power"])]
        parts += [_power_note(rows.get("aa", ()), rows["power"])]
    if rows.get("power_under_load"):
        parts += [LOADED_NOTE, _power(rows["power_under_load"])]
    parts += [_others(name, of) for name, of in rows.items() if name not in OWN_TABLES and of]
    return "\n".join(parts).rstrip() + "\n"


def _targets(rows: Mapping[str, Rows]) -> Any:
    aa, power = rows.get("aa", ()), rows.get("power", ())
    if aa:
        yield f"at least {COMPARISONS} comparisons of identical cells", str(len(aa)), len(aa) >= COMPARISONS
        for margin, alarms, of in _alarms(aa):
            ok = bool(of) and alarms <= ALARMS_AT_MOST * of
            what = f"at most {ALARMS_AT_MOST:.0%} false alarms at a margin of {margin}, {_budgets(aa)} asked for"
            yield what, share(alarms, of), ok
    for planted, least in FOUND.items():
        of = [row for row in power if row["planted"] == planted]
        if of:
            hits = sum(row["change"] == "regression" for row in of)
            what = f"at least {least:.0%} of slow-downs by {planted:.0%} found, at a margin of {of[0]['margin']:.0%}"
            what = f"{what}, {_budgets(of)} asked for"
            yield what, share(hits, len(of)), hits >= least * len(of)
    for row in rows.get("fidelity", ()):
        if row["within"]:
            low, high = row["within"]
            yield f"{row['what']}, {low:g} to {high:g}", f"{row['figure']:.3f}", low <= row["figure"] <= high


def _alarms(aa: Rows) -> list[tuple[str, int, int]]:
    wider = [row["wider"] for row in aa]
    return [
        (f"{aa[0]['margin']:.0%}", sum(_alarm(row) for row in aa), len(aa)),
        ("5%", sum(_alarm(row) for row in wider), len(wider)),
    ]


def _alarm(row: Mapping[str, Any]) -> bool:
    return row["change"] in {"regression", "improvement"}


def _aa(aa: Rows) -> str:
    lines = []
    for (margin, alarms, of), changes, seconds in zip(
        _alarms(aa),
        ([row["change"] for row in aa], [row["wider"]["change"] for row in aa]),
        ([row["seconds"] for row in aa], [row["wider"]["seconds"] for row in aa]),
        strict=True,
    ):
        undecided = changes.count("inconclusive")
        lines.append(
            (
                f"{OURS}, margin {margin}, {aa[0]['budget']:g} s asked for",
                share(alarms, of),
                share(undecided, of),
                middle(seconds),
            )
        )
    lines += [(rule, share(sum(row["rules"][rule] for row in aa), len(aa)), "", "") for rule in aa[0]["rules"]]
    return markdown(("rule", "false alarms (95 % interval)", "inconclusive", "median time, s"), lines)


def _by_cell(aa: Rows) -> str:
    of: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in aa:
        of[row["cell"]].append(row)
    lines = [
        (
            f"`{cell}`",
            f"{median(r['before_ns'] for r in rows) / 1e6:.3g}",
            str(len(rows)),
            str(sum(_alarm(r) for r in rows)),
            f"±{median(r['high'] - r['low'] for r in rows) / 2:.1%}",
            middle([r["seconds"] for r in rows]),
        )
        for cell, rows in sorted(of.items())
    ]
    names = ("cell", "median latency, ms", "comparisons", "false alarms", "interval (median)", "median time, s")
    return markdown(names, lines)


def _power(power: Rows) -> str:
    lines = []
    for planted in sorted({row["planted"] for row in power}):
        rows = [row for row in power if row["planted"] == planted]
        hits = sum(row["change"] == "regression" for row in rows)
        what = f"{planted:.0%}, margin {rows[0]['margin']:.0%}, {rows[0]['budget']:g} s asked for"
        undecided = sum(row["change"] == "inconclusive" for row in rows)
        measured = f"{median(row['ratio'] for row in rows) - 1:.1%}"
        took = middle([row["seconds"] for row in rows])
        lines.append((what, OURS, share(hits, len(rows)), share(undecided, len(rows)), measured, took))
        lines += [
            (what, rule, share(sum(row["rules"][rule] for row in rows), len(rows)), "", "", "")
            for rule in rows[0]["rules"]
        ]
    return markdown(
        ("planted", "rule", "found (95 % interval)", "inconclusive", "measured slow-down", "median time, s"), lines
    )


def _power_note(aa: Rows, power: Rows) -> str:
    """What the targets do not say: how large a planted slow-down came out, and where the budgets differ."""
    said = []
    for planted in sorted({row["planted"] for row in power}):
        measured = median(row["ratio"] for row in power if row["planted"] == planted) - 1
        said.append(f"planted as {planted:.0%} measured {measured:.1%}")
    note = f"In the median, a slow-down {', one '.join(said)}: that is what was found.\n"
    if aa and _budgets(aa) != _budgets(power):
        note += (
            f"False alarms were counted with {_budgets(aa)} asked for a comparison, these with {_budgets(power)}:\n"
            "neither figure says what the other would be at its budget.\n"
        )
    return note


def _budgets(rows: Rows) -> str:
    return " and ".join(f"{budget:g} s" for budget in sorted({row["budget"] for row in rows}))


def _others(name: str, rows: Rows) -> str:
    """A part's own table, or every key of its rows as a column."""
    from benchmarks.speed.run import PARTS

    own: Callable[[Rows], str] | None = None
    with contextlib.suppress(ModuleNotFoundError):
        own = getattr(importlib.import_module(PARTS[name].partition(":")[0]), "table", None)
    if own is not None:
        return own(rows)
    columns = list(rows[0])
    return f"## {name}\n\n{markdown(columns, [[str(row.get(c, '')) for c in columns] for row in rows])}"


def share(part: int, of: int) -> str:
    """``3 of 200 (1.5 %, 0.3 to 4.3 %)``: Clopper & Pearson's exact 95 % interval."""
    from scipy import stats

    if not of:
        return "none"
    low, high = stats.binomtest(part, of).proportion_ci(0.95, "exact")
    return f"{part} of {of} ({part / of:.1%}, {low:.1%} to {high:.1%})"


def middle(seconds: Sequence[float]) -> str:
    """The median of some seconds."""
    return f"{median(seconds):.1f}" if seconds else ""


def markdown(names: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    rows = [names, ["---"] * len(names), *lines]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)
