"""An exported program run by PyTorch, operator by operator as the graph has them."""

from __future__ import annotations

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
    """Return a session that states the names, dtypes and dynamic dimensions of the program's signature.

    Raises: NoDevice, RunError, TrustError.
    """
    from pytest_modelformats.systems.torch.loading.programs import load_exported, module_of
    from pytest_modelformats.systems.torch.pt2 import stated_inputs, stated_outputs

    statement = prepare(job)
    try:
        program, module = load_exported(job.artifact, trust=job.source.trust)
    except TrustError:
        raise
    except SourceError as error:
        raise RunError(str(error)) from error
    if job.device == "cuda":
        module = module_of(_on_cuda(program))
    return TorchSession(
        module, job, inputs=stated_inputs(program), outputs=stated_outputs(program), statement=statement
    )


def _on_cuda(program: Any) -> Any:
    """Move the weights and the devices that are written into the graph."""
    from torch.export.passes import move_to_device_pass

    return move_to_device_pass(program, "cuda")


def open_alone(settings: Mapping[str, Any]) -> tuple[Any, list[list[Any]], list[list[Any]]]:
    """Open the artifact as :func:`open_session` does; the source of this goes into reproduction bundles as it is."""
    import torch

    prepare_alone(settings)
    program = torch.export.load(settings["artifact"])
    if settings["device"] == "cuda":
        from torch.export.passes import move_to_device_pass

        program = move_to_device_pass(program, "cuda")
    guards = {"check_guards": False} if "check_guards" in program.module.__code__.co_varnames else {}
    values = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
    taken = [getattr(values.get(name), "dtype", None) for name in program.graph_signature.user_inputs]
    return callable_alone(program.module(**guards), settings, taken=taken), [], []


# What reproduction bundles open an artifact with, without this package (CONTRIBUTING.md).
ALONE = (prepare_alone, callable_alone, open_alone)
