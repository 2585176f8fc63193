"""``modelformats cache``: why a conversion is in the cache or not, and what there is."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from inner_run import two_layers

from pytest_modelformats.cli import main as cli
from pytest_modelformats.cli.cache import why as cache_why
from pytest_modelformats.convert import chain as convert
from pytest_modelformats.convert.cache import METADATA, Entry, sha256_of
from pytest_modelformats.errors import ModelFormatsError
from pytest_modelformats.plan import build as plan
from pytest_modelformats.schema import registry
from pytest_modelformats.session.campaign import stages_of
from pytest_modelformats.settings import load as configuration
from pytest_modelformats.settings import machine
from pytest_modelformats.source import identify as source

FP16 = "tiny-onnx-fp16-onnxruntime@cpu"
# Two conversions, one after the other.
WEIGHTS = "tiny-openvino-fp16-weights-openvino@cpu"


def converted(model, cache, *cells):
    """Really convert the model for these cells."""
    settings = configuration.load(model.parent, {"model": [str(model)], "cache": str(cache)})
    sources = source.find_sources(settings)
    planned = {p.cell.id: p for p in plan.build_plan(settings, sources, (), machine.machine()).cells}
    stages = stages_of(settings, sources, lambda _: None)
    try:
        for cell in cells:
            stages.artifact(planned[cell])
    finally:
        stages.leave()
        stages.pool.close()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with the tiny model and a cache that holds its conversions."""
    folder = tmp_path_factory.mktemp("made")
    converted(two_layers(folder / "tiny.onnx"), folder / "cache", FP16, WEIGHTS)
    return folder


@pytest.fixture
def where(made, tmp_path):
    """The same, for a test alone."""
    shutil.copytree(made / "cache", tmp_path / "cache")
    shutil.copy(made / "tiny.onnx", tmp_path)
    return tmp_path


@pytest.fixture
def ask(where):
    """What the command prints of a cell of the model; its error is a sentence."""

    def why(cell, *args, model=where / "tiny.onnx", cache=where / "cache"):
        given = ["--mf-model", str(model)] if model else []
        # In this process, so that the worker is of no concern: what is asked of it is the model's description.
        command = ["cache", "why", cell, *given, "--mf-cache", str(cache), "--mf-isolate", "none", *map(str, args)]
        done = CliRunner().invoke(cli.commands, command)
        if isinstance(done.exception, ModelFormatsError):
            assert "\n" not in str(done.exception)
            return str(done.exception)
        assert done.exit_code == 0, done.output + repr(done.exception)
        return done.stdout

    return why


def metadata_of(cache, converter):
    """The metadata file of what a converter made."""
    found = [p for p in cache.glob(f"artifacts/*/*/{METADATA}") if f'"converter": "{converter}"' in p.read_text()]
    (path,) = {p for p in found if json.loads(p.read_text()).get("converter") == converter}
    return path


def aged(path):
    """Make an entry's metadata what earlier versions of this tool wrote."""
    data = json.loads(path.read_text())
    for name in ("key_parts", "made_at", "format", "tool", "python"):
        del data[name]
    path.write_text(json.dumps(data))


def renewed(monkeypatch, name):
    """A converter has a new version; returns what is to be said of it."""
    known = registry.converters()
    version = known[name].version
    changed = {**known, name: replace(known[name], version=version + 1)}
    monkeypatch.setattr(registry, "converters", lambda: changed)
    return f"version of {name}: {version} then, {version + 1} now"


def differing(text):
    """What is said to differ, without the rest."""
    return [line.strip() for line in text.splitlines() if line.startswith("     ")]


@pytest.fixture
def installed(monkeypatch):
    """Pretend that other versions are installed; ``None`` takes one away."""

    def install(**changed):
        changed = {name.replace("_", "-"): version for name, version in changed.items()}

        def versions(names):
            found = {**machine.versions(names), **{n: v for n, v in changed.items() if n in names}}
            return {name: version for name, version in found.items() if version}

        monkeypatch.setattr(convert, "versions", versions)

    return install


# --- a hit, a miss


def test_what_was_converted_is_a_hit_and_its_key_is_the_entrys(ask, where):
    text = ask(FP16)
    key = metadata_of(where / "cache", "onnx_fp16_from_onnx").parent.name
    assert text.startswith(f"{FP16}: a hit, 1 of 1 conversion in the cache {where / 'cache'}\n")
    assert "1. onnx_fp16_from_onnx, onnx at fp16: in the cache\n" in text
    assert re.search(rf"key {key[:12]}, made \d{{4}}-\d\d-\d\d \d\d:\d\d UTC", text)


