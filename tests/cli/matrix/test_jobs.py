"""A plan as jobs: every cell in exactly one, and the options of a job select exactly its cells."""

from __future__ import annotations

import argparse
import json
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from pytest_modelformats.cli import main as cli
from pytest_modelformats.cli.matrix import jobs
from pytest_modelformats.errors import ConfigurationError
from pytest_modelformats.plan import build as plan
from pytest_modelformats.schema import Cell, Decision, Outcome, PlannedCell, Source
from pytest_modelformats.settings import load as configuration
from pytest_modelformats.settings import options
from pytest_modelformats.source.identify import Candidate

ANYTHING = {"gpu": ("assumed",), "cpu_flags": ("avx2",)}  # no fp16 instructions: some cells are only emulated
NET, GRAPH = Source("net", "/x/net.pth", "state-dict", "pytorch"), Source("graph", "/x/graph.onnx", "onnx", "onnx")
SHIPPED = Candidate(Path("/x/shipped.onnx"), "shipped", "onnx", "onnx", "fp32", "", ("net",))


class Parser:
    """As much of pytest's parser as ``add_options`` uses."""

    def __init__(self):
        self.argparse = argparse.ArgumentParser(allow_abbrev=False)
        options.add_options(self)

    def getgroup(self, *_):
        return self

    def addoption(self, *names, **attributes):
        self.argparse.add_argument(*names, **attributes)

    def given(self, words):
        return options.given(self.argparse.parse_args(words))


def planned(given, tmp_path, sources=(NET, GRAPH), candidates=(SHIPPED,)):
    """The settings of a command line, and what plans with them."""
    settings = configuration.load(tmp_path, given)
    return settings, lambda s: plan.build_plan(s, sources, candidates, ANYTHING, lambda _: True).cells


def made(words, tmp_path, **how):
    """The jobs of a command line, and the ids of all cells."""
    given = Parser().given(words)
    settings, plan_of = planned(given, tmp_path)
    cells = plan_of(settings)
    found = jobs.jobs(cells, {"net": "pytorch", "graph": "onnx"}, settings, plan_of, given, **how)
    return found, [p.cell.id for p in cells]


GIVEN = (
    (),
    ("--mf-all-routes", "--mf-slow"),
    ("--mf-formats", "onnx,onnx.legacy,openvino", "--mf-precisions", "fp32,fp16,bf16", "--mf-require", "onnx"),
    ("--mf-cells", "*-fp32-*,net~*", "--mf-devices", "cpu"),
    ("--mf-env", "old=onnxruntime==1.26.0", "--mf-devices", "cpu"),
)


@pytest.mark.parametrize("words", GIVEN, ids=["all", "routes", "axes", "globs", "environment"])
@pytest.mark.parametrize("how", [*({"by": by} for by in jobs.BY), {"shards": 2}, {"shards": 7}], ids=str)
def test_every_cell_is_in_exactly_one_job_and_its_selection_selects_it(words, how, tmp_path):
    if how.get("shards") == 2 and not words:
        words = ("--mf-devices", "cpu")
    found, cells = made(words, tmp_path, **how)
    assert sorted(cell for job in found for cell in job.cells) == sorted(cells)
    assert len({job.name for job in found}) == len(found)
    for job in found:
        settings, plan_of = planned(Parser().given(job.select), tmp_path)
        selected = plan_of(settings)
        assert {p.cell.id for p in selected} == set(job.cells), shlex.join(job.select)
        assert any(p.decision.runs for p in selected), f"{job.name} has nothing to do, so its run would fail"
        assert {p.cell.device for p in selected} == {job.device}


def test_routes_that_the_configuration_asks_for_cannot_be_unsaid(tmp_path):
    (tmp_path / "modelformats.toml").write_text("all_routes = true\n")
    found, _ = made(("--mf-devices", "cpu"), tmp_path, by="format")
    for job in found:
        _, plan_of = planned({}, tmp_path)
        settings = configuration.load(tmp_path, Parser().given(job.select))
        assert {p.cell.id for p in plan_of(settings)} == set(job.cells)


