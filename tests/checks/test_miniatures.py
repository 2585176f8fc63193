"""Runtimes and converters that are wrong on purpose each end as they deserve, and their neighbours do not notice.

One inner run has every miniature of ``tests/miniatures`` in one worker, each followed by a
faithful backend; a second one has the faithful ones alone.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import forked
import pytest
from inner_run import two_at_a_time
from miniatures import declarations, minimap, network
from places import ROOT, TESTS

PACKAGE = TESTS / "miniatures"
METADATA = "Metadata-Version: 2.1\nName: miniatures\nVersion: 0.0\n"
PAGE = ROOT / "docs" / "verdict.md"
QUOTE = re.compile(r"(?P<head><!-- quoted: (?P<cell>\S+) (?P<check>\w+) -->\n)> (?P<text>.*)\n")
SUITES = "contract,parity,batch,permutation,unmodified,concurrency,history,determinism,threads"
CHECKS = ("availability", *SUITES.split(","))
# Enough for a worker to start on a busy machine; what hangs costs this much, twice.
TIMEOUT_S = 15

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@dataclass(frozen=True)
class End:
    """How a cell is to end: its outcome and kind, the first check that sees it, and words of that check's sentence."""

    outcome: str
    kind: str | None = None
    seen_by: str = ""
    words: tuple[str, ...] = ()


def contract(seen_by, *words):
    return End("failed", "contract", seen_by, words)


def numeric(seen_by, *words):
    return End("failed", "numeric", seen_by, words)


