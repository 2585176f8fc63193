"""What every module of a PyTorch source gives, in float64, and what rounding costs it: kept as files."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from pytest_modelformats.compare.rounding import compressed
from pytest_modelformats.compare.truths import Truths, Writer
from pytest_modelformats.errors import Unsupported
from pytest_modelformats.systems.torch.reference import numerics as torch_numerics
from pytest_modelformats.systems.torch.reference.calling import (
    TORCH_DTYPES,
    arguments,
    copy_of,
    plain_kernels,
    to_numpy,
    to_tensor,
)
from pytest_modelformats.systems.torch.reference.modes import lifting, rounding, rounding_operands

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    import numpy as np
    import torch

    # A module's path, the module, its arguments and what it returned.
    Look = Callable[[str, Any, tuple[Any, ...], Any], None]


def modules_of(module: torch.nn.Module) -> dict[str, torch.nn.Module]:
    """The modules by path, those that are called once a run; the whole is "".

    Raises: Unsupported where there are none to be looked into.
    """
    import torch

    found = dict(module.named_modules())
    if isinstance(module, (torch.jit.ScriptModule, torch.fx.GraphModule)) or len(found) < 2:  # noqa: PLR2004 - itself
        msg = "its source is one program without modules of its own"
        raise Unsupported(msg)
    return found


def record(
    module: torch.nn.Module,
    feed: Mapping[str, np.ndarray],
    precision: str,
    folder: Path,
    check: Callable[[int, int], None],
) -> Truths:
    """Every module's first result in float64, with its noise at ``precision``, by the module's path.

    A module that is called several times has no one result and is left out.
    """
    import numpy as np

    folder.mkdir(parents=True, exist_ok=True)
    total = len(modules_of(module))
    wide: dict[str, Path] = {}
    repeated: set[str] = set()

    def keep(path: str, _: Any, __: tuple[Any, ...], output: Any) -> None:
        check(len(wide), 2 * total)
        tensor = first_tensor(output)
        if path in wide:
            repeated.add(path)
        elif tensor is not None:
            wide[path] = folder / f"wide-{len(wide)}.npy"
            np.save(wide[path], to_numpy(tensor), allow_pickle=False)

    run(module, feed, "float64", keep)
    writer = Writer(folder, precision)

    def compare(path: str, own: Any, _: tuple[Any, ...], output: Any) -> None:
        check(total, 2 * total)
        tensor = first_tensor(output)
        if path in wide and path not in repeated and tensor is not None:
            writer.add(path, type(own).__name__, np.load(wide.pop(path)), to_numpy(tensor))

    run(module, feed, precision, compare)
    for path in folder.glob("wide-*.npy"):
        path.unlink()
    return writer.close()


def first_tensor(output: Any) -> torch.Tensor | None:
    """The first tensor of what a module returned."""
    import torch
    from torch.utils import _pytree as pytree

    return next((leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, torch.Tensor)), None)


def run(module: torch.nn.Module, feed: Mapping[str, np.ndarray], precision: str, look: Look) -> None:
    """Run a copy of the module; ``look`` sees every module when it returns, inner ones before outer ones."""
    import torch

    with numerics(module, precision) as (ready, dtype):
        handles = [
            inner.register_forward_hook(lambda m, given, output, path=path: look(path, m, given, output))
            for path, inner in ready.named_modules()
            if path
        ]
        tensors = {name: to_tensor(array) for name, array in feed.items()}
        if dtype is torch.float64:
            tensors = {name: t.to(dtype) if t.is_floating_point() else t for name, t in tensors.items()}
        args, kwargs = arguments(ready, tensors)
        try:
            ready(*args, **kwargs)
        finally:
            for handle in handles:
                handle.remove()


@contextmanager
def numerics(module: torch.nn.Module, precision: str) -> Iterator[tuple[torch.nn.Module, torch.dtype]]:
    """A copy of the module that computes in float64, or in fp32 with every result rounded to ``precision``."""
    import torch

    if precision == "float64":
        ready, dtype = copy_of(module).double(), torch.float64
    else:
        ready, dtype = torch_numerics._single(module), torch.float32  # noqa: SLF001 - the same copy as for the noise
        if precision in ("fp16", "bf16"):
            ready = ready.to(getattr(torch, TORCH_DTYPES[precision])).float()
        elif precision == "fp16-weights":
            torch_numerics.round_weights(ready, compressed)
    with mode(precision):
        yield ready, dtype


@contextmanager
def mode(precision: str) -> Iterator[None]:
    """Within it, modules made by :func:`numerics` compute as they are meant to."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    before = torch.get_default_dtype()
    with ExitStack() as stack:
        stack.enter_context(plain_kernels())
        if precision == "float64":
            stack.callback(torch.set_default_dtype, before)
            torch.set_default_dtype(torch.float64)
            stack.enter_context(lifting(torch.float64))
        elif precision in ("fp16", "bf16", "tf32"):
            # Step by step instead of a layer in one call, so that what is inside is rounded too.
            stack.enter_context(torch.backends.mkldnn.flags(enabled=False))
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            nearest = torch_numerics._nearest_tf32  # noqa: SLF001 - as for the noise of the outputs
            narrow = precision != "tf32" and getattr(torch, TORCH_DTYPES[precision])
            stack.enter_context(rounding(narrow) if narrow else rounding_operands(nearest))
        yield
