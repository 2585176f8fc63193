"""``modelformats env``: the environments with other versions, made ahead of a run or removed after it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click  # noqa: TID253 - the command itself: only the command line imports it

from pytest_modelformats.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_modelformats.run.environments.made import Made
    from pytest_modelformats.settings.nouns import Settings

_CACHE = click.option("--mf-cache", "cache", metavar="DIR", help="The cache folder that holds them.")


@click.group()
def env() -> None:
    """Environments with other versions of a runtime: what there is, make one ahead of a run, remove one."""


def loaded(cache: str | None, asked: tuple[str, ...] = ()) -> Settings:
    """The settings of the project that the command is called in; raises ConfigurationError."""
    from pytest_modelformats.settings import load as configuration

    given = {**({"cache": cache} if cache else {}), **({"env": list(asked)} if asked else {})}
    return configuration.load(configuration.project_root(Path.cwd()), given)


def watched(what: str) -> Callable[[float], None] | None:
    """Shows a person at a terminal what goes on and for how long."""
    if not sys.stderr.isatty():
        return None
    return lambda elapsed: click.echo(f"\r\x1b[K  {what} … {elapsed:.0f} s", nl=False, err=True)


def done() -> None:
    """Take away what :func:`watched` has shown."""
    if sys.stderr.isatty():
        click.echo("\r\x1b[K", nl=False, err=True)


@env.command(name="list")
@_CACHE
def list_(cache: str | None) -> None:
    """Show the declared environments, and those in the cache with their size."""
    click.echo("\n".join(lines(loaded(cache))))


def lines(settings: Settings) -> Iterator[str]:
    """A line for every declared environment and every one in the cache."""
    from pytest_modelformats.run.environments import made as environments

    if settings.environments:
        yield "Declared:"
    for entry in settings.environments:
        state = "there" if environments.is_made(settings, entry) else "not made yet"
        based = entry.interpreter or (f"based on {entry.python}" if entry.python else "")
        yield f"  {entry.name}: {', '.join(entry.requirements)}{f' ({based})' if based else ''}, {state}"
    found = list(environments.made(settings))
    yield f"In {settings.cache}:" if found else f"In {settings.cache}: none."
    for made in found:
        what = f"{', '.join(made.requirements)}; Python {made.python}" if made.whole else "half-made or changed"
        yield f"  {made.folder.name[:12]}: {what}; {_size(made) / 1e6:.0f} MB"


def summary(settings: Settings) -> str:
    """One line about them."""
    from pytest_modelformats.run.environments import made as environments

    declared = ", ".join(entry.name for entry in settings.environments) or "none"
    found = sum(made.whole for made in environments.made(settings))
    return f"declared: {declared}; in the cache: {found}{' (modelformats env list)' if found else ''}"


def _size(made: Made) -> int:
    return sum(path.lstat().st_size for path in made.folder.rglob("*") if not path.is_dir() or path.is_symlink())


@env.command()
@click.argument("names", nargs=-1, metavar="[NAME[=REQUIREMENTS]]...")
@_CACHE
def create(names: tuple[str, ...], cache: str | None) -> None:
    """Make environments now, all that are declared where none is named: runs then start at once, also offline."""
    from pytest_modelformats.run.environments import made as environments

    settings = loaded(cache, names)
    if not settings.environments:
        msg = "no environment is declared; name one, as in: modelformats env create 'ort-1.26=onnxruntime==1.26.0'"
        raise ConfigurationError(msg)
    for entry in settings.environments:
        try:
            ready = environments.ready(settings, entry.name, watched)
        finally:
            done()
        how = f"made in {ready.seconds:.0f} s" if ready.made else "is there"
        asked = {name: version for name, version in ready.versions.items() if ready.requires(name)}
        versions = ", ".join(f"{name} {version}" for name, version in sorted(asked.items()))
        click.echo(f"{entry.name}: {how}: {versions}; Python {ready.python}; {ready.interpreter}")


@env.command()
@click.argument("names", nargs=-1, metavar="[NAME|ID]...")
@click.option("--all", "everything", is_flag=True, help="Remove every environment in the cache.")
@_CACHE
def remove(names: tuple[str, ...], cache: str | None, *, everything: bool) -> None:
    """Remove environments from the cache, by name where they are declared, else as 'env list' shows them."""
    from pytest_modelformats.run.environments import made as environments

    if bool(names) == everything:
        raise ConfigurationError("say which environments to remove, or --all; 'modelformats env list' shows them")
    settings = loaded(cache)
    found = {made.folder: made for made in environments.made(settings)}
    for name in names:
        if not any(_is_meant(settings, name, made) for made in found.values()):
            msg = f"the cache {settings.cache} has no environment '{name}'; 'modelformats env list' shows what it has"
            raise ConfigurationError(msg)
    for folder, made in found.items():
        if everything or any(_is_meant(settings, name, made) for name in names):
            environments.remove(settings, folder)
            click.echo(f"removed {folder.name[:12]}: {', '.join(made.requirements) or 'half-made'}")


def _is_meant(settings: Settings, name: str, made: Made) -> bool:
    """Whether a name is that of a declared environment, or the beginning of a folder's."""
    from pytest_modelformats.run.environments import made as environments

    declared = next((e for e in settings.environments if e.name == name), None)
    if declared is not None:
        return environments.is_in(settings, declared, made.folder)
    return len(name) >= 6 and made.folder.name.startswith(name)  # noqa: PLR2004 - fewer digits may be a slip
