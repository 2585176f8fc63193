"""Whole runs against a baseline: what was planted between the two is found, and nothing else is.

A planted slow-down is some twenty-fold, and half as much again of the fastest calls is called one: other work on the
machine makes neither of the other.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import jsonschema
import pytest
import turtles
from click.testing import CliRunner
from inner_run import two_layers
from places import RECORD_SCHEMA, TESTS

from pytest_modelformats.cli.main import commands
from pytest_modelformats.errors import ConfigurationError
from pytest_modelformats.record import read as record_lines
from pytest_modelformats.schema import Change

SCHEMA = json.loads(RECORD_SCHEMA.read_text())
pytestmark = pytest.mark.slow
SPIN_US = 400
BEFORE = {"same": {}, "slow": {}, "large": {}, "vague": {}, "broken": {}, "gone": {}}
AFTER = {
    "same": {},
    "slow": {"spin_us": SPIN_US},
    "large": {"padding": 4000},
    "vague": {"vague": 2.4e-7},
    "broken": {"breaks": True},
    "new": {},
}


def cell(name):
    return f"tiny-{name}-fp32-turtle@cpu"


class Bench:
    """A folder in which runs follow one another, with a cache and a report folder of its own."""

    def __init__(self, folder):
        self.folder = folder
        (folder / "site").mkdir()
        shutil.copy(TESTS / "quick_comparing.py", folder / "site")
        # In the configuration: options on the command line would make the plan a narrower one than the baseline's.
        (folder / "modelformats.toml").write_text('backends = ["turtle"]\n')
        two_layers(folder / "tiny.onnx")

    def command(self, *options, suites="parity,latency"):
        return [
            sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider", "-p", "modelformats",
            "-p", "quick_comparing", "--mf-model=tiny.onnx", f"--mf-suites={suites}", "--mf-cache=cache",
            "--mf-time-budget=0.05", "--mf-bundles=0", *options,
        ]  # fmt: skip

    def environment(self, plants, **more):
        environment = {**os.environ, **turtles.install(self.folder / "site", plants), **more}
        environment.pop("PYTEST_ADDOPTS", None)
        return {**environment, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}

    def run(self, plants, *options, suites="parity,latency", **more):
        command, environment = self.command(*options, suites=suites), self.environment(plants, **more)
        ended = subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        return Ended(ended.returncode, ended.stdout + ended.stderr, self.folder / "reports" / "latest")

    def compare(self, *arguments):
        """``modelformats compare``, in this process."""
        before = Path.cwd()
        os.chdir(self.folder)
        try:
            return CliRunner().invoke(commands, ["compare", "--mf-cache=cache", *map(str, arguments)])
        finally:
            os.chdir(before)


class Ended:
    """How a run ended, and its record."""

    def __init__(self, status, text, latest):
        self.status, self.text = status, text
        self.folder = latest.resolve()
        path = self.folder / "results.jsonl"
        assert path.exists(), text[-3000:]
        self.lines = [json.loads(line) for line in path.read_text().splitlines()]

    def check(self, name, check):
        found = [x for x in self.lines if x["kind"] == "check" and x["cell"] == cell(name) and x["check"] == check]
        assert len(found) == 1, (name, check, self.text[-3000:])
        return found[0]

    def change(self, name, metric):
        (found,) = (c for c in self.check(name, "regression")["data"]["comparisons"] if c["metric"] == metric)
        return found

    @property
    def header(self):
        return self.lines[0]


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """The folder, with a run of ``BEFORE`` saved as the baseline ``release``."""
    bench = Bench(tmp_path_factory.mktemp("bench"))
    bench.first = bench.run(BEFORE, "--mf-save-baseline=release")
    assert bench.first.status == 0, bench.first.text
    return bench


@pytest.fixture(scope="module")
def after(bench):
    """The run of ``AFTER`` compared with it."""
    return bench.run(AFTER, "--mf-baseline=release", TURTLES_LOG=str(bench.folder / "compared.log"))


def test_the_record_says_which_artifact_and_which_code_a_result_is_of(bench):
    data = bench.first.check("slow", "latency")["data"]
    assert (bench.folder / "cache" / data["artifact"]["path"]).is_file()
    assert data["artifact"]["where"] == "cache"
    assert len(data["runtime"]["code"]) == 64


def test_every_line_is_one_that_the_schema_allows(bench, after):
    validator = jsonschema.Draft202012Validator(SCHEMA)
    for ran in (bench.first, after):
        assert [e.message for line in ran.lines for e in validator.iter_errors(line)] == []


def test_nothing_is_compared_without_a_baseline(bench):
    assert {x["check"] for x in bench.first.lines if x["kind"] == "check"} == {"parity", "latency"}
    assert "baseline" not in bench.first.header


def test_a_slower_artifact_is_found_by_measuring_both_now(bench, after):
    change = after.change("slow", "latency")
    assert (change["change"], change["how"]) == ("regression", "interleaved"), change
    assert change["ratio"] > 1.5
    line = after.check("slow", "regression")
    assert (line["outcome"], line["failure_kind"]) == ("failed", "regression")
    assert "Median latency" in line["sentence"]
    assert after.status == 1


def test_what_is_measured_beside_it_is_the_baselines_own_artifact(bench, after):
    """One pair per cell whose artifact is another one; the one that did not change is not among them."""
    pairs = [tuple(map(float, x.split())) for x in (bench.folder / "compared.log").read_text().splitlines()]
    assert len(pairs) == 3
    slow = max(pairs, key=lambda pair: pair[1])
    assert slow[0] < SPIN_US * 1000 / 2
    assert slow[1] >= SPIN_US * 1000


def test_a_larger_artifact_is_found(after):
    change = after.change("large", "size")
    assert (change["change"], change["how"]) == ("regression", "exact")
    assert change["after"] >= change["before"] + 4000
    assert after.check("large", "regression")["outcome"] == "failed"


def test_a_less_exact_one_is_found_though_it_still_passes(after):
    assert after.check("vague", "parity")["outcome"] == "passed", after.check("vague", "parity")["sentence"]
    change = after.change("vague", "parity")
    assert change["change"] == "regression", change
    assert "less exact" in change["sentence"]


def test_what_is_identical_is_not_measured_and_stays_green(after):
    change = after.change("same", "latency")
    assert (change["change"], change["how"]) == ("same", "identical")
    assert "--mf-remeasure" in change["sentence"]
    assert after.check("same", "regression")["outcome"] == "passed"


def test_what_cannot_be_converted_any_more_is_a_regression(after):
    assert after.change("broken", "parity")["change"] == "regression"
    assert after.check("broken", "parity")["outcome"] == "convert-error"
    assert after.check("broken", "regression")["failure_kind"] == "regression"


def test_cells_that_vanished_and_appeared_are_listed(after):
    assert after.header["baseline"]["vanished"] == [{"cell": cell("gone"), "reason": "it is not in the plan"}]
    assert after.change("new", "cell")["change"] == "appeared"
    for words in (f"vanished: {cell('gone')}", f"appeared: {cell('new')}"):
        assert words in " ".join(after.text.split())


def test_the_single_readings_are_shown_and_not_judged(after):
    change = after.change("large", "first_inference")
    assert change["how"] == "not judged"
    assert "not judged unless asked for" in change["sentence"]


def test_what_was_read_of_an_identical_cell_is_no_change(after):
    for metric in ("load", "first_inference", "memory"):
        change = after.change("same", metric)
        assert (change["change"], change["how"]) == ("same", "identical")


def test_memory_is_that_of_fresh_processes_where_both_sides_were_opened(after):
    assert after.change("large", "memory")["how"] == "interleaved"
    assert "fresh processes" in after.change("large", "memory")["sentence"]


def test_the_reports_have_one_table_of_it(after):
    run = record_lines.read(after.folder / "results.jsonl")
    assert {c.change for x in run.cells for c in x.comparisons if c.metric == "size"} <= {*Change}
    for report in ("report.md", "index.html"):
        text = (after.folder / report).read_text()
        assert "Compared with release" in text
        assert "Benjamini–Hochberg" in text
    text = " ".join(after.text.split())
    assert "Compared with release" in text
    assert f"regression: {cell('slow')}" in text


@pytest.fixture(scope="module")
def judging(bench):
    """A run of the items that judge, by ``-k``, in which a slower cell fails nothing and a larger one does."""
    plants = {"same": {}, "slow": {"spin_us": SPIN_US}, "large": {"padding": 4000}}
    return bench.run(plants, "--mf-baseline=release", "--mf-fail-on=size", "-k", "regression", suites="parity")


@pytest.fixture(scope="module")
def chosen(bench):
    """A run of one cell of all, which is larger where only a slower one fails the run."""
    plants = {**BEFORE, "large": {"padding": 4000}}
    return bench.run(plants, "--mf-baseline=release", f"--mf-cells={cell('large')}", "--mf-fail-on=latency:5%")


def test_what_was_not_asked_for_does_not_fail_the_run(chosen, judging):
    """A larger artifact where only latency was asked for, a slower one where only size was."""
    assert chosen.change("large", "size")["change"] == "regression"
    assert chosen.check("large", "regression")["outcome"] == "passed"
    assert chosen.status == 0, chosen.text
    assert judging.change("large", "size")["change"] == judging.change("slow", "latency")["change"] == "regression"
    assert judging.check("large", "regression")["outcome"] == "failed"
    assert judging.check("slow", "regression")["outcome"] == "passed"
    assert judging.status == 1, judging.text


def test_cells_that_were_not_chosen_have_not_vanished(chosen):
    assert chosen.header["baseline"]["vanished"] == []


def test_regressions_alone_measure_what_they_need(judging):
    """``-k`` selects only the judging items; the line of each comparison is written all the same."""
    change = judging.change("slow", "latency")
    assert (change["change"], change["how"]) == ("regression", "interleaved")
    assert judging.check("slow", "comparison")["data"]["comparisons"]
    assert {x["check"] for x in judging.lines if x["kind"] == "check"} == {"comparison", "regression"}


def test_an_improvement_is_reported_by_the_same_rule(bench, after):
    """The run that found the slower one is the baseline now."""
    ran = bench.run({"slow": {}}, f"--mf-baseline={after.folder}")
    assert ran.status == 0, ran.text
    assert ran.change("slow", "latency")["change"] == "improvement"
    assert f"improvement: {cell('slow')}" in " ".join(ran.text.split())


def slower_by_stored_samples(change):
    """Whether it is called slower, or would be if the machine had not been disturbed while one was measured."""
    judged = change["change"] == "regression" or (change["change"], "while disturbed" in change["sentence"]) == (
        "inconclusive", True,
    )  # fmt: skip
    return change["how"] == "stored" and change["ratio"] > 1.5 and judged


def calm(folder, path, change=lambda line: line):
    """A copy of a record in which no measurement was disturbed, with its lines changed; ``None`` leaves one out."""
    with path.open("w") as handle:
        for text in (folder / "results.jsonl").read_text().splitlines():
            line = change(json.loads(text))
            if line is not None:
                line.get("data", {}).update({k: "" for k in ("disturbed", "unusable") if k in line.get("data", {})})
                handle.write(json.dumps(line) + "\n")
    return path


def test_other_code_of_the_backend_leaves_only_the_stored_samples(bench):
    site = bench.folder / "site"
    environment = bench.environment({"slow": {"spin_us": SPIN_US}})
    (site / "turtles.py").write_text((site / "turtles.py").read_text() + "\n# another version\n")
    command = bench.command("--mf-baseline=release", "-k", "comparison or parity or latency")
    subprocess.run(command, cwd=bench.folder, env=environment, capture_output=True, timeout=120, check=False)
    ran = Ended(0, "", bench.folder / "reports" / "latest")
    (change,) = (c for c in ran.check("slow", "comparison")["data"]["comparisons"] if c["metric"] == "latency")
    assert slower_by_stored_samples(change)
    assert "weaker" in change["sentence"]
    assert "the code of the backend turtle is another one since" in change["sentence"]


@pytest.fixture(scope="module")
def poor(bench, tmp_path_factory):
    """A run beside a baseline whose artifacts are lost; its lines of the cell ``large`` are of an older version."""
    folder = tmp_path_factory.mktemp("poor")
    shutil.copytree(bench.folder, folder / "copy", symlinks=True)
    other = Bench.__new__(Bench)
    other.folder = folder / "copy"
    shutil.rmtree(other.folder / "cache" / "artifacts")
    old = folder / "old.jsonl"
    with old.open("w") as handle:
        for line in bench.first.lines:
            data = dict(line.get("data", {}))
            if line.get("cell") == cell("large"):
                data = {key: value for key, value in data.items() if key not in {"artifact", "runtime"}}
            handle.write(json.dumps({**line, "data": data} if data else line) + "\n")
    return other.run({"slow": {"spin_us": SPIN_US}, "large": {"spin_us": SPIN_US}}, f"--mf-baseline={old}")


def test_a_lost_artifact_leaves_only_the_stored_samples(poor):
    change = poor.change("slow", "latency")
    assert slower_by_stored_samples(change)
    assert "no longer in the cache" in change["sentence"]


def test_a_record_of_an_older_version_is_a_baseline_with_its_samples(poor):
    change = poor.change("large", "latency")
    assert slower_by_stored_samples(change)
    assert "does not say which artifact" in change["sentence"]


def test_two_records_are_compared_by_the_command(bench, after, tmp_path):
    release, later = calm(bench.first.folder, tmp_path / "a.jsonl"), calm(after.folder, tmp_path / "b.jsonl")
    shown = bench.compare(release, later)
    assert shown.exit_code == 1, shown.output
    assert f"regression: {cell('slow')}" in " ".join(shown.output.split())
    assert "weaker" in shown.output
    assert bench.compare("release", after.folder).exit_code == 1  # size and parity, however disturbed
    assert bench.compare("release", after.folder, "--fail-on", "none").exit_code == 0
    assert bench.compare("release", "release").exit_code == 0
    found = json.loads(bench.compare(release, later, "--format", "json").output)
    assert {(c["cell"], c["metric"]) for c in found["comparisons"] if c["change"] == "regression"} >= {
        (cell("slow"), "latency"),
        (cell("large"), "size"),
        (cell("vague"), "parity"),
        (cell("broken"), "parity"),
    }
    assert found["appeared"] == [cell("new")]
    assert [x["cell"] for x in found["vanished"]] == [cell("gone")]
    assert "| **regression** |" in bench.compare("release", after.folder, "--format", "md").output


def test_what_crashed_or_was_not_reached_is_not_passed_over(bench, tmp_path):
    """A latency that broke is worse; a record that was cut off says that it is incomplete, and what is missing."""

    def crashed(line):
        if line["kind"] == "check" and line["cell"] == cell("slow") and line["check"] == "latency":
            line |= {"outcome": "crashed", "data": {}}
        return line

    broken = bench.compare(bench.first.folder, calm(bench.first.folder, tmp_path / "crashed.jsonl", crashed))
    assert broken.exit_code == 1, broken.output
    assert f"regression: {cell('slow')}" in " ".join(broken.output.split())
    told = bench.compare(bench.first.folder, tmp_path / "crashed.jsonl", "--format", "json")
    assert "ended as crashed" in told.output

    def cut_off(line):
        return line if line["kind"] in {"header", "cell"} or line.get("cell") == cell("same") else None

    cut = calm(bench.first.folder, tmp_path / "cut.jsonl", cut_off)
    # The terminal's width may break a path anywhere.
    assert "cut.jsonlisincomplete" in "".join(bench.compare(bench.first.folder, cut).output.split())
    found = json.loads(bench.compare(bench.first.folder, cut, "--format", "json").output)
    assert found["incomplete"] == ["after"]
    missing = {c["cell"] for c in found["comparisons"] if "not looked at now" in c["sentence"]}
    assert missing == {cell(name) for name in BEFORE if name != "same"}


def test_every_way_of_loading_a_cell_is_compared(bench, tmp_path):
    """One line of the record for each batch size; the one that became slower is not the first."""

    def loaded(rates):
        def change(line):
            return line

        path = calm(bench.first.folder, tmp_path / f"{rates[8]:g}.jsonl", change)
        with path.open("a") as handle:
            for batch, rate in rates.items():
                row = {"batch": batch, "concurrency": 1, "mode": "sync", "items_per_s": rate}
                line = {
                    "kind": "check", "cell": cell("same"), "check": "throughput", "test": "t", "outcome": "passed",
                    "failure_kind": None, "sentence": "", "duration_s": 0.0, "data": {"throughput": [row]},
                }  # fmt: skip
                handle.write(json.dumps(line) + "\n")
        return path

    before, after = loaded({1: 1e4, 8: 4e4}), loaded({1: 1e4, 8: 40.0})
    shown = bench.compare(before, after, "--fail-on", "throughput:10%")
    assert shown.exit_code == 1, shown.output
    assert "batch 8" in shown.output


def test_a_comparison_with_a_run_of_another_model_is_not_green(bench):
    two_layers(bench.folder / "other.onnx")
    ran = bench.run({"same": {}}, "--mf-baseline=release", "--mf-model=other.onnx", "-k", "other", suites="parity")
    assert ran.status == 1, ran.text
    assert "nothing was compared with the baseline release" in " ".join(ran.text.split())


def test_a_killed_run_loses_no_finished_comparison(bench):
    """SIGKILL before the third of four comparisons: the two that were measured are on record, and readable."""
    log = bench.folder / "killed.log"
    plants = {name: {"spin_us": SPIN_US + index} for index, name in enumerate(("same", "slow", "large", "vague"))}
    known = set((bench.folder / "reports").iterdir())
    process = subprocess.Popen(
        bench.command("--mf-baseline=release"),
        cwd=bench.folder,
        env=bench.environment(plants, TURTLES_LOG=str(log), TURTLES_WAIT="2"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )

    def measured():
        for folder in set((bench.folder / "reports").iterdir()) - known:
            with suppress(ConfigurationError):  # nothing is in it yet
                run = record_lines.read(folder / "results.jsonl")
                return folder, run, [c for x in run.cells for c in x.comparisons if c.metric == "latency"]
        return None, None, []

    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None and len(measured()[2]) < 2:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    folder, run, measured = measured()
    assert not run.complete
    assert len(measured) == len(log.read_text().splitlines()) == 2
    assert all(c.change is Change.REGRESSION for c in measured)
    shown = CliRunner().invoke(commands, ["report", str(folder)])
    assert "before all were judged together" in " ".join(shown.output.split())
    assert "is incomplete" in " ".join(bench.compare("release", folder).output.split())
