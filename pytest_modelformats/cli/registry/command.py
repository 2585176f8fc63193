"""``modelformats registry``: artifacts that passed, laid out as a model registry."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click  # noqa: TID253 - a command of modelformats: only its entry point imports it

from pytest_modelformats.errors import ConfigurationError

if TYPE_CHECKING:
    from pytest_modelformats.cli.registry.choice import Choice
    from pytest_modelformats.settings.nouns import Settings

# So many of the cells that were left out are told one by one.
_TOLD = 10


@click.group(name="registry")
def registry_commands() -> None:
    """A model registry: artifacts that passed, laid out by model, version and format."""


@registry_commands.command()
@click.argument("cells", nargs=-1, metavar="[CELL|GLOB]...")
@click.option("-o", "--output", required=True, metavar="FOLDER", type=click.Path(path_type=Path),
              help="The folder of the registry; made if it is not there.")  # fmt: skip
@click.option("--version", default="v1.0", show_default=True, help="The version to write them as.")
@click.option("--record", metavar="REF", help="The run whose verdicts count: its folder, results.jsonl or id, or a "
              "saved baseline. Default: the newest run.")  # fmt: skip
@click.option(
    "--from-cache", is_flag=True, help="Take what is in the cache, the newest of each kind, without verdicts."
)
@click.option(
    "--force", is_flag=True, help="Export cells that did not pass as well; metadata.json says how they ended."
)
@click.option("--overwrite", is_flag=True, help="Replace the version where it is there already.")
@click.option("--mf-cache", "cache", metavar="DIR", help="The cache folder that holds the artifacts.")
@click.option("--mf-report-dir", "report_dir", metavar="DIR", help="The folder of the runs.")
@click.option("--mf-config", "config", metavar="FILE", help="The configuration file.")
def export(
    cells: tuple[str, ...],
    output: Path,
    version: str,
    record: str | None,
    from_cache: bool,
    force: bool,
    overwrite: bool,
    **chosen: str | None,
) -> None:
    """Lay out the artifacts of the CELLs that passed in a run, all of them where none is named.

    They become FOLDER/<model>/<version>/<format>/model.onnx and the like (model_fp16.onnx where it does not hold
    fp32), with the files that belong to them, and one metadata.json per version: how each was made, of what, and how
    its cells ended. A version is written aside and moved into place whole. Artifacts come from the cache, and are
    verified; nothing is converted or run.
    """
    from pytest_modelformats.cli.registry import layout
    from pytest_modelformats.cli.registry.artifact import part
    from pytest_modelformats.schema.numbers import size
    from pytest_modelformats.settings import load as configuration

    part(version, "--version")
    given = {key: value for key, value in chosen.items() if value}
    settings = configuration.load(configuration.project_root(Path.cwd()), given)
    if from_cache and record:
        raise ConfigurationError("say either --record or --from-cache: what is taken from the cache has no verdict")
    choice = _choice(settings, cells, record, from_cache=from_cache, force=force)
    try:
        written = layout.export(choice, output, version, overwrite=overwrite)
    except OSError as error:
        msg = f"the registry {output} cannot be written: {error.strerror or error}; choose another folder with -o"
        raise ConfigurationError(msg) from error
    for path, one in written:
        ran = ", ".join(f"{cell['cell']} {cell['outcome']}" for cell in one["cells"]) or "not judged by a run"
        click.echo(f"{path}: {size(one['size_bytes'])}; {ran}")
    for note in choice.notes[:_TOLD]:
        click.echo(f"left out: {note}", err=True)
    if len(choice.notes) > _TOLD:
        click.echo(f"left out: {len(choice.notes) - _TOLD} more", err=True)


def _choice(settings: Settings, globs: tuple[str, ...], record: str | None, *, from_cache: bool, force: bool) -> Choice:
    from pytest_modelformats.cli.registry.cached import from_cache as of_cache
    from pytest_modelformats.cli.registry.choice import from_record
    from pytest_modelformats.convert.cache import Cache
    from pytest_modelformats.history.baseline import named
    from pytest_modelformats.record import read as lines

    cache = Cache(settings.cache, write=False)
    if from_cache:
        return of_cache(cache, globs)
    try:
        found = named.find(record or named.LATEST, settings, "--record")
    except ConfigurationError:
        if record:
            raise
        msg = (
            f"there is no run in {settings.report_dir}; run pytest --mf-model MODEL first, name a run with --record, "
            "or take what was never judged with --from-cache"
        )
        raise ConfigurationError(msg) from None
    if found.path is None:
        raise ConfigurationError(f"--record: '{record}' is an environment; name a run")
    run = lines.read(found.path)
    for doubt in run.doubts:
        click.echo(doubt, err=True)
    return from_record(run, globs, cache, settings.rootdir, force=force)
