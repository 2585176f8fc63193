"""Generated inputs find what samples do not, shrink it, save it, and remember it; faithful runtimes stay green."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import forked
import numpy as np
import pytest
from miniatures import rare
from places import TESTS

if TYPE_CHECKING:
    from pathlib import Path

PACKAGE = TESTS / "miniatures"
METADATA = "Metadata-Version: 2.1\nName: miniatures\nVersion: 0.0\n"
RIGHT = ("right", "flushes_denormals")
WRONG = tuple(name for name in rare.RUNTIMES if name.startswith(("wrong_for", "ignores", "refuses")))

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def cell_of(runtime):
    return f"rare-rare-fp32-{runtime.replace('_', '-')}@cpu"


@dataclass(frozen=True)
class Ran:
    """An inner run and its record."""

    ended: subprocess.CompletedProcess
    folder: Path
    lines: list

    def line(self, runtime, check="fuzz"):
        found = [
            x for x in self.lines if x["kind"] == "check" and x["cell"] == cell_of(runtime) and x["check"] == check
        ]
        assert len(found) == 1, self.ended.stdout[-3000:]
        return found[0]

    def saved(self, runtime):
        """The failing input that the line names."""
        with np.load(self.folder / self.line(runtime)["data"]["failing_input"], allow_pickle=False) as archive:
            return dict(archive)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder that holds the miniatures as an installer leaves them."""
    site = tmp_path_factory.mktemp("site")
    shutil.copytree(PACKAGE, site / "miniatures", ignore=shutil.ignore_patterns("__pycache__"))
    info = site / "miniatures-0.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(METADATA)
    (info / "entry_points.txt").write_text(rare.entry_points())
    return site


def run(folder, site, *options, runtimes=rare.RUNTIMES, suites="parity,fuzz"):
    rare.write(folder / "rare.npz")
    named = ",".join(name.replace("_", "-") for name in runtimes)
    plugins = ["-p", "no:cacheprovider", "-p", "modelformats", *(["-p", "xdist"] if "-n" in options else [])]
    command = [
        *forked.python("pytest"), "-m", "pytest", "-q", "--tb=short", *plugins, "--mf-model", "rare.npz",
        "--mf-backends", named, "--mf-suites", suites, "--mf-cache", "cache", *options,
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(site), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    environment.pop("PYTEST_ADDOPTS", None)
    ended = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=500, check=False
    )
    record = folder / "reports" / "latest" / "results.jsonl"
    assert record.exists(), ended.stdout[-4000:] + ended.stderr[-4000:]
    lines = [json.loads(line) for line in record.read_text().splitlines()]
    return Ran(ended, record.parent.resolve(), lines)


@pytest.fixture(scope="module")
def found(site, tmp_path_factory):
    """A run over every runtime with a budget."""
    return run(tmp_path_factory.mktemp("found"), site, "--mf-fuzz", "150", "--mf-bundles", "100")


@pytest.mark.parametrize("runtime", RIGHT)
def test_a_right_runtime_is_not_accused(found, runtime):
    """Flushing denormals to zero is a choice that runtimes make; another order of summation is none at all."""
    line = found.line(runtime)
    assert line["outcome"] == "passed", line["sentence"]
    assert line["data"]["statement"]["judged"] > 80
    assert "failing_input" not in line["data"]


@pytest.mark.parametrize("runtime", [*WRONG, "dies_of_the_last_token", "wrong_now_and_then"])
def test_the_samples_do_not_show_it(found, runtime):
    assert found.line(runtime, "parity")["outcome"] == "passed"


@pytest.mark.parametrize("runtime", WRONG)
def test_what_samples_do_not_show_is_found(found, runtime):
    line = found.line(runtime)
    assert line["outcome"] == "failed", line["sentence"]
    assert line["data"]["statement"]["confirmed"] is True
    assert str(found.folder / line["data"]["failing_input"]) in line["sentence"]
    assert "the smallest found: 'ids' int64[" in line["sentence"]
    kind = {"refuses_batches_of_one": "contract", "wrong_for_denormals": "nan", "wrong_for_large_values": "nan"}
    assert line["failure_kind"] == kind.get(runtime, "numeric")


SMALLEST = {
    "wrong_for_batches_of_five": ((5, 1), lambda ids, x: not ids.any() and not x.any()),
    "wrong_for_odd_lengths": ((1, 1), lambda ids, x: not ids.any() and not x.any()),
    "wrong_for_the_last_token": ((1, 1), lambda ids, x: (ids == rare.VOCABULARY - 1).sum() == 1 and not x.any()),
    "wrong_for_negative_inputs": ((1, 1), lambda ids, x: not ids.any() and (x == -1).all()),
    "wrong_for_denormals": ((1, 1), lambda ids, x: not ids.any() and (x != 0).sum() == 1),
    "wrong_for_large_values": ((1, 1), lambda ids, x: not ids.any() and (x == 128).sum() == 1),
    "refuses_batches_of_one": ((1, 1), lambda ids, x: not ids.any() and not x.any()),
}


@pytest.mark.parametrize("runtime", SMALLEST)
def test_it_is_shrunk_to_what_matters(found, runtime):
    """Batch 1 and length 1 where they do not matter, zeros but for what does."""
    saved = found.saved(runtime)
    shape, essential = SMALLEST[runtime]
    assert saved["ids"].shape == shape
    assert saved["x"].shape == (shape[0], rare.FEATURES)
    assert essential(saved["ids"], saved["x"]), saved


def test_memory_layout_is_part_of_an_input(found):
    """A runtime that ignores strides is right on every contiguous array."""
    assert "in memory" in found.line("ignores_strides")["data"]["statement"]["input"]["x"]