PASSED = End("passed")
BACKENDS = {
    "drops_output": contract("contract", "2 outputs (logits, gate) where the source has 3"),
    "drops_output_silently": contract("parity", "2 outputs came back where the source has 3 (logits, gate, best)"),
    "adds_output": contract("contract", "4 outputs (logits, gate, best, hidden) where the source has 3"),
    "swaps_outputs": numeric("parity", "computes something else"),
    "reorders_outputs": contract("contract", "output 0 is called 'gate' where the source says 'logits'"),
    "renames_output": contract("contract", "output 1 is called 'Sigmoid_0' where the source says 'gate'"),
    "wrong_shape": contract("parity", "'logits' has shape [8, 1, 7] where the source gives [8, 7]"),
    "broadcastable_shape": contract("parity", "'logits' has shape [8, 1] where the source gives [8, 7]"),
    "int64_to_int32": contract("contract", "output 'best' is int32 where the source has int64"),
    "int64_to_int32_silently": contract("parity", "'best' has dtype int32 where the source gives int64"),
    "fixes_batch": contract(
        "contract",
        "dimension 0 of input 'x' was dynamic (N) and is now fixed at 2",
        "on the samples it refuses what the source takes (",
        "RuntimeError: Got invalid dimensions",
    ),
    "bakes_batch": contract(
        "contract",
        "dimension 0 of output 'logits' was dynamic (N) and is now fixed at 2",
        "on the samples output 0 comes out as [2, 7] where the source gives [8, 7]",
    ),
    "states_a_fixed_batch": PASSED,
    "off_by_one_unit": PASSED,
    "off_by_fifty_units": numeric("parity", "'logits'", "the limit is 4"),
    "nan_in_one_element": End("failed", "nan", "parity", ("1 of 56 elements",)),
    "infinity_in_one_element": End("failed", "nan", "parity", ("1 of 56 elements",)),
    "one_element_wrong": numeric("parity", "'logits'"),
    "constant_output": End("failed", "degenerate", "parity", ("'logits'", "does not depend on its input")),
    "ignores_input": End("failed", "degenerate", "parity", ("'logits'", "does not depend on its input")),
    "wrong_integer": numeric("parity", "'best' (int64) must be exact and differs in 1 of 8 elements"),
    "wrong_for_odd_batches": numeric("batch", "batch 3 against the source"),
    # The stress rows are the first to come after rows of the same shape.
    "remembers_last_input": numeric("parity", "agrees on ordinary inputs but not on unusual ones"),
    "differs_in_second_session": numeric("determinism", "a fresh session"),
    "mixes_rows_by_order": numeric("permutation", "rows reversed", "'logits'"),
    "keeps_largest_input": numeric("history", "the same input after others", "'logits'"),
    "writes_its_input": contract("unmodified", "changes its input 'x'"),
    "shares_a_buffer": numeric("concurrency", "of thread", "beside the others", "'logits'"),
    "takes_one_call_at_a_time": PASSED,
    "differs_with_threads": numeric("threads", "2 threads against one with one thread", "'logits'"),
    "claims_fp16_and_runs_fp32": End("fallback", None, "parity", ("asked for fp16, fp32 is what ran",)),
    "claims_fp16_and_runs_bf16": End("fallback", None, "parity", ("asked for fp16, bf16 is what ran",)),
    "claims_fp32_and_runs_bf16": End("fallback", None, "parity", ("asked for fp32, bf16 is what ran",)),
    "claims_fp32_and_runs_tf32": End("fallback", None, "parity", ("asked for fp32, tf32 is what ran",)),
    "claims_fp32_and_runs_fp16": End("fallback", None, "parity", ("asked for fp32, fp16 is what ran",)),
    "claims_tf32_and_runs_fp32": End("fallback", None, "parity", ("asked for tf32, fp32 is what ran",)),
    "claims_tf32_and_runs_bf16": End("fallback", None, "parity", ("asked for tf32, bf16 is what ran",)),
    "states_fp32_and_runs_bf16": End(
        "fallback", None, "parity", ("asked for fp32, bf16 is what ran", "contradict each other")
    ),
    "states_bf16_and_runs_fp32": PASSED,
    "admits_bf16_and_runs_it_on_large_inputs": End(
        "fallback", None, "parity", ("asked for fp32, and the runtime states bf16 for all of its 4 operators",)
    ),
    "hands_operators_to_another_device": End(
        "fallback", None, "parity", ("Asked for cpu", "2 of 4 operators are on npu (Tanh, Sigmoid)")
    ),
    "cannot_state_what_ran": PASSED,
    "raises_at_open": contract("contract", "could not open the artifact", "protobuf parsing failed"),
    "raises_at_run": contract("parity", "RuntimeError: Got invalid dimensions for input: x"),
    "lacks_operator": End("unsupported", None, "contract", ("no implementation of Tanh",)),
    "lacks_device": End("no-device", None, "contract", ("finds no accelerator",)),
    "segfaults": End("crashed", None, "parity", ("'run' in the miniature worker was ended by SIGSEGV",)),
    "segfaults_at_open": End("crashed", None, "contract", ("'open' in the miniature worker was ended by SIGSEGV",)),
    "exits_with_zero": End("crashed", None, "parity", ("exited with status 0 without answering",)),
    "hangs": End("timeout", None, "parity", (f"no answer within {TIMEOUT_S} s", "--mf-timeout")),
    "allocates_without_end": End("out-of-memory", None, "parity", ("--mf-memory",)),
    "aborts_without_memory": End("out-of-memory", None, "parity", ("SIGABRT", "failed allocation")),
    "killed_by_kernel": End("out-of-memory", None, "parity", ("SIGKILL",)),
    "floods_stdout": PASSED,
    "clips_large_inputs": numeric("parity", "agrees on ordinary inputs", "8 times as large as ordinary ones"),
    "is_slightly_wrong": numeric("parity", "stays the same when the inputs move a little"),
}
CONVERTERS = {
    "rounds_one_weight_to_fp16": numeric("parity", "computes something else"),
    # The largest of three matrices at fp16 costs a third of what all of it at fp16 does: the size alone would say fp16.
    "rounds_one_tensor_to_fp16": numeric("parity", "stays the same when the inputs move"),
    "zeroes_one_weight": numeric("parity", "computes something else"),
    "swaps_activation": numeric("parity", "computes something else"),
    "lacks_operator": End("unsupported", None, "contract", ("minicopy has no operator Tanh",)),
    "raises": End("convert-error", None, "contract", ("KeyError", "no rule for model.minicopy.npz")),
    "writes_nothing": End("convert-error", None, "contract", ("No such file",)),
    "forgets_weights": End("convert-error", None, "contract", ("the artifact lacks b2",)),
    "segfaults": End("crashed", None, "contract", ("'convert' in the convert worker was ended by SIGSEGV",)),
    "exits_with_zero": End("crashed", None, "contract", ("exited with status 0 without answering",)),
    "hangs": End("timeout", None, "contract", ("'convert'", f"no answer within {TIMEOUT_S} s")),
    "allocates_without_end": End("out-of-memory", None, "contract", ("--mf-memory",)),
}


