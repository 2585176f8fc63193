"""How a torch module is called by the contract: named arrays in, a flat list of named tensors out."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import io
import warnings
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pytest_modelformats.errors import Unsupported

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import torch

# What the exporters put before the first module and what our own wrapper adds.
_WRAPPERS = ("module",)

TORCH_DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}


def to_tensor(array: np.ndarray, dtype: str = "") -> torch.Tensor:
    """Return a tensor of its own memory with the array's values, as ``dtype`` where one is given."""
    import numpy as np
    import torch

    tensor = torch.from_numpy(np.array(array))
    return tensor.to(getattr(torch, dtype)) if dtype else tensor


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """Return the values as an array of the tensor's own dtype; bfloat16, which numpy lacks, as float32."""
    import torch

    tensor = tensor.detach().cpu()
    if tensor.dtype is torch.bfloat16:
        tensor = tensor.float()
    array: np.ndarray = tensor.contiguous().numpy()
    return array


def parameter_names(module: Any) -> tuple[str, ...]:
    """Name what ``forward`` takes, in order; empty where it does not say (``*args``)."""
    return tuple(name for name, _ in _parameters(module))


def required_names(module: Any) -> tuple[str, ...]:
    """Name what ``forward`` cannot be called without."""
    return tuple(name for name, optional in _parameters(module) if not optional)


def _parameters(module: Any) -> list[tuple[str, bool]]:
    import torch

    if isinstance(module, torch.jit.ScriptModule):
        # Indexed, because the list of TorchScript's arguments is no Sequence.
        arguments = list(module._c._get_method("forward").schema.arguments)[1:]  # noqa: SLF001 - the only way to them
        return [(argument.name, argument.has_default_value()) for argument in arguments]
    kinds = inspect.Parameter
    parameters = inspect.signature(module.forward).parameters.values()
    if any(p.kind is kinds.VAR_POSITIONAL for p in parameters):
        return []
    named = (kinds.POSITIONAL_OR_KEYWORD, kinds.KEYWORD_ONLY, kinds.POSITIONAL_ONLY)
    return [(p.name, p.default is not kinds.empty) for p in parameters if p.kind in named]


def is_prefix(module: Any, names: Sequence[str]) -> bool:
    """Whether the named inputs are the first parameters of ``forward``, in its order."""
    return parameter_names(module)[: len(names)] == tuple(names)


