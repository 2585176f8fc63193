"""``modelformats registry export``: what a run saw pass, laid out as a model registry, whole and still loadable."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from inner_run import two_layers

from pytest_modelformats.cli import main as cli
from pytest_modelformats.cli.registry import layout
from pytest_modelformats.cli.registry.artifact import Chosen
from pytest_modelformats.cli.registry.choice import Choice
from pytest_modelformats.convert.cache import METADATA, Cache
from pytest_modelformats.errors import ModelFormatsError

FP32 = "tiny-onnx-fp32-onnxruntime@cpu"
FP16 = "tiny-onnx-fp16-onnxruntime@cpu"
IR = "tiny-openvino-fp32-openvino@cpu"
WEIGHTS = "tiny-openvino-fp16-weights-openvino@cpu"
WRONG = "tiny~wrong-onnx-fp32-onnxruntime@cpu"
GOOD = "tiny~good_fp16-onnx-fp16-onnxruntime@cpu"
PASSED = {
    "metadata.json",
    "onnx/model.onnx",
    "onnx/model.onnx.data",
    "onnx/model_fp16.onnx",
    "onnx/good_fp16.onnx",
    "openvino/model.xml",
    "openvino/model.bin",
    "openvino/model_fp16-weights.xml",
    "openvino/model_fp16-weights.bin",
}
ROW = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)


def externally(path):
    """Move an ONNX file's weights into a file beside it, as large models have them."""
    import onnx

    model = onnx.load(str(path))
    onnx.save(model, str(path), save_as_external_data=True, location=f"{path.name}.data", size_threshold=0)
    return path


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A project after a run: a model with external data, converted for four cells, a good and a wrong candidate."""
    import onnx
    from onnxconverter_common import float16

    folder = tmp_path_factory.mktemp("ran")
    externally(two_layers(folder / "tiny.onnx"))
    two_layers(folder / "wrong.onnx", change=0.5)
    half = float16.convert_float_to_float16(onnx.load(str(two_layers(folder / "good_fp16.onnx"))), keep_io_types=True)
    onnx.save(half, str(folder / "good_fp16.onnx"))
    (folder / "modelformats.toml").write_text('cache = "cache"\n')
    command = [sys.executable, "-m", "pytest", "--mf-model=tiny.onnx", "--mf-suites=parity", "--mf-devices=cpu"]
    command += ["--mf-candidate=wrong.onnx", "--mf-candidate=good_fp16.onnx,precision=fp16", "-p", "no:cacheprovider"]
    command += [f"--mf-cells={FP32},{FP16},{IR},{WEIGHTS},{WRONG},{GOOD}", "--mf-bundles=0"]
    done = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)
    assert "1 failed, 5 passed" in done.stdout, done.stdout + done.stderr
    return folder


@pytest.fixture
def project(ran, tmp_path, monkeypatch):
    """The same project, for a test alone and called from within."""
    folder = tmp_path / "project"
    shutil.copytree(ran, folder, symlinks=True)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def export(project):
    """What the command prints; its error is a sentence."""

    def call(*args, output="registry"):
        done = CliRunner().invoke(cli.commands, ["registry", "export", *map(str, args), "-o", str(output)])
        if isinstance(done.exception, ModelFormatsError):
            assert "\n" not in str(done.exception)
            return str(done.exception)
        assert done.exit_code == 0, done.output + repr(done.exception)
        return done.output

    return call


def files(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def metadata(folder):
    return json.loads((folder / "metadata.json").read_text())


def artifact(folder, file):
    return next(one for one in metadata(folder)["artifacts"] if one["file"] == file)


def rerecorded(project, change):
    """The run's record with every line given to ``change``, which drops it by returning ``None``."""
    record = project / "reports" / "latest" / "results.jsonl"
    lines = [change(json.loads(line)) for line in record.read_text().splitlines()]
    record.write_text("".join(json.dumps(line) + "\n" for line in lines if line is not None))


def instead_of_parity(check):
    """A change of a record: another check was asked for and made in the place of the parity check."""

    def change(line):
        if line["kind"] == "cell":
            return {**line, "parity_asked": False}
        return {**line, "check": check} if line.get("check") == "parity" else line

    return change


def with_artifact(cell, **changed):
    """A change of a record: what it says of a cell's artifact."""

    def change(line):
        if line["kind"] == "check" and line["cell"] == cell:
            line["data"]["artifact"] |= changed
        return line

    return change