def cell_of_backend(fault):
    ((precision,),) = declarations.FAULTS[fault].values()
    return f"net-mini-{precision}-{fault.replace('_', '-')}@cpu"


# Each of these breaks one law, and only the check of that law may say so.
ONE_LAW = (
    "mixes_rows_by_order",
    "keeps_largest_input",
    "writes_its_input",
    "shares_a_buffer",
    "differs_with_threads",
    "differs_in_second_session",
)
NOT_INSTALLED = "net-mini-fp32-not-installed@cpu"
EXPECTED = {
    **{cell_of_backend(fault): end for fault, end in BACKENDS.items()},
    **{f"net-minicopy.{function}-fp32-faithful@cpu": end for function, end in CONVERTERS.items()},
    NOT_INSTALLED: End("missing-dependency", None, "availability", ("miniature_runtime_that_nobody_has",)),
}
FAITHFUL = {
    *(f"net-mini-{precision}-faithful@cpu" for precision in ("fp32", "tf32", "fp16", "bf16")),
    "net-minicopy-fp32-faithful@cpu",
    *(f"net-mini-fp32-beside-{fault.replace('_', '-')}@cpu" for fault in BACKENDS),
}


@dataclass(frozen=True)
class Ran:
    """An inner run and its record."""

    ended: subprocess.CompletedProcess
    lines: list
    folder: Path

    def of(self, kind):
        return [line for line in self.lines if line["kind"] == kind]

    def checks(self, cell):
        """check -> line of a cell, in the order of the suites."""
        found = {line["check"]: line for line in self.of("check") if line["cell"] == cell}
        return {name: found[name] for name in CHECKS if name in found}

    @property
    def footer(self):
        return self.lines[-1]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder that holds the package as an installer leaves it."""
    site = tmp_path_factory.mktemp("site")
    shutil.copytree(PACKAGE, site / "miniatures", ignore=shutil.ignore_patterns("__pycache__"))
    info = site / "miniatures-0.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(METADATA)
    (info / "entry_points.txt").write_text(declarations.entry_points())
    return site


def run(folder, site, *selection):
    network.write(folder / "net.npz", seed=3)
    command = [
        *forked.python("pytest"), "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider", "-p", "modelformats",
        "--mf-model", "net.npz",
        "--mf-suites", SUITES, "--mf-timeout", str(TIMEOUT_S), "--mf-memory", "1GB", "--mf-cache", "cache", *selection,
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(site), "MINIATURES_FOLDER": str(folder)}
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    environment.pop("PYTEST_ADDOPTS", None)
    if (folder / "map.npz").exists():
        command[command.index("net.npz")] = "map.npz"
    ended = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=500, check=False
    )
    record = folder / "reports" / "latest" / "results.jsonl"
    assert record.exists(), ended.stdout[-4000:] + ended.stderr[-4000:]
    return Ran(ended, [json.loads(line) for line in record.read_text().splitlines()], folder)


@pytest.fixture(scope="module")
def both(site, tmp_path_factory):
    """The run with every miniature, and one with the faithful backends alone and a cache of its own."""
    names = [f"beside-{fault.replace('_', '-')}" for fault in BACKENDS]
    everything, faithful = tmp_path_factory.mktemp("everything"), tmp_path_factory.mktemp("faithful")
    return two_at_a_time(
        lambda: run(everything, site, "--mf-all-routes", "--mf-bundles", "100"),
        lambda: run(faithful, site, "--mf-backends", ",".join(["faithful", *names])),
    )


@pytest.fixture(scope="module")
def everything(both):
    """The run with every miniature."""
    return both[0]


@pytest.fixture(scope="module")
def faithful(both):
    """The run with the faithful backends alone."""
    return both[1]


MAP_ENDS = {
    "right": PASSED,
    "one_element": numeric("parity", "its element [7, 8, 77] is off by 1.5e-05", "a few elements are wrong"),
    "small_channel": numeric("parity", "at index 0 of dimension 1", "a part of small values is wrong"),
}


@pytest.fixture(scope="module")
def maps(site, tmp_path_factory):
    """The run of a model with a large output of channels of very different scales."""
    folder = tmp_path_factory.mktemp("maps")
    minimap.write(folder / "map.npz", seed=3)
    return run(folder, site)


@pytest.mark.parametrize("name", MAP_ENDS)
def test_a_part_of_a_large_output_is_judged_by_its_own_noise(maps, name):
    """One element among 131072, and the channel of the least scale, are seen beside channels a million times louder."""
    expected, line = MAP_ENDS[name], maps.checks(f"map-minimap-fp32-map-{name.replace('_', '-')}@cpu")["parity"]
    assert line["outcome"] == expected.outcome, line["sentence"]
    for words in expected.words:
        assert words in line["sentence"]
    output = line["data"]["outputs"][0]
    assert output["noise_ratio"] < 2
    assert output["point_ratio"] < 2, "the whole output's rms and maximum are those of rounding"


def test_every_miniature_is_expected_to_end_somehow():
    """No miniature is registered without an end being written down for it."""
    assert set(BACKENDS) == set(declarations.FAULTS)
    assert {"copies", *CONVERTERS} == set(declarations.CONVERTERS)


@pytest.mark.parametrize("cell", EXPECTED)
def test_miniature_ends_as_it_deserves(everything, cell):
    """The cell's outcome, its kind, the check that saw it and the sentence are the right ones.

    ``off_by_one_unit`` passes: a result that is one unit in the last place away, everywhere, is
    what another order of summation gives; rounding explains it, so nothing is wrong with it.
    ``floods_stdout`` passes too: its numbers are right.
    """
    expected, checks = EXPECTED[cell], everything.checks(cell)
    assert everything.footer["cells"][cell] == expected.outcome, {c: x["sentence"] for c, x in checks.items()}
    if expected is PASSED:
        allowed = {"passed", "unsupported"} if cell == cell_of_backend("takes_one_call_at_a_time") else {"passed"}
        assert {line["outcome"] for line in checks.values()} == allowed
        return
    first = next(line for line in checks.values() if line["outcome"] != "passed")
    assert (first["outcome"], first["failure_kind"]) == (expected.outcome, expected.kind), first["sentence"]
    assert first["check"] == expected.seen_by, first["sentence"]
    for words in expected.words:
        assert words in first["sentence"]


@pytest.mark.parametrize("fault", ONE_LAW)
def test_a_broken_law_is_told_by_its_own_check_alone(everything, fault):
    """Every other check of the cell passes."""
    checks = everything.checks(cell_of_backend(fault))
    assert [name for name, line in checks.items() if line["outcome"] != "passed"] == [BACKENDS[fault].seen_by]


def test_calls_are_not_mixed_where_the_backend_takes_one_at_a_time(everything):
    """The check says why it was not made."""
    line = everything.checks(cell_of_backend("takes_one_call_at_a_time"))["concurrency"]
    assert line["outcome"] == "unsupported"
    assert "one session takes one call at a time: the miniature has one buffer" in line["sentence"]


def test_what_is_stated_of_shapes_is_a_hint(everything):
    """A batch that is stated to be fixed and varies is no loss, and it is said on what that was seen."""
    sentence = everything.checks(cell_of_backend("states_a_fixed_batch"))["contract"]["sentence"]
    assert "It behaves as the source does on the samples and with N = 2, though it declares otherwise" in sentence
    assert "dimension 0 of input 'x' was dynamic (N) and is now fixed at 2" in sentence
    assert "No second size" not in sentence


def test_nothing_else_is_planned(everything):
    """The plan is the miniatures and the faithful cells, no more and no less."""
    assert {line["cell"] for line in everything.of("cell")} == {*EXPECTED, *FAITHFUL}


def test_totals_add_up(everything):
    """Every planned cell has exactly one outcome, the totals add up to the plan, and the run is complete and failed."""
    planned = [line["cell"] for line in everything.of("cell")]
    footer = everything.footer
    assert footer["complete"]
    assert sorted(footer["cells"]) == sorted(planned)
    assert len(planned) == len(set(planned)) == sum(footer["totals"].values())
    expected = Counter(end.outcome for end in EXPECTED.values()) + Counter({"passed": len(FAITHFUL)})
    assert footer["totals"] == expected
    assert everything.ended.returncode == pytest.ExitCode.TESTS_FAILED
    assert footer["exitstatus"] == pytest.ExitCode.TESTS_FAILED


def test_every_check_of_every_cell_is_on_record(everything):
    """A cell that runs has one line per suite, whatever became of its worker; one that does not run has one."""
    for cell in (*EXPECTED, *FAITHFUL):
        names = ["availability"] if cell == NOT_INSTALLED else SUITES.split(",")
        assert [line["check"] for line in everything.of("check") if line["cell"] == cell] == names, cell


def test_missing_dependency_comes_with_its_install_line(everything):
    """What is not installed is a skip that says what to type."""
    line = next(line for line in everything.of("cell") if line["cell"] == NOT_INSTALLED)
    assert (line["decision"], line["install"]) == ("missing-dependency", declarations.INSTALL)
    assert declarations.INSTALL in everything.ended.stdout


@pytest.mark.parametrize("cell", sorted(FAITHFUL))
def test_faithful_cell_passes_beside_them(everything, cell):
    """Every check of every faithful cell passes, although its worker has just died, hung or been flooded."""
    checks = everything.checks(cell)
    assert {name: line["sentence"] for name, line in checks.items() if line["outcome"] != "passed"} == {}


def verdict_of(line):
    """What is said in a check's line, but for how often threads have called: where a call is slow, it is once."""
    sentence = re.sub(r"^(4 threads that call one session at once), (once|3 times) each,", r"\1,", line["sentence"])
    return {**{key: line[key] for key in ("outcome", "failure_kind", "data")}, "sentence": sentence}


