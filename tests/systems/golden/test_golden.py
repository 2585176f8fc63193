"""A golden bundle gives the verdict that the model itself gives, needs no framework, and is read without trust."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import thin
from click.testing import CliRunner
from inner_run import two_at_a_time, two_layers
from places import ROOT
from shared_run import shared_run

from pytest_modelformats.cli import golden as golden_export
from pytest_modelformats.cli.main import commands
from pytest_modelformats.compare import sampled
from pytest_modelformats.errors import SourceError, Unsupported
from pytest_modelformats.schema import Source
from pytest_modelformats.source.identify import identify
from pytest_modelformats.systems.golden import file as golden_file
from pytest_modelformats.systems.golden import format as form

SUITES = "contract,parity,batch,determinism"
# What is said of a check beside what depends on the run.
TOLD = ("outcome", "failure_kind", "sentence")

CANDIDATES = """
import sys

import numpy as np
import onnx
import openvino
import torch
from onnx import numpy_helper
from onnxconverter_common import float16

import tiny_nets

batch = torch.export.Dim("N", min=1, max=64)


def write(name, change):
    net = tiny_nets.build().eval()
    with torch.no_grad():
        change(net)
    x = torch.ones(2, 4)
    torch.onnx.export(net, (x,), f"{name}.onnx", input_names=["x"], output_names=["output"], verbose=False,
                      dynamo=False, dynamic_axes={"x": {0: "N"}, "output": {0: "N"}})
    model = openvino.convert_model(f"{name}.onnx")
    openvino.save_model(model, f"{name}_ir.xml", compress_to_fp16=False)
    return model


def wrong(net):
    net.out.weight[0, 0] += 0.25


def half(net):
    net.half().float()


def one(net):
    net.hidden.weight.copy_(net.hidden.weight.half().float())


model = write("good", lambda net: None)
openvino.save_model(model, "half_ir.xml", compress_to_fp16=True)
write("wrong", wrong)
write("one", one)
onnx.save(float16.convert_float_to_float16(onnx.load("good.onnx"), keep_io_types=True), "half.onnx")
# The command goes on in this process: it has imported what it needs.
from pytest_modelformats.cli.main import main

