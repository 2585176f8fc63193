"""``modelformats env``: environments are listed, made ahead and removed; ``doctor`` and ``plan`` tell of them."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from pytest_modelformats.cli import main as cli

CONFIGURED = """
[environments.early]
requirements = ["mfdummy>=1,<1.1"]
"""


@pytest.fixture
def command(pytester, offline):
    (pytester.path / "modelformats.toml").write_text(CONFIGURED)

    def run(*arguments):
        return CliRunner().invoke(cli.commands, [*arguments, "--mf-cache", str(pytester.path / "cache")])

    return run


def test_an_environment_from_making_to_removing(command):
    """Declared ones by their name, any by the beginning of its folder's name."""
    before = command("env", "list")
    assert "early: mfdummy<1.1,>=1, not made yet" in before.output
    assert ": none." in before.output
    made = command("env", "create")
    assert made.exit_code == 0, made.output
    assert "early: made in " in made.output
    assert "mfdummy 1.0, numpy " in made.output
    assert "early: is there" in command("env", "create", "early").output
    assert command("env", "create", "late=mfdummy==1.7").exit_code == 0
    listed = command("env", "list").output
    assert "early: mfdummy<1.1,>=1, there" in listed
    late = next(line for line in listed.splitlines() if "mfdummy==1.7" in line)
    assert "in the cache: 2" in command("doctor").output
    assert "declared: early" in command("doctor").output
    assert command("env", "remove", late.split(":")[0].strip()).exit_code == 0
    assert "mfdummy==1.7" not in command("env", "list").output
    assert command("env", "remove", "early").output.startswith("removed ")
    assert "early: mfdummy<1.1,>=1, not made yet" in command("env", "list").output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("env", "remove"), "say which environments to remove, or --all"),
        (("env", "remove", "nothing"), "has no environment 'nothing'; 'modelformats env list' shows what it has"),
        (("env", "create", "late=mfdummy==9.9"), "the environment 'late' cannot be made"),
        (("env", "create", "none"), "no environment is declared; name one"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(command, arguments, words):
    ended = command(*arguments)
    assert ended.exit_code != 0
    assert words in str(ended.exception)
    assert "\n" not in str(ended.exception)