def test_faithful_verdicts_do_not_depend_on_the_faults(everything, faithful):
    """Without the faults, the faithful cells have the same outcomes, noise ratios and sentences."""
    assert set(faithful.footer["cells"]) == FAITHFUL
    assert faithful.footer["totals"] == {"passed": len(FAITHFUL)}
    assert faithful.ended.returncode == pytest.ExitCode.OK, faithful.ended.stdout[-4000:]
    for cell in FAITHFUL:
        beside, alone = (
            {name: verdict_of(line) for name, line in ran.checks(cell).items()} for ran in (everything, faithful)
        )
        assert beside == alone, cell


def test_faithful_ratios_are_real(faithful):
    """The faithful runtime is differently rounded, not equal: its noise ratio is neither 0 nor exactly 1."""
    found = {cell: faithful.checks(cell)["parity"]["data"]["noise_ratio"] for cell in FAITHFUL}
    assert all(0.05 < ratio < 2 for ratio in found.values()), found
    assert found["net-mini-fp32-faithful@cpu"] != 1


@pytest.mark.parametrize("who", ["backend", "converter"])
def test_what_hangs_is_killed_with_its_children(everything, who):
    """A timeout ends the worker and the process that the worker started."""
    for pid in (everything.folder / f"{who}.pids").read_text().split():
        status = Path(f"/proc/{pid}/status")
        # Where nobody reaps orphans, what was killed stays as a zombie.
        assert not status.exists() or "State:\tZ" in status.read_text(), status.read_text()


