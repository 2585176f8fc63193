"""``modelformats matrix``: the plan as a job matrix, for machines that run it beside one another."""

from __future__ import annotations

import shlex
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click  # noqa: TID253 - this module is a command itself: only the command's entry point imports it

from pytest_modelformats.cli.matrix import jobs
from pytest_modelformats.cli.options import with_options
from pytest_modelformats.errors import ConfigurationError
from pytest_modelformats.settings.options import OPTIONS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pytest_modelformats.schema import PlannedCell
    from pytest_modelformats.settings.nouns import Settings

RUNNERS = {"cpu": "ubuntu-latest", "cuda": "self-hosted,gpu"}


@click.command()
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option("--github", is_flag=True, help="Print JSON for GitHub's fromJSON instead of a table.")
@click.option(
    "--by", type=click.Choice(list(jobs.BY)), default="backend", show_default=True, help="What a job is made of."
)
@click.option("--shards", type=click.IntRange(1), help="So many jobs of as many cells each, instead of --by.")
@click.option(
    "--all/--installed",
    "everything",
    default=None,
    help="Plan for machines that have every library and device, or for what runs on this one. "
    "Default: --all with --github, --installed without it.",
)
@click.option(
    "--runs-on",
    "runners",
    multiple=True,
    metavar="DEVICE=LABEL[,LABEL...]",
    help="The runner of a device. Default: cpu=ubuntu-latest, cuda=self-hosted,gpu.",
)
@partial(with_options, [option for option in OPTIONS if option.selects])
def matrix(
    models: tuple[str, ...],
    github: bool,
    by: str,
    shards: int | None,
    everything: bool | None,
    runners: tuple[str, ...],
    **chosen: Any,
) -> None:
    """Show the cells of MODEL as jobs: which cells each runs, what it installs and where. Nothing is run."""
    given = {key: list(value) if isinstance(value, tuple) else value for key, value in chosen.items() if value}
    if models:
        given["model"] = list(models)
    assumed = github if everything is None else everything
    found, left_out = rows(given, by, shards or 0, assumed=assumed, runners=runners)
    click.echo(jobs.github(found) if github else "\n".join(_table(found)))
    if left_out:
        click.echo(f"{left_out} planned cells cannot run here and are in no job; --all plans them too", err=True)


def rows(
    given: Mapping[str, Any], by: str, shards: int, *, assumed: bool, runners: Sequence[str]
) -> tuple[list[dict[str, Any]], int]:
    """The jobs in plain values, and how many planned cells are in none of them.

    ``assumed``: the machines that run them have every library and device.

    Raises: ConfigurationError, SourceError.
    """
    from pytest_modelformats.plan import unmet
    from pytest_modelformats.plan.build import build_plan
    from pytest_modelformats.settings import load as configuration
    from pytest_modelformats.settings import machine
    from pytest_modelformats.source.identify import find_candidates, find_sources

    settings = configuration.load(configuration.project_root(Path.cwd()), given)
    sources, candidates, labels = find_sources(settings), find_candidates(settings), _labels(runners)
    if not sources:
        msg = "there is no model to plan for; give one, as in 'modelformats matrix model.onnx', or configure one"
        raise ConfigurationError(msg)
    here = machine.machine()
    there = {**here, "gpu": here["gpu"] or ("assumed",)} if assumed else here
    has = (lambda _: True) if assumed else machine.installed

    def plan_of(settings: Settings) -> Sequence[PlannedCell]:
        cells = build_plan(settings, sources, candidates, there, has).cells
        return cells if assumed else [planned for planned in cells if planned.decision.runs]

    unmet.check_candidates(settings, candidates, given)
    planned = build_plan(settings, sources, candidates, there, has).cells
    missing = unmet.require_complaints(settings, planned, given)
    if missing:
        raise ConfigurationError(missing[0])
    cells = plan_of(settings)
    if not cells:
        msg = f"none of the {len(planned)} planned cells runs here; 'modelformats plan' says why, --all plans them"
        raise ConfigurationError(msg)
    formats = {source.name: source.format for source in sources}
    found = jobs.jobs(cells, formats, settings, plan_of, given, by=by, shards=shards)
    return [_row(job, labels) for job in found], len(planned) - len(cells)


def _labels(runners: Sequence[str]) -> dict[str, str | list[str]]:
    """What ``runs-on`` is for each device: one label, or a list of those that a runner must all have."""
    texts = dict(RUNNERS)
    for text in runners:
        device, _, labels = text.partition("=")
        if not device or not labels.strip(", "):
            msg = f"--runs-on is '{text}'; expected DEVICE=LABEL, such as cuda=self-hosted,gpu"
            raise ConfigurationError(msg)
        texts[device] = labels
    split = {device: [label.strip() for label in text.split(",") if label.strip()] for device, text in texts.items()}
    return {device: labels if len(labels) > 1 else labels[0] for device, labels in split.items()}


def _row(job: jobs.Job, labels: Mapping[str, Any]) -> dict[str, Any]:
    """A job in plain values; the words of ``select`` are quoted, so that a shell reads them as they are."""
    if job.device not in labels:
        msg = f"which runner has {job.device}? say --runs-on {job.device}=LABEL"
        raise ConfigurationError(msg)
    return {
        "name": job.name,
        "device": job.device,
        "runs-on": labels[job.device],
        "extras": ",".join(job.extras),
        "packages": shlex.join(job.packages),
        "select": shlex.join(job.select),
        "cells": len(job.cells),
    }


def _table(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    widths = {key: max(len(key), *(len(str(row[key])) for row in rows)) for key in ("name", "cells", "extras")}
    yield f"{'job':<{widths['name']}}  {'cells':>{widths['cells']}}  {'extras':<{widths['extras']}}  select"
    for row in rows:
        extras = f"{row['extras']} {row['packages']}".strip()
        yield (
            f"{row['name']:<{widths['name']}}  {row['cells']:>{widths['cells']}}  {extras:<{widths['extras']}}  "
            f"{row['select']}"
        )
    yield f"\n{len(rows)} jobs, {sum(row['cells'] for row in rows)} cells"
