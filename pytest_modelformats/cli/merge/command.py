"""``modelformats merge``: the records of several shards or machines as one."""

from __future__ import annotations

import os
import sys
from datetime import datetime, timezone
from pathlib import Path

import click  # noqa: TID253 - a command of modelformats: only its entry point imports it

from pytest_modelformats.errors import ConfigurationError


@click.command()
@click.argument("records", nargs=-1, required=True, metavar="RECORD...", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, metavar="FOLDER", type=click.Path(path_type=Path), help="A new folder.")
@click.option("--label", "labels", multiple=True, metavar="NAME", help="A name per RECORD, in their order; a cell that "
              "ran on several kinds of machine gets it behind its own. Records of one name are shards.")  # fmt: skip
def merge(records: tuple[Path, ...], output: Path, labels: tuple[str, ...]) -> None:
    """Join each RECORD (a results.jsonl, or a folder of runs) into one record in FOLDER, with its reports."""
    from pytest_modelformats.cli.merge.header import write
    from pytest_modelformats.cli.merge.join import join, parts_of
    from pytest_modelformats.record import read as lines
    from pytest_modelformats.report import html, markdown
    from pytest_modelformats.schema.numbers import plural
    from pytest_modelformats.schema.redact import redacted

    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        msg = f"{output} is there already; give a folder that is new or empty, so that nothing is lost"
        raise ConfigurationError(msg)
    parts = parts_of(records, labels)
    run = f"{datetime.now(timezone.utc):%Y%m%d-%H%M%S}-{os.urandom(2).hex()}"
    merged = join(parts, run, ["modelformats", *(redacted(arg) for arg in sys.argv[1:])])
    try:
        found = write(output.absolute(), merged.lines, merged.files)
        joined = lines.read(found)
        (output / "report.md").write_text(markdown.render(joined), encoding="utf-8")
        (output / "index.html").write_text(html.render(joined), encoding="utf-8")
    except OSError as error:
        msg = f"{output} cannot be written: {error.strerror}"
        raise ConfigurationError(msg) from error
    for note in merged.notes:
        click.echo(note)
    click.echo(f"{plural(len(parts), 'record')}: {joined.summary}")
    click.echo(f"record: {output / 'results.jsonl'}")