def test_flood_leaves_no_trace(everything):
    """200 MB on stdout reach neither terminal nor record; each request ends within the time that it is given."""
    checks = everything.checks(cell_of_backend("floods_stdout"))
    assert "timeout" not in {line["outcome"] for line in checks.values()}
    assert len(everything.ended.stdout) < 500_000
    kept = sum(path.stat().st_size for path in everything.folder.rglob("*") if path.is_file())
    assert kept < 20_000_000


def test_one_fault_in_608_weights_is_seen_from_afar(everything):
    """One weight rounded to fp16 is far beyond the limit, not at its edge."""
    line = everything.checks("net-minicopy.rounds_one_weight_to_fp16-fp32-faithful@cpu")["parity"]
    assert line["data"]["noise_ratio"] > 10


def test_what_the_runtime_states_stands_beside_what_was_measured(everything):
    """Honest statements are recorded and contradict nothing; a lie is shown, also where the numbers are right."""

    def parity(cell):
        return everything.checks(cell)["parity"]["data"]

    for cell in FAITHFUL:
        data = parity(cell)
        assert data["execution"]["precision"] == cell.split("-")[2], cell
        assert data["execution"]["devices"] == {"cpu": 4}
        assert "contradiction" not in data
    for fault in ("claims_fp32_and_runs_bf16", "claims_fp16_and_runs_fp32", "hands_operators_to_another_device"):
        assert "contradiction" not in parity(cell_of_backend(fault)), fault
    lie = parity(cell_of_backend("states_fp32_and_runs_bf16"))
    assert lie["contradiction"].startswith("The runtime states fp32 for all of its 4 operators (its own word), yet")
    assert lie["effective_precision"] == "bf16"
    other = parity(cell_of_backend("states_bf16_and_runs_fp32"))
    assert "bf16 for all of its 4 operators" in other["contradiction"]
    assert other["effective_precision"] == "fp32"
    folder = everything.folder / "reports" / "latest"
    for page in ("index.html", "report.md"):
        text = (folder / page).read_text().replace("\\", "")
        assert text.count("Stated by the runtime, ruled out by the error") == 1
        assert other["contradiction"] in text.replace("&#39;", "'"), page
    assert other["contradiction"].split(":")[0] in " ".join(everything.ended.stdout.split())
    mute = parity(cell_of_backend("cannot_state_what_ran"))
    assert "profiling was not compiled in" in mute["execution"]["why_not"]


