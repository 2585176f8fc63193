"""Environments with other versions: made once, told of in one sentence where they cannot be, and cells run in them."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import jsonschema
import numpy as np
import pytest
from dummy_index import EMPTY, declare_backend
from inner_run import ONE_CELL, two_layers
from places import RECORD_SCHEMA

from pytest_modelformats.checks import provenance
from pytest_modelformats.errors import ConfigurationError, EnvironmentUnavailable
from pytest_modelformats.history.baseline import counterpart as counterparts
from pytest_modelformats.run.environments import install
from pytest_modelformats.run.environments import made as environments
from pytest_modelformats.run.environments import store as environment_store
from pytest_modelformats.schema import Cell, Decision, PlannedCell, registry
from pytest_modelformats.settings import load as configuration
from pytest_modelformats.settings.nouns import EnvironmentEntry

SCHEMA = RECORD_SCHEMA
CELL = "tiny-onnx-fp32-onnxruntime@cpu"
DUMMY = "tiny-onnx-fp32-mfdummy@cpu"
# The pip of a fresh interpreter takes its time on a busy machine; what is refused does not.
BOUND_S = 60.0


def settings_of(folder, *asked):
    return configuration.load(folder, {"cache": str(folder / "cache"), "env": list(asked)})


def version_of(python, module="mfdummy"):
    code = f"import {module}, numpy; print({module}.__version__, numpy.__version__)"
    done = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split()


# --- making one


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["uv", "pip", "pip of the environment"])
def test_an_environment_is_made_with_what_is_there(tmp_path, offline, monkeypatch, kind):
    """uv where it is installed, else venv and the pip that is here or comes with it: the same packages in all."""
    if kind != "uv":
        monkeypatch.setattr(install, "find_installer", lambda: install.Installer(""))
    if kind == "pip of the environment":
        monkeypatch.setattr(install, "_pip_is_here", lambda: False)
    assert install.find_installer().name == kind[:3].rstrip()
    settings = settings_of(tmp_path, "dummy=mfdummy==1.2")
    told = []
    ready = environments.ready(settings, "dummy", lambda what: told.append(what) or (lambda _: None))
    assert told == ["making the environment dummy: mfdummy==1.2, numpy"]
    assert ready.made
    assert ready.versions["mfdummy"] == "1.2"
    assert ready.versions["numpy"] == np.__version__
    assert not {"pytest", "pytest-modelformats"} & set(ready.versions)
    assert version_of(ready.interpreter) == ["1.2", np.__version__]
    assert ready.python == ".".join(map(str, sys.version_info[:3]))
    again = environments.ready(settings, "dummy", lambda _: pytest.fail("it is there"))
    assert again == replace(ready, made=False, seconds=0.0)


def test_two_processes_make_it_once(tmp_path, offline):
    code = "from pytest_modelformats.cli.main import main; import sys; main(sys.argv[1:])"
    command = [sys.executable, "-c", code, "env", "create", "dummy=mfdummy==1.0", "--mf-cache", "cache"]
    both = [subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = sorted(process.communicate(timeout=BOUND_S)[0].partition(" in ")[0].partition(": mf")[0] for process in both)
    assert [process.returncode for process in both] == [0, 0]
    assert said == ["dummy: is there", "dummy: made"]


def test_what_is_half_made_or_changed_is_made_again(tmp_path, offline):
    settings = settings_of(tmp_path, "dummy=mfdummy==1.0")
    first = environments.ready(settings, "dummy")
    (first.folder / environment_store.MARKER).unlink()
    assert [made.whole for made in environments.made(settings)] == [False]
    second = environments.ready(settings, "dummy")
    assert second.made
    (site,) = first.folder.glob("lib/python*/site-packages")
    (site / "mfdummy-1.0.dist-info").rename(site / "mfdummy-1.1.dist-info")
    assert environments.ready(settings, "dummy").made
    (first.folder / "bin" / "python").unlink()
    assert environments.ready(settings, "dummy").made
    assert not environments.ready(settings, "dummy").made
    assert version_of(first.interpreter)[0] == "1.0"


def test_the_key_holds_requirements_and_interpreter(tmp_path):
    settings = settings_of(tmp_path, "none")
    base = EnvironmentEntry("a", ("mfdummy==1.0", "numpy"))
    folder = environment_store.folder_of(settings, base)
    same = [replace(base, name="b"), replace(base, requirements=("numpy", "mfdummy==1.0"))]
    assert {environment_store.folder_of(settings, entry) for entry in same} == {folder}
    assert environment_store.folder_of(settings, replace(base, requirements=("mfdummy==1.0",))) == folder
    assert environment_store.folder_of(settings, replace(base, requirements=("mfdummy==1.1",))) != folder
    with pytest.raises(EnvironmentUnavailable, match="cannot be based on /bin/false"):
        environment_store.folder_of(settings, replace(base, python="/bin/false"))
    with pytest.raises(EnvironmentUnavailable, match="correct its 'python'"):
        environment_store.folder_of(settings, replace(base, python="/no/python"))


@pytest.mark.parametrize("kind", ["uv", "pip"])
def test_what_cannot_be_made_is_one_sentence_and_leaves_nothing(tmp_path, offline, monkeypatch, kind):
    """No such version, and a requirement of a requirement that nobody has."""
    if kind == "pip":
        monkeypatch.setattr(install, "find_installer", lambda: install.Installer(""))
    for asked, words in (("mfdummy==9.9", "mfdummy==9.9"), ("mfdummy==1.1", "a-package-that-nobody-has")):
        settings = settings_of(tmp_path, f"dummy={asked}")
        with pytest.raises(ConfigurationError) as raised:
            environments.ready(settings, "dummy")
        sentence = str(raised.value)
        assert sentence.startswith(f"the environment 'dummy' cannot be made: {kind} says: ")
        assert words in sentence
        assert "\n" not in sentence
        assert len(sentence) < 700
        assert raised.value.outcome == "missing-dependency"
        assert not list(environments.made(settings))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["uv", "pip"])
def test_an_index_that_does_not_answer_is_told_of_soon_and_without_its_password(tmp_path, offline, monkeypatch, kind):
    if kind == "pip":
        monkeypatch.setattr(install, "find_installer", lambda: install.Installer(""))
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://somebody:a-password@127.0.0.1:9/simple")
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    started = time.monotonic()
    with pytest.raises(EnvironmentUnavailable, match=r"(?i)connection") as raised:
        environments.ready(settings_of(tmp_path, "dummy=mfdummy==1.0"), "dummy")
    assert time.monotonic() - started < BOUND_S
    assert "a-password" not in str(raised.value)
    assert "let the package index be reached" in str(raised.value)


def test_an_installer_that_hangs_is_ended(tmp_path):
    with pytest.raises(install.Failed, match=r"not done after \d+ s \(--mf-timeout\); it last said: still at it"):
        install.run(["sh", "-c", "echo still at it >&2; sleep 60"], {}, time.monotonic() + 0.5)


def test_one_of_the_users_own_is_used_as_it_is(tmp_path):
    """It is checked, and nothing is installed there."""
    own = EnvironmentEntry("own", ("pytest>=8",), interpreter=sys.executable)
    settings = replace(settings_of(tmp_path, "none"), environments=(own,))
    ready = environments.ready(settings, "own")
    assert ready.folder is None
    assert ready.environment.python == sys.executable
    assert ready.versions["numpy"] == np.__version__
    older = replace(settings, environments=(replace(own, requirements=("pytest<8",)),))
    with pytest.raises(EnvironmentUnavailable, match=rf"has pytest {pytest.__version__} where pytest<8 is asked for"):
        environments.ready(older, "own")
    with pytest.raises(EnvironmentUnavailable, match="has no nothing-of-the-kind where"):
        environments.ready(
            replace(settings, environments=(replace(own, requirements=("nothing-of-the-kind",)),)), "own"
        )


def test_an_environment_with_these_versions_is_found(tmp_path, offline):
    settings = settings_of(tmp_path, "early=mfdummy>=1,<1.1", "late=mfdummy==1.6")
    assert environments.having(settings, {"mfdummy": "1.3"}) is None
    found = environments.having(settings, {"mfdummy": "1.0"})
    assert (found.name, found.versions["mfdummy"]) == ("early", "1.0")
    undeclared = replace(settings, environments=())
    assert environments.having(undeclared, {"MFDummy": "1.0"}).interpreter == found.interpreter
    assert environments.having(undeclared, {"mfdummy": "1.6"}) is None
    assert environments.having(settings, {}) is None


def test_where_none_is_found_the_option_that_makes_one_is_said(tmp_path, offline):
    """The option is one that is read, and with it the very version is there, now."""
    settings = settings_of(tmp_path, "late=mfdummy==1.6")
    said = environments.none_has(settings, {"mfdummy": "1.3"})
    option = "--mf-env 'mfdummy-1.3=mfdummy==1.3'"
    assert said == (
        f"mfdummy 1.3 is not installed here, nor in a declared environment; add {option} and it is measured there, now"
    )
    (asked,) = shlex.split(option)[1:]
    assert environments.having(settings_of(tmp_path, asked), {"mfdummy": "1.3"}).versions["mfdummy"] == "1.3"


@pytest.mark.parametrize(
    ("versions", "taken", "option"),
    [
        ({"onnxruntime": "1.31.1"}, (), "onnxruntime-1.31.1=onnxruntime==1.31.1"),
        ({"torch": "2.13.0+cpu"}, (), "torch-2.13.0.cpu=torch==2.13.0+cpu"),
        ({"a": "1", "b": "2.0"}, (), "a-1=a==1 b==2.0"),
        ({"a": "1"}, ("a-1", "a-1-2"), "a-1-3=a==1"),
        ({"a" * 60: "1"}, ("a" * 36,), f"{'a' * 36}-2={'a' * 60}==1"),
        ({"a": "1'; touch x; '"}, (), None),
        ({"a": "unknown"}, (), None),
    ],
)
def test_the_option_has_a_name_and_requirements_that_are_read(tmp_path, versions, taken, option):
    """No name is taken twice, and nothing that a record says gets into a shell."""
    settings = settings_of(tmp_path, *(f"{name}=b==0" for name in taken))
    said = environments.none_has(settings, versions)
    if option is None:
        assert said.endswith("nor in a declared environment")
        return
    assert f"; add --mf-env '{option}' and" in said
    (entry,) = settings_of(tmp_path, option).environments
    assert {text.partition("==")[0]: text.partition("==")[2] for text in entry.requirements} == versions


def test_a_declared_environment_that_could_not_be_made_is_named_and_not_asked_for_again(tmp_path):
    settings = settings_of(tmp_path, "mine=mfdummy>=1")
    said = environments.none_has(settings, {"mfdummy": "1.3"})
    assert "the declared environment 'mine', which allows it, has another version or cannot be made" in said
    assert "--mf-env" not in said
    assert environments.none_has(settings, {}) == "no version of its runtime is recorded"


def test_a_baseline_whose_runtime_is_not_there_says_how_to_have_it(tmp_path, monkeypatch):
    """It is the sentence of the comparison: why the stored samples were taken, and what to add."""
    planned = PlannedCell(Cell("net", "onnx", "fp32", "onnxruntime", "cpu"), (), "fp32", Decision())
    monkeypatch.setattr(counterparts, "_artifact", lambda *_: tmp_path)
    recorded = SimpleNamespace(versions=lambda environment: {"onnxruntime": "1.31.1", "numpy": "2.0"})
    facts = SimpleNamespace(environment="", runtime={"code": provenance.code_of(planned)})
    found = counterparts.of(None, settings_of(tmp_path, "none"), planned, recorded, facts)
    assert found.why_not.endswith("add --mf-env 'onnxruntime-1.31.1=onnxruntime==1.31.1' and it is measured there, now")


# --- where packages come from


def test_what_pip_is_told_uv_is_told(tmp_path):
    """Files, the later one counting, then variables; a folder that is not there is a warning to pip, an error to uv."""
    user, chosen = tmp_path / "config" / "pip" / "pip.conf", tmp_path / "chosen.conf"
    user.parent.mkdir(parents=True)
    user.write_text(
        "[global]\nindex-url = https://one.example/simple\nextra-index-url =\n  https://two.example/a\n"
        f"  https://two.example/b\nfind-links = {tmp_path} /not/there https://links.example\ntimeout = 7\n"
    )
    chosen.write_text("[global]\nindex-url = https://three.example/simple\n[install]\npre = true\n")
    folders = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "config"), "XDG_CONFIG_DIRS": str(tmp_path)}
    environ = {**folders, "PIP_CONFIG_FILE": str(chosen), "PIP_TRUSTED_HOST": "three.example"}
    own = install.pip_settings(environ)
    assert own["index-url"] == "https://three.example/simple"
    wanted = install.uv_variables(own, environ)
    assert wanted["UV_DEFAULT_INDEX"] == "https://three.example/simple"
    assert wanted["UV_INDEX"] == "https://two.example/a https://two.example/b"
    assert wanted["UV_INDEX_STRATEGY"] == "unsafe-best-match"
    assert wanted["UV_FIND_LINKS"] == f"{tmp_path},https://links.example"
    assert wanted["UV_INSECURE_HOST"] == "three.example"
    assert wanted["UV_HTTP_TIMEOUT"] == "7"
    assert wanted["UV_PRERELEASE"] == "allow"
    assert wanted["UV_PYTHON_DOWNLOADS"] == "never"
    # The pip of the new environment reads neither this environment's pip.conf nor what was given by option.
    told = install.pip_variables(own, environ)
    assert told["PIP_INDEX_URL"] == "https://three.example/simple"
    assert told["PIP_EXTRA_INDEX_URL"] == "https://two.example/a https://two.example/b"
    assert "PIP_TRUSTED_HOST" not in told  # it is inherited


def test_what_the_user_has_told_uv_counts():
    own = {"index-url": "https://pip.example/simple", "extra-index-url": "https://pip.example/more"}
    environ = {"UV_INDEX_URL": "https://uv.example", "UV_INDEX": "https://uv.example/more", "UV_HTTP_RETRIES": "9"}
    assert not {"UV_DEFAULT_INDEX", "UV_INDEX", "UV_HTTP_RETRIES"} & set(install.uv_variables(own, environ))
    assert install.pip_settings({"PIP_CONFIG_FILE": os.devnull}) == {}


WORDS = {
    """\