def test_a_selection_is_written_with_the_fewest_options(tmp_path):
    found, _ = made(("--mf-devices", "cpu"), tmp_path, by="backend")
    assert {job.name: job.select for job in found}["openvino@cpu"] == (
        *("--mf-backends", "openvino", "--mf-devices", "cpu"),
    )


def test_shards_differ_by_at_most_one_running_cell_on_a_device(tmp_path):
    _, plan_of = planned({}, tmp_path)
    settings = configuration.load(tmp_path, {})
    runs = {p.cell.id: p.decision.runs for p in plan_of(settings)}
    found, _ = made((), tmp_path, shards=9)
    for device in ("cpu", "cuda"):
        sizes = [sum(runs[cell] for cell in job.cells) for job in found if job.device == device]
        assert len(sizes) > 1
        assert max(sizes) - min(sizes) <= 1, sizes


def test_a_job_installs_what_its_cells_declare(tmp_path):
    found, _ = made(("--mf-devices", "cpu"), tmp_path, by="cell")
    extras = {job.name: job.extras for job in found}
    assert extras["graph-onnx-fp32-onnxruntime@cpu"] == ("onnx", "onnxruntime")
    assert extras["net-openvino-fp32-openvino@cpu"] == ("openvino", "torch")
    assert extras["net~shipped-onnx-fp32-onnxruntime@cpu"] == ("onnx", "onnxruntime", "torch")


def test_an_outside_package_is_installed_by_its_own_name(imaginary, pytester, monkeypatch):
    imaginary()
    monkeypatch.syspath_prepend(pytester.path)
    from pytest_modelformats.schema import registry

    registry.backends.cache_clear()
    try:
        _, plan_of = planned({}, pytester.path, sources=(GRAPH,), candidates=())
        settings = configuration.load(pytester.path, {"slow": True, "backends": "imaginary"})
        (job,) = jobs.jobs(plan_of(settings), {"graph": "onnx"}, settings, plan_of, {})
        assert (job.extras, job.packages) == (("onnx",), ("imaginary",))
    finally:
        registry.backends.cache_clear()


def emulated(cell, device="cpu"):
    decision = Decision(Outcome.UNSUPPORTED, "emulated", "add --mf-slow")
    return PlannedCell(Cell("net", "onnx", "fp16", cell, device), (), "fp16", decision)


def test_where_nothing_runs_it_is_said_why(tmp_path):
    settings, _ = planned({}, tmp_path)
    for how in ({}, {"shards": 1}):
        with pytest.raises(ConfigurationError, match=r"no cell on cpu can run.*emulated; add --mf-slow"):
            jobs.jobs([emulated("onnxruntime")], {"net": "onnx"}, settings, lambda _: (), {}, **how)


def test_too_few_and_too_many_shards_are_refused(tmp_path):
    with pytest.raises(ConfigurationError, match=r"--shards 1: at least 2, one for each device \(cpu, cuda\)"):
        made((), tmp_path, shards=1)
    with pytest.raises(ConfigurationError, match=r"--shards 99: .* at most 1, one for each cell that runs"):
        made(("--mf-cells", "net-onnx-fp32-onnxruntime@cpu"), tmp_path, shards=99)


def test_more_than_github_takes_is_refused():
    job = {"name": "x", "select": "--mf-backends onnxruntime"}
    assert len(json.loads(jobs.github([job] * 256))["include"]) == 256
    with pytest.raises(ConfigurationError, match=r"257 jobs, and GitHub runs at most 256.*--shards 256"):
        jobs.github([job] * 257)
    with pytest.raises(ConfigurationError, match="longest selection 140,000"):
        jobs.github([{"name": "x", "select": "y" * 140_000}])
    with pytest.raises(ConfigurationError, match="characters long"):
        jobs.github([{"name": "x", "select": "y" * 10_000}] * 60)


