"""The benchmark of comparing: what other rules are said to say, what a replay gives, and what is counted."""

from __future__ import annotations

import json
import random
import re
import sys

import pytest
from places import ROOT

pytestmark = pytest.mark.alone

sys.path.insert(0, str(ROOT))

from benchmarks.speed import recording, rules, run, scale, slow, table  # noqa: E402

MS = 1_000_000
stats = pytest.importorskip("scipy.stats")


def samples(seed, centre, spread=0.01, count=400):
    draw = random.Random(seed)
    return [int(MS * centre * (1 + draw.gauss(0, spread))) for _ in range(count)]


def test_rules_say_what_their_sources_say():
    """8 % more is beyond a mean of 5 %, different by Mann-Whitney, and within asv's factor; 20 % is beyond all."""
    same = rules.said(samples(1, 5), samples(2, 5), "x")
    assert not any(same.values())
    little = list(rules.said(samples(1, 5), samples(2, 5.4), "x").values())
    assert little == [True, True, False]
    assert all(rules.said(samples(1, 5), samples(2, 6), "x").values())
    assert not any(rules.said(samples(1, 5), samples(2, 4), "x").values())


def test_asv_samples_are_means_of_ten_milliseconds():
    taken = rules.asv_samples([MS] * 25 + [2 * MS] * 5)
    assert taken == [MS, MS, pytest.approx(1.5 * MS, rel=0.15)] or len(taken) == 3
    assert len(rules.asv_samples([MS] * 10_000)) == rules.ASV_SAMPLES
    assert rules.asv_samples([1000, 3000]) == [2000]


class Side:
    def __init__(self, centre, seed):
        self.delay, self._centre, self._draw = 0.0, centre, random.Random(seed)

    def block(self, seconds):
        return [int(MS * self._centre * (1 + self._draw.gauss(0, 0.004))) for _ in range(20)]

    def renew(self):
        return 0.1


def recorded(slower):
    from contextlib import nullcontext

    from pytest_modelformats.measure.two_sides.interleaved import compare_latency

    opened = iter(range(100))
    recorder = recording.Recorder(lambda: nullcontext((Side(5, next(opened)), Side(5 * slower, next(opened)))))
    found = compare_latency(recorder.open, margin=0.02, budget_s=60, seed=3)
    return recorder, found


@pytest.mark.parametrize(("slower", "narrow", "wide"), [(1.0, "same", "same"), (1.03, "regression", "same"),
                                                        (1.2, "regression", "regression")])  # fmt: skip
def test_replay_judges_the_same_blocks_at_another_margin(slower, narrow, wide):
    recorder, found = recorded(slower)
    assert found.change.value == narrow
    again = recording.replay(recorder.pairs, 0.02, 60, 3)
    assert (again.change, again.ratio_low) == (found.change, pytest.approx(found.ratio_low, abs=1e-6))
    assert recording.replay(recorder.pairs, 0.05, 60, 3).change.value == wide
    assert len(recorder.sequential[0]) == len(recorder.sequential[1]) == 20
    assert len(recorder.interleaved[0]) == sum(b[2] for p in recorder.pairs for b in p["blocks"] if b[0] == 0 and b[1])


def row(change, wider="same", seconds=3.0, **more):
    said = {"one run after the other: a rule": change == "regression", "interleaved: a rule": False}
    wide = {"change": wider, "seconds": 2.0}
    plain = {
        "cell": "c",
        "margin": 0.02,
        "budget": 8.0,
        "change": change,
        "ratio": 1.0,
        "low": 0.99,
        "high": 1.01,
        "before_ns": 1e6,
    }
    return {**plain, "seconds": seconds, "pairs": 2, "wider": wide, "rules": said, **more}


def page(aa, power=()):
    machine = {"facts": {"cpu": "a CPU", "cores": 2, "os": "Linux"}, "versions": {"torch": "2"}}
    rows = {"aa": aa, "power": list(power)}
    return {"rows": rows, "machine": machine, "date": "2026-01-01", "seconds": {"aa": 60.0}}


def test_targets_are_met_and_missed():
    """Two alarms in 200 are 1 %, three are not; an improvement over nothing is an alarm, too."""
    good = [row("same")] * 198 + [row("regression", "regression")] + [row("improvement", "improvement")]
    assert table.show(page(good), write=False) == 0
    assert table.show(page([*good[1:], row("regression")]), write=False) == 1
    assert table.show(page(good[:150]), write=False) == 1


