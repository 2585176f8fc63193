"""Configuration: the file and the command line come to one ``Settings``; what is wrong gets one clear sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_modelformats.errors import ConfigurationError
from pytest_modelformats.schema import TensorSpec
from pytest_modelformats.schema.limits import Budget, Tolerance
from pytest_modelformats.settings import machine
from pytest_modelformats.settings.load import load


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A root folder; the command line is given in its subfolder ``here``."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    return tmp_path


@pytest.fixture
def configured(project):
    """Load with a ``modelformats.toml`` of the given text."""

    def configure(text, **cli):
        (project / "modelformats.toml").write_text(text, "utf-8")
        return load(project, cli)

    return configure


def refused(call, *words):
    with pytest.raises(ConfigurationError) as error:
        call()
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message


# --- where values come from ----------------------------------------------------------------


def test_without_a_file_everything_has_its_default(project):
    settings = load(project, {})
    assert (settings.threads, settings.samples, settings.seed) == (1, 8, 0)
    assert (settings.time_budget_s, settings.timeout_s) == (2.0, 600.0)
    assert settings.formats == ()
    assert settings.models == ()
    assert settings.config_file is None
    assert settings.report_dir == project / "reports"


def test_a_worker_may_use_80_percent_of_the_memory_by_default(project, monkeypatch):
    monkeypatch.setattr(machine, "memory_bytes", lambda: 1000)
    assert load(project, {}).memory_bytes == 800


def test_modelformats_toml_is_read(configured, project):
    settings = configured("samples = 4\nformats = ['onnx', 'pt2']\nslow = true\n")
    assert (settings.samples, settings.formats, settings.slow) == (4, ("onnx", "pt2"), True)
    assert settings.config_file == project / "modelformats.toml"


def test_the_table_of_pyproject_is_read(project):
    (project / "pyproject.toml").write_text("[tool.modelformats]\nseed = 7\n")
    assert load(project, {}).seed == 7


def test_a_pyproject_without_the_table_is_none_of_ours(project):
    (project / "pyproject.toml").write_text("[tool.other]\nseed = 7\n")
    assert load(project, {}).config_file is None


def test_two_configurations_are_refused_and_the_one_to_keep_is_named(project):
    (project / "pyproject.toml").write_text("[tool.modelformats]\n")
    (project / "modelformats.toml").write_text("")
    refused(lambda: load(project, {}), "both", "keep modelformats.toml", "delete [tool.modelformats]")


def test_the_command_line_wins(configured):
    settings = configured("samples = 4\nseed = 1\n", samples="9")
    assert (settings.samples, settings.seed) == (9, 1)


def test_mf_config_names_another_file(project):
    (project / "modelformats.toml").write_text("seed = 1\n")
    (project / "here" / "nightly.toml").write_text("seed = 2\n")
    assert load(project, {"config": "nightly.toml"}).seed == 2


def test_mf_config_must_exist(project):
    refused(lambda: load(project, {"config": "none.toml"}), "--mf-config", "none.toml")


def test_mf_config_pyproject_needs_the_table(project):
    (project / "pyproject.toml").write_text("[tool.other]\n")
    refused(lambda: load(project, {"config": str(project / "pyproject.toml")}), "no table [tool.modelformats]")


def test_invalid_toml_names_file_and_line(configured):
    refused(lambda: configured("seed = \n"), "modelformats.toml", "not valid TOML", "line 1")


def test_paths_of_the_file_start_at_the_file_and_those_of_the_command_line_here(configured, project):
    settings = configured("model = ['a.onnx']\ncache = 'c'\n", report_dir="r")
    assert settings.models[0].location == str(project / "a.onnx")
    assert settings.cache == project / "c"
    assert settings.report_dir == project / "here" / "r"


def test_settings_can_be_hashed(configured):
    text = "model = 'a.onnx'\ninput = 'x:float32[N]'\n[budgets]\n'*' = {size_mb = 1}\n"
    assert isinstance(hash(configured(text)), int)


# --- values --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("samples = 'eight'", ("modelformats.toml: 'samples' is 'eight' (text)", "whole number of at least 1")),
        ("samples = '8'", ("'samples'", "(text)")),
        ("samples = true", ("'samples' is true (true or false)", "whole number")),
        ("samples = 0", ("'samples' is 0", "at least 1")),
        ("samples = 1.5", ("'samples' is 1.5 (a number)", "whole number")),
        ("seed = -1", ("'seed' is -1", "at least 0")),
        ("opset = 3", ("'opset' is 3", "at least 7")),
        ("time_budget = 0", ("'time_budget' is 0", "seconds above 0")),
        ("time_budget = inf", ("'time_budget' is inf", "seconds above 0")),
        ("timeout = nan", ("'timeout' is nan", "seconds above 0")),
        ("slow = 'yes'", ("'slow' is 'yes'", "true or false")),
        ("formats = 3", ("'formats' is 3", "list of names")),
        ("formats = [1]", ("'formats'", "list of names")),
        ("formats = []", ("'formats'", "at least one name", "leave it out")),
        ("memory = 8", ("'memory' is 8", "8GB")),
        ("memory = '8'", ("'memory' is '8'", "8GB")),
        ("memory = '0GB'", ("'memory' is '0GB'", "8GB")),
        ("isolate = 'thread'", ("'isolate' is 'thread'", "process or none")),
        ("input = ['x:float99[N]']", ("'input'", "x:float99[N]", "name:dtype[dims]")),
        ("model = 3", ("'model' is 3", "a list")),
        ("model = ['']", ("'model' is ''", "MODEL")),
        ("expectations = ['none.txt']", ("'expectations'", "none.txt", "a file that exists")),
        ("[models]\nx = 3", ("'models.x' is 3", "a table")),
        ("models = 'x'", ("'models' is 'x'", "a table")),
    ],
)
def test_a_wrong_value_is_refused(configured, text, words):
    refused(lambda: configured(text), "modelformats.toml", *words)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("samples", "eight", ("--mf-samples is 'eight'; expected a whole number of at least 1",)),
        ("time_budget", "-1", ("--mf-time-budget is '-1'; expected a number of seconds",)),
        ("formats", ",", ("--mf-formats is ','; expected at least one name",)),
        ("memory", "lots", ("--mf-memory is 'lots'; expected a size with its unit",)),
        ("ort_optimization", "max", ("--mf-ort-optimization is 'max'; expected all or extended or basic or disable",)),
        ("candidate", ["m.onnx,precison=fp16"], ("--mf-candidate", "'precison'", "did you mean 'precision'?")),
        ("candidate", ["m.onnx,precision=fp17"], ("--mf-candidate", "unknown precision", "did you mean 'fp1")),
        ("candidate", ["m.onnx,device="], ("--mf-candidate", "'device'")),
    ],
)
def test_a_wrong_value_on_the_command_line_is_refused(project, key, value, words):
    refused(lambda: load(project, {key: value}), *words)


@pytest.mark.parametrize(
    ("text", "size"),
    [("8GB", 8_000_000_000), ("512MiB", 512 * 1024**2), ("1.5 kb", 1500), ("2TB", 2 * 10**12)],
)
def test_sizes_have_decimal_and_binary_units(project, text, size):
    assert load(project, {"memory": text}).memory_bytes == size


def test_names_lose_blanks_and_repetitions(project):
    assert load(project, {"formats": " onnx, pt2,onnx,"}).formats == ("onnx", "pt2")


def test_the_cache_may_not_be_a_file(configured, project):
    (project / "c").write_text("")
    refused(lambda: configured("cache = 'c'"), "'cache' is 'c'", "this is a file")


def test_a_candidate_has_properties_after_its_file(project):
    (entry,) = load(project, {"candidate": ["a,b.onnx,precision=fp16,device=cpu,model=m"]}).candidates
    assert entry.path == Path.cwd() / "a,b.onnx"
    assert (entry.precision, entry.device, entry.model) == ("fp16", "cpu", "m")


# --- keys ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sample = 3", ("modelformats.toml: 'sample' is not a key", "did you mean 'samples'?")),
        ("time-budget = 3", ("'time-budget' is not a key", "did you mean 'time_budget'?")),
        ("config = 'x'", ("'config' is not a key",)),
        ("[models.m]\npath = 'm.onnx'\narhc = 'a:b'", ("models.m", "'arhc'", "did you mean 'arch'?")),
        ("[tolerances]\n'*' = {atl = 1}", ("tolerances.*", "'atl'", "did you mean 'atol'?")),
        ("[budgets]\n'*' = {size = 1}", ("budgets.*", "'size'", "did you mean 'size_mb'?")),
    ],
)
def test_an_unknown_key_gets_a_suggestion(configured, text, words):
    refused(lambda: configured(text), *words)


# --- models --------------------------------------------------------------------------------


def test_a_model_has_a_table_of_its_own(configured, project):
    text = "[models.net]\npath = 'w.pt'\narch = 'nets:net'\ninputs = ['x:float32[N,3]']\ndata = 'd.npz'\ntrust = true\n"
    (entry,) = configured(text).models
    assert (entry.name, entry.location, entry.arch) == ("net", str(project / "w.pt"), "nets:net")
    assert entry.inputs == (TensorSpec("x", "float32", ("N", 3)),)
    assert (entry.data, entry.trust) == (str(project / "d.npz"), True)


def test_a_model_needs_a_path(configured):
    refused(lambda: configured("[models.net]\narch = 'a:b'\n"), "models.net", "has no 'path'")


def test_a_models_name_must_suit_a_test_id(configured):
    refused(lambda: configured("[models.'my-net']\npath = 'a.onnx'\n"), "my-net", "write 'my_net'")


def test_a_models_own_table_wins_over_the_files_top_level(configured):
    first, second = configured(
        "arch = 'a:b'\n[models.x]\npath = 'x.pt'\n[models.y]\npath = 'y.pt'\narch = 'c:d'\n"
    ).models
    assert (first.arch, second.arch) == ("a:b", "c:d")


def test_the_command_line_wins_over_a_models_own_table(configured):
    (entry,) = configured("[models.x]\npath = 'x.pt'\narch = 'a:b'\n", arch="c:d").models
    assert entry.arch == "c:d"


def test_models_of_the_command_line_replace_those_of_the_file(configured):
    settings = configured("model = 'a.onnx'\n[models.b]\npath = 'b.onnx'\n", model=["c.onnx"])
    assert [Path(entry.location).name for entry in settings.models] == ["c.onnx"]


def test_a_model_of_the_command_line_keeps_what_its_table_says(configured):
    (entry,) = configured("[models.x]\npath = 'x.pt'\narch = 'a:b'\n", model=["../x.pt"]).models
    assert (entry.name, entry.arch) == ("x", "a:b")


def test_one_file_may_have_several_tables(configured):
    """As with other inputs or other data; each is a model of its own name."""
    text = "[models.a]\npath = 'x.pt'\ndata = 'a.npz'\n[models.b]\npath = 'x.pt'\ndata = 'b.npz'\n"
    for entries in (configured(text).models, configured(text, model=["../x.pt"]).models):
        assert [(entry.name, Path(entry.data).name) for entry in entries] == [("a", "a.npz"), ("b", "b.npz")]
        assert entries[0].location == entries[1].location


def test_a_callable_of_a_file_is_located(configured, project):
    (entry,) = configured("[models.x]\npath = 'nets/own.py:build'\n").models
    assert entry.location == f"{project / 'nets/own.py'}:build"


# --- tolerances and budgets ----------------------------------------------------------------


def test_tolerances_are_read(configured):
    settings = configured("[tolerances]\n'*-fp16-*' = {atol = 1e-3, outputs = ['logits']}\n'*' = {rtol = 0}\n")
    assert settings.tolerances == (Tolerance("*-fp16-*", 1e-3, 0.0, ("logits",)), Tolerance("*", 0.0, 0.0, ()))


def test_budgets_are_read(configured):
    settings = configured("[budgets]\n'*@cpu' = {latency_p50_ms = 5, size_mb = 1.5}\n")
    assert settings.budgets == (Budget("*@cpu", 5.0, 1.5, None),)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[tolerances]\n'*' = {outputs = ['y']}", ("neither 'atol' nor 'rtol'",)),
        ("[tolerances]\n'*' = {atol = -1}", ("'atol' is -1", "at least 0")),
        ("[tolerances]\n'*' = {atol = '1e-3'}", ("'atol' is '1e-3' (text)",)),
        ("[tolerances]\n'*' = {}", ("tolerances.*", "says nothing")),
        ("[budgets]\n'*' = {size_mb = 0}", ("'size_mb' is 0", "above 0")),
        ("[budgets]\n'*' = 3", ("budgets.*", "a table")),
    ],
)
def test_a_wrong_tolerance_or_budget_is_refused(configured, text, words):
    refused(lambda: configured(text), *words)