# --- the command


def command(*words):
    result = CliRunner().invoke(cli.commands, ["matrix", *map(str, words)], catch_exceptions=False)
    return result.stdout


def test_the_json_of_the_command_selects_in_pytest_what_it_says(tiny, cells, monkeypatch, pytester):
    monkeypatch.chdir(pytester.path)
    shown = command("tiny.onnx", "--github", "--mf-devices", "cpu", "--by", "precision")
    assert shown.count("\n") == 1
    include = json.loads(shown)["include"]
    seen = []
    for job in include:
        words = shlex.split(job["select"])
        assert words[:2] == ["--mf-model", "tiny.onnx"]
        found = cells(*words)
        assert job["cells"] == len(found)
        assert job["runs-on"] == "ubuntu-latest"
        seen += found
    assert sorted(seen) == sorted(cells("--mf-model", "tiny.onnx", "--mf-devices", "cpu"))


def test_it_plans_for_machines_that_have_what_this_one_lacks(tiny, monkeypatch, pytester):
    monkeypatch.chdir(pytester.path)
    monkeypatch.setattr("pytest_modelformats.settings.machine.installed", lambda module: module != "openvino")
    monkeypatch.setattr("pytest_modelformats.plan.build.installed", lambda module: module != "openvino")
    include = json.loads(command("tiny.onnx", "--github", "--runs-on", "cuda=big,gpu"))["include"]
    assert {(job["name"], str(job["runs-on"])) for job in include} == {
        ("onnxruntime@cpu", "ubuntu-latest"),
        ("onnxruntime@cuda", "['big', 'gpu']"),
        ("openvino@cpu", "ubuntu-latest"),
    }
    here = command("tiny.onnx", "--mf-devices", "cpu")
    assert "onnxruntime@cpu" in here
    assert "openvino" not in here
    assert here.rstrip().endswith("1 jobs, 2 cells")


def test_a_path_with_a_space_stays_one_word(tiny, monkeypatch, pytester):
    monkeypatch.chdir(pytester.path)
    tiny.rename(pytester.path / "my model.onnx")
    (job, *_) = json.loads(command("my model.onnx", "--github", "--mf-devices", "cpu"))["include"]
    assert shlex.split(job["select"])[:2] == ["--mf-model", "my model.onnx"]


def test_a_runner_that_is_no_device_and_label_is_refused(tiny, monkeypatch, pytester, capsys):
    monkeypatch.chdir(pytester.path)
    with pytest.raises(SystemExit) as ended:
        cli.main(["matrix", "tiny.onnx", "--runs-on", "cuda"])
    assert ended.value.code == 2
    assert "--runs-on is 'cuda'; expected DEVICE=LABEL" in capsys.readouterr().err


def test_a_required_name_goes_to_the_jobs_that_have_it(tmp_path):
    """In the others it would fail the run: none of their cells has it."""
    found, _ = made(("--mf-require", "onnx,openvino", "--mf-devices", "cpu"), tmp_path, by="backend")
    selected = {job.name: job.select for job in found}
    assert selected["openvino@cpu"][-2:] == ("--mf-require", "openvino")
    assert selected["onnxruntime@cpu"][-2:] == ("--mf-require", "onnx")
    assert "--mf-require" not in selected["torch@cpu"]


def test_a_candidate_of_the_command_line_is_not_contradicted(tmp_path):
    """An option that leaves it without a cell would be refused; its cells by their ids are not."""
    found, _ = made(("--mf-candidate", "shipped.onnx", "--mf-devices", "cpu"), tmp_path, by="backend")
    selected = {job.name: job.select for job in found}
    assert "--mf-cells" in selected["openvino@cpu"]
    assert "--mf-backends" not in selected["openvino@cpu"]
    assert "--mf-backends" in selected["onnxruntime@cpu"]
