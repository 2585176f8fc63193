"""``modelformats bisect``: the first version of a runtime at which a cell's verdict or latency changes."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click  # noqa: TID253 - the command itself: only the command line imports it

from pytest_modelformats.cli.env import done, watched
from pytest_modelformats.errors import ConfigurationError
from pytest_modelformats.report.comparisons import percent
from pytest_modelformats.schema.numbers import share
from pytest_modelformats.settings.options import OPTIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from packaging.version import Version

    from pytest_modelformats.cli.bisect.judge import Judge
    from pytest_modelformats.cli.bisect.search import Found, Step

UNCHANGED = 1
# What decides which cells there are, what the model is, and how it is converted and run.
_TAKEN = frozenset(
    {
        *("model", "arch", "input", "data", "trust", "golden", "candidate", "formats", "precisions", "all_routes"),
        *("opset", "static", "samples", "seed", "threads", "ort_optimization", "timeout", "memory", "cache", "config"),
    }
)
# One comparison of two versions; a clear one takes a fraction of it.
_BUDGET_S = 30.0
_LATENCY = "latency change"
# From here on a factor reads better than percents.
_TEN_FOLD = 10


def _with_settings(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed([option for option in OPTIONS if option.key in _TAKEN]):
        attributes: dict[str, Any] = {"help": option.full_help, "default": None}
        if option.kind == "flag":
            attributes["is_flag"] = True
        else:
            attributes |= {"multiple": option.repeatable, "metavar": option.metavar}
        command = click.option(option.flag, option.key, **attributes)(command)
    return command


@click.command()
@click.argument("cell")
@click.option("--package", required=True, help="The package whose versions are tried, such as onnxruntime.")
@click.option("--good", default="", metavar="VERSION", help="The earlier version. Default: the first of --versions.")
@click.option("--bad", default="", metavar="VERSION", help="The later version. Default: the last of --versions.")
@click.option("--versions", default="", metavar="V,V,...", help="What to search. Default: all that the index has.")
@click.option("--metric", type=click.Choice(["verdict", "latency"]), default="verdict", show_default=True)
@click.option(
    "--margin", default="5%", show_default=True, help="Slower or faster by more than this is a change of the latency."
)
@click.option(
    "--budget",
    default=_BUDGET_S,
    show_default=True,
    help="Seconds to compare two latencies in; what stays unclear is measured once more, for twice as long.",
)
@click.option("--with", "beside", multiple=True, metavar="REQ", help="Installed beside each version, as numpy<2.")
@click.option("--python", default="", metavar="PATH", help="The interpreter to base the environments on.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON; the steps go to stderr.")
@_with_settings
def bisect(cell: str, *, package: str, metric: str, as_json: bool, **given: Any) -> None:
    """Find the first version of PACKAGE at which CELL (as 'modelformats plan' shows it) changes.

    Every version that is tried gets an environment of its own in the cache. Versions that cannot be installed, or do
    not open the model, are passed over. Exit status: 0 found, 1 where the good and the bad version agree, 2 where
    nothing can be said.
    """
    from pytest_modelformats.cli.bisect.judge import Judge
    from pytest_modelformats.settings import load as configuration
    from pytest_modelformats.source.identify import find_sources

    margin = _share(given.pop("margin"))
    own = {key: given.pop(key) for key in ("good", "bad", "versions", "budget", "beside", "python")}
    chosen = {key: list(value) if isinstance(value, tuple) else value for key, value in given.items() if value}
    root = configuration.project_root(Path.cwd())
    settings = configuration.load(root, {**chosen, "env": ["none"], "backends": _backend(cell)})
    judge = Judge(settings, find_sources(settings), cell, package, watched)
    versions = _versions(package, own["good"], own["bad"], own["versions"], settings.timeout_s)
    show = _shown(package, err=as_json)
    try:
        judge.declare(versions, own["beside"], own["python"])
        ends, found = _searched(judge, versions, metric, margin, own["budget"], show)
    finally:
        done()
        judge.close()
    steps = [*ends, *(found.steps if found else ())]
    sentence = _sentence(cell, package, metric, margin, ends, found)
    if as_json:
        click.echo(json.dumps(_data(cell, package, metric, versions, steps, found, sentence), indent=1))
    else:
        click.echo("\n".join(["", *_table(package, versions, steps), "", sentence]))
    if found is None:
        sys.exit(UNCHANGED)


def _backend(cell: str) -> list[str]:
    """The backend that a cell's id names, so that no other is planned; none where it is no id."""
    from pytest_modelformats.schema import registry

    name = cell.partition("+")[0].rpartition("@")[0]
    return [b for b in registry.backends() if name.endswith(f"-{b}")][:1] or sorted(registry.backends())


