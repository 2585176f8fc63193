"""What a torch module says of itself: names, dtypes and shapes, found by running it once or a few times."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pytest_modelformats.errors import SourceError
from pytest_modelformats.schema import Description, TensorSpec, classifies
from pytest_modelformats.source.free_dimensions import candidates
from pytest_modelformats.systems.torch.loading.programs import first_line
from pytest_modelformats.systems.torch.reference.calling import (
    arguments,
    flatten_stating,
    parameter_names,
    plain_kernels,
    required_names,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

    from pytest_modelformats.schema.sizes import Dimension

# A symbolic dimension is 2, or the first of these at which the model runs: 2 pixels are too few for most CNNs.
_SIZES = (2, 33, 224)
# Of most networks of images; what takes multiples of it alone takes the size after the next one too.
_STRIDE = 32


def describe_module(
    module: Any,
    inputs: Sequence[TensorSpec],
    fingerprint: str,
    *,
    classifier: bool | None = None,
    data: str = "",
    sizes: tuple[Dimension, ...] = (),
) -> Description:
    """Return the description of a module whose inputs are known.

    Raises: SourceError where the module does not run on inputs of these shapes.
    """
    outputs, invented = output_specs(module, inputs)
    if classifier is None:
        classifier = classifies(outputs)
    count = sum(p.numel() for p in module.parameters())
    summary = f"{getattr(module, 'original_name', type(module).__name__)}, {count:,} parameters"
    return Description(tuple(inputs), outputs, fingerprint, classifier, data, summary, invented, sizes)


def complete_inputs(module: Any, inputs: Sequence[TensorSpec], file: str) -> tuple[TensorSpec, ...]:
    """Give every specification the name that ``forward`` has for it.

    Raises: SourceError showing the options to write where none is given, or where a name is not the model's.
    """
    names = parameter_names(module)
    if not inputs:
        options = " ".join(f"--mf-input '{name}:float32[N,3,224,224]'" for name in required_names(module) or ("x",))
        msg = f"'{file}' does not say what its inputs look like; add {options} with the real dtype and shape"
        raise SourceError(msg)
    completed = []
    for position, spec in enumerate(inputs):
        if not spec.name and position >= len(names):
            spec = replace(spec, name=f"input_{position}" if len(inputs) > 1 else "input")  # noqa: PLW2901 - completed
        elif not spec.name:
            spec = replace(spec, name=names[position])  # noqa: PLW2901 - completed
        completed.append(spec)
    unknown = [spec.name for spec in completed if names and spec.name not in names]
    missing = [name for name in required_names(module) if name not in {spec.name for spec in completed}]
    if unknown or missing:
        msg = (
            f"'{file}' has no input '{unknown[0]}'; its inputs are {', '.join(names)}"
            if unknown
            else f"'{file}' also needs the input '{missing[0]}'; add --mf-input '{missing[0]}:float32[N,3,224,224]'"
        )
        raise SourceError(msg)
    return tuple(completed)


def output_specs(module: Any, inputs: Sequence[TensorSpec]) -> tuple[tuple[TensorSpec, ...], tuple[str, ...]]:
    """Run the module on ones, once for each symbol at another size; its outputs, and which names are not its own.

    Shapes: a dimension that always equals one symbol carries it; one that changes in
    another way gets a symbol of its own.
    """
    symbols = list(dict.fromkeys(d for spec in inputs for d in spec.shape or () if isinstance(d, str)))
    sizes, base = _smallest(module, inputs, symbols)
    outputs = [(name, str(t.dtype).removeprefix("torch."), tuple(t.shape)) for name, t, _ in base]
    shapes: list[list[int | str]] = [list(shape) for _, _, shape in outputs]
    for offset, symbol in enumerate(symbols):
        size = sizes[symbol]
        other, again = _at_another(module, inputs, sizes, symbol, offset)
        if [t.dim() for _, t, _ in again] != [len(shape) for shape in shapes]:
            msg = f"the model returns other outputs when {symbol} is {other} than when it is {size}; fix {symbol}"
            raise SourceError(msg)
        for index, (name, tensor, _) in enumerate(again):
            for axis, length in enumerate(tensor.shape):
                if length != outputs[index][2][axis]:
                    same = length == other and outputs[index][2][axis] == size and shapes[index][axis] == size
                    shapes[index][axis] = symbol if same else f"{name}_{axis}"
    specs = (TensorSpec(name, dtype, tuple(shape)) for (name, dtype, _), shape in zip(outputs, shapes, strict=True))
    return tuple(specs), tuple(name for name, _, own in base if not own)


def _smallest(
    module: Any, inputs: Sequence[TensorSpec], symbols: Sequence[str]
) -> tuple[dict[str, int], list[tuple[str, torch.Tensor, bool]]]:
    *tried, last = (dict.fromkeys(symbols, size) for size in (_SIZES if symbols else _SIZES[:1]))
    # What takes whole strides alone takes neither 2 nor 33; the batch stays small.
    tried += [{**dict.fromkeys(symbols, _SIZES[0]), **sizes} for sizes in candidates(inputs, {})]
    for sizes in tried:
        with suppress(SourceError):
            return sizes, _run_ones(module, inputs, sizes)
    return last, _run_ones(module, inputs, last)


def _at_another(
    module: Any, inputs: Sequence[TensorSpec], sizes: Mapping[str, int], symbol: str, offset: int
) -> tuple[int, list[tuple[str, torch.Tensor, bool]]]:
    """Another size of one symbol, its own alone so that a dimension that equals it can only be its, and the outputs."""
    near, far = sizes[symbol] + 1 + offset, sizes[symbol] + _STRIDE * (1 + offset)
    try:
        return near, _run_ones(module, inputs, {**sizes, symbol: near})
    except SourceError:
        with suppress(SourceError):
            return far, _run_ones(module, inputs, {**sizes, symbol: far})
        raise


def _run_ones(
    module: Any, inputs: Sequence[TensorSpec], sizes: Mapping[str, int]
) -> list[tuple[str, torch.Tensor, bool]]:
    import torch

    tensors = {}
    for spec in inputs:
        shape = [d if isinstance(d, int) else sizes[d] for d in spec.shape or ()]
        one = 1 if spec.is_float or spec.dtype == "bool" else int(spec.low or 0)
        tensors[spec.name] = torch.full(shape, one, dtype=getattr(torch, spec.dtype))
    args, kwargs = arguments(module, tensors)
    try:
        with plain_kernels():
            return flatten_stating(module(*args, **kwargs))
    except (RuntimeError, TypeError, ValueError, IndexError, AssertionError) as error:
        given = ", ".join(f"{name}:{str(t.dtype).removeprefix('torch.')}{list(t.shape)}" for name, t in tensors.items())
        msg = f"the model does not run on {given} ({first_line(error)}); say what fits with --mf-input"
        raise SourceError(msg) from error


def state_digest(module: torch.nn.Module) -> str:
    """Return the SHA-256 over every key, shape, dtype and byte of the module's state."""
    import torch

    digest = hashlib.sha256()
    for key, tensor in sorted(module.state_dict().items()):
        if not isinstance(tensor, torch.Tensor):
            digest.update(f"{key} {tensor!r}".encode())
            continue
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