def test_an_empty_cache_is_a_miss_and_stays_as_it_is(ask, where):
    text = ask(WEIGHTS, cache=where / "nothing")
    assert text.startswith(f"{WEIGHTS}: a miss, 0 of 2 conversions in the cache")
    assert text.count("Nothing of this model in this format and precision is in the cache") == 2
    assert not (where / "nothing").exists()


def test_nothing_is_converted_or_written(ask, where):
    shutil.rmtree(metadata_of(where / "cache", "openvino_fp16_weights_from_openvino").parent)
    before = sorted(where.rglob("*"))
    ask(WEIGHTS)
    assert sorted(where.rglob("*")) == before


def test_every_conversion_of_a_chain_is_looked_for(ask, where):
    shutil.rmtree(metadata_of(where / "cache", "openvino_fp16_weights_from_openvino").parent)
    text = ask(WEIGHTS)
    assert "a miss, 1 of 2 conversions" in text
    assert "1. openvino_from_onnx, openvino at fp32: in the cache" in text
    assert "2. openvino_fp16_weights_from_openvino, openvino at fp16-weights: not in the cache" in text


def test_a_damaged_entry_is_said_to_be_made_again(ask, where):
    (metadata_of(where / "cache", "onnx_fp16_from_onnx").parent / "model.onnx").write_bytes(b"damaged")
    text = ask(FP16)
    assert "a miss" in text
    assert "onnx at fp16: damaged" in text
    assert "model.onnx does not have the content it was written with; a run discards it and makes it again" in text


# --- what differs


def test_another_version_of_a_library_is_named_with_both(ask, installed):
    now = machine.versions(["onnx"])["onnx"]
    installed(onnx="99.1")
    text = ask(FP16)
    assert "a miss" in text
    assert differing(text) == [f"onnx {now} then, 99.1 now"]


def test_a_library_that_is_not_installed_any_more_is_named(ask, installed):
    now = machine.versions(["onnxconverter-common"])["onnxconverter-common"]
    installed(onnxconverter_common=None)
    assert differing(ask(FP16)) == [f"onnxconverter-common {now} then, not installed now"]


def test_the_second_conversion_differs_by_what_the_first_one_does(ask, installed):
    now = machine.versions(["openvino"])["openvino"]
    installed(openvino="99.1")
    text = ask(WEIGHTS)
    assert "a miss, 0 of 2" in text
    assert differing(text) == [f"openvino {now} then, 99.1 now"] * 2


def test_other_weights_are_another_content(ask, where):
    old = sha256_of(where / "tiny.onnx")
    new = sha256_of(two_layers(where / "tiny.onnx", seed=1))
    assert differing(ask(FP16)) == [f"content of the source: {old[:12]} then, {new[:12]} now"]


def test_another_input_specification_is_named(ask):
    text = ask(FP16, "--mf-static")
    assert "inputs: x:float32[N,4] then, x:float32[1,4] now" in differing(text)
    assert not any("content" in line for line in differing(text))


def test_another_version_of_the_converter_is_named(ask, monkeypatch):
    said = renewed(monkeypatch, "onnx_fp16_from_onnx")
    assert differing(ask(FP16)) == [said]


def test_a_model_of_another_name_and_content_is_another_model(ask, where):
    other = two_layers(where / "other.onnx", seed=3)
    assert "Nothing of this model in this format" in ask(FP16.replace("tiny", "other"), model=other)


def test_another_version_of_the_tool_that_converts_otherwise_converts_anew(ask, where, monkeypatch):
    """No number that somebody must remember to raise: what a converter does is in the key as it is."""
    monkeypatch.setattr(convert, "imported_digest", lambda module: "f" * 64)
    (said,) = differing(ask(FP16))
    assert re.fullmatch(r"code of onnx_fp16_from_onnx: [0-9a-f]{12} then, f{12} now", said)


def test_the_same_model_under_another_name_is_a_hit(ask, where):
    renamed = Path(shutil.copy(where / "tiny.onnx", where / "other.onnx"))
    assert "a hit" in ask(FP16.replace("tiny", "other"), model=renamed)


