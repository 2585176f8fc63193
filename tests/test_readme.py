"""What the documents say is what the code does: tables, command lines, configuration, fixtures, links, the example."""

from __future__ import annotations

import argparse
import re
import shlex
import shutil
import subprocess
import sys

import pytest
from places import ROOT

from pytest_modelformats.cli import main as cli
from pytest_modelformats.errors import ConfigurationError
from pytest_modelformats.plan import build as plan
from pytest_modelformats.record import read as lines
from pytest_modelformats.report import html, markdown, terminal
from pytest_modelformats.schema import FailureKind, Outcome
from pytest_modelformats.settings import load as configuration
from pytest_modelformats.settings import options
from tools import documentation

DOCUMENTS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "reports/README.md")
EXAMPLE = ROOT / "reports" / "example"
TEXTS = {name: (ROOT / name).read_text(encoding="utf-8") for name in DOCUMENTS}
README = TEXTS["README.md"]


def code(text, language):
    """The code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def commands(text):
    """Every command line in a block of shell, continued lines joined, comments gone."""
    for block in code(text, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:3] == ["python", "-m", "pytest"]:
                words = words[2:]
            if words:
                yield words


LINES = [(name, words) for name, text in TEXTS.items() for words in commands(text)]
PYTEST = [words[1:] for _, words in LINES if words[0] == "pytest"]
MODELFORMATS = [words[1:] for _, words in LINES if words[0] == "modelformats"]


def show(words):
    return " ".join(words)


@pytest.fixture(scope="module")
def pytest_help():
    """What ``pytest --help`` prints, with every plugin that is installed."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout


class Parser:
    """As much of pytest's parser as ``add_options`` uses."""

    def __init__(self):
        self.argparse = argparse.ArgumentParser(allow_abbrev=False)

    def getgroup(self, *_):
        return self

    def addoption(self, *names, **attributes):
        self.argparse.add_argument(*names, **attributes)


# --- generated blocks


@pytest.mark.parametrize("name", DOCUMENTS)
def test_generated_blocks_are_what_the_code_says(name):
    text = documentation.rewrite(TEXTS[name], ROOT)
    assert text == TEXTS[name], f"run: python tools/documentation.py --write {name}"


@pytest.mark.parametrize("block", documentation.blocks(ROOT))
def test_every_generated_block_stands_once_where_it_belongs(block):
    page = (ROOT / "docs" / "verdict.md").read_text(encoding="utf-8") if block == "steps" else README
    assert page.count(f"<!-- generated: {block} -->") == 1


def test_the_options_table_has_a_line_per_option():
    rows = documentation.options_table().splitlines()[2:]
    assert len(rows) == len(options.OPTIONS)
    for row, option in zip(rows, options.OPTIONS, strict=True):
        assert row.startswith(f"| `{option.flag}")
        assert len(re.findall(r"(?<!\\)\|", row)) == 4, row
        assert "None" not in row.rpartition("|")[0].rpartition("|")[2]


def test_a_stale_document_is_reported_and_rewritten(tmp_path, capsys):
    document = tmp_path / "doc.md"
    document.write_text("before\n<!-- generated: options -->\nstale\n<!-- end -->\nafter\n")
    assert documentation.main(["--check", str(document)]) == 1
    assert "out of date" in capsys.readouterr().err
    assert documentation.main(["--write", str(document)]) == 0
    assert documentation.main(["--check", str(document)]) == 0
    text = document.read_text()
    assert "stale" not in text
    assert documentation.options_table() in text
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<!-- generated: optoins -->\n<!-- end -->", "there is no generated block 'optoins'"),
        ("<!-- generated: options -->\n", "has no '<!-- end -->'"),
    ],
)
def test_a_block_that_cannot_be_written_is_refused(text, said):
    with pytest.raises(ConfigurationError, match=re.escape(said)):
        documentation.rewrite(text, ROOT)


# --- command lines


def test_the_documents_show_command_lines():
    assert len(PYTEST) >= 8
    assert {words[0] for words in MODELFORMATS} == set(cli.commands.commands)


@pytest.mark.parametrize("words", PYTEST, ids=show)
def test_pytest_has_every_option_of_a_command_line(words, pytest_help):
    for word in words:
        if word.startswith("--"):
            assert re.search(rf"(?<![\w-]){re.escape(word.partition('=')[0])}(?![\w-])", pytest_help), word
        elif word.startswith("-"):
            assert re.search(rf"^  {re.escape(word)}\b", pytest_help, re.MULTILINE), word