def outputs(path):
    """What the runtime of a file's format gives for the same rows."""
    if path.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return session.run(None, {"x": ROW})[0]
    import openvino

    core = openvino.Core()
    return core.compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})({"x": ROW})[0]


# --- the layout


def test_everything_that_passed_is_laid_out_and_loads(export, project):
    text = export()
    version = project / "registry" / "tiny" / "v1.0"
    assert files(project / "registry") == {f"tiny/v1.0/{name}" for name in PASSED}
    expected = outputs(project / "tiny.onnx")
    for name in PASSED:
        if name.endswith((".onnx", ".xml")):
            np.testing.assert_allclose(outputs(version / name), expected, atol=2e-2, err_msg=name)
            assert f"registry/tiny/v1.0/{name}: " in text
    np.testing.assert_array_equal(outputs(version / "onnx" / "model.onnx"), expected)
    assert f"left out: {WRONG}: it ended as 'failed (numeric)' (Output 'y': error " in text
    assert " Next: " not in text


def test_the_weights_of_an_exported_file_are_its_own(export, project):
    """The original and the cache may go: nothing of them is used."""
    expected = outputs(project / "tiny.onnx")
    export()
    shutil.rmtree(project / "cache")
    (project / "tiny.onnx.data").unlink()
    np.testing.assert_array_equal(outputs(project / "registry/tiny/v1.0/onnx/model.onnx"), expected)


def test_the_metadata_has_the_whole_provenance(export, project):
    export()
    version = project / "registry" / "tiny" / "v1.0"
    told = metadata(version)
    header = json.loads((project / "reports/latest/results.jsonl").read_text().partition("\n")[0])
    assert (told["model"], told["version"], told["run"]["run"]) == ("tiny", "v1.0", header["run"])
    assert told["run"]["versions"] == header["versions"]
    assert told["run"]["complete"]
    assert told["source"]["inputs"] == ["x:float32[N,4]"]
    stated = {name: digest for one in told["artifacts"] for name, digest in one["sha256"].items()}
    assert set(stated) == PASSED - {"metadata.json"}
    for name, digest in stated.items():
        assert hashlib.sha256((version / name).read_bytes()).hexdigest() == digest
    half = artifact(version, "onnx/model_fp16.onnx")
    assert half["precision"] == "fp16"
    assert half["size_bytes"] == (version / "onnx/model_fp16.onnx").stat().st_size
    assert half["provenance"]["chain"] == ["onnx_fp16_from_onnx:fp16"]
    assert half["provenance"]["libraries"]["onnx"] == header["versions"]["onnx"]
    assert half["provenance"]["source_sha256"] == told["source"]["sha256"]
    (cell,) = half["cells"]
    assert (cell["cell"], cell["outcome"], cell["checks"]) == (FP16, "passed", {"parity": "passed"})
    assert 0 < cell["noise_ratio"] < 2
    assert artifact(version, "onnx/model.onnx")["provenance"]["what"] == "source"
    assert artifact(version, "onnx/good_fp16.onnx")["provenance"]["what"] == "candidate"
    assert str(project.parent) not in (version / "metadata.json").read_text()


def test_globs_and_ids_choose(export, project):
    export("*-openvino-*", FP16)
    assert files(project / "registry/tiny/v1.0") == {
        *(name for name in PASSED if name.startswith("openvino/")),
        "onnx/model_fp16.onnx",
        "metadata.json",
    }


def test_cells_that_share_an_artifact_are_told_together(export, project):
    """One file, and every cell that ran it with its own end."""
    twin = IR.replace("fp32", "bf16")

    def change(line):
        if line.get("cell") != IR:
            return line
        other = {**line, "cell": twin, "outcome": "fallback"} | ({"precision": "bf16"} if "precision" in line else {})
        return line, other

    record = project / "reports/latest/results.jsonl"
    text = []
    for line in map(json.loads, record.read_text().splitlines()):
        changed = change(line)
        text += [json.dumps(one) for one in (changed if isinstance(changed, tuple) else [changed])]
    record.write_text("\n".join(text) + "\n")
    export("*-openvino-fp32-*")
    told = artifact(project / "registry/tiny/v1.0", "openvino/model.xml")
    assert {cell["cell"]: cell["outcome"] for cell in told["cells"]} == {IR: "passed", twin: "fallback"}