def test_power_is_counted_per_plant(capsys):
    aa = [row("same")] * 200
    found = [row("regression", planted=0.05)] * 95 + [row("inconclusive", planted=0.05)] * 5
    assert table.show(page(aa, [*found, *[row("regression", planted=0.1)] * 100]), write=False) == 0
    assert "95 of 100 (95.0%, 88.7% to 98.4%)" in capsys.readouterr().out
    assert table.show(page(aa, [*found, *[row("improvement", planted=0.1)] * 100]), write=False) == 1


def test_page_is_written_with_its_foreword(tmp_path, monkeypatch):
    """The page explains the rule and holds the tables; cells are told apart."""
    monkeypatch.setattr(table, "PAGE", tmp_path / "speed.md")
    aa = [row("same", cell=f"cell-{number % 2}") for number in range(200)]
    table.show(page(aa, [row("regression", planted=0.05)] * 3), write=True)
    text = (tmp_path / "speed.md").read_text()
    assert text.startswith("# Does a reported slow-down exist")
    assert "| `cell-0` | 1 | 100 | 0 |" in text
    assert "| 5%, margin 2%, 8 s asked for | pytest-modelformats | 3 of 3" in text


EVERY = {part: [row("same", planted=0.05)] for part in ("aa", "power", "power_under_load")} | {
    part: [{"what": part, "figure": 1.0, "within": None, "how": ""}] for part in ("fidelity", "scale")
}


def usual():
    """The arguments that ``make bench-speed`` runs the parts with."""
    defaults = run.parsed([])
    return {part: [{name: getattr(defaults, name) for name in names}] for part, names in run.TAKES.items()}


def test_the_page_says_which_arguments_it_was_made_with():
    """Only where every part was run with the defaults it is the make target's."""
    assert table.made({"rows": EVERY, "arguments": usual()}) == (
        "Made by `make bench-speed` with its defaults: 200 comparisons of identical cells, 100 per planted slow-down, "
        "8 s asked for each."
    )
    other = {"count": 120, "budget": 16.0, "seed": 0}
    rows = {part: EVERY[part] for part in ("aa", "power", "scale")}
    said = table.made({"rows": rows, "arguments": {**usual(), "power": [other, {**other, "seed": 7}]}})
    assert said.startswith("Made by what follows, and not by `make bench-speed` with its defaults (200 ")
    assert said.splitlines()[2:] == [
        "- `python -m benchmarks.speed.run --parts aa --count 200 --budget 8 --seed 0`",
        (
            "- `python -m benchmarks.speed.run --parts power --count 120 --budget 16 --seed 0`, "
            "then `python -m benchmarks.speed.run --parts power --count 120 --budget 16 --seed 7`"
        ),
        "- `python -m benchmarks.speed.run --parts scale`",
        "",
        "Not run: `power_under_load`, `fidelity`.",
    ]
    old = table.made({"rows": {"aa": EVERY["aa"]}})
    assert "- `python -m benchmarks.speed.run --parts aa`, with arguments that were not kept" in old


def test_arguments_are_kept_with_the_rows_that_they_made(tmp_path):
    """Also where a run goes on with others, or goes on with rows of which nothing is known."""
    asked = run.parsed(["--results", str(tmp_path / "speed.json"), "--no-load"])
    asked.found = {"rows": {"power": [row("same")]}}
    for _ in range(2):
        asked.keep("aa", row("same"))
    asked.count = 300
    asked.keep("aa", row("same"))
    asked.keep("power", row("same"))
    kept = json.loads((tmp_path / "speed.json").read_text())["arguments"]
    first = {"count": 200, "budget": 8.0, "seed": 0, "no_load": True}
    assert kept["aa"] == [first, {**first, "count": 300}]
    assert kept["power"] == [{}, {"count": 300, "budget": 8.0, "seed": 0}]
    assert "--no-load" in table.made({"rows": {"aa": [1]}, "arguments": kept})