def surroundings(site, everything):
    """The environment of a bundle's script; these runtimes have no way of opening that goes without this package."""
    (everything.folder / "again").mkdir(exist_ok=True)
    return {**os.environ, "PYTHONPATH": str(site), "MINIATURES_FOLDER": str(everything.folder / "again")}


def repro(site, everything, bundle):
    """Run a bundle's script."""
    command = [sys.executable, str(bundle / "repro.py"), "--timeout", "10"]
    environment = surroundings(site, everything)
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


# The scripts start a process each for the runtime, which may crash or hang; their own part needs none of its own.
SCRIPTS = """
import contextlib
import io
import json
import multiprocessing
import runpy
import sys

import numpy


def look(bundle):
    told = io.StringIO()
    with contextlib.redirect_stdout(told):
        status = runpy.run_path(f"{bundle}/repro.py", run_name="script")["main"](["--timeout", "10"])
    return status, told.getvalue()


with multiprocessing.get_context("fork").Pool(2) as pool, open(sys.argv[1], "w") as file:
    json.dump(pool.map(look, sys.argv[2:], chunksize=1), file)
"""


def repro_each(site, everything, found):
    """Run many bundles' scripts: cell -> (exit status, what was said)."""
    ended = everything.folder / "scripts.json"
    command = [sys.executable, "-c", SCRIPTS, str(ended), *map(str, found.values())]
    subprocess.run(command, env=surroundings(site, everything), check=True, capture_output=True, timeout=500)
    return dict(zip(found, json.loads(ended.read_text()), strict=True))


