"""The ``--mf-*`` options as options of a command, from the one table that they are in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click  # noqa: TID253 - only the command's entry point imports it

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_modelformats.settings.options import Option


def with_options(options: Sequence[Option], command: Callable[..., None]) -> Callable[..., None]:
    """Give a command some of the ``--mf-*`` options."""
    for option in reversed(options):
        attributes: dict[str, Any] = {"help": option.full_help, "default": None}
        if option.kind == "flag":
            attributes["is_flag"] = True
        else:
            attributes |= {"multiple": option.repeatable, "metavar": option.metavar}
        command = click.option(option.flag, option.key, **attributes)(command)
    return command