def test_an_input_that_ends_the_process_is_saved(found):
    line = found.line("dies_of_the_last_token")
    assert line["outcome"] == "crashed"
    assert "SIGSEGV" in line["sentence"]
    assert "this happened on a generated input" in line["sentence"]
    assert (found.saved("dies_of_the_last_token")["ids"] == rare.VOCABULARY - 1).any()


def test_a_result_that_does_not_repeat_is_told_apart(found):
    """Shrinking needs results that repeat; where the smallest input is right in a fresh session, that is said."""
    line = found.line("wrong_now_and_then")
    assert line["outcome"] == "failed"
    assert line["data"]["statement"]["confirmed"] is False
    assert "In a fresh session the same input is right" in line["sentence"]


FAILING = (*WRONG, "dies_of_the_last_token", "wrong_now_and_then")


def reproduced(found, site, runtime, folder, entry=None):
    """Run a bundle's script as it is, or with another way of opening."""
    bundle = folder / "bundle"
    shutil.copytree(found.folder / found.line(runtime)["data"]["bundle"], bundle, dirs_exist_ok=True)
    case = json.loads((bundle / "case.json").read_text())
    case["settings"]["entry"] = entry or case["settings"]["entry"]
    (bundle / "case.json").write_text(json.dumps(case))
    command = [sys.executable, str(bundle / "repro.py"), "--timeout", "30"]
    environment = {**os.environ, "PYTHONPATH": str(site)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("runtime", FAILING)
def test_the_bundle_holds_the_input_and_knows_when_it_is_right(found, site, tmp_path, runtime):
    """The smallest input with its truth and limits, and as it lies in memory; undecided only where it does not repeat.

    Flushing denormals is as right there as it is for the check.
    """
    done = reproduced(found, site, runtime, tmp_path)
    repeats = runtime != "wrong_now_and_then"
    assert done.returncode == (1 if repeats else 3), done.stdout + done.stderr
    case = json.loads((tmp_path / "bundle" / "case.json").read_text())
    assert case["law"] == ("run" if runtime.startswith("dies") else "fuzz" if repeats else "other")
    saved = found.saved(runtime)
    for index, spec in enumerate(case["settings"]["inputs"]):
        assert np.array_equal(np.load(tmp_path / "bundle" / "inputs" / "0" / f"{index}.npy"), saved[spec["name"]])
    for right in RIGHT:
        done = reproduced(found, site, runtime, tmp_path, f"miniatures.rare:{right}")
        assert done.returncode == (0 if repeats else 3), done.stdout + done.stderr


def test_nothing_is_written_where_the_user_is(found):
    assert not (found.folder.parent.parent / ".hypothesis").exists()


def test_the_failing_input_can_be_judged_on(found, site):
    """``--mf-data`` takes the file that was saved."""
    path = found.folder / found.line("wrong_for_the_last_token")["data"]["failing_input"]
    again = run(
        found.folder.parent.parent, site, "--mf-data", path, runtimes=("wrong_for_the_last_token",), suites="parity"
    )
    assert again.line("wrong_for_the_last_token", "parity")["outcome"] == "failed"


def test_the_next_run_tries_what_failed_first(site, tmp_path):
    """With a budget of one input, the next run finds at once what took the first one many."""
    chosen = {"runtimes": ("wrong_for_the_last_token",)}
    assert run(tmp_path, site, "--mf-fuzz", "1", **chosen).line("wrong_for_the_last_token")["outcome"] == "passed"
    assert run(tmp_path, site, "--mf-fuzz", "300", **chosen).line("wrong_for_the_last_token")["outcome"] == "failed"
    line = run(tmp_path, site, "--mf-fuzz", "1", **chosen).line("wrong_for_the_last_token")
    assert line["outcome"] == "failed"
    assert "highest (4999)" in line["sentence"]


def test_one_seed_generates_the_same_inputs(site, tmp_path):
    """Two runs without a memory end the same; another seed asks for other inputs."""
    ends = []
    for name, seed in (("one", "0"), ("again", "0")):
        folder = tmp_path / name
        folder.mkdir()
        ran = run(folder, site, "--mf-fuzz", "100", "--mf-seed", seed, runtimes=("right", "wrong_for_negative_inputs"))
        ends.append({k: v for k, v in ran.line("right")["data"]["statement"].items() if k != "seconds"})
    assert ends[0] == ends[1]


def test_the_time_budget_ends_a_search(site, tmp_path):
    ran = run(tmp_path, site, "--mf-fuzz", "100000", "--mf-fuzz-budget", "0.5", runtimes=("right",))
    line = ran.line("right")
    assert line["outcome"] == "passed"
    assert "The time for it was spent (--mf-fuzz-budget)" in line["sentence"]
    assert line["data"]["statement"]["seconds"] < 30


def test_a_process_of_xdist_saves_its_input_beside_the_runs(site, tmp_path):
    """It does not know the run's folder; the record's path leads there all the same."""
    ran = run(tmp_path, site, "--mf-fuzz", "30", "-n", "2", runtimes=("right", "wrong_for_odd_lengths"))
    assert ran.line("right")["outcome"] == "passed"
    assert ran.line("wrong_for_odd_lengths")["outcome"] == "failed"
    assert ran.saved("wrong_for_odd_lengths")["ids"].shape == (1, 1)


def test_in_the_pytest_process_itself_the_same_is_found(site, tmp_path):
    ran = run(tmp_path, site, "--mf-fuzz", "30", "--mf-isolate", "none", runtimes=("right", "wrong_for_odd_lengths"))
    assert ran.line("right")["outcome"] == "passed"
    assert ran.line("wrong_for_odd_lengths")["outcome"] == "failed"
