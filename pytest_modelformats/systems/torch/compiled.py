"""``torch.compile``: the source module through TorchInductor, with dynamic shapes.

The first call compiles and takes 5 to 50 s; the first in a process pays 30 s more.
"""

from __future__ import annotations

import importlib
import warnings
from typing import TYPE_CHECKING, Any

from pytest_modelformats.systems.torch.alone import callable_alone, module_alone, prepare_alone
from pytest_modelformats.systems.torch.session import TorchSession, eager_module, prepare

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

    from pytest_modelformats.schema.contract import Feed, SessionJob


class CompiledSession(TorchSession):
    """A session that lets go of the compiler's caches when it is closed."""

    def run(self, feed: Feed) -> list[np.ndarray]:
        """Run once; what has to be compiled for it is compiled on all cores of the process."""
        _compile_on_all_cores()
        return super().run(feed)

    def close(self) -> None:
        """Drop the compiled code: the next model must not meet this one's recompilation limit."""
        import torch

        super().close()
        torch._dynamo.reset()  # noqa: SLF001 - torch.compiler.reset is this, from 2.1 on only by this name


def _compile_on_all_cores() -> None:
    """Inductor counts the cores when it is imported, and that is while the session is opened, pinned to its own.

    With two cores instead of one, a small network's first calls at fp32 and fp16 took 33 s instead of 41 s.
    """
    config: Any = importlib.import_module("torch._inductor.config")
    config.compile_threads = config.decide_compile_threads()


def open_session(job: SessionJob) -> CompiledSession:
    """Return a session on the compiled module; compilation happens in its first run.

    Raises: NoDevice, SourceError.
    """
    import torch

    statement = {**prepare(job), "compiler": "inductor", "dynamic": True}
    module = eager_module(job)
    with warnings.catch_warnings():
        # Inductor still imports parts of torch.jit, whose deprecation is no fault of the model.
        warnings.simplefilter("ignore", DeprecationWarning)
        importlib.import_module("torch._inductor.compile_fx")
    return CompiledSession(torch.compile(module, dynamic=True), job, statement=statement, signature=module)


def open_alone(settings: Mapping[str, Any]) -> tuple[Any, list[list[Any]], list[list[Any]]]:
    """Open the artifact as :func:`open_session` does; the source of this goes into reproduction bundles as it is."""
    import torch

    prepare_alone(settings)
    return callable_alone(torch.compile(module_alone(settings), dynamic=True), settings, cast=True), [], []


# What reproduction bundles open an artifact with, without this package (CONTRIBUTING.md).
ALONE = (prepare_alone, callable_alone, module_alone, open_alone)
