"""``modelformats bisect``: the first version that is different is found, also around versions that cannot be tried."""

from __future__ import annotations

import itertools
import json
import math

import pytest
from click.testing import CliRunner
from dummy_index import EMPTY, SLOW, UNINSTALLABLE, UNOPENABLE, VERSIONS, WRONG, declare_backend

from pytest_modelformats import cli, installing, registry
from pytest_modelformats.version_search import Step, search

pytestmark = pytest.mark.alone

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
def test_the_first_slower_version_is_found(bisect):
    """Both are measured now, in turns (``comparing.py``): the good one beside each that is tried."""
    pytest.importorskip("pytest_modelformats.comparing")
    result = bisect("--good", "1.0", "--bad", "1.3", "--metric", "latency", "--budget", "5")
    assert result.exit_code == 0, result.output
    assert f"mfdummy {SLOW} is the first version with which {CELL} takes" in result.output
    assert "1.2 is the last before it" in result.output


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
    assert set(installing.released("mfdummy", 60)) == {EMPTY, *VERSIONS}
    with pytest.raises(installing.Failed, match="a-package-that-nobody-has"):
        installing.released("a-package-that-nobody-has", 60)