def arguments(module: Any, tensors: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return how ``module`` is to be called with these inputs: by position, by keyword, or nested as exported."""
    spec = getattr(module, "_in_spec", None)
    if spec is not None:
        from torch.utils import _pytree as pytree

        args, kwargs = pytree.tree_unflatten(list(tensors.values()), spec)
        return tuple(args), dict(kwargs)
    if is_prefix(module, list(tensors)) or not set(tensors) <= set(parameter_names(module)):
        return tuple(tensors.values()), {}
    return (), dict(tensors)


def flatten(output: Any) -> list[tuple[str, torch.Tensor]]:
    """Return every tensor of what a model returned, with its name; ``None`` is no output (see ``flatten_stating``)."""
    return [(name, tensor) for name, tensor, _ in flatten_stating(output)]


def flatten_stating(output: Any) -> list[tuple[str, torch.Tensor, bool]]:
    """The same, with whether the name is the model's own: what it returns by position it does not name.

    A lone tensor is ``output``; otherwise keys and fields name their tensors and positions
    are numbered: ``output_0``, ``boxes``, ``output_1_scores``.

    Raises: Unsupported where the model returns something that is neither a tensor nor a number.
    """
    import torch

    if isinstance(output, torch.Tensor):
        return [("output", output, False)]
    named: list[tuple[str, torch.Tensor, bool]] = []
    for path, leaf in _leaves(output):
        own = bool(path) and not path[0].isdigit()
        name = "_".join(path if own else ("output", *path))
        if isinstance(leaf, (bool, int, float)):
            named.append((name, torch.tensor(leaf), own))
        elif isinstance(leaf, torch.Tensor):
            named.append((name, leaf, own))
        else:
            msg = (
                f"the model returns a {type(leaf).__name__} as '{name}', which is no tensor; wrap it to return tensors"
            )
            raise Unsupported(msg)
    return named


def _leaves(output: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Walk what torch's own trees know, and the mappings and dataclasses that nobody registered."""
    from torch.utils import _pytree as pytree

    for path, leaf in pytree.tree_flatten_with_path(output)[0]:
        prefix = tuple(str(getattr(k, "key", getattr(k, "idx", getattr(k, "name", k)))) for k in path)
        inner: Any = None
        if isinstance(leaf, Mapping):
            inner = dict(leaf)
        elif dataclasses.is_dataclass(leaf) and not isinstance(leaf, type):
            inner = {field.name: getattr(leaf, field.name) for field in dataclasses.fields(leaf)}
        if inner is not None:
            yield from ((prefix + rest, value) for rest, value in _leaves(inner))
        elif leaf is not None:
            yield prefix, leaf


@contextmanager
def plain_kernels() -> Iterator[None]:
    """Run without gradients, warnings and fused attention kernels that hide operators and fail to trace."""
    import torch

    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def contract_module(
    module: torch.nn.Module, names: Sequence[str], precision: str = "fp32", *, flat: bool = False
) -> torch.nn.Module:
    """Return a module that takes the named inputs by position and computes at ``precision`` inside.

    Its inputs and outputs keep the dtypes they have at fp32. The given module is left as it
    is. ``flat`` outputs are one tensor or a tuple of tensors, which tracing asks for;
    otherwise they stay nested as they are.
    """
    import torch
    from torch.utils import _pytree as pytree

    inner = module if precision == "fp32" else cast_copy(module, getattr(torch, TORCH_DTYPES[precision]))
    dtype = getattr(torch, TORCH_DTYPES[precision])

    def narrow(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(dtype) if tensor.dtype is torch.float32 else tensor

    def widen(leaf: Any) -> Any:
        return leaf.to(torch.float32) if isinstance(leaf, torch.Tensor) and leaf.dtype is dtype else leaf

    def forward(self: Any, *feeds: torch.Tensor) -> Any:
        given = feeds if precision == "fp32" else tuple(map(narrow, feeds))
        args, kwargs = arguments(self.module, dict(zip(names, given, strict=True)))
        output = self.module(*args, **kwargs)
        if flat:
            tensors = tuple(tensor for _, tensor in flatten(output))
            output = tensors[0] if len(tensors) == 1 else tensors
        return output if precision == "fp32" else pytree.tree_map(widen, output)

    # Tracing and export name their inputs after the parameters of forward.
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    forward.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter(name, kind) for name in ("self", *names)]
    )
    wrapped: torch.nn.Module = type("Model", (torch.nn.Module,), {"forward": forward})()
    wrapped.module = inner
    wrapped.training = module.training
    return wrapped


def copy_of(module: Any) -> Any:
    """Return a copy that shares nothing with the module, compiled code included."""
    import torch

    if not isinstance(module, torch.jit.ScriptModule):
        return copy.deepcopy(module)
    # deepcopy would share the interpreter's plans, into which constants were folded at the first run's precision.
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(module, buffer)
        buffer.seek(0)
        return torch.jit.load(buffer)


def cast_copy(module: torch.nn.Module, dtype: torch.dtype) -> torch.nn.Module:
    """Return a copy with every floating parameter and buffer as ``dtype``."""
    cast: torch.nn.Module = copy_of(module).to(dtype)
    return cast


def unwrapped(path: str) -> str:
    """The path without the wrapper that a converter may have put around the source."""
    for wrapper in _WRAPPERS:
        if path == wrapper:
            return ""
        path = path.removeprefix(f"{wrapper}.")
    return path
