"""``--mf-update-expectations``: Rewrite the expectation files from what this run finds."""

from __future__ import annotations

import pytest
from inner_run import one_sentence, two_layers

GOOD, WRONG = "tiny-onnx-fp32-onnxruntime@cpu", "tiny~wrong-onnx-fp32-onnxruntime@cpu"
# One backend for the model and for the wrong candidate; every suite, because only a whole run updates.
CONFIGURATION = """
candidate = ["wrong.onnx"]
formats = ["onnx"]
precisions = ["fp32"]
backends = ["onnxruntime"]
devices = ["cpu"]
time_budget = 0.02
expectations = [{files}]
"""


@pytest.fixture
def update(run, tiny, pytester):
    """Run every suite over a right and a wrong model with the option; returns the run and the file's text after it."""
    two_layers(pytester.path / "wrong.onnx", change=1.0)

    def start(before=None, *args, files=("known.txt",), **kwargs):
        names = ", ".join(f'"{name}"' for name in files)
        (pytester.path / "modelformats.toml").write_text(CONFIGURATION.format(files=names))
        known = pytester.path / files[-1]
        if before is not None:
            known.write_bytes(before.encode())
        chosen = args if "--no-update" in args else ("--mf-update-expectations", *args)
        ran = run("--mf-model", "tiny.onnx", *(a for a in chosen if a != "--no-update"), **kwargs)
        return ran, known.read_bytes().decode() if known.exists() else None

    return start


def test_a_file_that_is_not_there_is_made_and_the_next_run_is_green(update):
    ran, text = update()
    assert ran.status == 0, ran.text
    lines = text.splitlines()
    assert [line.split("  ")[:2] for line in lines] == [[WRONG, "batch"], [WRONG, "parity"]]
    assert "  # failed (numeric): Output 'y': error" in lines[1]
    assert lines[1].endswith("… (issue link: add)")
    assert all(len(line) < 260 for line in lines)
    assert ran.outcomes[WRONG, "parity"] == "expected-failure"
    assert "Expected from now on." in ran.checks[WRONG, "parity"]["sentence"]
    assert "known.txt: 2 new lines (write the issue's link)" in ran.text
    again, same = update(None, "--no-update")
    assert again.status == 0, again.text
    assert same == text


def test_lines_that_hold_stay_with_comments_order_and_line_ends(update):
    held = f"# known since May\r\n\r\n{WRONG}   par*  # a weight is off (nets#7)\r\n# the end"
    ran, text = update(held)
    assert ran.status == 0, ran.text
    kept, _, added = text.partition("# the end")
    assert kept + "# the end" == held
    assert added.startswith(f"\r\n{WRONG}  batch  # failed (numeric): ")
    assert added.endswith("(issue link: add)\r\n")
    again, same = update(text)
    assert (again.status, same) == (0, text)
    assert "known.txt holds as it is" in again.text


def test_what_no_longer_fails_goes_and_a_glob_that_half_fails_is_narrowed(update):
    ran, text = update(f"{GOOD}  parity  # long fixed\n# why\ntiny*  [bp]a*  # a weight is off (nets#7)\n")
    assert ran.status == 0, ran.text
    assert text == f"# why\n{WRONG}  batch  # a weight is off (nets#7)\n{WRONG}  parity  # a weight is off (nets#7)\n"
    assert "known.txt:1 removed: nothing of it fails any more" in ran.text
    assert "known.txt:3 narrowed: 2 of its checks still fail" in ran.text
    assert "Unexpected pass" not in ran.text
    assert update(text, "--no-update")[0].status == 0