def external(folder, name, seed):
    """An artifact as the cache holds one whose weights lie outside: all are called model.onnx there."""
    folder.mkdir()
    path = externally(two_layers(folder / "model.onnx", seed=seed))
    parts = (path, folder / "model.onnx.data")
    precision = "fp16" if "fp16" in name else "fp32"
    return Chosen("tiny", "onnx", name, "onnx", precision, path, parts, name, {})


def test_weights_outside_of_two_files_do_not_meet(tmp_path):
    """Converters call both model.onnx.data; renamed, each file still finds its own."""
    both = [external(tmp_path / name, name, seed) for seed, name in enumerate(["model.onnx", "model_fp16.onnx"])]
    expected = [outputs(one.main) for one in both]
    written = layout.export(Choice(tuple(both)), tmp_path / "registry", "v1", overwrite=False)
    for (path, told), values in zip(written, expected, strict=True):
        assert (path.parent / f"{path.name}.data").is_file()
        assert set(told["sha256"]) == {f"onnx/{path.name}", f"onnx/{path.name}.data"}
        np.testing.assert_array_equal(outputs(path), values)
    assert not np.array_equal(*expected)


def test_two_files_that_share_a_name_beside_them_are_refused(tmp_path):
    import onnx

    both = []
    for seed, name in enumerate(["model.onnx", "model_fp16.onnx"]):
        one = external(tmp_path / name, name, seed)
        model = onnx.load(str(one.main))
        onnx.save(model, str(one.main), save_as_external_data=True, location="weights.bin", size_threshold=0)
        both.append(replace(one, files=(one.main, one.main.parent / "weights.bin")))
    with pytest.raises(ModelFormatsError, match=r"both need a file onnx/weights\.bin, each with other content"):
        layout.export(Choice(tuple(both)), tmp_path / "registry", "v1", overwrite=False)
    assert not files(tmp_path / "registry")


# --- what did not pass


def test_a_failed_cell_by_name_is_refused(export, project):
    text = export(FP32, WRONG)
    assert text.startswith(f"{WRONG} is not exported: it ended as 'failed (numeric)' (Output 'y': error ")
    assert text.endswith("; --force exports it all the same")
    assert not (project / "registry").exists()


def test_force_exports_a_failed_cell_and_says_so(export, project):
    assert f"{WRONG} failed" in export(WRONG, "--force")
    version = project / "registry/tiny/v1.0"
    assert files(version) == {"onnx/wrong.onnx", "metadata.json"}
    (cell,) = artifact(version, "onnx/wrong.onnx")["cells"]
    assert cell["outcome"] == "failed"
    assert cell["sentences"]
    assert (version / "onnx/wrong.onnx").read_bytes() == (project / "wrong.onnx").read_bytes()


def test_a_glob_that_only_failed_cells_match_leaves_nothing(export, project):
    text = export("tiny~wrong-*")
    assert "no cell of the run" in text
    assert f"that was asked for can be exported: {WRONG}: it ended as 'failed (numeric)'" in text
    assert not (project / "registry").exists()


def test_a_pass_without_a_parity_check_is_no_verdict(export, project):
    rerecorded(project, instead_of_parity("contract"))
    assert "its outputs were not compared with the model's (no parity check in this run)" in export(FP16)


def test_a_users_own_test_of_the_outputs_counts(export, project):
    rerecorded(project, instead_of_parity("test_mine"))
    assert "model_fp16.onnx" in export(FP16)


def test_an_interrupted_run_has_passed_nothing(export, project):
    rerecorded(project, lambda line: None if line["kind"] == "footer" else line)
    assert "was interrupted, and checks of it may be missing; --force" in export(FP16)


def test_a_cell_that_did_not_run_has_no_artifact(export, project):
    def change(line):
        if line.get("cell") == FP16:
            missing = {"decision": "missing-dependency", "reason": "onnx needs what is not there"}
            return {**line, **missing} if line["kind"] == "cell" else None
        return line

    rerecorded(project, change)
    text = export(FP16, "--force")
    assert "it has no artifact: it ended as 'missing-dependency' (onnx needs what is not there)" in text
    assert "left out: 1 cell that did not run (1 missing-dependency)\n" in export()


