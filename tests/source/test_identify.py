"""What a file is, what it is called, and what belongs to it: decided from content alone."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

from pytest_modelformats.errors import ConfigurationError, SourceError
from pytest_modelformats.schema import Format, Source, registry
from pytest_modelformats.settings.nouns import CandidateEntry, ModelEntry, Settings
from pytest_modelformats.settings.references import importable, locate, safe_name, split_reference
from pytest_modelformats.source.companions import companions, external_locations
from pytest_modelformats.source.identify import content_hash, find_candidates, find_data, find_sources, identify


def settings(tmp_path, *models, candidates=()):
    entries = [m if isinstance(m, ModelEntry) else ModelEntry("", str(m)) for m in models]
    return Settings(tmp_path, tmp_path, tmp_path, 1, models=tuple(entries), candidates=tuple(candidates))


def refused(call, *words, error=SourceError):
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.fixture
def toys(monkeypatch):
    """Two formats: files that begin with ``toy``, and files that begin with ``to`` and hold an ``x``."""
    known = {}
    for name, belongs in (("toy", lambda h: h.startswith(b"toy")), ("tox", lambda h: h[:2] == b"to" and b"x" in h)):
        module = ModuleType(f"toys_{name}")
        module.sniff = lambda path, head, belongs=belongs, name=name: f"{name}-kind" if belongs(head) else None
        monkeypatch.setitem(sys.modules, module.__name__, module)
        known[name] = Format(name, f"{name.title()} model", module.__name__, ".toy", ("fp32",))
    monkeypatch.setattr(registry, "formats", lambda: known)
    return known


@pytest.fixture
def write(tmp_path):
    def write(name, content=b"toy"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    return write


@pytest.fixture
def onnx_file(tmp_path):
    """Write an ONNX model, with its weights in another file where a location is given."""
    import onnx

    def build(name="m.onnx", location="", where="initializer"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        tensor = onnx.helper.make_tensor("w", onnx.TensorProto.FLOAT, [2], [1.0, 2.0])
        if location:
            tensor = onnx.TensorProto(name="w", data_type=1, dims=[2], data_location=onnx.TensorProto.EXTERNAL)
            tensor.external_data.add(key="offset", value="0")
            tensor.external_data.add(key="location", value=location)
        x, y = (onnx.helper.make_tensor_value_info(n, 1, [2]) for n in "xy")
        constant = onnx.helper.make_node("Constant", [], ["w"], value=tensor)
        inner = onnx.helper.make_graph([constant], "inner", [], [onnx.helper.make_tensor_value_info("w", 1, [2])])
        nodes = [onnx.helper.make_node("Add", ["x", "w"], ["y"])]
        initializers = [tensor] if where == "initializer" else []
        if where == "subgraph":
            condition = onnx.helper.make_tensor("c", onnx.TensorProto.BOOL, [], [True])
            nodes.insert(0, onnx.helper.make_node("If", ["c"], ["w"], then_branch=inner, else_branch=inner))
            initializers = [condition]
        graph = onnx.helper.make_graph(nodes, "g", [x], [y], initializers)
        path.write_bytes(onnx.helper.make_model(graph).SerializeToString())
        return path

    return build


# --- what a file is ------------------------------------------------------------------------


def test_content_decides_not_the_name(toys, write):
    assert identify(write("model.txt")) == ("toy", "toy-kind")


def test_an_onnx_model_is_recognised_under_any_name(onnx_file):
    assert identify(onnx_file("weights.bin")) == ("onnx", "onnx")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ("empty (0 bytes)",)),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", ("Git LFS pointer", "git lfs pull")),
        (b"GGUF\x03\0\0\0", ("a GGUF file",)),
        (b"\x89HDF\r\n\x1a\n\0", ("HDF5", "Keras")),
        (b"\x1c\0\0\0TFL3\x14\0\x20\0", ("TensorFlow Lite",)),
        (b"\x89PNG\r\n", ("PNG image",)),
        (b"\x1f\x8b\x08\0", ("gzip", "unpack")),
        (b"<!DOCTYPE html><html>", ("HTML page", "download")),
        (b"\0" * 9000, ("zero bytes", "download")),
        (b"hello\nworld", ("text that begins with 'hello'",)),
        ("é".encode() * 3000, ("text that begins with 'é",)),
        (b"\xde\xad\xbe\xef\x00\x01", ("begins with de ad be ef",)),
    ],
)
def test_an_unknown_file_is_said_to_look_like_something(toys, write, content, words):
    refused(lambda: identify(write("m.pt", content)), "m.pt", *words)


def test_a_refusal_says_what_is_accepted(toys, write):
    refused(lambda: identify(write("a.bin", b"hello")), "accepted are Toy model, Tox model")


def test_a_missing_file_is_refused(tmp_path):
    refused(lambda: identify(tmp_path / "none.onnx"), "there is no file", "none.onnx")


def test_a_dangling_link_is_refused(tmp_path):
    (tmp_path / "m.onnx").symlink_to(tmp_path / "gone")
    refused(lambda: identify(tmp_path / "m.onnx"), "a link that points nowhere")


def test_a_pipe_is_refused_without_reading_it(tmp_path):
    os.mkfifo(tmp_path / "m.onnx")
    refused(lambda: identify(tmp_path / "m.onnx"), "no regular file")


def test_an_unreadable_file_is_refused(toys, write, monkeypatch):
    def denied(*_args, **_kwargs):
        raise PermissionError(13, "Permission denied")

    path = write("m.toy")
    monkeypatch.setattr(Path, "open", denied)
    refused(lambda: identify(path), "m.toy cannot be read: Permission denied")


def test_a_file_that_two_formats_claim_is_refused(toys, write):
    refused(lambda: identify(write("m", b"toy x")), "claimed by several formats: toy, tox")


# --- models --------------------------------------------------------------------------------


def test_a_source_is_not_hashed_before_it_is_needed(toys, write, tmp_path, monkeypatch):
    monkeypatch.setattr(hashlib, "sha256", lambda *_: pytest.fail("hashed"))
    (source,) = find_sources(settings(tmp_path, write("m.toy")))
    assert source == Source("m", str(tmp_path / "m.toy"), "toy-kind", "toy")


def test_a_folder_gives_every_model_in_it_sorted(toys, write, tmp_path):
    for name in ("b.toy", "a.toy", ".hidden.toy"):
        write(f"models/{name}")
    write("models/README.md", b"hello")
    write("models/empty", b"")
    write("models/deeper/c.toy")
    assert [s.name for s in find_sources(settings(tmp_path, tmp_path / "models"))] == ["a", "b"]


def test_a_folder_without_models_is_refused(toys, write, tmp_path):
    write("models/README.md", b"hello")
    refused(lambda: find_sources(settings(tmp_path, tmp_path / "models")), "models holds no model", "Toy model")


def test_a_callable_is_a_factory(tmp_path):
    (source,) = find_sources(settings(tmp_path, ModelEntry("", "nets.vision:build_net", trust=True)))
    assert (source.name, source.kind, source.format) == ("build_net", "factory", "pytorch")
    assert source.location == "nets.vision:build_net"


def test_a_callable_of_a_file_becomes_a_module_and_a_folder_to_find_it_in(write, tmp_path):
    write("own/nets.py", b"def build(): ...")
    (source,) = find_sources(settings(tmp_path, f"{tmp_path}/own/nets.py:build"))
    assert source.location == "nets:build"
    assert source.search_path[0] == str(tmp_path / "own")


def test_a_callable_of_a_missing_file_is_refused(tmp_path):
    refused(lambda: find_sources(settings(tmp_path, f"{tmp_path}/none.py:build")), "none.py", "'build'")


def test_a_callable_of_a_file_that_cannot_be_a_module_is_refused(write, tmp_path):
    path = write("my-nets.py", b"")
    refused(lambda: find_sources(settings(tmp_path, f"{path}:build")), "rename it to 'my_nets.py'")


def test_what_the_user_said_of_a_model_is_kept(toys, write, tmp_path):
    entry = ModelEntry("net", str(write("m.toy")), arch="nets:net", data="d.npz", trust=True)
    (source,) = find_sources(settings(tmp_path, entry))
    assert (source.name, source.arch, source.trust) == ("net", "nets:net", True)
    assert find_data(settings(tmp_path, entry)) == {"net": "d.npz"}


# --- names ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name"),
    [("resnet-50@v1~a+b[2]/c", "resnet_50_v1_a_b_2__c"), ("v1.5_x", "v1.5_x"), ("模", "_"), ("", "model")],
)
def test_names_suit_a_test_id(text, name):
    assert safe_name(text) == name


def test_equal_names_are_numbered(toys, write, tmp_path):
    paths = [write(f"{folder}/a.toy") for folder in "xyz"]
    paths.insert(1, write("a_2.toy"))
    assert [s.name for s in find_sources(settings(tmp_path, *paths))] == ["a", "a_2", "a_3", "a_4"]


def test_a_chosen_name_is_never_changed(toys, write, tmp_path):
    found = find_sources(settings(tmp_path, write("a.toy"), ModelEntry("a", str(write("b.toy")))))
    assert [(Path(s.location).name, s.name) for s in found] == [("a.toy", "a_2"), ("b.toy", "a")]


def test_the_same_model_twice_is_one(toys, write, tmp_path):
    path = write("a.toy")
    assert len(find_sources(settings(tmp_path, path, path))) == 1


def test_a_named_folder_names_its_models(toys, write, tmp_path):
    write("zoo/a.toy"), write("zoo/b.toy")
    found = find_sources(settings(tmp_path, ModelEntry("zoo", str(tmp_path / "zoo"))))
    assert [s.name for s in found] == ["zoo_a", "zoo_b"]


# --- references ----------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["a.onnx", "a/b:c", "a b:c", ":c", "a:", "1a:b", "https://x/y.onnx"])
def test_a_path_is_no_reference(text):
    assert split_reference(text) is None


def test_a_file_wins_over_a_reference_of_the_same_name(tmp_path):
    (tmp_path / "a:b").write_text("")
    assert locate("a:b", tmp_path) == str(tmp_path / "a:b")
    assert locate("c:d", tmp_path) == "c:d"


def test_a_reference_needs_no_folder():
    assert importable("a.b:c") == ("a.b:c", ())


# --- content -------------------------------------------------------------------------------


def source_of(path, form="onnx"):
    return Source("m", str(path), form, form)


def test_the_hash_of_one_file_is_what_sha256sum_prints(onnx_file):
    path = onnx_file()
    assert content_hash(source_of(path)) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_hash_follows_a_changed_file(onnx_file):
    path = onnx_file()
    before = content_hash(source_of(path))
    path.write_bytes(path.read_bytes() + b"\x10\x01")
    assert content_hash(source_of(path)) != before


def test_a_file_is_hashed_once(onnx_file, monkeypatch):
    path = onnx_file()
    before = content_hash(source_of(path))
    monkeypatch.setattr(hashlib, "sha256", lambda *_: pytest.fail("hashed again"))
    assert content_hash(source_of(path)) == before


def test_a_factory_has_no_hash():
    assert content_hash(Source("m", "a:b", "factory", "pytorch")) == ""


def test_the_weights_of_openvino_are_part_of_the_hash(write):
    xml, weights = write("m.xml", b"<net/>"), write("m.bin", b"1")
    before = content_hash(source_of(xml, "openvino"))
    weights.write_bytes(b"22")
    assert content_hash(source_of(xml, "openvino")) != before


@pytest.mark.parametrize("where", ["initializer", "subgraph"])
def test_external_data_is_found(onnx_file, where):
    assert external_locations(onnx_file(location="data/w.bin", where=where)) == ("data/w.bin",)


def test_external_data_is_part_of_the_hash(onnx_file, write):
    path, weights = onnx_file(location="w.bin"), write("w.bin", b"12345678")
    assert companions(path, "onnx") == (weights,)
    before = content_hash(source_of(path))
    weights.write_bytes(b"123456789")
    assert content_hash(source_of(path)) != before


def test_missing_external_data_is_refused(onnx_file):
    refused(lambda: content_hash(source_of(onnx_file(location="w.bin"))), "m.onnx", "'w.bin'", "copy it there")


@pytest.mark.parametrize("location", ["../w.bin", "/etc/hostname", "a/../../w.bin"])
def test_external_data_may_not_leave_the_folder(onnx_file, write, location):
    write("w.bin", b"12345678")
    path = onnx_file("models/m.onnx", location=location)
    refused(lambda: content_hash(source_of(path)), "outside its own folder")


def test_external_data_may_not_leave_the_folder_by_a_link(onnx_file, write, tmp_path):
    path = onnx_file("models/m.onnx", location="w.bin")
    (tmp_path / "models/w.bin").symlink_to(write("secret", b"12345678"))
    refused(lambda: content_hash(source_of(path)), "outside its own folder")


@pytest.mark.parametrize("content", [b"\x3a\xff\xff\xff\xff\x0f", b"\x3a\x02\x0a\x7f", b"\xff" * 40])
def test_a_damaged_protobuf_is_refused(write, content):
    refused(lambda: external_locations(write("m.onnx", content)), "m.onnx", "damaged")


# --- candidates ----------------------------------------------------------------------------


def test_a_candidate_is_judged_against_the_only_model(toys, write, tmp_path):
    entry = CandidateEntry(write("fast-m.bin"), "fp16")
    (found,) = find_candidates(settings(tmp_path, write("m.toy"), candidates=[entry]))
    assert (found.stem, found.format, found.kind, found.precision) == ("fast_m", "toy", "toy-kind", "fp16")
    assert found.sources == ("m",)


def test_candidates_have_stems_of_their_own(toys, write, tmp_path):
    entries = [CandidateEntry(write(f"{folder}/c.bin")) for folder in "xy"]
    assert [c.stem for c in find_candidates(settings(tmp_path, write("m.toy"), candidates=entries))] == ["c", "c_2"]


def test_with_several_models_a_candidate_must_name_its_own(toys, write, tmp_path):
    entry = CandidateEntry(write("c.bin"))
    given = settings(tmp_path, write("m.toy"), write("n.toy"), candidates=[entry])
    refused(lambda: find_candidates(given), "any of m, n", "c.bin,model=m", error=ConfigurationError)


def test_a_candidate_that_names_its_model_is_judged_against_that(toys, write, tmp_path):
    entry = CandidateEntry(write("c.bin"), model="n")
    (found,) = find_candidates(settings(tmp_path, write("m.toy"), write("n.toy"), candidates=[entry]))
    assert found.sources == ("n",)


def test_a_candidate_of_an_unknown_model_is_refused(toys, write, tmp_path):
    entry = CandidateEntry(write("c.bin"), model="mm")
    given = settings(tmp_path, write("m.toy"), candidates=[entry])
    refused(lambda: find_candidates(given), "unknown model 'mm'", "did you mean 'm'?", error=ConfigurationError)


def test_a_candidate_without_any_model_is_refused(toys, write, tmp_path):
    given = settings(tmp_path, candidates=[CandidateEntry(write("c.bin"))])
    refused(lambda: find_candidates(given), "add --mf-model", error=ConfigurationError)


def test_a_candidate_that_is_a_folder_is_refused(toys, write, tmp_path):
    given = settings(tmp_path, write("m.toy"), candidates=[CandidateEntry(tmp_path)])
    refused(lambda: find_candidates(given), "is a folder")