sys.argv[1:1] = ["golden", "export", "tiny_nets:build", "-o", "tiny.golden", "--mf-cache"]
main()
"""
# With what the cell of each candidate ends.
ENDS = {
    "good-onnx": "passed",
    "wrong-onnx": "failed",
    "half-onnx": "fallback",
    "one-onnx": "failed",
    "good_ir-openvino": "passed",
    "wrong_ir-openvino": "failed",
    "half_ir-openvino": "fallback",
    "one_ir-openvino": "failed",
}


def export(model, target, cache, *options):
    command = ["golden", "export", str(model), "-o", str(target), "--mf-cache", str(cache), *options]
    done = CliRunner().invoke(commands, command)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(scope="module")
def shop(shelf, tmp_path_factory):
    """A folder with the tiny PyTorch model's golden bundle and candidates, some of them wrong."""
    folder = tmp_path_factory.mktemp("shop")
    shutil.copy(shelf / "tiny_nets.py", folder)
    command = [sys.executable, "-W", "ignore", "-c", CANDIDATES, str(shelf / "cache")]
    done = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def judged(folder, *arguments, python=sys.executable):
    """Run the suites on every candidate; returns (cell without its model, check) -> its line, and the text."""
    shipped = [p.name for end in (".onnx", ".xml") for p in folder.glob(f"*{end}")]
    chosen = [argument for name in sorted(shipped) for argument in ("--mf-candidate", name)]
    command = [str(python), "-m", "pytest", "-p", "no:cacheprovider", "--mf-suites", SUITES, "--mf-devices", "cpu"]
    # No backend of these runs the model itself as it is: the candidates are all the cells there are.
    command += ["--mf-formats", "pytorch", "--mf-backends", "onnxruntime,openvino", *chosen, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": ""}
    environment.pop("PYTEST_ADDOPTS", None)
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    reports = arguments[arguments.index("--mf-report-dir") + 1] if "--mf-report-dir" in arguments else "reports"
    records = sorted(folder.glob(f"{reports}/2*/results.jsonl"), key=lambda p: p.stat().st_mtime_ns)
    assert records, done.stdout[-3000:] + done.stderr[-3000:]
    lines = [json.loads(line) for line in records[-1].read_text().splitlines()]
    checks = {(c["cell"].partition("~")[2], c["check"]): c for c in lines if c["kind"] == "check"}
    return {key: line for key, line in checks.items() if "~" in line["cell"]}, done.stdout


@pytest.mark.slow
def test_the_verdict_is_that_of_the_model_itself(shop, shelf):
    # What a sentence says of the place of a fault takes the model itself.
    options = ("--mf-cache", shelf / "cache", "--mf-localise-budget", "0")
    (own, text), (golden, _) = two_at_a_time(
        lambda: judged(shop, "--mf-model", "tiny_nets:build", "--mf-report-dir", "own", *options),
        lambda: judged(shop, "--mf-golden", "tiny.golden", "--mf-report-dir", "golden", *options),
    )
    assert set(own) == set(golden)
    ends = {name: own[f"{name}-fp32-{lane(name)}@cpu", "parity"]["outcome"] for name in ENDS}
    assert ends == ENDS, text
    for key, line in own.items():
        assert {k: line[k] for k in TOLD} == {k: golden[key][k] for k in TOLD}, key
        numbers, others = (dict(x["data"]) for x in (line, golden[key]))
        assert numbers.get("outputs") == others.get("outputs"), key
        assert numbers.get("noise_ratio") == others.get("noise_ratio"), key
    same = own["one-onnx-fp32-onnxruntime@cpu", "parity"]["sentence"]
    assert "the file makes it itself" in same, "one rounded tensor is what this candidate is for"


def lane(name):
    return "openvino" if name.endswith("openvino") else "onnxruntime"


RUNTIME = (
    "numpy", "onnxruntime", "pytest", "_pytest", "py", "pluggy", "iniconfig", "packaging", "pygments", "execnet",
    "filelock", "jinja2", "markupsafe", "rich", "markdown_it", "mdurl", "click", "platformdirs", "psutil", "archspec",
)  # fmt: skip


@pytest.mark.slow
def test_numpy_and_the_runtime_are_all_it_needs(shop, tmp_path):
    python = thin.environment(tmp_path / "thin", *RUNTIME)
    (links,) = (tmp_path / "thin").glob("links")
    root = ROOT
    for name in ("pytest_modelformats", "suites", "fixtures"):
        (links / name).symlink_to(root / name)
    info = links / "pytest_modelformats-0.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pytest-modelformats\nVersion: 0.0\n")
    (info / "entry_points.txt").write_text("[pytest11]\nmodelformats = pytest_modelformats.plugin\n")
    for module in ("torch", "onnx", "openvino", "safetensors"):
        assert not thin.imports(python, module)
    folder = tmp_path / "work"
    folder.mkdir()
    for name in ("tiny.golden", "good.onnx", "wrong.onnx", "half.onnx"):
        shutil.copy(shop / name, folder)
    there, text = judged(folder, "--mf-golden", "tiny.golden", "--mf-cache", "cache", python=python)
    outcomes = {key[0]: line["outcome"] for key, line in there.items() if key[1] == "parity"}
    assert outcomes == {f"{n}-fp32-onnxruntime@cpu": ENDS[n] for n in ("good-onnx", "wrong-onnx", "half-onnx")}, text
    assert there["good-onnx-fp32-onnxruntime@cpu", "batch"]["outcome"] == "passed"


@pytest.fixture(scope="module")
def exported(shelf):
    """The golden bundle of the tiny ONNX model."""
    export(shelf / "tiny.onnx", shelf / "plain.golden", shelf / "cache")
    return shelf / "plain.golden"


def source(path):
    return Source(path.stem, str(path), "golden", "golden")


def test_the_same_model_gives_the_same_bytes(exported, shelf, tmp_path):
    export(shelf / "tiny.onnx", tmp_path / "again.golden", shelf / "cache")
    origin = b"from plain.golden"
    assert (tmp_path / "again.golden").read_bytes() == exported.read_bytes()
    assert origin not in exported.read_bytes()