def test_what_is_built_by_code_has_no_file(export, project):
    rerecorded(project, with_artifact(FP32, where="code"))
    assert export(FP32).endswith("its model is built by code, so there is no file to copy")
    assert f"left out: {FP32}: its model is built by code" in export()


def test_a_check_that_was_shown_again_does_not_say_of_what(export, project):
    def change(line):
        if line["kind"] == "check" and line["cell"] == FP16:
            del line["data"]["artifact"]
            line["data"]["reused"] = "2026-11-26T00:00:00+00:00"
        return line

    rerecorded(project, change)
    assert "shown again by --mf-reuse" in export(FP16)


# --- the artifact is what was judged


def entry(project, cell):
    lines = map(json.loads, (project / "reports/latest/results.jsonl").read_text().splitlines())
    return next(line["data"]["artifact"] for line in lines if line["kind"] == "check" and line["cell"] == cell)


def test_an_artifact_that_left_the_cache_is_missed(export, project):
    shutil.rmtree((project / "cache" / entry(project, FP16)["path"]).parent)
    text = export(FP16)
    assert f"the artifact of {FP16} is not in the cache {project / 'cache'}; run again, or say with --mf-cache" in text
    assert not (project / "registry").exists()


def test_a_damaged_artifact_is_not_exported(export, project):
    (project / "cache" / entry(project, FP16)["path"]).write_bytes(b"damaged")
    assert "is damaged in the cache" in export(FP16)


def test_an_artifact_that_was_made_again_is_not_the_one_that_passed(export, project):
    rerecorded(project, with_artifact(FP16, sha256="0" * 64))
    assert "was made again since that run and has other content, which nothing has judged" in export(FP16)


def test_a_model_that_changed_since_is_not_exported(export, project):
    two_layers(project / "good_fp16.onnx", seed=5)
    assert f"good_fp16.onnx has changed since {GOOD} was run; run again" in export(GOOD)
    (project / "good_fp16.onnx").unlink()
    assert f"the artifact of {GOOD} is no longer there" in export(GOOD)


def test_two_artifacts_for_one_place_are_refused(export, project):
    other = entry(project, GOOD)

    def change(line):
        if line["kind"] == "cell" and line["cell"] == GOOD:
            line["candidate"] = ""
            line["chain"] = ["x:fp16"]
        return line

    rerecorded(project, change)
    assert other["where"] == "file"
    text = export()
    assert "have different artifacts, and both would be onnx/model_fp16.onnx; choose one of them by its id" in text


@pytest.mark.parametrize(("name", "value"), [("model", "../../up"), ("format", ".."), ("candidate", "a/b")])
def test_a_record_cannot_write_elsewhere(export, project, name, value):
    def change(line):
        return {**line, name: value} if line["kind"] == "cell" and line["cell"] == GOOD else line

    rerecorded(project, change)
    assert "cannot be a folder's name" in export(GOOD)


# --- versions


def test_a_version_that_is_there_is_not_overwritten(export, project):
    export(FP16)
    before = metadata(project / "registry/tiny/v1.0")
    text = export()
    assert (
        text == "registry/tiny/v1.0 is there already; name another version than v1.0 with --version, or add --overwrite"
    )
    assert metadata(project / "registry/tiny/v1.0") == before
    export("--version", "v1.1")
    assert {path.name for path in (project / "registry/tiny").iterdir()} == {"v1.0", "v1.1"}
    assert metadata(project / "registry/tiny/v1.1")["version"] == "v1.1"


def test_overwrite_replaces_the_whole_version(export, project):
    export()
    export(FP16, "--overwrite")
    assert files(project / "registry/tiny/v1.0") == {"onnx/model_fp16.onnx", "metadata.json"}
    assert [path.name for path in (project / "registry").iterdir()] == ["tiny"]


