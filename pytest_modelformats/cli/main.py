"""The ``modelformats`` command: what a run would do, what this machine can do, and reports of runs."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click  # noqa: TID253 - this module is the command itself: only its entry point imports it

from pytest_modelformats import __version__
from pytest_modelformats.cli import env
from pytest_modelformats.cli.bisect import command as bisect
from pytest_modelformats.cli.cache.command import cache_commands
from pytest_modelformats.cli.compare.command import compare
from pytest_modelformats.cli.history import history
from pytest_modelformats.cli.matrix.command import matrix
from pytest_modelformats.cli.merge.command import merge
from pytest_modelformats.cli.options import with_options
from pytest_modelformats.cli.registry.command import registry_commands
from pytest_modelformats.cli.selftest.command import selftest
from pytest_modelformats.errors import ConfigurationError, ModelFormatsError
from pytest_modelformats.settings.options import OPTIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from pytest_modelformats.cli.doctor import Diagnosis
    from pytest_modelformats.record.read import Run
    from pytest_modelformats.schema import Plan, Source
    from pytest_modelformats.settings.nouns import Settings

RECORD = "results.jsonl"
REPORTS = {"html": ".html", "md": ".md", "terminal": ".txt"}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; an error that a user is meant to read is one sentence on stderr and exit code 2."""
    try:
        commands(arguments, prog_name="modelformats")
    except ModelFormatsError as error:
        click.echo(str(error), err=True)
        sys.exit(2)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, package_name="pytest-modelformats")
def commands() -> None:
    """Conformance and benchmarks of ML model formats: look before you run pytest, and after."""


