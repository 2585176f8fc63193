"""``modelformats merge``: shards and machines as one record that everything reads, or a sentence that says why not."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from click.testing import CliRunner
from history.conftest import CELL, cell_line, check_line, latency_line, lines_of, parity_line, record_of
from places import RECORD_SCHEMA

from pytest_modelformats.cli import main as cli
from pytest_modelformats.cli.merge import header as merged_header
from pytest_modelformats.cli.merge.nouns import Part
from pytest_modelformats.errors import ConfigurationError, ModelFormatsError
from pytest_modelformats.history.database import rows as history_rows
from pytest_modelformats.record import read as lines
from pytest_modelformats.report import html, markdown, terminal

OTHER = "net-onnx-fp16-onnxruntime@cpu"
THIRD = "net-openvino-fp32-openvino@cpu"
SCHEMA = json.loads(RECORD_SCHEMA.read_text())
LAPTOP = {"cpu": "Laptop (zen5)", "physical_cores": 8, "cores": 16, "memory_bytes": 32 << 30, "python": "3.12.1"}


@pytest.fixture
def merge(tmp_path):
    """Merge records; returns the joined run, or the sentence that refuses it."""

    def run(*args, output="merged"):
        done = CliRunner().invoke(cli.commands, ["merge", *map(str, args), "-o", str(tmp_path / output)])
        if isinstance(done.exception, ModelFormatsError):
            assert not (tmp_path / output).exists() or not any((tmp_path / output).iterdir())
            return str(done.exception)
        assert done.exit_code == 0, done.output + str(done.exception)
        path = tmp_path / output / "results.jsonl"
        validator = jsonschema.Draft202012Validator(SCHEMA)
        for line in lines_of(path):
            # What a check says is taken over as it is; these are shortened.
            validator.validate({**line, "data": {}} if line["kind"] == "check" else line)
        found = lines.read(path)
        assert html.render(found)
        assert markdown.render(found) == (tmp_path / output / "report.md").read_text()
        assert terminal.render(found, 100, color=False)
        return found

    return run


def words(run):
    return {cell.cell: cell.word for cell in run.cells}


def test_shards_of_one_plan_are_one_run(tmp_path, merge):
    a = record_of(tmp_path, 0, [cell_line(), parity_line(), latency_line()])
    b = record_of(tmp_path, 1, [cell_line(OTHER), parity_line(cell=OTHER, outcome="failed")])
    run = merge(a, b.parent)
    assert words(run) == {CELL: "passed", OTHER: "failed"}
    assert run.complete
    assert run.doubts == ()
    assert run.totals == {"passed": 1, "failed": 1}
    assert run.footer.duration_s == 120.0
    assert run.footer.conversions == {"made": 2, "cached": 4}
    assert run.header.started == "2026-01-01T00:00:00+00:00"
    assert run.header.versions == {"onnxruntime": "1.26.0", "torch": "2.13.0"}
    assert list(run.header.merged) == ["run-0000", "run-0001"]


def test_different_checks_of_one_cell_unite(tmp_path, merge):
    a = record_of(tmp_path, 0, [cell_line(), parity_line()])
    b = record_of(tmp_path, 1, [cell_line(), latency_line()])
    (cell,) = merge(a, b).cells
    assert [check.check for check in cell.checks] == ["parity", "latency"]


def test_of_the_same_check_twice_the_newer_is_shown_and_said(tmp_path, merge):
    newer = record_of(tmp_path, 7, [cell_line(), latency_line(2000.0)])
    older = record_of(tmp_path, 3, [cell_line(), parity_line(), latency_line(1000.0)])
    run = merge(newer, older)
    (cell,) = run.cells
    assert cell.latency.latency_p50_ns == 2000.0
    assert [check.check for check in cell.checks] == ["parity", "latency"]
    assert f"1 check was in two records; the newer is shown (first of them: {CELL}, latency)." in run.doubts


def test_a_cell_that_ran_in_one_shard_is_not_missing_because_another_lacks_the_library(tmp_path, merge):
    lacking = cell_line(THIRD, decision="missing-dependency", reason="openvino is not installed", install="pip install")
    absent = check_line("availability", THIRD, "missing-dependency")
    a = record_of(tmp_path, 0, [cell_line(), lacking, parity_line(), absent])
    b = record_of(tmp_path, 1, [cell_line(THIRD), parity_line(cell=THIRD)])
    for order in ((a, b), (b, a)):
        run = merge(*order, output=f"m{order[0].parent.name}")
        assert words(run) == {CELL: "passed", THIRD: "passed"}
        assert [check.check for cell in run.cells if cell.cell == THIRD for check in cell.checks] == ["parity"]
    newer = record_of(tmp_path, 9, [lacking, absent])
    run = merge(b, newer, output="again")
    assert words(run) == {THIRD: "passed"}


def test_versions_that_differ_are_said_with_who_has_which(tmp_path, merge):
    a = record_of(tmp_path, 0, [cell_line(), parity_line()])
    b = record_of(
        tmp_path, 1, [cell_line(OTHER), parity_line(cell=OTHER)], versions={"onnxruntime": "1.32.0"}, tool="0.2"
    )
    run = merge(a, b)
    (said,) = run.doubts
    assert "onnxruntime 1.26.0 (run-0000/results.jsonl), 1.32.0 (run-0001/results.jsonl)" in said
    assert "pytest-modelformats 0.1.0 (run-0000/results.jsonl), 0.2 (run-0001/results.jsonl)" in said
    assert run.header.versions["onnxruntime"] == "1.26.0 / 1.32.0"
    assert said in terminal.render(run, 10_000, color=False)


def test_environments_of_one_name_and_other_versions_are_said(tmp_path, merge):
    def of(version):
        return {"old": {"requirements": ["onnxruntime"], "versions": {"onnxruntime": version}, "python": "3.11.7"}}

    a = lines_of(record_of(tmp_path, 0, [cell_line(), parity_line()]))
    b = lines_of(record_of(tmp_path, 1, [cell_line(OTHER), parity_line(cell=OTHER)]))
    parts = []
    for number, (found, version) in enumerate(((a, "1.20.1"), (b, "1.21.0"))):
        header = {**found[0], "environments": of(version)}
        path = Path(f"run-{number}/results.jsonl")
        parts.append(Part(path, "", "x", header, found[-1], torn=False, models=(), cells={}, checks={}))
    (said,) = merged_header.notes_of(parts)
    assert "in the environment old: onnxruntime 1.20.1 (run-0/results.jsonl), 1.21.0 (run-1/results.jsonl)" in said


def test_options_that_differ_are_said(tmp_path, merge):
    a = record_of(tmp_path, 0, [cell_line(), parity_line()])
    b = record_of(tmp_path, 1, [cell_line(OTHER), parity_line(cell=OTHER)], options={"threads": 4, "seed": 0})
    run = merge(a, b)
    assert "different options: threads 1 (run-0000/results.jsonl), 4 (run-0001/results.jsonl)" in run.doubts[0]
    assert run.header.options == {"seed": 0}


def test_cells_of_two_kinds_of_machine_are_refused_without_labels(tmp_path, merge):
    a = record_of(tmp_path, 0, [cell_line(), cell_line(OTHER), parity_line(), parity_line(cell=OTHER)])
    b = record_of(tmp_path, 1, [cell_line(), cell_line(OTHER), parity_line(), parity_line(cell=OTHER)], machine=LAPTOP)
    said = merge(a, b)
    assert said.startswith(f"{CELL} and 1 more ran on several kinds of machine: Imaginary CPU (zen9) (run-0000/results")
    assert "Laptop (zen5) (run-0001/results.jsonl); give each record a name with --label" in said
    assert f"{CELL}+laptop" in said


def test_with_labels_they_stand_beside_each_other(tmp_path, merge):
    a = record_of(tmp_path, 0, [cell_line(), cell_line(OTHER), latency_line(), parity_line(cell=OTHER)])
    b = record_of(tmp_path, 1, [cell_line(), latency_line(3000.0)], machine=LAPTOP)
    run = merge(a, b, "--label", "server", "--label", "laptop")
    assert {c.cell: c.latency and c.latency.latency_p50_ns for c in run.cells} == {
        f"{CELL}+server": 1000.0, f"{CELL}+laptop": 3000.0, OTHER: None,
    }  # fmt: skip
    assert {c.column for c in run.cells} == {"onnxruntime@cpu", "onnxruntime@cpu+server", "onnxruntime@cpu+laptop"}
    assert run.complete
    assert list(run.header.merged) == ["server", "laptop"]
    assert run.header.merged["laptop"]["machine"]["cpu"] == "Laptop (zen5)"
    assert run.header.machine["cpu"] == "Imaginary CPU (zen9) / Laptop (zen5)"
    assert run.header.machine["cores"] is None
    assert "2 kinds of machine" in run.doubts[0]
    assert "their latencies do not compare" in run.doubts[0]
    with pytest.raises(ConfigurationError, match="joined from 2 kinds of machine; add the records"):
        history_rows.entry_of(run)
    assert "server: run: run-0000" in markdown.render(run).replace("\\", "")


def test_machines_whose_cells_do_not_meet_need_no_labels(tmp_path, merge):
    a = record_of(tmp_path, 0, [cell_line(), parity_line()])
    b = record_of(tmp_path, 1, [cell_line(OTHER), parity_line(cell=OTHER)], machine=LAPTOP)
    assert words(merge(a, b)) == {CELL: "passed", OTHER: "passed"}


def test_records_of_one_label_are_shards_whatever_their_machines(tmp_path, merge):
    a = record_of(tmp_path, 0, [cell_line(), parity_line()])
    b = record_of(tmp_path, 1, [cell_line(), latency_line()], machine=LAPTOP)
    run = merge(a, b, "--label", "ci", "--label", "ci")
    assert [cell.cell for cell in run.cells] == [CELL]
    assert len(run.cells[0].checks) == 2


def test_an_environments_cell_keeps_its_environment_before_the_label(tmp_path, merge):
    cell = f"{CELL}+ort-1.26"
    a = record_of(tmp_path, 0, [cell_line(cell), parity_line(cell=cell)])
    b = record_of(tmp_path, 1, [cell_line(cell), parity_line(cell=cell)], machine=LAPTOP)
    run = merge(a, b, "--label", "a", "--label", "b")
    assert [(c.cell, c.environment) for c in run.cells] == [(f"{cell}+a", "ort-1.26+a"), (f"{cell}+b", "ort-1.26+b")]


def test_an_interrupted_part_makes_the_whole_incomplete(tmp_path, merge):
    a = record_of(tmp_path, 0, [cell_line(), parity_line()])
    b = record_of(tmp_path, 1, [cell_line(OTHER), cell_line(THIRD), parity_line(cell=OTHER)], footer=False)
    with b.open("a") as file:
        file.write('{"kind":"chec')
    run = merge(a, b)
    assert not run.complete
    assert words(run) == {CELL: "passed", OTHER: "passed", THIRD: "not run (interrupted)"}
    assert any("run-0001/results.jsonl was interrupted" in d and "last line was cut off" in d for d in run.doubts)


def test_a_shard_that_has_other_checks_makes_no_pass_of_a_parity_that_was_not_checked(tmp_path, merge):
    asked = cell_line(parity_asked=True)
    a = record_of(tmp_path, 0, [asked, parity_line(outcome="unsupported")])
    b = record_of(tmp_path, 1, [cell_line(parity_asked=False), latency_line()])
    for number, order in enumerate(((a, b), (b, a))):
        run = merge(*order, output=f"unsupported-{number}")
        assert words(run) == {CELL: "unsupported"}
        assert run.unchecked == ("1 unsupported: parity could not be checked: parity unsupported.",)
    stopped = record_of(tmp_path, 2, [asked, check_line("contract")])
    for number, order in enumerate(((stopped, b), (b, stopped))):
        run = merge(*order, output=f"stopped-{number}")
        assert words(run) == {CELL: "not-measured"}
        assert not run.complete
    assert words(merge(b, record_of(tmp_path, 3, [asked, parity_line()]))) == {CELL: "passed"}


def test_a_cell_that_nobody_ran_makes_the_whole_incomplete(tmp_path, merge):
    a = record_of(tmp_path, 0, [cell_line(), cell_line(OTHER), parity_line()])
    assert not merge(a).complete


def test_files_that_a_record_names_are_taken_along(tmp_path, merge):
    parts = []
    for n, cell in enumerate((CELL, OTHER)):
        failed = parity_line(cell=cell, outcome="failed")
        failed["data"] |= {"bundle": "bundles/one", "failing_input": f"failing/{n}.npz"}
        parts.append(record_of(tmp_path, n, [cell_line(cell), failed]))
        bundle = parts[-1].parent / "bundles/one"
        bundle.mkdir(parents=True)
        (bundle / "repro.py").write_text(f"print({n})")
        (bundle.parent / "one.zip").write_bytes(b"zip%d" % n)
        (parts[-1].parent / "failing").mkdir()
        (parts[-1].parent / f"failing/{n}.npz").write_bytes(b"%d" % n)
    run = merge(*parts)
    folder = Path(run.folder)
    by_cell = {cell.cell: cell for cell in run.cells}
    for n, cell in enumerate((CELL, OTHER)):
        place = folder / by_cell[cell].bundle
        assert (place / "repro.py").read_text() == f"print({n})"
        assert place.with_name("one.zip").read_bytes() == b"zip%d" % n
        assert (folder / by_cell[cell].checks[0].data["failing_input"]).read_bytes() == b"%d" % n


def test_files_outside_of_the_records_folder_stay_where_they_are(tmp_path, merge):
    (tmp_path / "secret").write_text("mine")
    failed = parity_line(outcome="failed")
    failed["data"] |= {"bundle": "../secret", "failing_input": "gone.npz"}
    run = merge(record_of(tmp_path, 0, [cell_line(), failed]))
    assert not list(Path(run.folder).rglob("secret"))
    assert "bundle" not in run.cells[0].checks[0].data
    assert any("../secret" in doubt and "lies outside" in doubt for doubt in run.doubts)
    assert any("gone.npz" in doubt and "is not there" in doubt for doubt in run.doubts)


def test_one_plan_and_one_model_are_asked_for(tmp_path, merge):
    a = record_of(tmp_path, 0, [cell_line(), parity_line()])
    b = record_of(tmp_path, 1, [cell_line(chain=["onnx_from_pytorch_legacy:fp32"]), latency_line()])
    assert f"{CELL} was planned in two ways: its chain is" in merge(a, b)
    model = {
        "kind": "model", "model": "net", "source": "net.onnx", "format": "onnx", "source_kind": "onnx",
        "sha256": "a" * 64, "inputs": [], "outputs": [], "samples": 8, "input_origin": "seeded", "noise": [],
    }  # fmt: skip
    c = record_of(tmp_path, 2, [cell_line(), model, parity_line()])
    d = record_of(tmp_path, 3, [cell_line(OTHER), {**model, "sha256": "b" * 64}, parity_line(cell=OTHER)])
    assert "'net' is not the same file in run-0002/results.jsonl (aaaaaaaaaaaa…)" in merge(c, d)
    assert len(merge(c, record_of(tmp_path, 4, [cell_line(OTHER), model, parity_line(cell=OTHER)])).models) == 1


def test_a_folder_stands_for_every_record_in_it_and_each_counts_once(tmp_path, merge):
    a = record_of(tmp_path / "shards", 0, [cell_line(), parity_line()])
    record_of(tmp_path / "shards", 1, [cell_line(OTHER), parity_line(cell=OTHER)])
    (tmp_path / "shards/latest").symlink_to("run-0001", target_is_directory=True)
    run = merge(tmp_path / "shards", a)
    assert words(run) == {CELL: "passed", OTHER: "passed"}
    assert run.doubts == ()


def test_shards_that_happen_to_have_one_run_id_are_both_there(tmp_path, merge):
    a = record_of(tmp_path / "a", 0, [cell_line(), parity_line()], run="same")
    b = record_of(tmp_path / "b", 0, [cell_line(OTHER), parity_line(cell=OTHER)], run="same")
    run = merge(a, b)
    assert words(run) == {CELL: "passed", OTHER: "passed"}
    assert list(run.header.merged) == ["same", "same (2)"]


def test_a_joined_record_can_be_joined_again(tmp_path, merge):
    a = record_of(tmp_path, 0, [cell_line(), parity_line()])
    b = record_of(tmp_path, 1, [cell_line(OTHER), parity_line(cell=OTHER)], versions={"onnxruntime": "1.32.0"})
    c = record_of(tmp_path, 2, [cell_line(THIRD), parity_line(cell=THIRD)])
    first = merge(a, b, output="first")
    run = merge(Path(first.folder), c)
    assert len(run.cells) == 3
    assert list(run.header.merged) == ["run-0000", "run-0001", "run-0002"]
    assert first.doubts[0] in run.doubts


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace('"schema":1', '"schema":2'), "says schema 2, and only 1 can be read"),
        (lambda text: text.replace('{"kind":"cell"', '{"kind', 1), "line 2 is not a JSON object"),
        (lambda text: "", "is empty"),
        (lambda text: "\n".join(text.splitlines()[1:]) + "\n", "line 1 comes before the header"),
    ],
)
def test_a_record_that_cannot_be_read_is_named(tmp_path, merge, change, said):
    a, b = record_of(tmp_path, 0), record_of(tmp_path, 1, [cell_line(OTHER)])
    b.write_text(change(b.read_text()))
    sentence = merge(a, b)
    assert str(b) in sentence
    assert said in sentence


def test_what_cannot_be_done_is_a_sentence(tmp_path, merge):
    a = record_of(tmp_path / "reports", 0)
    (tmp_path / "empty").mkdir()
    assert "holds no results.jsonl" in merge(tmp_path / "empty")
    assert "cannot be read" in merge(tmp_path / "none.jsonl")
    assert "2 labels were given for 1 records" in merge(a, "--label", "a", "--label", "b")
    assert "the label 'a b' would be no part of a cell's id" in merge(a, "--label", "a b")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    done = CliRunner().invoke(cli.commands, ["merge", str(a), "-o", str(tmp_path / "full")])
    assert "is there already; give a folder that is new or empty" in str(done.exception)
    assert [f.name for f in (tmp_path / "full").iterdir()] == ["file"]