def test_what_cannot_be_finished_leaves_the_old_version(export, project, monkeypatch):
    export(FP16)
    before = files(project / "registry")

    def stop(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(layout, "_check", stop)
    text = export("--overwrite")
    assert text == "the registry registry cannot be written: No space left on device; choose another folder with -o"
    assert files(project / "registry") == before


def test_a_version_that_cannot_be_moved_into_place_gives_the_old_one_back(export, project, monkeypatch):
    export(FP16)
    rename = Path.rename

    def once(path, target):
        if path.name == "tiny":
            raise OSError(5, "Input/output error")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", once)
    assert "Input/output error" in export("--overwrite")
    assert files(project / "registry/tiny/v1.0") == {"onnx/model_fp16.onnx", "metadata.json"}


@pytest.mark.parametrize("version", ["../v1", "a/b", "..", "", "v 1"])
def test_a_version_is_a_folders_name(export, version):
    assert f"--version: '{version}' cannot be a folder's name" in export("--version", version)


def test_a_destination_that_cannot_be_written_is_one_sentence(export, project):
    assert export(output="wrong.onnx/below") == (
        "the registry wrong.onnx/below cannot be written: Not a directory; choose another folder with -o"
    )


# --- wrong words


def test_an_unknown_cell_is_answered_with_the_nearest(export):
    assert "matches none of the 6 cells that the run 2" in export("tiny-onnx-fp61-onnxruntime@cpu")
    assert export("tiny-onnx-fp61-onnxruntime@cpu").endswith(f"did you mean '{FP16}'?")


def test_without_a_run_the_sentence_says_what_to_do(export, project):
    shutil.rmtree(project / "reports")
    assert export() == (
        f"there is no run in {project / 'reports'}; run pytest --mf-model MODEL first, name a run with --record, "
        "or take what was never judged with --from-cache"
    )


def test_a_run_is_named_by_its_folder_its_file_or_its_id(export, project):
    (run,) = {path.resolve() for path in (project / "reports").glob("*/")}
    shutil.copytree(run, project / "elsewhere")
    for number, ref in enumerate(("elsewhere", "elsewhere/results.jsonl", run.name)):
        assert "model_fp16.onnx" in export(FP16, "--record", ref, "--version", f"v{number}")
    assert "--record: 'gone' is no saved baseline, no run in" in export("--record", "gone")
    assert "is not a record of this tool" in export("--record", "tiny.onnx")


# --- straight from the cache


def test_the_cache_alone_can_be_exported_and_says_that_nothing_judged_it(export, project):
    shutil.rmtree(project / "reports")
    text = export("--from-cache")
    version = project / "registry/tiny/v1.0"
    assert files(version) == {
        "metadata.json",
        "onnx/model_fp16.onnx",
        *(name for name in PASSED if name.startswith("openvino/")),
    }
    assert text.count("; not judged by a run") == 3
    told = metadata(version)
    assert told["run"] is None
    assert artifact(version, "onnx/model_fp16.onnx")["cells"] == []
    assert artifact(version, "openvino/model.xml")["provenance"]["converter"] == "openvino_from_onnx"
    np.testing.assert_allclose(outputs(version / "openvino/model.xml"), outputs(project / "tiny.onnx"), atol=1e-5)


def older(project):
    """A second, older entry of the fp16 conversion, of which the cache says another source; returns the newer's key."""
    cache = Cache(project / "cache")
    key = entry(project, FP16)["key"]
    newest = cache.find(key)
    copy = project / "cache/artifacts/00" / ("00" * 32)
    shutil.copytree(newest.folder, copy)
    data = {**newest.metadata, "key": "00" * 32, "made_at": "2020-01-01T00:00:00+00:00", "source_sha256": "1" * 64}
    (copy / METADATA).write_text(json.dumps(data))
    return key


def test_of_several_artifacts_of_a_kind_the_newest_is_taken(export, project):
    key = older(project)
    text = export("--from-cache", FP16)
    assert artifact(project / "registry/tiny/v1.0", "onnx/model_fp16.onnx")["provenance"]["key"] == key
    assert "left out: 000000000000, made 2020-01-01 00:00 UTC: a newer artifact of tiny-onnx-fp16-" in text


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--from-cache", "--mf-cache", "none"), "there is no artifact in the cache"),
        (("--from-cache", "tiny-onnx-fp61-onnxruntime@cpu"), f"did you mean '{FP16}'?"),
        (("--from-cache", "--record", "latest"), "say either --record or --from-cache"),
    ],
)
def test_what_cannot_be_taken_from_the_cache_is_one_sentence(export, project, args, said):
    assert said in export(*args)
    assert not (project / "none").exists()
    assert not (project / "registry").exists()


def test_a_damaged_entry_is_not_taken_from_the_cache(export, project):
    (project / "cache" / entry(project, FP16)["path"]).write_bytes(b"damaged")
    assert "is damaged (model.onnx does not have the content it was written with)" in export("--from-cache", FP16)