def selection(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the ``--mf-*`` options that decide which cells there are."""
    return with_options([option for option in OPTIONS if option.selects], command)


@commands.command()
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@selection
def plan(models: tuple[str, ...], **chosen: Any) -> None:
    """Show every cell of MODEL: how its artifact is made, and whether it runs or why not. Nothing is run."""
    from pytest_modelformats.plan import unmet
    from pytest_modelformats.plan.build import absent, build_plan
    from pytest_modelformats.settings import load as configuration
    from pytest_modelformats.settings import machine
    from pytest_modelformats.source.identify import find_candidates, find_data, find_sources

    given = {key: list(value) if isinstance(value, tuple) else value for key, value in chosen.items() if value}
    if models:
        given["model"] = list(models)
    settings = configuration.load(configuration.project_root(Path.cwd()), given)
    sources = find_sources(settings)
    if not sources:
        msg = "there is no model to plan for; give one, as in 'modelformats plan model.onnx', or configure one"
        raise ConfigurationError(msg)
    candidates = find_candidates(settings)
    unmet.check_candidates(settings, candidates, given)
    planned = build_plan(settings, sources, candidates, machine.machine())
    click.echo("\n".join(plan_lines(sources, planned, settings, find_data(settings))))
    for source_format in sorted({source.format for source in sources}):
        reasons = absent(source_format)
        if reasons:
            click.echo(f"\nNo cells for a model in {source_format}:")
            click.echo("\n".join(f"  {what}: {why}" for what, why in reasons))


def plan_lines(sources: Sequence[Source], planned: Plan, settings: Settings, data: Mapping[str, str]) -> Iterator[str]:
    """The models with the sizes of their free dimensions, the conversion graph, then every cell, sorted by id.

    ``data`` says where the samples of each model are.
    """
    from pytest_modelformats.schema import registry
    from pytest_modelformats.source import planned_sizes

    yield "Models:"
    for source in sources:
        yield f"  {source.name}: {source.format} ({source.kind}), {source.location}"
        found = planned_sizes.told(source, data.get(source.name, ""))
        if found:
            yield f"    sizes: {''.join(c if c.isprintable() else '?' for c in found)}"
    yield "\nConversions:"
    for converter in registry.converters().values():
        chosen = "" if converter.default else f", only by --mf-formats {converter.target}.{converter.route}"
        for before, afters in converter.precisions.items():
            edge = f"{converter.source} {before} → {converter.target} {'/'.join(afters)}"
            yield f"  {edge}: {converter.route} ({converter.name}{chosen})"
    if settings.environments:
        yield "\nEnvironments, made when a run needs them:"
        yield from (f"  {entry.name}: {', '.join(entry.requirements)}" for entry in settings.environments)
    running = sum(cell.decision.runs for cell in planned.cells)
    yield f"\nCells: {len(planned.cells)}, of which {running} run"
    formats = {source.name: source.format for source in sources}
    width = max((len(cell.cell.id) for cell in planned.cells), default=0)
    for cell in sorted(planned.cells, key=lambda cell: cell.cell.id):
        steps = [f"{step.converter} ({step.precision})" for step in cell.chain]
        chain = cell.candidate_path or " → ".join([formats[cell.cell.model], *steps])
        decision = cell.decision
        word = decision.outcome.value if decision.outcome else "runs"
        yield f"  {word:<18}  {cell.cell.id:<{width}}  {chain}"
        if not decision.runs:
            yield f"  {'':<18}  {decision.reason}{f' ({decision.install})' if decision.install else ''}"
    if settings.config_file:
        yield f"\nConfigured by {settings.config_file}"


@commands.command()
@click.option("--mf-cache", "cache", metavar="DIR", help="The cache folder to look at.")
def doctor(cache: str | None) -> None:
    """Show what this machine can run and what it lacks, with the lines that install it."""
    from rich.console import Console

    from pytest_modelformats.cli.doctor import diagnose
    from pytest_modelformats.settings import load as configuration

    settings = configuration.load(configuration.project_root(Path.cwd()), {"cache": cache} if cache else {})
    found = diagnose(settings.cache)
    # What is piped on is one line per row, however long.
    width = None if sys.stdout.isatty() else 10_000
    console = Console(highlight=False, markup=False, emoji=False, width=width)
    _table(console, "Machine", [*_machine_facts(found), ("environments", env.summary(settings))])
    _table(console, "Libraries", list(found.versions.items()))
    states = [
        (f"{p.kind} {p.name}", f"missing {', '.join(p.missing)}: {p.install}" if p.missing else "available")
        for p in found.parts
    ]
    _table(console, "Formats, converters, backends", states)


def _machine_facts(found: Diagnosis) -> Iterator[tuple[str, str]]:
    facts, folder = found.machine, found.cache
    has, lacks = ([name for name, there in found.instruction_sets.items() if there is want] for want in (True, False))
    state = "writable" if folder.writable else "NOT writable: choose another with --mf-cache"
    gpu = ", ".join(facts["gpu"]) or "none (no NVIDIA driver)"
    yield "processor", f"{facts['cpu']}, {facts['cores']} cores"
    yield "instruction sets", f"{', '.join(has) or 'none'} (not: {', '.join(lacks) or 'none'})"
    for emulation in found.emulations:
        yield f"{emulation.precision} on {emulation.backend}", f"emulated: needs {' or '.join(emulation.needs)}"
    yield "memory", f"{facts['memory_bytes'] / 1e9:.1f} GB"
    yield "GPU", f"{gpu}, driver {facts['gpu_driver']}" if facts["gpu_driver"] else gpu
    yield "system", f"{facts['os']}, Python {facts['python']}"
    yield "cache", f"{folder.path}, {state}, {folder.free_bytes / 1e9:.1f} GB free"


def _table(console: Any, title: str, rows: Sequence[tuple[str, str]]) -> None:
    from rich.table import Table

    table = Table("", "", title=title, title_justify="left", show_header=False, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    console.print(table)
    console.print()


@commands.command()
def support() -> None:
    """Print the support table (Markdown): format, backend, precisions, devices."""
    from pytest_modelformats.cli.doctor import support_table

    click.echo(support_table(), nl=False)


@commands.command()
@click.argument("record", metavar="FILE|FOLDER", type=click.Path(path_type=Path))
@click.option("--format", "form", type=click.Choice(list(REPORTS)), help="Default: by the ending of -o, or terminal.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write to this file. Default: to the screen.")
def report(record: Path, form: str | None, output: Path | None) -> None:
    """Show the run that FILE records, or the newest one in FOLDER."""
    from pytest_modelformats.record import read as lines

    run = lines.read(newest_record(record))
    if form is None:
        form = next((name for name, ending in REPORTS.items() if output and output.suffix == ending), "terminal")
    text = _rendered(run, form, colored=output is None and sys.stdout.isatty())
    if output is None:
        click.echo(text, nl=False)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        msg = f"{output} cannot be written: {error.strerror}"
        raise ConfigurationError(msg) from error


def evaluating(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the ``--mf-*`` options that say what a model is and how it is evaluated."""
    names = "arch input data trust samples seed static timeout memory cache isolate config"
    return with_options([option for option in OPTIONS if option.key in names.split()], command)


@commands.group()
def golden() -> None:
    """Golden bundles: what a verdict needs of a model, for machines that do not have the model."""


@golden.command()
@click.argument("model", metavar="MODEL")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The file to write. Default: MODEL.golden, here.")
@evaluating
def export(model: str, output: Path | None, **chosen: Any) -> None:
    """Evaluate MODEL and write its inputs, truth, noise floors and contract into one file."""
    from pytest_modelformats.cli import golden as golden_export
    from pytest_modelformats.session.campaign import stages_of
    from pytest_modelformats.settings import load as configuration
    from pytest_modelformats.source.identify import find_sources
    from pytest_modelformats.systems.golden import file as golden_file

    given = {key: list(value) if isinstance(value, tuple) else value for key, value in chosen.items() if value}
    settings = configuration.load(configuration.project_root(Path.cwd()), {**given, "model": [model]})
    sources = find_sources(settings)
    if len(sources) != 1 or sources[0].format == "golden":
        what = "is a golden bundle already" if len(sources) == 1 else f"holds {len(sources)} models"
        msg = f"{model} {what}; give one model, as in 'modelformats golden export resnet50.onnx'"
        raise ConfigurationError(msg)
    target = output or Path(f"{sources[0].name}.golden")
    stages = stages_of(settings, sources, _watched if sys.stderr.isatty() else lambda _: None)
    try:
        golden_export.export(stages.models, sources[0].name, target)
    except OSError as error:
        msg = f"{target} cannot be written: {error.strerror}"
        raise ConfigurationError(msg) from error
    finally:
        stages.pool.close()
    click.echo("\n".join(golden_export.told(golden_file.read(target))))


def _watched(what: str) -> Callable[[float], None]:
    return lambda elapsed: click.echo(f"\r\x1b[K  {what} … {elapsed:.0f} s", nl=False, err=True)


@golden.command()
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
def show(file: Path) -> None:
    """Show what is in a golden bundle; nothing of it is run."""
    from pytest_modelformats.cli import golden as golden_export
    from pytest_modelformats.source.identify import identify
    from pytest_modelformats.systems.golden import file as golden_file

    form, _ = identify(file)
    if form != "golden":
        msg = f"{file} is no golden bundle but a model in {form}; 'modelformats golden export {file}' makes one of it"
        raise ConfigurationError(msg)
    click.echo("\n".join(golden_export.told(golden_file.read(file))))


# Every further command is a file or folder of its own beside this one, and a line here.
FURTHER: tuple[click.Command, ...] = (
    selftest,
    env.env,
    cache_commands,
    bisect.bisect,
    history,
    merge,
    matrix,
    compare,
    registry_commands,
)
for further in FURTHER:
    commands.add_command(further)


def newest_record(path: Path) -> Path:
    """The file itself, or the record of the newest run in a folder; raises ConfigurationError."""
    if not path.is_dir():
        return path
    records = sorted(path.rglob(RECORD), key=lambda found: (found.stat().st_mtime_ns, str(found)))
    if not records:
        msg = f"the folder {path} holds no {RECORD}; give the --mf-report-dir of a run, or the file itself"
        raise ConfigurationError(msg)
    return records[-1]


def _rendered(run: Run, form: str, *, colored: bool) -> str:
    import shutil

    module = importlib.import_module(f"pytest_modelformats.report.{'markdown' if form == 'md' else form}")
    if form == "terminal":
        return str(module.render(run, shutil.get_terminal_size().columns, colored))
    return str(module.render(run))