def bundles(everything):
    """cell -> its reproduction bundle."""
    found = {line["cell"]: line["data"].get("bundle") for line in everything.of("check") if "bundle" in line["data"]}
    return {cell: everything.folder / "reports" / "latest" / place for cell, place in found.items()}


def test_every_failing_miniature_is_reproduced_by_its_bundle(everything, site):
    """What failed fails again in the bundle's script, whether by its numbers, its interface, a crash or a hang."""
    skipped = {"passed", "unsupported", "missing-dependency", "no-device"}
    failing = {cell for cell, end in EXPECTED.items() if end.outcome not in skipped}
    assert set(bundles(everything)) == failing
    assert not [line for line in everything.of("check") if "bundle_error" in line["data"]]
    ended = repro_each(site, everything, bundles(everything))
    assert {cell: status for cell, (status, _) in ended.items()} == dict.fromkeys(failing, 1)
    assert "ended by signal 11" in ended[cell_of_backend("segfaults")][1]
    assert "it hangs" in ended[cell_of_backend("hangs")][1]
    # A process of its own ends as the others here do.
    assert repro(site, everything, bundles(everything)[cell_of_backend("segfaults")]).returncode == 1


@pytest.mark.parametrize("fault", ["swaps_outputs", "segfaults", "wrong_for_odd_batches", "renames_output", *ONE_LAW])
def test_a_bug_that_vanished_is_told(everything, site, tmp_path, fault):
    """The same bundle with a runtime that is right by now exits 0."""
    bundle = shutil.copytree(bundles(everything)[cell_of_backend(fault)], tmp_path / "bundle")
    case = json.loads((bundle / "case.json").read_text())
    case["settings"]["entry"] = "miniatures.session:faithful"
    (bundle / "case.json").write_text(json.dumps(case))
    done = repro(site, everything, bundle)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "does not exist any longer" in done.stdout


def test_every_red_check_says_what_to_do_next(everything):
    """What was found, and behind it the next step; nothing after a pass."""
    for line in everything.of("check"):
        red = line["outcome"] in {
            "failed", "fallback", "convert-error", "crashed", "timeout", "out-of-memory",
        }  # fmt: skip
        assert line["sentence"].count(" Next: ") == red, line["sentence"]
        assert not red or line["sentence"].endswith("."), line["sentence"]


def test_every_numeric_failure_says_what_rounding_explains(everything):
    """The judgement of numbers always holds the measure that it was judged by."""
    numbers = [x for x in everything.of("check") if x["failure_kind"] == "numeric"]
    assert len(numbers) > 10
    for line in numbers:
        assert re.search(r"(rounding at \w+|what rounding) (explains|does)", line["sentence"]), line["sentence"]


def shape(sentence):
    """A sentence without what another processor computes a little differently: its numbers, and process details."""
    return re.sub(r"\d+(\.\d+)?(e[+-]?\d+)?", "#", sentence)


def test_the_page_quotes_what_is_said(everything):
    """docs/verdict.md shows the sentences as they are produced; ``MF_WRITE_DOCS=1`` writes them again."""

    def said(quote):
        return " ".join(everything.checks(quote["cell"])[quote["check"]]["sentence"].split())

    text = PAGE.read_text(encoding="utf-8")
    quotes = list(QUOTE.finditer(text))
    assert len(quotes) == text.count("<!-- quoted:") > 10
    if os.environ.get("MF_WRITE_DOCS"):
        PAGE.write_text(QUOTE.sub(lambda q: f"{q['head']}> {said(q)}\n", text), encoding="utf-8")
        return
    for quote in quotes:
        assert shape(quote["text"]) == shape(said(quote)), quote["cell"]