def test_budgets_that_differ_and_what_a_plant_came_to_are_said(tmp_path, monkeypatch):
    monkeypatch.setattr(table, "PAGE", tmp_path / "speed.md")
    power = [row("regression", planted=p, budget=16.0, ratio=r) for p, r in ((0.05, 1.059), (0.1, 1.113))]
    table.show(page([row("same")] * 200, power), write=True)
    text = (tmp_path / "speed.md").read_text()
    assert "In the median, a slow-down planted as 5% measured 5.9%, one planted as 10% measured 11.3%: that" in text
    assert "counted with 8 s asked for a comparison, these with 16 s:\nneither figure" in text
    assert "| at most 1% false alarms at a margin of 5%, 8 s asked for |" in text
    assert "| at least 95% of slow-downs by 5% found, at a margin of 2%, 16 s asked for |" in text
    table.show(page([row("same")] * 200, [row("regression", planted=0.05)]), write=True)
    assert "neither figure" not in (tmp_path / "speed.md").read_text()


def test_samples_of_two_stored_runs_are_those_of_both_together():
    said = scale.table([{"what": "comparing", "measurements": 1_000_000}, {"what": "x", "measurements": 1_000_000}])
    assert said.endswith("\nTwo stored runs that are compared hold 1,000,000 samples together, half of them each.\n")


def test_the_page_claims_no_run_that_its_tables_do_not_show():
    """The counts and budgets of its tables are those of its first sentences, and so are the parts that were run."""
    head, _, rest = table.PAGE.read_text(encoding="utf-8").partition("## How two latencies are compared")
    budgets = {part: set(re.findall(rf"{what}, margin \d+%, (\d+) s asked for", rest)) for part, what in WHAT.items()}
    for part, found in budgets.items():
        assert "Made by `make bench-speed` with its defaults" in head or all(f"--budget {b}" in head for b in found)
        assert found, part
    assert ("background load" in rest.partition("## Found")[2]) != ("Not run: `power_under_load`" in head)
    assert ("neither figure says" in rest) == (len(set().union(*budgets.values())) > 1)
    measured = re.findall(r"\| (\d+%), margin .*\| pytest-modelformats \|.*\| ([\d.]+%) \| [\d.]+ \|", rest)
    assert all(f"planted as {planted} measured {share}" in rest for planted, share in measured)
    assert len(measured) == 2


# How the rows of a part begin in its table.
WHAT = {"aa": "pytest-modelformats", "power": r"\| \d+%"}


def test_rows_are_kept_and_a_missing_part_is_skipped(tmp_path, monkeypatch, capsys):
    """A run that is cut off has saved what it had, and goes on there; a part without a file is a note."""
    made = []

    def part(arguments):
        for number in range(len(arguments.kept("aa")), 3):
            if len(made) == 2 and number == 2:
                made.append("cut off")
                raise KeyboardInterrupt
            made.append(number)
            arguments.keep("aa", row("same"))
        return arguments.kept("aa")

    monkeypatch.setattr(run, "PARTS", {"aa": "the_part:rows", "lost": "benchmarks.speed.lost:rows"})
    monkeypatch.setitem(sys.modules, "the_part", type(sys)("the_part"))
    sys.modules["the_part"].rows = part
    arguments = ["--parts", "lost,aa", "--results", str(tmp_path / "speed.json")]
    with pytest.raises(KeyboardInterrupt):
        run.main(arguments)
    assert len(json.loads((tmp_path / "speed.json").read_text())["rows"]["aa"]) == 2
    assert run.main(arguments) == 1  # three comparisons are fewer than 200
    assert made == [0, 1, "cut off", 2]
    assert "lost: skipped" in capsys.readouterr().out


def test_unknown_part_is_refused(capsys):
    with pytest.raises(SystemExit):
        run.parsed(["--parts", "nonsense"])
    assert "unknown part nonsense" in capsys.readouterr().err


def test_planted_share_is_of_the_calls_own_time(monkeypatch):
    """The call takes longer by its share, and what stands around it is subtracted."""
    now = {"ns": 0}

    def clock():
        now["ns"] += 10
        return now["ns"]

    def work():
        now["ns"] += 100_000

    monkeypatch.setattr(slow.time, "perf_counter_ns", clock)
    spinning = slow._spinning(work, 0.1, 0.0)
    spinning()
    assert now["ns"] == pytest.approx(110_000, rel=0.002)
