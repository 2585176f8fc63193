"""PyTorch module -> exported program, with ``torch.export``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_modelformats.errors import ConvertError, Unsupported

if TYPE_CHECKING:
    from pytest_modelformats.schema.contract import ConversionJob


def convert(job: ConversionJob) -> dict[str, Any]:
    """Export the source; symbolic dimensions stay dynamic unless the option ``dynamic`` is off.

    Raises: Unsupported with what torch.export says it cannot trace; ConvertError for anything else it raises.
    """
    import torch

    from pytest_modelformats.systems.torch.loading.load import load_module
    from pytest_modelformats.systems.torch.loading.programs import first_line
    from pytest_modelformats.systems.torch.reference.calling import contract_module, is_prefix, plain_kernels, to_tensor

    module = load_module(job.source)
    names = [spec.name for spec in job.inputs]
    if job.precision != "fp32" or not is_prefix(module, names):
        module = contract_module(module, names, job.precision)
    example = tuple(to_tensor(job.example[name]) for name in names)
    dynamic = bool(job.options.get("dynamic", True))
    try:
        with plain_kernels():
            program = torch.export.export(module, example, dynamic_shapes=_dynamic_shapes(job) if dynamic else None)
            torch.export.save(program, job.output)
    except (torch._dynamo.exc.TorchDynamoException, NotImplementedError) as error:  # noqa: SLF001 - torch's only name
        msg = f"torch.export cannot trace the model: {first_line(error)}"
        raise Unsupported(msg) from error
    except Exception as error:  # torch.export raises whatever the model's own code runs into
        msg = f"torch.export failed ({type(error).__name__}): {first_line(error)}"
        raise ConvertError(msg) from error
    operators = sum(node.op == "call_function" for node in program.graph.nodes)
    return {"torch": torch.__version__, "dynamic": dynamic, "operators": operators}


def _dynamic_shapes(job: ConversionJob) -> tuple[dict[int, Any] | None, ...]:
    """Return one ``torch.export.Dim`` per symbol, where it occurs; one letter is one size."""
    import torch

    symbols = {d for spec in job.inputs for d in spec.shape or () if isinstance(d, str)}
    # Without min=1 torch 2.6 refuses a batch of one, having been shown a batch of two.
    dims = {symbol: torch.export.Dim(symbol, min=1) for symbol in symbols}
    return tuple(
        {axis: dims[d] for axis, d in enumerate(spec.shape or ()) if isinstance(d, str)} or None for spec in job.inputs
    )