def step_of(**changed):
    """A step whose parts are these, or changed."""
    options = {"opset": None, "dynamic": True}
    base = {"converter": "onnx_from_pytorch", "version": 1, "precision": "fp32", "options": options, "libraries": {}}
    origin = {"content": "", "fingerprint": "f" * 64, "inputs": ["x:float32[N,4]"], "outputs": ["y:float32[N,3]"]}
    parts = {"source": {**origin, **changed.pop("source", {})}, "steps": [{**base, **changed}]}
    return convert.KeyedStep(registry.converters()[base["converter"]], convert.chain_key(parts), parts)


def entry_of(step, **changed):
    metadata = {**convert._provenance("net", step), **changed}
    return Entry(step.key, Path("/nowhere"), metadata, made=False)


@pytest.mark.parametrize(
    ("then", "said"),
    [
        ({"options": {"opset": 17, "dynamic": True}}, "--mf-opset 17 then, not set now"),
        ({"options": {"opset": None, "dynamic": False}}, "dynamic dimensions (--mf-static) off then, on now"),
        ({"options": {"opset": None}}, "dynamic dimensions (--mf-static) not set then, on now"),
        (
            {"converter": "onnx_from_pytorch_legacy"},
            "conversions: onnx_from_pytorch_legacy (fp32) then, onnx_from_pytorch (fp32) now",
        ),
        ({"source": {"fingerprint": "0" * 64}}, "code of the architecture: 000000000000 then, ffffffffffff now"),
        ({"source": {"content": "a" * 64}}, "content of the source: aaaaaaaaaaaa then, none (it is built by code) now"),
        ({"source": {"outputs": []}}, "outputs: none then, y:float32[N,3] now"),
    ],
)
def test_each_part_of_a_key_has_its_words(then, said):
    other = cache_why.compared(entry_of(step_of(**then)), step_of())
    assert other.differences == (said,)
    assert not other.unknown


# --- what is not known


def test_an_entry_of_an_earlier_version_is_compared_as_far_as_it_says(ask, where, installed):
    aged(metadata_of(where / "cache", "onnx_fp16_from_onnx"))
    now = machine.versions(["onnx"])["onnx"]
    installed(onnx="99.1")
    assert differing(ask(FP16)) == [
        f"onnx {now} then, 99.1 now",
        "its metadata, of an earlier version, does not say the version of the converter",
    ]


def test_what_an_earlier_version_does_not_say_is_what_must_differ(ask, where, monkeypatch):
    aged(metadata_of(where / "cache", "openvino_fp16_weights_from_openvino"))
    said = renewed(monkeypatch, "openvino_from_onnx")
    version, lacks = differing(ask(WEIGHTS))
    assert version == said
    assert lacks == (
        "its metadata, of an earlier version, does not say the version of the converter nor the versions, options and "
        "libraries of the conversions before it; what it does say is as it is now, so it is this that differs"
    )


def test_an_entry_of_an_earlier_version_is_still_a_hit(ask, where):
    aged(metadata_of(where / "cache", "onnx_fp16_from_onnx"))
    assert "a hit" in ask(FP16)


def test_parts_that_do_not_make_the_key_are_not_believed():
    step = step_of()
    entry = replace(entry_of(step), key="0" * 64)
    assert "so the metadata was changed" in cache_why.compared(entry, step).unknown


@pytest.mark.parametrize("text", ["", "{", "[]", "7", '{"what": "artifact", "model": "tiny", "precision": "fp16"}'])
def test_other_entries_that_cannot_be_read_are_passed_over(ask, where, text, installed):
    path = where / "cache" / "artifacts" / "00" / ("00" * 32) / METADATA
    path.parent.mkdir(parents=True)
    path.write_text(text)
    installed(onnx="99.1")
    assert len(differing(ask(FP16))) == 1


@pytest.mark.parametrize("parts", [None, 7, {}, {"source": {}, "steps": []}, {"source": 1, "steps": [{}]}])
def test_metadata_whose_parts_are_of_other_types_are_those_of_an_earlier_version(parts):
    other = cache_why.compared(entry_of(step_of(version=2), key_parts=parts), step_of())
    assert "does not say the version of the converter" in other.unknown


def test_the_nearest_three_are_shown_and_all_on_request(ask, where, installed):
    """The one that differs by the least comes first."""
    path = metadata_of(where / "cache", "onnx_fp16_from_onnx")
    for number in range(5):
        data = json.loads(path.read_text())
        data["key_parts"]["steps"][0]["libraries"]["onnx"] = f"1.{number}"
        if number != 3:
            data["key_parts"]["source"]["fingerprint"] = "another"
        copy = where / "cache" / "artifacts" / "00" / f"{number}".ljust(64, "0") / METADATA
        copy.parent.mkdir(parents=True)
        copy.write_text(json.dumps(data))
    shutil.rmtree(path.parent)
    text = ask(FP16)
    assert text.count("There is ") == 3
    assert text.index("There is 300000000000") < text.index("There is ", text.index("There is ") + 1)
    assert "There are 2 more" in text
    assert ask(FP16, "--all").count("There is ") == 5


