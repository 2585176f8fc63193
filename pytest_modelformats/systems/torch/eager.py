"""PyTorch as it is: the source module, operator by operator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_modelformats.systems.torch.alone import callable_alone, module_alone, prepare_alone
from pytest_modelformats.systems.torch.session import (
    TorchSession,
    eager_module,
    prepare,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_modelformats.schema.contract import SessionJob


def open_session(job: SessionJob) -> TorchSession:
    """Return a session on the source module; a module states no names, so inputs and outputs are empty.

    Raises: NoDevice, SourceError.
    """
    statement = prepare(job)
    return TorchSession(eager_module(job), job, statement=statement)


def open_alone(settings: Mapping[str, Any]) -> tuple[Any, list[list[Any]], list[list[Any]]]:
    """Open the artifact as :func:`open_session` does; the source of this goes into reproduction bundles as it is."""
    prepare_alone(settings)
    return callable_alone(module_alone(settings), settings, cast=True), [], []


# What reproduction bundles open an artifact with, without this package (CONTRIBUTING.md).
ALONE = (prepare_alone, callable_alone, module_alone, open_alone)