def _share(text: str) -> float:
    try:
        share = float(text.rstrip("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = 0.0
    if not 0 < share < 10:  # noqa: PLR2004 - ten times as slow is no margin
        raise ConfigurationError(f"--margin is '{text}'; expected a share such as 5% or 0.05")
    return share


def _versions(package: str, good: str, bad: str, stated: str, timeout_s: float) -> list[str]:
    """What is searched, in order, the good and the bad one at its ends; raises ConfigurationError."""
    from pytest_modelformats.run.environments import install

    named = [text.strip() for text in stated.split(",") if text.strip()]
    for text, option in ((good, "--good"), (bad, "--bad"), *((text, "--versions") for text in named)):
        if text:
            _version(text, option)
    if not named:
        if not (good and bad):
            raise ConfigurationError("say between which versions to search: --good 1.20.1 --bad 1.26.0, or --versions")
        try:
            named = install.released(package, timeout_s)
        except install.Failed as failed:
            msg = f"the versions of {package} cannot be listed: {failed}; name them with --versions 1.20.1,1.21.0"
            raise ConfigurationError(msg) from None
    found: dict[Version, str] = {_version(text, "--versions"): text for text in (*named, good, bad) if text}
    first, last = (_version(good, "--good") if good else min(found)), (_version(bad, "--bad") if bad else max(found))
    if not first < last:
        raise ConfigurationError(f"--good {good or first} is not earlier than --bad {bad or last}")
    asked = {first, last}
    return [found[v] for v in sorted(found) if first <= v <= last and (stated or not v.is_prerelease or v in asked)]


def _version(text: str, option: str) -> Version:
    from packaging.version import InvalidVersion, Version

    try:
        return Version(text)
    except InvalidVersion:
        raise ConfigurationError(f"{option}: '{text}' is no version; write it as in 1.26.0") from None


def _searched(
    judge: Judge, versions: Sequence[str], metric: str, margin: float, budget_s: float, show: Callable[[Step], None]
) -> tuple[list[Step], Found | None]:
    """The steps of both ends, and what lies between them; ``None`` where the ends agree."""
    from pytest_modelformats.cli.bisect.search import search

    good, bad = versions[0], versions[-1]
    first = judge.verdict(good)
    show(first)
    if first.bad is None and first.word == "skipped":
        raise ConfigurationError(f"the good version {good} cannot be tried: {first.sentence} Choose another --good.")

    def look(version: str, end: Step | None = None) -> Step:
        if metric == "verdict":
            step = judge.verdict(version, first.word)
        else:
            step = judge.latency(version, good, margin, budget_s, end)
        show(step)
        return step

    last = look(bad)
    if last.bad is None and last.ratio is not None:
        msg = (
            f"whether the latency changes from {good} to {bad} cannot be told: {last.sentence}. Measure for longer "
            f"(--budget {4 * budget_s:g}), on a quieter machine, or at a wider --margin."
        )
        raise ConfigurationError(msg)
    if last.bad is None:
        raise ConfigurationError(f"the bad version {bad} cannot be tried: {last.sentence} Choose another --bad.")
    return [first, last], search(versions, partial(look, end=last)) if last.bad else None


def _shown(package: str, *, err: bool) -> Callable[[Step], None]:
    def show(step: Step) -> None:
        done()
        click.echo(f"{package} {step.version}: {_told(step)}, {step.seconds:.1f} s", err=err)

    return show


def _told(step: Step) -> str:
    if step.ratio is not None:
        why = f" ({step.sentence})" if step.sentence else ""
        return f"{step.word}{why}: its latency beside the good version's is {percent(step.ratio)}{_interval(step)}"
    if step.noise_ratio is not None:
        return f"{step.word}, noise ratio {step.noise_ratio:.3g}"
    return f"{step.word}: {step.sentence}" if step.sentence else step.word


def _table(package: str, versions: Sequence[str], steps: Sequence[Step]) -> list[str]:
    """The versions that were tried, in their order, and how many were not."""
    place = {version: index for index, version in enumerate(versions)}
    ordered = sorted(steps, key=lambda step: place[step.version])
    widths = [max(len(text) for text in column) for column in ([package, *versions], *[[s.word for s in steps]])]
    lines = [f"{package:<{widths[0]}}  {'verdict':<{widths[1]}}  noise ratio  {_LATENCY}  seconds"]
    for step in ordered:
        noise = "–" if step.noise_ratio is None else f"{step.noise_ratio:.3g}"
        ratio = "–" if step.ratio is None else percent(step.ratio)
        word = f"{step.word:<{widths[1]}}"
        lines.append(
            f"{step.version:<{widths[0]}}  {word}  {noise:>11}  {ratio:>{len(_LATENCY)}}  {step.seconds:>7.1f}"
        )
    return [*lines, f"{len({s.version for s in steps})} of {len(versions)} versions were tried."]


def _sentence(cell: str, package: str, metric: str, margin: float, ends: Sequence[Step], found: Found | None) -> str:
    good, bad = ends
    if found is None:
        if metric == "verdict":
            return f"Nothing changes: {cell} is '{good.word}' with {package} {good.version} and with {bad.version}."
        change = f"{percent(bad.ratio or 1.0)}{_interval(bad, ', ', '')}"
        return (
            f"Nothing changes: {cell} is neither slower nor faster by more than {share(margin)} with {package} "
            f"{bad.version} than with {good.version} ({change})."
        )
    first = next((step for step in found.steps if step.version == found.first_bad), bad)
    what = (
        f"is '{first.word}' where it was '{good.word}'"
        if metric == "verdict"
        else f"is {_difference(first)} with {good.version}{_interval(first)}"
    )
    if not found.suspects:
        last = f"{found.last_good} is the last before it"
        return f"{package} {found.first_bad} is the first version with which {cell} {what}; {last}."
    untried = f"{', '.join(found.suspects)} could not be {'tried' if metric == 'verdict' else 'judged'}"
    return (
        f"With {package} {found.first_bad} {cell} {what}, with {found.last_good} not yet; {untried}, so the first may "
        "be any of these."
    )


def _difference(step: Step) -> str:
    """``5.3 % slower than``; ten-fold and more as a factor."""
    ratio = step.ratio or 1.0
    if ratio >= _TEN_FOLD or ratio * _TEN_FOLD <= 1:
        return f"{max(ratio, 1 / ratio):.3g} times as {'slow' if ratio > 1 else 'fast'} as"
    return f"{share(abs(ratio - 1))} {'slower' if ratio > 1 else 'faster'} than"


def _interval(step: Step, before: str = " (", after: str = ")") -> str:
    if not (step.ratio_low and step.ratio_high):
        return ""
    return f"{before}95 % interval {percent(step.ratio_low)} to {percent(step.ratio_high)}{after}"


def _data(
    cell: str,
    package: str,
    metric: str,
    versions: Sequence[str],
    steps: Sequence[Step],
    found: Found | None,
    sentence: str,
) -> dict[str, Any]:
    return {
        "cell": cell,
        "package": package,
        "metric": metric,
        "versions": list(versions),
        "first_bad": found.first_bad if found else None,
        "last_good": found.last_good if found else None,
        "suspects": list(found.suspects) if found else [],
        "steps": [asdict(step) for step in steps],
        "sentence": sentence,
    }