# --- the key


def test_the_metadata_holds_the_parts_that_its_key_is_made_of(made):
    for converter, steps in (("openvino_from_onnx", 1), ("openvino_fp16_weights_from_openvino", 2)):
        path = metadata_of(made / "cache", converter)
        data = json.loads(path.read_text())
        assert convert.chain_key(data["key_parts"]) == data["key"] == path.parent.name
        assert len(data["key_parts"]["steps"]) == len(data["chain"]) == steps
        assert data["chain"][-1] == f"{converter}:{data['precision']}"
        assert data["format"] == "openvino"


def test_the_key_is_made_as_it_always_was():
    """Another key for the same parts would throw away everybody's cache."""
    parts = {
        "source": {"content": "c", "fingerprint": "f", "inputs": ["x:float32[N,4]"], "outputs": ["y:float32[N,3]"]},
        "steps": [
            {"converter": "a", "version": 1, "precision": "fp32", "options": {"opset": None}, "libraries": {"l": "1"}},
            {"converter": "b", "version": 2, "precision": "fp16", "options": {}, "libraries": {}},
        ],
    }
    assert convert.chain_key(parts) == "d2e2c20761c9e48aa389111f29b5304f408f5b355c4e0af7385b941f722c9a25"


# --- what else it says


def test_a_cell_without_conversions_says_so(ask, where):
    text = ask("tiny-onnx-fp32-onnxruntime@cpu")
    assert "nothing is converted for it, so nothing is cached" in text
    assert str(where / "tiny.onnx") in text


def test_a_candidate_says_so(ask, where):
    shutil.copy(where / "tiny.onnx", where / "shipped.onnx")
    text = ask("tiny~shipped-onnx-fp32-onnxruntime@cpu", "--mf-candidate", where / "shipped.onnx")
    assert f"it opens {where / 'shipped.onnx'} as it is" in text


def test_a_cell_of_another_route_needs_no_option(ask, nets, where, monkeypatch):
    monkeypatch.syspath_prepend(Path.cwd())
    text = ask("build-onnx.legacy-fp32-onnxruntime@cpu", model=nets)
    assert "1. onnx_from_pytorch_legacy, onnx at fp32: not in the cache" in text


def test_a_wrong_cell_is_answered_with_the_nearest(ask):
    assert ask("tiny-onnx-fp61-onnxruntime@cpu") == (
        f"there is no cell 'tiny-onnx-fp61-onnxruntime@cpu'; did you mean '{FP16}'?"
    )
    assert ask("zzz") == "there is no cell 'zzz'; 'modelformats plan MODEL' shows the cells"


def test_without_a_model_there_is_no_key(ask, where, monkeypatch):
    monkeypatch.chdir(where)
    assert "need its model; give it, as in 'modelformats cache why CELL --mf-model model.onnx'" in ask(FP16, model=None)


def test_a_model_that_is_not_there_is_one_sentence(ask, where):
    assert "there is no file" in ask(FP16, model=where / "gone.onnx")


# --- modelformats cache list


def listed(cache):
    done = CliRunner().invoke(cli.commands, ["cache", "list", "--mf-cache", str(cache)])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_list_has_every_artifact_the_largest_first(where):
    lines = listed(where / "cache").splitlines()
    sizes = [float(line.split()[1]) for line in lines[2:-1]]
    assert len(sizes) == 3
    assert sizes == sorted(sizes, reverse=True)
    assert "tiny onnx fp16 (onnx_fp16_from_onnx)" in lines[-2]
    assert lines[-1].startswith("3 artifacts, 0 references: ")


def test_the_list_counts_what_is_damaged(where):
    metadata_of(where / "cache", "onnx_fp16_from_onnx").write_text("{")
    assert "2 artifacts, 0 references, 1 damaged: " in listed(where / "cache")


def test_the_list_of_an_empty_cache_makes_none(tmp_path):
    assert listed(tmp_path / "none") == f"In {tmp_path / 'none'}: nothing.\n"
    assert not (tmp_path / "none").exists()
