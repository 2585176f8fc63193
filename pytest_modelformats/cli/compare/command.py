"""``modelformats compare A B``: what changed between two recorded runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click  # noqa: TID253 - a command of its own, imported by the command line's entry point alone

from pytest_modelformats.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_modelformats.cli.compare.two_runs import TwoRuns
    from pytest_modelformats.settings.nouns import Settings

REGRESSED = 1


@click.command()
@click.argument("before", metavar="A")
@click.argument("after", metavar="B")
@click.option("--fail-on", metavar="METRIC[:PERCENT%],...", help="What makes the exit code 1; as --mf-fail-on.")
@click.option("--format", "form", type=click.Choice(["terminal", "md", "json"]), default="terminal")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write to this file. Default: to the screen.")
@click.option("--all", "everything", is_flag=True, help="Also what did not change; without it, only what did.")
@click.option("--mf-cache", "cache", metavar="DIR", help="The cache folder that holds the saved baselines.")
@click.option("--mf-report-dir", "report_dir", metavar="DIR", help="The folder of the runs.")
@click.option("--mf-config", "config", metavar="FILE", help="The configuration file.")
def compare(before: str, after: str, fail_on: str | None, form: str, output: Path | None, **chosen: Any) -> None:
    """Show what changed from run A to run B: saved baselines, runs, folders or results.jsonl files.

    Samples that were stored are compared, which is weaker than measuring both now (pytest --mf-baseline). The exit
    code is 0 where nothing is beyond its margin, 1 where something is worse, 2 for wrong usage.
    """
    from pytest_modelformats.cli.compare.two_runs import TwoRuns
    from pytest_modelformats.history.baseline import named as baseline
    from pytest_modelformats.record.index import Recorded
    from pytest_modelformats.schema import metrics as margins
    from pytest_modelformats.settings import load as configuration

    everything = bool(chosen.pop("everything"))
    given = {key: value for key, value in chosen.items() if value}
    settings = configuration.load(configuration.project_root(Path.cwd()), given)
    asked = margins.DEFAULT if settings.fail_on is None else settings.fail_on
    if fail_on is not None:
        asked = margins.read([text.strip() for text in fail_on.split(",") if text.strip()], "--fail-on")
    found = [_record(ref, settings, baseline.find) for ref in (before, after)]
    records = [Recorded(path) for _, path in found]
    runs = TwoRuns(records[0], records[1], (found[0][0], found[1][0]), asked, everything=everything)
    tally = runs.compare()
    _write(runs, form, output)
    runs.close()
    for record in records:
        record.close()
    if not tally.cells:
        raise ConfigurationError(f"{before} and {after} have no cell in common that was measured in both")
    if tally.failing:
        sys.exit(REGRESSED)


def _record(ref: str, settings: Settings, find: Callable[..., Any]) -> tuple[str, Path]:
    named = find(ref, settings, "modelformats compare")
    if named.path is None:
        msg = f"modelformats compare: '{ref}' is an environment; name two runs (pytest --mf-baseline {ref} measures it)"
        raise ConfigurationError(msg)
    return named.title, named.path


def _write(runs: TwoRuns, form: str, output: Path | None) -> None:
    """The comparison in one of its forms, to a file or to the screen."""
    if output is None:
        for text in _parts(runs, form):
            click.echo(text, nl=False)
        return
    try:
        with output.open("w", encoding="utf-8") as handle:
            handle.writelines(_parts(runs, form))
    except OSError as error:
        msg = f"{output} cannot be written: {error.strerror}"
        raise ConfigurationError(msg) from error


def _parts(runs: TwoRuns, form: str) -> Iterator[str]:
    if form == "json":
        yield from _json(runs)
    elif form == "md":
        from pytest_modelformats.report import markdown

        yield "\n".join(markdown.changed(runs.table())).rstrip() + "\n"
    else:
        import shutil

        from pytest_modelformats.report import terminal

        yield terminal.render_changes(runs.table(), shutil.get_terminal_size().columns, sys.stdout.isatty())


def _json(runs: TwoRuns) -> Iterator[str]:
    """One object, its comparisons one by one: they are never held together."""
    from pytest_modelformats.cli.compare.two_runs import summary_json
    from pytest_modelformats.schema.plain import plain

    yield json.dumps(summary_json(runs), indent=2)[:-2] + ',\n  "comparisons": ['
    for number, comparison in enumerate(runs.found()):
        yield ("," if number else "") + "\n    " + json.dumps(plain(comparison), allow_nan=False)
    yield "\n  ]\n}\n"
