"""PyTorch module -> TorchScript, by recording one run (``trace``) or by compiling the source code (``script``)."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from pytest_modelformats.errors import ConvertError, Unsupported

if TYPE_CHECKING:
    import torch

    from pytest_modelformats.schema.contract import ConversionJob


def trace(job: ConversionJob) -> dict[str, Any]:
    """Record the source's operators on the example; what torch warns of while tracing is among the facts.

    Raises: Unsupported, ConvertError.
    """
    from pytest_modelformats.systems.torch.loading.load import load_module

    return _trace(job, load_module(job.source))


def script(job: ConversionJob) -> dict[str, Any]:
    """Compile the source's own code, branches and loops included.

    Raises: Unsupported with torch's first line where the code is beyond TorchScript.
    """
    import torch

    from pytest_modelformats.systems.torch.loading.load import load_module
    from pytest_modelformats.systems.torch.loading.programs import first_line
    from pytest_modelformats.systems.torch.reference.calling import is_prefix, plain_kernels

    module = load_module(job.source)
    try:
        with plain_kernels():
            scripted = torch.jit.script(module)
    except Exception as error:  # besides its own errors torch.jit.script raises those of reading Python source
        msg = f"torch.jit.script cannot compile the model: {first_line(error)}"
        raise Unsupported(msg) from error
    if job.precision == "fp32" and is_prefix(scripted, [spec.name for spec in job.inputs]):
        try:
            with plain_kernels():
                torch.jit.save(scripted, job.output)
        except RuntimeError as error:
            msg = f"torch.jit.save cannot write the compiled model: {first_line(error)}"
            raise ConvertError(msg) from error
        return {"torch": torch.__version__, "method": "script"}
    # Casts and other names come from a traced shell; the compiled code inside keeps its branches.
    return {**_trace(job, scripted), "method": "script in a traced shell"}


def _trace(job: ConversionJob, module: torch.nn.Module) -> dict[str, Any]:
    import torch

    from pytest_modelformats.systems.torch.loading.programs import first_line
    from pytest_modelformats.systems.torch.reference.calling import contract_module, plain_kernels, to_tensor

    names = [spec.name for spec in job.inputs]
    example = tuple(to_tensor(job.example[name]) for name in names)
    try:
        with plain_kernels(), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", torch.jit.TracerWarning)
            # The check would run the model twice more; parity, judged later on other inputs, says more.
            wrapped = contract_module(module, names, job.precision, flat=True)
            traced = torch.jit.trace(wrapped, example, check_trace=False)
            torch.jit.save(traced, job.output)
    except (NotImplementedError, torch.jit.TracingCheckError, torch.jit.frontend.NotSupportedError) as error:
        msg = f"torch.jit.trace cannot record the model: {first_line(error)}"
        raise Unsupported(msg) from error
    except Exception as error:  # tracing runs the model's own code, which may raise anything
        if "Tracer cannot" in str(error):
            msg = f"torch.jit.trace cannot record the model: {first_line(error)}"
            raise Unsupported(msg) from error
        if "not implemented for" in str(error):
            msg = f"PyTorch has no kernel to trace the model at {job.precision}: {first_line(error)}"
            raise Unsupported(msg) from error
        msg = f"torch.jit.trace failed ({type(error).__name__}): {first_line(error)}"
        raise ConvertError(msg) from error
    noted = [str(w.message) for w in caught if issubclass(w.category, torch.jit.TracerWarning)]
    return {"torch": torch.__version__, "method": "trace", "warnings": noted[:5]}