def test_what_is_in_it_is_shown(exported):
    done = CliRunner().invoke(commands, ["golden", "show", str(exported)])
    assert done.exit_code == 0, done.output
    for words in ("x:float32[N,4]", "y:float32[N,3]", "8 rows", "rounding at fp32, 'y': rms", "fp16-weights"):
        assert words in done.output


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["export", "nowhere.onnx"], "there is no file"),
        (["export", "plain.golden"], "is a golden bundle already"),
        (["export", "models"], "holds 2 models; give one model"),
        (["export", "tiny.onnx", "-o", "nowhere/tiny.golden"], "cannot be written: No such file or directory"),
        (["export", "tiny.onnx", "--mf-samples", "none"], "--mf-samples is 'none'; expected a whole number"),
        (["show", "nowhere.golden"], "there is no file"),
        (["show", "tiny.onnx"], "is no golden bundle but a model in onnx; 'modelformats golden export"),
    ],
)
def test_a_command_that_nothing_can_be_done_with_ends_in_one_sentence(exported, shelf, tmp_path, command, words):
    shutil.copy(exported, tmp_path)
    shutil.copy(shelf / "tiny.onnx", tmp_path)
    (tmp_path / "models").mkdir()
    for name in ("one.onnx", "two.onnx"):
        shutil.copy(shelf / "tiny.onnx", tmp_path / "models" / name)
    cache = ["--mf-cache", str(shelf / "cache")] if command[0] == "export" else []
    start = [sys.executable, "-c", "from pytest_modelformats.cli.main import main; main()", "golden", *command, *cache]
    done = subprocess.run(start, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not done.stdout
    assert not list(tmp_path.glob("*.part"))


def test_other_inputs_have_no_truth_and_the_check_is_skipped_with_the_reason(exported):
    with pytest.raises(Unsupported, match="holds no outputs at float64 for these inputs; this check needs the model"):
        form.evaluate(source(exported), [{"x": np.ones((1, 4), np.float32)}], "float64")
    feed = form.stored_samples(source(exported)).feeds[0]
    outputs, _ = form.evaluate(source(exported), [feed], "float64")
    assert outputs[0][0].shape == (8, 3)


CLIPS = """
import numpy as np
import onnx
from onnx import helper, numpy_helper

model = onnx.load("tiny.onnx")
for name, value in (("low", -6.0), ("high", 6.0)):
    model.graph.initializer.append(numpy_helper.from_array(np.float32(value), name))
model.graph.node.insert(0, helper.make_node("Clip", ["x", "low", "high"], ["clipped"]))
model.graph.node[1].input[0] = "clipped"
onnx.save(model, "clips.onnx")
"""


def test_stressed_inputs_are_judged_too_whatever_the_seed(run, tiny, shelf, pytester):
    """Inputs are clipped at 6, which ordinary samples do not show: the truth on the stressed ones is in the file."""
    subprocess.run([sys.executable, "-c", CLIPS], cwd=pytester.path, check=True)
    export(tiny, pytester.path / "seeded.golden", shelf / "cache", "--mf-seed", "4")
    chosen = ("--mf-candidate", "clips.onnx", "--mf-suites", "parity", "--mf-backends", "onnxruntime")
    chosen = (*chosen, "--mf-localise-budget", "0")
    own = run("--mf-model", tiny, "--mf-seed", "4", *chosen, "--mf-devices", "cpu", "--mf-precisions", "fp32")
    golden = run("--mf-golden", "seeded.golden", *chosen, "--mf-devices", "cpu")
    there = own.checks["tiny~clips-onnx-fp32-onnxruntime@cpu", "parity"]
    here = golden.checks["seeded~clips-onnx-fp32-onnxruntime@cpu", "parity"]
    assert "agrees on ordinary inputs but not on unusual ones" in there["sentence"]
    assert {k: here[k] for k in TOLD} == {k: there[k] for k in TOLD}


# --- large outputs

# As if the tiny model were none that classifies: of those that do, every class is kept.
SMALL = """
from dataclasses import replace

from pytest_modelformats.cli import golden
from pytest_modelformats.cli.main import main
from pytest_modelformats.run.models import Models

described = Models.description
Models.description = lambda self, model: replace(described(self, model), classifier=False)
golden.KEPT_ELEMENTS, golden.FEWEST_PER_ROW = {kept}, 1
main()
"""


def export_in_part(model, folder, cache, kept):
    """Write ``tiny.golden``, where an output of more than ``kept`` elements is sampled."""
    command = [sys.executable, "-c", SMALL.format(kept=kept), "golden", "export", str(model), "-o", "tiny.golden"]
    subprocess.run([*command, "--mf-cache", str(cache)], cwd=folder, check=True, capture_output=True)
    return folder / "tiny.golden"


@pytest.fixture(scope="module")
def in_part(shelf, tmp_path_factory):
    """A bundle of the tiny ONNX model of whose three columns one is kept."""
    return export_in_part(shelf / "tiny.onnx", tmp_path_factory.mktemp("part"), shelf / "cache", 12)


def test_noise_and_error_of_a_sampled_output_are_those_over_the_sample(in_part, exported, shelf):
    whole, part = form.stored_reference(source(exported)), form.stored_reference(source(in_part))
    held, full = part.truths[0][0], whole.truths[0][0]
    assert isinstance(held, sampled.Sampled)
    assert (held.shape, held.values.shape) == ((8, 3), (8, 1))
    assert np.array_equal(held.values, full[:, held.positions])
    from pytest_modelformats.systems.onnx import format as onnx

    model = Source("tiny", str(shelf / "tiny.onnx"), "onnx", "onnx")
    feeds = form.stored_samples(source(in_part)).feeds
    (rounded,) = onnx.evaluate(model, feeds, "fp16")[0]
    error = (rounded[0].astype(float) - full)[:, held.positions]
    assert part.noise["fp16"][0].rms == pytest.approx(np.sqrt(np.mean(error**2)))
    assert part.noise["fp16"][0].rms != whole.noise["fp16"][0].rms


def rounded_to_fp16(path):
    """An ONNX model whose weights are those of the tiny one, rounded."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(two_layers(path))
    for weight in model.graph.initializer:
        rounded = numpy_helper.to_array(weight).astype(np.float16).astype(np.float32)
        weight.CopyFrom(numpy_helper.from_array(rounded, weight.name))
    onnx.save(model, path)


@pytest.fixture(scope="module")
def sampled_run(in_part, exported, shelf, tmp_path_factory):
    """The run of right and wrong candidates by a sampled output, some of them by the whole output too."""
    folder = tmp_path_factory.mktemp("sampled")
    shutil.copy(shelf / "tiny.onnx", folder)
    for name, options in {"right": {}, "wrong": {"change": 1.0}, "other": {"seed": 1}}.items():
        two_layers(folder / f"{name}.onnx", **options)
    rounded_to_fp16(folder / "rounded.onnx")
    subprocess.run([sys.executable, "-c", CLIPS], cwd=folder, check=True)
    for name in ("right", "clips"):
        shutil.copy(folder / f"{name}.onnx", folder / f"{name}_too.onnx")
    given = {"tiny": ("right", "wrong", "other", "rounded", "clips"), "plain": ("right_too", "clips_too")}
    candidates = [f"{name}.onnx,model={model}" for model, names in given.items() for name in names]
    candidates = [a for candidate in candidates for a in ("--mf-candidate", candidate)]
    chosen = ("--mf-suites", SUITES, "--mf-backends", "onnxruntime", "--mf-devices", "cpu")
    golden = ("--mf-golden", in_part, "--mf-golden", exported, f"--mf-cache={shelf / 'cache'}")
    ran = shared_run(folder, *golden, *candidates, *chosen)
    assert ran.cells == [f"{m}~{name}-onnx-fp32-onnxruntime@cpu" for m, names in given.items() for name in names]
    return ran, folder


@pytest.mark.parametrize(("name", "outcome"), [("right", "passed"), ("other", "failed")])
def test_a_sampled_output_is_judged_where_it_is_known(sampled_run, name, outcome):
    ran, folder = sampled_run
    cell = f"tiny~{name}-onnx-fp32-onnxruntime@cpu"
    assert (ran.outcomes[cell, "parity"], ran.outcomes[cell, "batch"]) == (outcome, outcome), ran.text
    assert ran.outcomes[cell, "determinism"] == "passed"
    if outcome == "failed":
        line = ran.checks[cell, "parity"]
        assert line["data"]["outputs"][0]["elements"] == 8
        bundle = ran.folder / line["data"]["bundle"]
        for artifact, status in (("other", 1), ("right", 0)):
            command = [sys.executable, str(bundle / "repro.py"), "--artifact", str(folder / f"{artifact}.onnx")]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == status, done.stdout + done.stderr


def test_a_large_output_is_no_obstacle_to_a_run_without_options(run, in_part, pytester):
    """Every suite; generated inputs cannot be judged without the model, which is said before anything is searched."""
    two_layers(pytester.path / "shipped.onnx")
    chosen = ("--mf-backends", "onnxruntime", "--mf-fuzz", "9")
    ran = run("--mf-golden", in_part, "--mf-candidate", "shipped.onnx", *chosen)
    assert ran.status == 0, ran.text
    line = ran.checks["tiny~shipped-onnx-fp32-onnxruntime@cpu", "fuzz"]
    assert line["outcome"] == "unsupported"
    assert "is a golden bundle, which holds those of its samples only" in line["sentence"]
    assert "overflows" not in line["sentence"]


def test_the_sentence_says_how_much_of_a_sampled_output_was_judged(sampled_run):
    ran, _ = sampled_run
    said = "Judged were 8 of 24 elements of 'y' (sampled)."
    for check in ("parity", "batch"):
        right, wrong = (ran.checks[f"tiny~{n}-onnx-fp32-onnxruntime@cpu", check] for n in ("right", "wrong"))
        assert right["outcome"] == "passed", right["sentence"]
        assert right["sentence"].endswith(said)
        # Before the next step, which ends a sentence.
        assert said in wrong["sentence"].partition(" Next: ")[0]


@pytest.mark.parametrize(("large", "too"), [("tiny", ""), ("plain", "_too")])
def test_stressed_inputs_are_judged_where_a_large_output_is_known(sampled_run, large, too):
    """Of the one only a part is known, of the other the whole."""
    ran, _ = sampled_run
    line = ran.checks[f"{large}~clips{too}-onnx-fp32-onnxruntime@cpu", "parity"]
    assert line["outcome"] == "failed"
    assert "agrees on ordinary inputs but not on unusual ones" in line["sentence"]
    assert ran.outcomes[f"{large}~right{too}-onnx-fp32-onnxruntime@cpu", "parity"] == "passed"


def test_of_unusual_inputs_less_of_a_large_output_is_kept(exported, shelf, tmp_path):
    """Two of three columns of the samples, one of those that are moved or stressed; small outputs are kept whole."""
    held = golden_file.read(export_in_part(shelf / "tiny.onnx", tmp_path, shelf / "cache", 16))
    columns = [held.arrays[r["outputs"][0]["member"]].shape[1] for r in held.manifest["records"]]
    assert columns[0] == 2
    assert set(columns) == {1, 2}
    # Eight copies for a second look in two precisions, and the stress rows in all.
    assert columns.count(1) == 16 + 1 + len(form.stored_reference(source(held.path)).noise)
    whole = golden_file.read(exported)
    assert {whole.arrays[r["outputs"][0]["member"]].shape[1] for r in whole.manifest["records"]} == {3}


def test_both_sides_are_taken_where_a_sampled_output_is_known():
    """For the second look and the stress rows; an output of another shape stays as it is, to be told by it."""
    truth = sampled.take(np.arange(24.0).reshape(4, 6), np.array([1, 4], np.uint32))
    right = np.arange(24.0, dtype=np.float32).reshape(4, 6)
    truths, outputs = sampled.alike([[truth, right]], [[right, right]])
    assert [a.shape for a in truths[0]] == [a.shape for a in outputs[0]] == [(4, 2), (4, 6)]
    assert np.array_equal(truths[0][0], outputs[0][0])
    _, outputs = sampled.alike([[truth]], [[right[:, :5]]])
    assert outputs[0][0].shape == (4, 5)


def test_what_ran_instead_is_told_from_a_sampled_output_too(sampled_run):
    """An error of another precision's size is looked at where the output is known."""
    line = sampled_run[0].checks["tiny~rounded-onnx-fp32-onnxruntime@cpu", "parity"]
    assert line["outcome"] == "fallback", line["sentence"]
    assert "fp16-weights is what ran" in line["sentence"]


def test_a_sampled_output_of_another_shape_fails_the_contract():
    truth = sampled.take(np.arange(24.0).reshape(4, 6), np.array([1, 4], np.uint32))
    from pytest_modelformats.compare.noise import Noise
    from pytest_modelformats.compare.verdict import judge
    from pytest_modelformats.schema import PRECISIONS

    noise = {p: [Noise(1e-3, 1e-2, 1e-3)] for p in ("fp32", "fp16", "bf16")}
    right = np.arange(24.0, dtype=np.float32).reshape(4, 6)
    judging = {"noise": noise, "precision": PRECISIONS["fp32"], "dtypes": ["float32"]}
    assert judge(["y"], [[truth]], [[right + np.float32(1e-3)]], **judging).passed
    assert judge(["y"], [[truth]], [[right[:, :5]]], **judging).failure_kind.value == "contract"
    changed = right.copy()
    changed[2, 4] += 1
    assert not judge(["y"], [[truth]], [[changed]], **judging).passed
    assert np.array_equal(right[:2] - truth[:2], np.zeros((2, 2)))


# --- what is not to be trusted


def rewritten(path, target, change):
    """A copy of a bundle with its members changed: ``change`` gets and returns name -> bytes."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(target, "w") as archive:
        for name, data in change(members).items():
            archive.writestr(name, data)
    return target


def with_manifest(path, target, change):
    def edit(members):
        manifest = json.loads(members["golden.json"])
        change(manifest)
        return {**members, "golden.json": json.dumps(manifest).encode()}

    return rewritten(path, target, edit)


def with_array(path, target, name, data):
    """The bundle with other bytes for an array, and the SHA-256 that belongs to them."""
    import hashlib

    def edit(members):
        manifest = json.loads(members["golden.json"])
        manifest["arrays"][name] = hashlib.sha256(data).hexdigest()
        return {**members, "golden.json": json.dumps(manifest).encode(), name: data}

    return rewritten(path, target, edit)


def everything(path):
    """What a run reads of a bundle, in its order."""
    identify(path)
    return form.describe(source(path)), form.stored_samples(source(path)), form.stored_reference(source(path))


def refused(path):
    """The sentence with which a file is refused, by whatever reads it first."""
    with pytest.raises(SourceError) as caught:
        everything(path)
    sentence = str(caught.value)
    assert path.name in sentence
    assert len(sentence) < 500
    assert "\n" not in sentence
    return sentence


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_a_truncated_file_is_damaged(exported, tmp_path, share):
    data = exported.read_bytes()
    (tmp_path / "cut.golden").write_bytes(data[: int(len(data) * share)])
    assert "damaged golden bundle: its list of entries cannot be read" in refused(tmp_path / "cut.golden")


def test_a_text_is_no_golden_bundle(tmp_path):
    (tmp_path / "text.golden").write_text("golden.json\n")
    assert "looks like text that begins with 'golden.json'" in refused(tmp_path / "text.golden")


@pytest.mark.parametrize("name", ["../evil.npy", "/etc/passwd", "inputs/0/../../x.npy", "code.py", "data.pkl"])
def test_a_member_that_no_bundle_has_is_refused(exported, tmp_path, name):
    path = rewritten(exported, tmp_path / "odd.golden", lambda members: {**members, name: b"x"})
    # A zip with a data.pkl looks like a file of PyTorch's too.
    assert ("is a damaged PyTorch file" if name == "data.pkl" else "which no golden bundle has") in refused(path)


class Evil:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def test_a_pickle_inside_is_not_loaded(exported, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stream = io.BytesIO()
    np.save(stream, np.array([Evil()], dtype=object), allow_pickle=True)
    path = with_array(exported, tmp_path / "pickle.golden", "inputs/0/0.npy", stream.getvalue())
    assert "only numbers are read" in refused(path)
    path = with_array(exported, tmp_path / "raw.golden", "inputs/0/0.npy", pickle.dumps(Evil()))
    assert "no .npy header" in refused(path)
    assert not (tmp_path / "executed").exists()


def test_a_header_that_claims_more_than_there_is_allocates_nothing(exported, tmp_path):
    stream = io.BytesIO()
    header = {"descr": "<f8", "fortran_order": False, "shape": (1 << 40,)}
    np.lib.format.write_array_header_1_0(stream, header)
    path = with_array(exported, tmp_path / "large.golden", "inputs/0/0.npy", stream.getvalue())
    assert "does not fit its 0 bytes" in refused(path)


def test_a_zip_bomb_is_not_unpacked(exported, tmp_path):
    path = tmp_path / "bomb.golden"
    shutil.copy(exported, path)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("positions/9.npy", bytes(100_000_000))
    assert "it would unpack from" in refused(path)


def test_a_changed_array_is_seen_by_its_hash(exported, tmp_path):
    def edit(members):
        data = bytearray(members["evaluated/0/0.npy"])
        data[-1] ^= 1
        return {**members, "evaluated/0/0.npy": bytes(data)}

    assert "its SHA-256 differs" in refused(rewritten(exported, tmp_path / "changed.golden", edit))


def test_code_that_the_description_names_is_not_imported(exported, tmp_path):
    def edit(manifest):
        manifest["description"]["data"] = "os:getcwd"

    path = with_manifest(exported, tmp_path / "names.golden", edit)
    assert form.describe(source(path)).data == ""


def test_another_version_is_named(exported, tmp_path):
    path = with_manifest(exported, tmp_path / "later.golden", lambda manifest: manifest.update(version=2))
    assert "of version 2, and 1 is what can be read here" in refused(path)


ODD = (None, True, -1, 1e400, "x", "a\x1b[2Jb", [], {}, [None], {"x": None}, [[1]], 10**30)


def places(value, at=()):
    """Every place of a JSON value: those of its dicts, and the first of each list."""
    yield at
    items = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*at, key))


def ended(path):
    """Whether a bundle was read or refused; any other end is an error."""
    try:
        _, samples, reference = everything(path)
        lines = list(golden_export.told(golden_file.read(path)))
    except SourceError as error:
        sentence = str(error)
    else:
        assert samples.rows >= 1
        assert len(reference.truths) == len(samples.feeds)
        assert all(line.isprintable() for line in lines)
        return "read"
    assert "\x1b" not in sentence
    return "refused"


def of_the_samples(path, target):
    """The bundle without the outputs on inputs other than its samples: entries like the first one, one after another.

    Nothing that is read of a bundle before a check asks for them needs them, and a file is written in a tenth of time.
    """

    def edit(members):
        manifest = json.loads(members["golden.json"])
        first, *others = manifest["records"]
        left_out = {output["member"] for record in others for output in record["outputs"]}
        manifest["records"] = [first]
        manifest["arrays"] = {name: value for name, value in manifest["arrays"].items() if name not in left_out}
        kept = {name: data for name, data in members.items() if name not in left_out}
        return {**kept, "golden.json": json.dumps(manifest).encode()}

    return rewritten(path, target, edit)


def test_an_odd_description_is_one_sentence_or_harmless(exported, tmp_path):
    """Any value in any place: the file is read as it is, or refused by SourceError; nothing else is raised."""
    whole = of_the_samples(exported, tmp_path / "whole.golden")
    assert ended(whole) == "read"
    with zipfile.ZipFile(whole) as archive:
        manifest = json.loads(archive.read("golden.json"))
    outcomes = {"read": 0, "refused": 0}
    for number, place in enumerate(p for p in places(manifest) if p):
        for odd in ODD:

            def edit(changed, place=place, odd=odd):
                for key in place[:-1]:
                    changed = changed[key]
                changed[place[-1]] = odd

            path = with_manifest(whole, tmp_path / f"{number}.golden", edit)
            golden_file._read.cache_clear()
            outcomes[ended(path)] += 1
    assert outcomes["refused"] > 300
