"""``modelformats bisect``: the first version that is different is found, also around versions that cannot be tried."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from dummy_index import EMPTY, SLOW, UNINSTALLABLE, UNOPENABLE, VERSIONS, WRONG, declare_backend

from pytest_modelformats.cli import main as cli
from pytest_modelformats.cli.bisect.judge import Judge
from pytest_modelformats.cli.bisect.search import Step, search
from pytest_modelformats.measure.two_sides import interleaved
from pytest_modelformats.run import sides
from pytest_modelformats.run.environments import install
from pytest_modelformats.schema import Change, registry

CELL = "tiny-onnx-fp32-mfdummy@cpu"


# --- the search


def looking(first_bad, skipped, looked):
    def look(version):
        looked.append(version)
        return Step(version, None if version in skipped else version >= first_bad, "")

    return look


@pytest.mark.parametrize("count", [2, 3, 7, 8])
def test_every_change_is_found_whatever_cannot_be_tried(count):
    """The change lies between the last good and the first bad one, and nothing but the untried lies between these."""
    versions = [f"{i}" for i in range(count)]
    between = versions[1:-1]
    for first_bad in versions[1:]:
        for skipped in itertools.chain.from_iterable(itertools.combinations(between, n) for n in range(count - 1)):
            looked = []
            found = search(versions, looking(first_bad, skipped, looked))
            assert found.last_good < first_bad <= found.first_bad
            assert set(found.suspects) <= set(skipped)
            assert found.suspects == tuple(versions[int(found.last_good) + 1 : int(found.first_bad)])
            assert len(looked) == len(set(looked)) == len(found.steps)
            assert not {versions[0], versions[-1]} & set(looked)
            if not skipped:
                assert found.first_bad == first_bad


def test_half_of_what_is_left_goes_with_every_step():
    versions = [f"{i:04}" for i in range(1000)]
    for first_bad in ("0001", "0500", "0777", "0999"):
        looked = []
        assert search(versions, looking(first_bad, (), looked)).first_bad == first_bad
        assert len(looked) <= math.ceil(math.log2(1000))


# --- the command


@pytest.fixture
def bisect(pytester, tiny, shelf, offline, monkeypatch):
    """Bisect the dummy runtime; the result of the command."""
    declare_backend(pytester.path)
    monkeypatch.syspath_prepend(str(pytester.path))
    registry.backends.cache_clear()

    def run(*arguments, cell=CELL):
        command = ["bisect", cell, "--package", "mfdummy", "--mf-model", str(tiny), "--mf-cache", str(shelf / "cache")]
        return CliRunner().invoke(cli.commands, [*command, *map(str, arguments)])

    yield run
    registry.backends.cache_clear()


@pytest.mark.slow
def test_the_first_wrong_version_is_found(bisect):
    """What cannot be opened is passed over and stays under suspicion; every step is shown."""
    result = bisect("--good", "1.0", "--bad", "1.7")
    assert result.exit_code == 0, result.output
    assert (
        f"With mfdummy {WRONG} {CELL} is 'failed (numeric)' where it was 'passed', with {SLOW} not yet" in result.output
    )
    assert f"{UNOPENABLE} could not be tried" in result.output
    steps = [line for line in result.output.splitlines() if line.startswith("mfdummy 1.")]
    assert [line.partition(":")[0].split()[1] for line in steps[:2]] == ["1.0", "1.7"]
    assert "mfdummy 1.0: passed, noise ratio 1" in steps[0]
    assert "mfdummy 1.7: failed (numeric), noise ratio" in steps[1]
    assert any("mfdummy 1.4: skipped: " in line and "this release opens nothing" in line for line in steps)
    assert "of 8 versions were tried" in result.output


@pytest.mark.slow
def test_the_versions_may_be_named(bisect):
    """Then no index is asked, and one that cannot be installed is passed over; as JSON for what reads it."""
    result = bisect("--versions", f"1.5,{UNINSTALLABLE},1.0,1.2", "--json")
    assert result.exit_code == 0, result.output
    data = json.loads(result.stdout)
    assert data["versions"] == ["1.0", UNINSTALLABLE, "1.2", WRONG]
    assert (data["last_good"], data["first_bad"], data["suspects"]) == ("1.2", WRONG, [])
    assert data["sentence"].startswith(f"mfdummy {WRONG} is the first version with which {CELL} is 'failed (numeric)'")
    by_version = {step["version"]: step for step in data["steps"]}
    assert by_version[UNINSTALLABLE]["bad"] is None
    assert "a-package-that-nobody-has" in by_version[UNINSTALLABLE]["sentence"]
    assert by_version[WRONG]["noise_ratio"] > 100
    assert "mfdummy 1.2: passed" in result.stderr


@pytest.mark.slow
def test_versions_that_agree_are_told_of(bisect):
    result = bisect("--good", "1.0", "--bad", "1.3")
    assert result.exit_code == 1, result.output
    assert f"Nothing changes: {CELL} is 'passed' with mfdummy 1.0 and with 1.3." in result.output


@pytest.mark.slow
@pytest.mark.alone
def test_the_first_slower_version_is_found(bisect):
    """Both are measured now, in turns (``interleaved.py``): the good one beside each that is tried."""
    pytest.importorskip("pytest_modelformats.measure.two_sides.interleaved")
    result = bisect("--good", "1.0", "--bad", "1.3", "--metric", "latency", "--budget", "1")
    assert result.exit_code == 0, result.output
    assert f"mfdummy {SLOW} is the first version with which {CELL} is " in result.output
    assert "times as slow as with 1.0 (95 % interval × " in result.output
    assert "1.2 is the last before it" in result.output


# --- latencies that change in either direction, without the minutes that measuring them takes


@dataclass(frozen=True)
class Compared:
    """What the comparison of two latencies says; its interval is 1 % wide on either side, if not stated."""

    change: Change
    ratio: float
    disturbed: str = ""
    width: float = 0.01

    @property
    def ratio_low(self):
        return self.ratio - self.width

    @property
    def ratio_high(self):
        return self.ratio + self.width


@pytest.fixture
def latencies(bisect, monkeypatch):
    """Bisect latencies that are given by version; ``None`` is one of which nothing can be said.

    A pair of numbers is a latency and the half width of its ratio's interval; a list is what is measured in turn.
    """

    def run(of, *arguments):
        def compare(pair, *, margin, budget_s, **_):
            before, after = (of[version] for version in pair)
            budgets.setdefault(pair[1], []).append(budget_s)
            if isinstance(after, list):
                after = after.pop(0)
            if isinstance(after, tuple):
                return Compared(Change.INCONCLUSIVE, after[0] / before, width=after[1])
            if after is None:
                return Compared(Change.INCONCLUSIVE, 1.02, "other work interrupted the calls in 9 of 12 rounds")
            ratio = after / before
            over, under = ratio - 0.01 > 1 + margin, ratio + 0.01 < 1 - margin
            return Compared(Change.REGRESSION if over else Change.IMPROVEMENT if under else Change.SAME, ratio)

        stages = SimpleNamespace(pool=None, leave=lambda: None)
        monkeypatch.setattr(Judge, "declare", lambda *_: None)
        monkeypatch.setattr(Judge, "stages", stages)
        monkeypatch.setattr(Judge, "verdict", lambda self, version, good=None: Step(version, bad=False, word="passed"))
        monkeypatch.setattr(Judge, "_opening", lambda self, version: version)
        monkeypatch.setattr(sides, "pair_of", lambda pool, before, after: (before, after))
        monkeypatch.setattr(interleaved, "compare_latency", compare)
        return bisect("--versions", ",".join(of), "--metric", "latency", *arguments)

    budgets = run.budgets = {}
    return run


def test_a_version_that_is_faster_is_found(latencies):
    """A latency changes where it falls, too: half of the time is not 'nothing changes'."""
    result = latencies({"1.0": 2.0, "1.1": 2.02, "1.2": 1.98, "1.3": 1.0, "1.4": 1.01})
    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[-1] == (
        f"mfdummy 1.3 is the first version with which {CELL} is 50 % faster than with 1.0 "
        "(95 % interval -51.0 % to -49.0 %); 1.2 is the last before it."
    )
    assert "mfdummy 1.3: faster: its latency beside the good version's is -50.0 % (95 %" in result.output
    assert "mfdummy 1.2: unchanged: its latency beside the good version's is -1.0 % (95 %" in result.output


@pytest.mark.parametrize(
    ("slower", "words"),
    [
        (2.3, "15 % slower than with 1.0 (95 % interval +14.0 % to +16.0 %)"),
        (40.0, "20 times as slow as with 1.0 (95 % interval × 20 to × 20)"),
        (0.1, "20 times as fast as with 1.0 (95 % interval -96.0 % to -94.0 %)"),
    ],
)
def test_how_much_it_changes_is_said_in_words(latencies, slower, words):
    result = latencies({"1.0": 2.0, "1.1": 2.0, "1.2": slower})
    assert f"mfdummy 1.2 is the first version with which {CELL} is {words}; 1.1 is" in result.output


def test_the_first_change_is_found_where_a_later_one_goes_the_other_way(latencies):
    """A verdict that changes twice is treated so, too: what comes first is any change from the good version."""
    result = latencies({"1.0": 2.0, "1.1": 1.0, "1.2": 1.0, "1.3": 4.0})
    assert f"mfdummy 1.1 is the first version with which {CELL} is 50 % faster than with 1.0" in result.output


def test_a_latency_within_the_margin_is_said_with_its_change_in_percent(latencies):
    result = latencies({"1.0": 2.0, "1.1": 2.05})
    assert result.exit_code == 1, result.output
    assert result.output.splitlines()[-1] == (
        f"Nothing changes: {CELL} is neither slower nor faster by more than 5 % with mfdummy 1.1 than with 1.0 "
        "(+2.5 %, 95 % interval +1.5 % to +3.5 %)."
    )
    table = result.output.splitlines()[-6:-2]
    assert "latency change" in table[0]
    assert "+2.5 %" in table[2]


@pytest.mark.parametrize(
    ("between", "changed", "found"),
    [
        ((2.1, 0.15), 4.0, "1.2 is the first version with which"),  # +5 %, -10 % to +20 %: far from twice as slow
        ((1.9, 0.15), 1.0, "1.2 is the first version with which"),
        ((2.1, 0.4), 4.0, "1.1 could not be judged"),  # up to +45 %, beyond the root of 2
        ((1.4, 0.1), 4.0, "1.1 could not be judged"),  # on the other side: down to -40 %
        ((2.1, 0.15), 2.3, "1.1 could not be judged"),  # the change itself is 15 %
        (None, 4.0, "1.2 is the first version with which"),
        (None, 2.07, "Nothing changes"),
    ],
)
def test_what_is_unclear_at_the_margin_may_be_clear_beside_the_change(latencies, between, changed, found):
    """The change lies between the good and the bad one: what is nearer to the good one does not have it yet."""
    result = latencies({"1.0": 2.0, "1.1": between, "1.2": changed})
    assert found in result.output
    if found.startswith("1.2"):
        words = "not yet (whether by more than the margin is unclear, but it is nearer to 1.0 than to 1.2)"
        assert f"mfdummy 1.1: {words}" in result.output


def test_what_is_unclear_is_measured_once_more_for_twice_as_long(latencies):
    result = latencies({"1.0": 2.0, "1.1": [(2.1, 0.5), 2.0], "1.2": [None, 2.5]}, "--budget", "4")
    assert result.exit_code == 0, result.output
    assert "mfdummy 1.2 is the first version with which" in result.output
    assert "1.1 is the last before it" in result.output
    assert latencies.budgets == {"1.1": [4.0, 8.0], "1.2": [4.0, 8.0]}


def test_an_end_of_which_nothing_can_be_said_says_what_to_do(latencies):
    result = latencies({"1.0": 2.0, "1.1": 2.0, "1.2": None}, "--budget", "4")
    assert result.exit_code != 0
    assert str(result.exception) == (
        "whether the latency changes from 1.0 to 1.2 cannot be told: inconclusive: other work interrupted the calls in "
        "9 of 12 rounds. Measure for longer (--budget 16), on a quieter machine, or at a wider --margin."
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--good", UNOPENABLE, "--bad", "1.7"), "the good version 1.4 cannot be tried: "),
        (("--good", "1.0", "--bad", UNINSTALLABLE), "the bad version 1.1 cannot be tried: "),
    ],
)
def test_an_end_that_cannot_be_tried_is_told_of(bisect, arguments, words):
    result = bisect(*arguments)
    assert result.exit_code != 0
    assert words in str(result.exception)
    assert "Choose another --" in str(result.exception)


@pytest.mark.parametrize(
    ("arguments", "cell", "words"),
    [
        (("--good", "1.0", "--bad", "1.7"), "tiny-onnx-fp32-mfdumy@cpu", "did you mean 'tiny-onnx-fp32-mfdummy@cpu'?"),
        (("--good", "1.7", "--bad", "1.0"), CELL, "--good 1.7 is not earlier than --bad 1.0"),
        (("--good", "one", "--bad", "1.0"), CELL, "--good: 'one' is no version"),
        (("--good", "1.0"), CELL, "say between which versions to search"),
        (("--good", "1.0", "--bad", "1.7", "--margin", "-3"), CELL, "--margin is '-3'"),
    ],
)
def test_what_cannot_be_searched_is_refused(bisect, arguments, cell, words):
    result = bisect(*arguments, cell=cell)
    assert result.exit_code != 0
    assert words in str(result.exception)


def test_a_package_that_the_backend_does_not_need_is_refused(bisect, tiny):
    command = ["bisect", CELL, "--package", "numpy", "--mf-model", str(tiny), "--versions", "1,2"]
    result = CliRunner().invoke(cli.commands, command)
    assert "runs on mfdummy, which stands on mfdummy, not on numpy" in str(result.exception)


def test_the_index_is_asked_for_versions(offline):
    assert set(install.released("mfdummy", 60)) == {EMPTY, *VERSIONS}
    with pytest.raises(install.Failed, match="a-package-that-nobody-has"):
        install.released("a-package-that-nobody-has", 60)