def test_the_last_of_several_files_takes_what_is_new(update, pytester):
    (pytester.path / "shared.txt").write_text(f"{WRONG}  parity  # a weight is off (nets#7)\n")
    ran, text = update(files=("shared.txt", "own.txt"))
    assert ran.status == 0, ran.text
    assert (pytester.path / "shared.txt").read_text() == f"{WRONG}  parity  # a weight is off (nets#7)\n"
    assert text.startswith(f"{WRONG}  batch  # failed (numeric)")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--mf-suites", "parity"), "only some suites were chosen"),
        (("-k", "parity"), "was deselected"),
        (("modelformats::parity",), "single tests were named"),
    ],
)
def test_a_partial_run_is_refused_before_it_starts(update, args, words):
    before = f"{GOOD}  parity  # long fixed\n"
    ran, text = update(before, *args)
    one_sentence(ran, "--mf-update-expectations needs a whole run", words)
    assert text == before


def test_lines_about_cells_that_the_command_line_left_out_are_not_forgotten(update):
    before = "*-openvino-fp16-*  parity  # served as bf16 (ov#1)\n"
    ran, text = update(before, "--mf-formats", "onnx")
    one_sentence(ran, "known.txt:1 is about '*-openvino-fp16-*'", "--mf-formats")
    assert text == before


@pytest.mark.parametrize("workers", [(), ("-p", "xdist", "-n", "2")], ids=["alone", "xdist"])
def test_a_run_that_ends_early_changes_nothing(update, pytester, workers):
    before = f"{GOOD}  parity  # long fixed\n"
    (pytester.path / "breaker.py").write_text(
        "import pytest\n"
        "def pytest_runtest_logreport(report):\n"
        "    if 'parity' in report.nodeid and report.when == 'call':\n"
        "        raise KeyboardInterrupt\n"
    )
    ran, text = update(before, *workers, plugins=("breaker",))
    assert ran.status == pytest.ExitCode.INTERRUPTED
    assert text == before
    assert "known.txt was not updated: the run was interrupted" in ran.text


def test_a_run_that_stops_at_a_limit_changes_nothing(update, pytester):
    before = f"{GOOD}  parity  # long fixed\n"
    (pytester.path / "breaker.py").write_text(
        "def pytest_runtest_logreport(report):\n"
        "    if 'parity' in report.nodeid and report.when == 'call':\n"
        "        STATE[0].shouldstop = 'enough'\n"
        "STATE = []\n"
        "def pytest_sessionstart(session):\n"
        "    STATE.append(session)\n"
    )
    ran, text = update(before, plugins=("breaker",))
    assert ran.status != 0
    assert text == before
    assert "known.txt was not updated" in ran.text


def test_a_failure_of_the_tool_itself_changes_nothing(update, pytester):
    before = f"{GOOD}  parity  # long fixed\n"
    (pytester.path / "breaker.py").write_text(
        "from pytest_modelformats.checks import cell\n"
        "def broken(self, planned):\n"
        "    raise ZeroDivisionError('a bug of ours')\n"
        "cell.Stages.determinism = broken\n"
    )
    ran, text = update(before, plugins=("breaker",))
    assert ran.status == 1, ran.text
    assert text == before
    assert "known.txt was not updated: the tool itself failed in determinism of" in ran.text
    assert "a bug of ours" in ran.text


def test_a_file_that_changed_meanwhile_is_left_alone(update, pytester):
    (pytester.path / "breaker.py").write_text(
        "import pathlib\n"
        "def pytest_runtest_logreport(report):\n"
        f"    pathlib.Path('known.txt').write_text('{WRONG}  parity  # somebody was here\\n')\n"
    )
    ran, text = update(f"{GOOD}  parity  # long fixed\n", plugins=("breaker",))
    assert ran.status == 1, ran.text
    assert text == f"{WRONG}  parity  # somebody was here\n"
    assert "was changed while the run went on" in ran.text


def test_updating_works_under_xdist(update):
    ran, text = update(f"{GOOD}  parity  # long fixed\n", "-p", "xdist", "-n", "2")
    assert ran.status == 0, ran.text
    assert [line.split("  ")[:2] for line in text.splitlines()] == [[WRONG, "batch"], [WRONG, "parity"]]


def test_without_a_file_there_is_nothing_to_update(refusal, tiny):
    sentence = refusal("--mf-model", tiny, "--mf-update-expectations")
    assert "--mf-update-expectations has no file to write; name one with --mf-expectations FILE" in sentence
