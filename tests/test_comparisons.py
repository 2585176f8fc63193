"""Whole runs against a baseline: what was planted between the two is found, and nothing else is."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import pytest
import turtles
from click.testing import CliRunner
from inner_run import two_layers

import pytest_modelformats
from pytest_modelformats.cli import commands
from pytest_modelformats.report import lines as record_lines
from pytest_modelformats.schema import Change

SCHEMA = json.loads((Path(pytest_modelformats.__file__).parent / "record.schema.json").read_text())
HERE = Path(__file__).parent
pytestmark = [pytest.mark.slow, pytest.mark.alone]
BEFORE = {"same": {}, "slow": {}, "large": {}, "vague": {}, "broken": {}, "gone": {}}
AFTER = {
    "same": {},
    "slow": {"spin_us": 80},
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
        shutil.copy(HERE / "quick_comparing.py", folder / "site")
        # In the configuration: options on the command line would make the plan a narrower one than the baseline's.
        (folder / "modelformats.toml").write_text('backends = ["turtle"]\n')
        two_layers(folder / "tiny.onnx")

    def command(self, *options, suites="parity,latency"):
        return [
            sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider", "-p", "quick_comparing",
            "--mf-model=tiny.onnx", f"--mf-suites={suites}", "--mf-cache=cache",
            "--mf-time-budget=0.05", "--mf-bundles=0", "--benchmark-disable", *options,
        ]  # fmt: skip

    def environment(self, plants, **more):
        environment = {**os.environ, **turtles.install(self.folder / "site", plants), **more}
        environment.pop("PYTEST_ADDOPTS", None)
        return environment

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
    assert slow[0] < 60_000
    assert slow[1] > 80_000


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
    change = after.change("same", "load")
    assert change["how"] == "not judged"
    assert "not judged unless asked for" in change["sentence"]


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


def test_what_was_not_asked_for_does_not_fail_the_run(bench):
    plants = {"same": {}, "large": {"padding": 4000}}
    assert bench.run(plants, "--mf-baseline=release", "--mf-fail-on=latency:5%").status == 0
    assert bench.run(plants, "--mf-baseline=release", "--mf-fail-on=size").status == 1


def test_regressions_alone_measure_what_they_need(bench):
    """``-k`` selects only the judging items; the line of each comparison is written all the same."""
    plants = {"same": {}, "slow": {"spin_us": 80}}
    ran = bench.run(plants, "--mf-baseline=release", "-k", "regression", suites="parity")
    assert ran.status == 1, ran.text
    assert ran.change("slow", "latency")["change"] == "regression"
    assert ran.check("slow", "comparison")["data"]["comparisons"]
    assert {x["check"] for x in ran.lines if x["kind"] == "check"} == {"comparison", "regression"}


def test_an_improvement_is_reported_by_the_same_rule(bench):
    bench.run({"slow": {"spin_us": 80}}, "--mf-save-baseline=slow-one")
    ran = bench.run({"slow": {}}, "--mf-baseline=slow-one")
    assert ran.status == 0, ran.text
    assert ran.change("slow", "latency")["change"] == "improvement"
    assert f"improvement: {cell('slow')}" in " ".join(ran.text.split())


def test_other_code_of_the_backend_leaves_only_the_stored_samples(bench):
    site = bench.folder / "site"
    environment = bench.environment({"slow": {"spin_us": 80}})
    (site / "turtles.py").write_text((site / "turtles.py").read_text() + "\n# another version\n")
    command = bench.command("--mf-baseline=release", "-k", "comparison or parity or latency")
    subprocess.run(command, cwd=bench.folder, env=environment, capture_output=True, timeout=120, check=False)
    ran = Ended(0, "", bench.folder / "reports" / "latest")
    (change,) = (c for c in ran.check("slow", "comparison")["data"]["comparisons"] if c["metric"] == "latency")
    assert (change["change"], change["how"]) == ("regression", "stored")
    assert "weaker" in change["sentence"]
    assert "the code of the backend turtle is another one since" in change["sentence"]


def test_a_lost_artifact_leaves_only_the_stored_samples(bench, tmp_path):
    shutil.copytree(bench.folder, tmp_path / "copy", symlinks=True)
    other = Bench.__new__(Bench)
    other.folder = tmp_path / "copy"
    shutil.rmtree(other.folder / "cache" / "artifacts")
    ran = other.run({"slow": {"spin_us": 80}}, "--mf-baseline=release")
    change = ran.change("slow", "latency")
    assert (change["change"], change["how"]) == ("regression", "stored")
    assert "no longer in the cache" in change["sentence"]


def test_a_record_of_an_older_version_is_a_baseline_with_its_samples(bench, tmp_path):
    old = tmp_path / "old.jsonl"
    with old.open("w") as handle:
        for line in bench.first.lines:
            for key in ("artifact", "runtime"):
                line.get("data", {}).pop(key, None)
            handle.write(json.dumps(line) + "\n")
    ran = bench.run({"slow": {"spin_us": 80}}, f"--mf-baseline={old}")
    assert ran.change("slow", "latency")["how"] == "stored"
    assert "does not say which artifact" in ran.change("slow", "latency")["sentence"]


def test_two_records_are_compared_by_the_command(bench, after):
    shown = bench.compare("release", after.folder)
    assert shown.exit_code == 1, shown.output
    assert f"regression: {cell('slow')}" in " ".join(shown.output.split())
    assert "weaker" in shown.output
    assert bench.compare("release", after.folder, "--fail-on", "none").exit_code == 0
    assert bench.compare("release", "release").exit_code == 0
    found = json.loads(bench.compare("release", after.folder, "--format", "json").output)
    assert {(c["cell"], c["metric"]) for c in found["comparisons"] if c["change"] == "regression"} >= {
        (cell("slow"), "latency"),
        (cell("large"), "size"),
        (cell("vague"), "parity"),
        (cell("broken"), "parity"),
    }
    assert found["appeared"] == [cell("new")]
    assert [x["cell"] for x in found["vanished"]] == [cell("gone")]
    assert "| **regression** |" in bench.compare("release", after.folder, "--format", "md").output


def test_a_killed_run_loses_no_finished_comparison(bench):
    """SIGKILL between two comparisons: what was measured by then is on record, and readable."""
    log = bench.folder / "killed.log"
    plants = {name: {"spin_us": 60 + index} for index, name in enumerate(("same", "slow", "large", "vague"))}
    known = set((bench.folder / "reports").iterdir())
    process = subprocess.Popen(
        bench.command("--mf-baseline=release"),
        cwd=bench.folder,
        env=bench.environment(plants, TURTLES_LOG=str(log)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if log.exists() and len(log.read_text().splitlines()) >= 2:
            break
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    (folder,) = set((bench.folder / "reports").iterdir()) - known
    run = record_lines.read(folder / "results.jsonl")
    assert not run.complete
    measured = [c for x in run.cells for c in x.comparisons if c.metric == "latency"]
    assert 1 <= len(measured) <= 3
    assert len(measured) >= len(log.read_text().splitlines()) - 1
    assert all(c.change is Change.REGRESSION for c in measured)
    shown = CliRunner().invoke(commands, ["report", str(folder)])
    assert "before all were judged together" in " ".join(shown.output.split())
    assert bench.compare("release", folder).exit_code == 1