Using Python 3.11.7 environment at: v1
error: No solution found when resolving dependencies
  cause: Because there is no version of a==9 and you require a==9, it is unsatisfiable.
""": "Because there is no version of a==9 and you require a==9, it is unsatisfiable",
    """\
  × No solution found when resolving dependencies:
  ╰─▶ Because there is no version of a==9 and you
      require a==9, it is unsatisfiable.
""": "Because there is no version of a==9 and you; require a==9, it is unsatisfiable",
    """\
Looking in indexes: https://me:secret@example
WARNING: Location is ignored
ERROR: Could not find a version that satisfies the requirement a==9 (from versions: 1.0, 1.1, 1.2, 2.0)
""": "Could not find a version that satisfies the requirement a==9 (the newest of those found: 1.2, 2.0)",
    "error: failed to fetch https://me:secret@example/simple": "failed to fetch https://***@example/simple",
    "": "",
}


@pytest.mark.parametrize(("text", "words"), WORDS.items(), ids=["uv", "older uv", "pip", "address", "nothing"])
def test_last_words_are_one_line_without_secrets(text, words):
    assert install.last_words(text) == words
    assert len(install.last_words(text + "x" * 2000)) <= 420


# --- cells


@pytest.fixture
def dummies(pytester, monkeypatch, offline):
    """The runtime ``mfdummy`` is known to pytest, and installed in environments alone."""
    declare_backend(pytester.path)
    monkeypatch.setenv("PYTHONPATH", str(pytester.path))
    monkeypatch.syspath_prepend(str(pytester.path))
    registry.backends.cache_clear()
    yield
    registry.backends.cache_clear()


@pytest.mark.slow
def test_a_release_that_is_wrong_fails_beside_one_that_is_right(run, tiny, dummies):
    """The versions are stated; what was measured and the bundle belong to their environment."""
    asked = ("--mf-env", "right=mfdummy==1.2", "--mf-env", "wrong=mfdummy==1.5", "--mf-env", "refuses=mfdummy==1.4")
    asked += ("--mf-env", f"empty=mfdummy=={EMPTY}")
    chosen = ("--mf-model", tiny, "--mf-backends", "mfdummy", *asked, "--mf-localise-budget", "0")
    more = ("--mf-suites", "contract,parity,determinism,latency", "--mf-time-budget", "0.1")
    ran = run(*chosen, *more, inprocess=True)
    assert ran.status == 1, ran.text
    assert ran.cells == [DUMMY, f"{DUMMY}+right", f"{DUMMY}+wrong", f"{DUMMY}+refuses", f"{DUMMY}+empty"]
    assert ran.outcomes[DUMMY, "availability"] == "missing-dependency"
    checks = {check: ran.checks[f"{DUMMY}+right", check] for check in ("contract", "parity", "determinism", "latency")}
    assert {line["outcome"] for check, line in checks.items() if check != "latency"} == {"passed"}, ran.text
    assert checks["latency"]["outcome"] in {"passed", "inconclusive"}, ran.text  # a neighbour may disturb
    assert checks["parity"]["data"]["statement"]["version"] == "1.2"
    assert checks["latency"]["data"]["latency_p50_ns"] > 0
    wrong = ran.checks[f"{DUMMY}+wrong", "parity"]
    assert (wrong["outcome"], wrong["failure_kind"]) == ("failed", "numeric")
    assert wrong["data"]["statement"]["version"] == "1.5"
    assert "this release opens nothing" in ran.checks[f"{DUMMY}+refuses", "parity"]["sentence"]
    empty = ran.checks[f"{DUMMY}+empty", "parity"]
    assert empty["outcome"] == "missing-dependency"
    assert (
        "the environment 'empty' lacks something (ModuleNotFoundError: No module named 'mfdummy'" in empty["sentence"]
    )
    (header,) = ran.of("header")
    assert set(header["environments"]) == {"right", "wrong", "refuses", "empty"}
    assert header["environments"]["wrong"]["versions"]["mfdummy"] == "1.5"
    assert header["environments"]["wrong"]["requirements"] == ["mfdummy==1.5", "numpy"]
    jsonschema.validate(header, json.loads(SCHEMA.read_text()))
    report = (ran.folder / "report.md").read_text()
    assert f"wrong: mfdummy 1.5, numpy {np.__version__}; Python" in report
    assert "<dt>wrong</dt>" in (ran.folder / "index.html").read_text()
    (bundle,) = ran.folder.glob("bundles/*+wrong-parity/environment.json")
    assert json.loads(bundle.read_text())["environment"]["wrong"]["versions"]["mfdummy"] == "1.5"
    case = json.loads((bundle.parent / "case.json").read_text())
    assert f"pip install numpy=={np.__version__} mfdummy==1.5 " in case["install"]


@pytest.mark.slow
def test_what_passed_in_one_version_says_nothing_of_another(run, tiny, dummies):
    """``--mf-reuse`` knows the environment's versions: the same name with another version runs again."""
    chosen = ("--mf-model", tiny, "--mf-backends", "mfdummy", "--mf-suites", "parity", "--mf-reuse", "--mf-env")
    check = f"{DUMMY}+one", "parity"
    first = run(*chosen, "one=mfdummy==1.0", inprocess=True)
    assert "reused" not in first.checks[check]["data"], first.text
    again = run(*chosen, "one=mfdummy==1.0", inprocess=True)
    assert again.checks[check]["data"]["reused"]
    other = run(*chosen, "one=mfdummy==1.2", inprocess=True)
    assert "reused" not in other.checks[check]["data"]
    assert other.checks[check]["data"]["statement"]["version"] == "1.2"


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_two_versions_of_onnx_runtime_in_one_run(run, tiny, pytester, foreign):
    """Both give the model's results; a wrong artifact is found, localised and bundled in the other version too."""
    wrong = two_layers(pytester.path / "wrong.onnx", change=0.5)
    asked = ("--mf-env", "ort-1.26=onnxruntime==1.26.0", "--mf-candidate", wrong, "--mf-time-budget", "0.1")
    chosen = ("--mf-model", tiny, *ONE_CELL, *asked, "--mf-suites", "contract,parity,permutation,latency")
    ran = run(*chosen, inprocess=True)
    versions = {}
    for cell in (CELL, f"{CELL}+ort-1.26"):
        for check in ("contract", "parity", "permutation"):
            assert ran.outcomes[cell, check] == "passed", ran.text
        assert ran.outcomes[cell, "latency"] in {"passed", "inconclusive"}, ran.text  # a neighbour may disturb
        assert ran.checks[cell, "latency"]["data"]["latency_p50_ns"] > 0
        versions[cell] = ran.checks[cell, "parity"]["data"]["statement"]["version"]
        assert ran.checks[cell, "parity"]["data"]["execution"]["precision"] == "fp32"
        assert ran.checks[cell, "latency"]["data"]["peak_rss_bytes"] > 0
    assert versions[f"{CELL}+ort-1.26"] == "1.26.0"
    assert versions[CELL] != "1.26.0"
    (header,) = ran.of("header")
    assert header["environments"]["ort-1.26"]["versions"]["onnxruntime"] == "1.26.0"
    assert header["versions"]["onnxruntime"] == versions[CELL]
    candidate = "tiny~wrong-onnx-fp32-onnxruntime@cpu+ort-1.26"
    line = ran.checks[candidate, "parity"]
    assert (line["outcome"], line["failure_kind"]) == ("failed", "numeric")
    assert line["data"]["localisation"]["confirmed"]  # in the other version, too
    (bundle,) = ran.folder.glob("bundles/*+ort-1.26-parity")
    assert "onnxruntime==1.26.0" in json.loads((bundle / "case.json").read_text())["install"]
    repro = [foreign.python, str(Path(bundle) / "repro.py")]
    done = subprocess.run(repro, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr


@pytest.mark.slow
def test_a_runtime_that_is_too_old_for_the_opset_says_so(run, pytester, foreign):
    """It is unsupported there, with the opset and the option that converts with a lower one; here it passes."""
    import onnx

    path = two_layers(pytester.path / "newer.onnx")
    model = onnx.load(str(path))
    model.opset_import[0].version = 27
    onnx.save(model, str(path))
    asked = ("--mf-env", "ort-1.26=onnxruntime==1.26.0", "--mf-suites", "parity")
    ran = run("--mf-model", path, *ONE_CELL, *asked, inprocess=True)
    line = ran.checks["newer-onnx-fp32-onnxruntime@cpu+ort-1.26", "parity"]
    assert line["outcome"] == "unsupported", ran.text
    assert "onnxruntime 1.26.0 supports opsets up to" in line["sentence"]
    assert "--mf-opset" in line["sentence"]
    assert ran.outcomes["newer-onnx-fp32-onnxruntime@cpu", "parity"] == "passed"
