"""TorchScript run by torch's own interpreter, with its profiling optimiser as shipped."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from pytest_modelformats.errors import RunError, SourceError, TrustError
from pytest_modelformats.systems.torch.alone import callable_alone, prepare_alone
from pytest_modelformats.systems.torch.session import (
    TorchSession,
    prepare,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_modelformats.schema.contract import SessionJob


def open_session(job: SessionJob) -> TorchSession:
    """Return a session that states the names of the arguments; TorchScript keeps no shapes.

    Raises: NoDevice, RunError, TrustError.
    """
    from pytest_modelformats.systems.torch.loading.programs import load_scripted
    from pytest_modelformats.systems.torch.torchscript import stated_inputs

    statement = prepare(job)
    try:
        module = load_scripted(job.artifact, trust=job.source.trust)
    except TrustError:
        raise
    except SourceError as error:
        raise RunError(str(error)) from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = module.eval().to(job.device)
    return TorchSession(module, job, inputs=stated_inputs(module), statement=statement)


def open_alone(settings: Mapping[str, Any]) -> tuple[Any, list[list[Any]], list[list[Any]]]:
    """Open the artifact as :func:`open_session` does; the source of this goes into reproduction bundles as it is."""
    import torch

    prepare_alone(settings)
    module = torch.jit.load(settings["artifact"], map_location="cpu").eval().to(settings["device"])
    names = [[argument.name, "", None] for argument in list(module._c._get_method("forward").schema.arguments)[1:]]  # noqa: SLF001
    return callable_alone(module, settings), names[: len(settings["inputs"])], []


# What reproduction bundles open an artifact with, without this package (CONTRIBUTING.md).
ALONE = (prepare_alone, callable_alone, open_alone)