@pytest.mark.parametrize("words", PYTEST, ids=show)
def test_the_values_of_a_command_line_are_accepted(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    parser = Parser()
    options.add_options(parser)
    given = options.given(parser.argparse.parse_known_args(words)[0])
    for key, value in given.items():
        if options.BY_KEY[key].kind == "files":
            for name in value:
                (tmp_path / name).touch()
    settings = configuration.load(tmp_path, given)
    plan.build_plan(settings, (), (), {})
    options.validate_names("suite", settings.suites, [path.stem.removeprefix("test_") for path in _suites()])


@pytest.mark.parametrize("words", MODELFORMATS, ids=show)
def test_modelformats_has_every_command_and_option(words):
    name, *arguments = words
    cli.commands.commands[name].make_context(name, arguments)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_option_in_the_text_exists(name):
    prose = TEXTS[name].replace("--mf-*", "")
    assert set(re.findall(r"--mf-[\w-]+", prose)) <= {option.flag for option in options.OPTIONS}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_make_target_in_the_text_exists(name):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    shown = {words[1] for document, words in LINES if document == name and words[0] == "make"}
    assert shown | set(re.findall(r"`make ([a-z-]+)", TEXTS[name])) <= targets


def _suites():
    return sorted((ROOT / "suites").glob("test_*.py"))


def test_every_kind_of_failure_is_listed():
    (row,) = (line for line in README.splitlines() if line.startswith("| `failed` |"))
    listed = row.partition("the kind says on what: ")[2].partition(" |")[0].split(", ")
    assert set(listed) == {kind.value for kind in FailureKind} - {"precision"}  # ours end as fallback


# --- configuration


def test_the_tables_that_exist_only_in_the_file_are_named():
    (text,) = re.findall(r"(\w+) tables exist only here: ([^.]*)\.", README)
    assert text[0] == {3: "Three", 4: "Four", 5: "Five"}[len(configuration.TABLES)]
    assert tuple(re.findall(r"`(\w+)`", text[1])) == configuration.TABLES


def test_the_toml_of_the_readme_loads(tmp_path):
    (block,) = code(README, "toml")
    (tmp_path / "modelformats.toml").write_text(block)
    (tmp_path / "known_failures.txt").write_text("")
    settings = configuration.load(tmp_path, {})
    assert settings.models
    assert settings.tolerances
    assert settings.budgets


def test_the_example_configuration_plans_cells_that_its_globs_match():
    import fnmatch

    from pytest_modelformats.session.expectations import read as expectations
    from pytest_modelformats.settings import machine
    from pytest_modelformats.source import identify as source

    settings = configuration.load(ROOT, {"config": str(ROOT / "examples" / "modelformats.toml")})
    cells = [p.cell.id for p in plan.build_plan(settings, source.find_sources(settings), (), machine.machine()).cells]
    known = expectations.read(settings.expectations)
    globs = [*(t.glob for t in settings.tolerances), *(b.glob for b in settings.budgets), *(e.glob for e in known)]
    assert len(globs) == 3
    for glob in globs:
        assert fnmatch.filter(cells, glob), glob


# --- what is named


def test_the_outcomes_table_has_every_outcome_once():
    rows = re.findall(
        r"^\| `([a-z-]+)` \|", README.partition("exactly one of these")[2].partition("\n\n")[2], re.MULTILINE
    )
    words = [outcome.value for outcome in Outcome]
    assert sorted(row for row in rows if row in words) == sorted(words)


def test_every_fixture_in_the_text_exists():
    known = {line.split("`")[1] for line in documentation.fixtures_table().splitlines()[2:]}
    assert {"mf_cell", "mf_parity", "mf_run"} <= known
    for text in TEXTS.values():
        assert set(re.findall(r"\bmf_\w+", text)) <= known


def test_every_module_of_the_pipeline_exists():
    table = README.partition("| word | where |")[2].partition("\n\n")[0]
    named = re.findall(r"`([\w/.]+)`", table)
    assert len(named) >= 9
    for name in named:
        assert (ROOT / "pytest_modelformats" / name).exists(), name


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_link_within_the_repository_leads_somewhere(name):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", TEXTS[name]):
        assert ((ROOT / name).parent / target).exists(), target


@pytest.mark.parametrize("name", DOCUMENTS)
def test_no_document_holds_a_path_of_a_machine(name):
    assert not re.search(r"(?<![\w.<])/(work|home|root|tmp|Users)/", TEXTS[name])


# --- the example report


@pytest.fixture(scope="module")
def example():
    return lines.read(EXAMPLE / "results.jsonl")


def test_the_example_report_renders_in_every_form(example):
    assert example.complete
    assert "digits_cnn" in html.render(example)
    assert "digits_cnn" in terminal.render(example, 100, color=False)
    written = (EXAMPLE / "report.md").read_text(encoding="utf-8")
    assert markdown.render(example) == written, "run: modelformats report reports/example -o reports/example/report.md"


def test_the_example_report_is_a_real_run_of_every_format(example):
    ran = [cell for cell in example.cells if cell.ran]
    assert {cell.format for cell in ran} == {"pytorch", "pt2", "torchscript", "onnx", "openvino"}
    assert all(cell.parity and cell.parity.noise_ratio and cell.latency for cell in ran)


def test_the_example_report_holds_no_path_of_a_machine_and_is_small():
    files = sorted(EXAMPLE.iterdir())
    assert [file.name for file in files] == ["index.html", "report.md", "results.jsonl"]
    for file in files:
        assert not re.search(r"/(work|home|root|tmp|Users)/", file.read_text(encoding="utf-8")), file.name
    assert sum(file.stat().st_size for file in files) < 400_000


def test_the_picture_is_small():
    assert (ROOT / "docs" / "report.png").stat().st_size < 300_000


# --- one's own tests


@pytest.mark.slow
def test_the_tests_of_the_readme_pass_on_the_digits_model(tmp_path, digits):
    (block,) = code(README, "python")
    (tmp_path / "test_shipping.py").write_text(block)
    shutil.copy(digits, tmp_path)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "test_shipping.py",
        "--mf-model",
        "digits_cnn.pth",
        "--mf-formats",
        "onnx",
    ]
    command += ["--mf-precisions", "fp32", "--mf-devices", "cpu", "--mf-cache", "cache", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "3 passed" in done.stdout
