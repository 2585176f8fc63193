"""The source model evaluated by its own framework: in float64 for the truth, and at each precision for its noise.

Source: shared design, section 5. Rounding every operator's result to fp16 inside an fp32
run gave 0.76 to 1.00 of the noise of native fp16 kernels on ResNet-50, an encoder and an
LSTM, where native fp16 convolutions are 40 times slower on CPUs. Measured here over 8 seeds of
an MLP, an LSTM and a GRU: 1.00 in fp16 and bf16, but 1.23 to 1.50 of oneDNN's fused bf16
LSTM, which keeps a wider state inside; it is native wherever bf16 runs natively.
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

from pytest_modelformats.compare.rounding import DROPPED_BITS, perturbed_feed, weight_rounding
from pytest_modelformats.errors import RunError, Unsupported
from pytest_modelformats.systems.torch.loading.programs import first_line
from pytest_modelformats.systems.torch.reference.calling import (
    arguments,
    cast_copy,
    copy_of,
    flatten,
    plain_kernels,
    to_numpy,
    to_tensor,
)
from pytest_modelformats.systems.torch.reference.modes import (
    FusedOperatorError,
    by_definition,
    lifting,
    rounding,
    rounding_operands,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    import torch

    Outputs = list[list[np.ndarray]]
    Feeds = Sequence[Mapping[str, np.ndarray]]

# What the method of the noise says of the operators that are evaluated by their definition.
DEFINITIONS = {
    "elu": "ELU by its definition exp(x) - 1",
    "sigmoid": "low sigmoids as 1 - 1 / (1 + exp(x))",
    "silu": "SiLU with low sigmoids as 1 - 1 / (1 + exp(x))",
    "glu": "GLU with low sigmoids as 1 - 1 / (1 + exp(x))",
    "softplus": "softplus as log(1 + exp(x))",
}
# The buffer of a batch normalisation, which exporters fold into the weight before it.
_NORMALISED = "running_var"
# A place where rounding decides between a number and NaN is seen in 255 of 256 cases.
MOVES = 8


def evaluate(module: torch.nn.Module, feeds: Feeds, precision: str) -> tuple[Outputs, str]:
    """Return the module's outputs per feed at ``precision``, and by which method they came about.

    The module itself stays as it was. Floating outputs are float64 for ``float64`` and
    float32 for the precisions.

    Raises: Unsupported where torch cannot evaluate the module so; RunError where it cannot run it at all.
    """
    methods: dict[str, Callable[[Any, Feeds], tuple[Outputs, str]]] = {
        "float64": _float64,
        "fp32": _fp32,
        "tf32": _tf32,
        "fp16": _fp16,
        "bf16": _bf16,
    }
    change = weight_rounding(precision)
    if change is not None:
        methods[precision] = partial(_weights, precision=precision, change=change)
    if precision not in methods:
        msg = f"PyTorch cannot evaluate a model at '{precision}'; it can at {', '.join(methods)}, fp16-weights"
        raise Unsupported(msg)
    import torch

    with plain_kernels(), torch.jit.optimized_execution(False):  # noqa: FBT003 - torch's own signature
        return methods[precision](module, feeds)


def _run(module: Any, feeds: Feeds, dtype: torch.dtype | None = None, *modes: Any) -> list[list[torch.Tensor]]:
    """Call the module with every feed, under ``modes``; floating inputs as ``dtype``, outputs as they come."""
    results = []
    for feed in feeds:
        tensors = {name: to_tensor(array) for name, array in feed.items()}
        if dtype is not None:
            tensors = {name: t.to(dtype) if t.is_floating_point() else t for name, t in tensors.items()}
        args, kwargs = arguments(module, tensors)
        with ExitStack() as stack:
            for mode in modes:
                stack.enter_context(mode)
            results.append([tensor for _, tensor in flatten(module(*args, **kwargs))])
    return results


def _arrays(results: list[list[torch.Tensor]], dtype: torch.dtype) -> Outputs:
    return [[to_numpy(t.to(dtype) if t.is_floating_point() else t) for t in tensors] for tensors in results]


def _float64(module: Any, feeds: Feeds) -> tuple[Outputs, str]:
    import torch

    before = torch.get_default_dtype()
    refusals = []
    torch.set_default_dtype(torch.float64)
    try:
        for wide, method in _widened(module):
            try:
                results = _run(wide, feeds, torch.float64, lifting(torch.float64))
            except (RuntimeError, TypeError, ValueError, IndexError) as error:
                refusals.append(first_line(error))
                continue
            narrow = {str(t.dtype) for ts in results for t in ts if t.is_floating_point()} - {"torch.float64"}
            if not narrow:
                return _arrays(results, torch.float64), method
            refusals.append(f"an output came out as {', '.join(sorted(narrow))}")
    finally:
        torch.set_default_dtype(before)
    # What does not run in its own precision either is no matter of float64.
    if not _is_narrow(module):
        _call(copy_of(module), feeds, None)
    msg = f"PyTorch cannot evaluate the model in float64: {refusals[0]}"
    raise Unsupported(msg)


def _widened(module: Any) -> list[tuple[Any, str]]:
    """Return the ways to lift the module, the surest first."""
    alone = (copy_of(module), "float64: every operator's float arguments lifted in a torch dispatch mode")
    try:
        doubled = copy_of(module).double()
    except (RuntimeError, TypeError, NotImplementedError):
        return [alone]
    return [(doubled, "float64: .double(), float arguments of every operator lifted in a torch dispatch mode"), alone]


def _is_narrow(module: Any) -> bool:
    import torch

    state = (*module.parameters(), *module.buffers())
    return any(t.dtype in (torch.float16, torch.bfloat16) for t in state)


def _single(module: Any) -> Any:
    """Return a copy in float32 that may be run, and changed while it runs, without touching the module."""
    copied = copy_of(module)
    return copied.float() if _is_narrow(module) else copied


def _lift_narrow(module: Any) -> list[Any]:
    import torch

    return [lifting(torch.float32)] if _is_narrow(module) else []


def _fp32(module: Any, feeds: Feeds) -> tuple[Outputs, str]:
    import torch

    # A file that already holds fp16 is lifted: what its own rounding costs must not pass for fp32's.
    narrow = _is_narrow(module)
    dtype = torch.float32 if narrow else None
    results = _call(_single(module), feeds, dtype, *_lift_narrow(module))
    method = "fp32: lifted from the file's own precision" if narrow else "fp32: native"
    met = _defined(module, feeds[:1], dtype)
    if met:
        results = _call(_single(module), feeds, dtype, *_lift_narrow(module), by_definition())
        method += "".join(f", {said}" for operator, said in DEFINITIONS.items() if operator in met)
    arrays = _arrays(results, torch.float32)
    if any(not t.isfinite().all() for tensors in results for t in tensors if t.is_floating_point()):
        arrays = _lost_as_easily(module, feeds, dtype, arrays)
    return arrays, method


def _lost_as_easily(module: Any, feeds: Feeds, dtype: torch.dtype | None, arrays: Outputs) -> Outputs:
    """The outputs with NaN or Inf also where inputs that differ by a unit of fp16, or flushed denormals, give it.

    Which side of zero a difference of nearly equal values falls on is rounding's choice, and another one's elsewhere. A
    move by a unit of fp32 is lost in the first sum with something large; second_look.py moves by as much as this.
    """
    import numpy as np
    import torch

    others, generator = [], np.random.default_rng(0)
    if torch.set_flush_denormal(True):  # False on a processor that cannot
        try:
            others.append(_call(_single(module), feeds, dtype, *_lift_narrow(module)))
        finally:
            torch.set_flush_denormal(False)
    if any(array.dtype.kind == "f" for feed in feeds for array in feed.values()):
        for _ in range(MOVES):
            moved = [perturbed_feed(feed, "fp16", generator) for feed in feeds]
            others.append(_call(_single(module), moved, dtype, *_lift_narrow(module)))
    found = [list(one) for one in arrays]
    for results in others:
        for one, other in zip(found, _arrays(results, torch.float32), strict=True):
            for index, (a, o) in enumerate(zip(one, other, strict=True)):
                if a.dtype.kind == "f" and a.shape == o.shape:
                    one[index] = np.where(np.isfinite(o), a, o)
    return found


def _defined(module: Any, feeds: Feeds, dtype: torch.dtype | None) -> set[str]:
    """The operators that run and have a definition of their own; none where a module cannot be looked into so."""
    mode = by_definition()
    try:
        _run(_single(module), feeds, dtype, *_lift_narrow(module), mode)
    except (RuntimeError, TypeError, ValueError, IndexError):
        return set()
    return set(mode.met)


def _call(module: Any, feeds: Feeds, dtype: torch.dtype | None, *modes: Any) -> list[list[torch.Tensor]]:
    for mode in modes:
        mode.met_fused = False
    try:
        return _run(module, feeds, dtype, *modes)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        if any(mode.met_fused for mode in modes):  # TorchScript's interpreter wraps it in an error of its own
            raise FusedOperatorError from error
        msg = f"PyTorch could not run the model: {first_line(error)}"
        raise RunError(msg) from error


def _bf16(module: Any, feeds: Feeds) -> tuple[Outputs, str]:
    import torch

    try:
        results = _run(cast_copy(module, torch.bfloat16), feeds, torch.bfloat16)
    except (RuntimeError, TypeError, NotImplementedError):
        return _rounded(module, feeds, torch.bfloat16, "bf16")
    return _arrays(results, torch.float32), "bf16: native .to(bfloat16)"


def _fp16(module: Any, feeds: Feeds) -> tuple[Outputs, str]:
    import torch

    return _rounded(module, feeds, torch.float16, "fp16")


def _rounded(module: Any, feeds: Feeds, dtype: torch.dtype, name: str) -> tuple[Outputs, str]:
    import torch

    # Rounded once as weights and lifted again, then after every operator.
    rounded = _single(module).to(dtype).float()
    rounded_feeds = [{k: _round_array(a, dtype) for k, a in feed.items()} for feed in feeds]
    # The mode entered last sees an operator first: casts to fp16 in the file become float32 before the rounding.
    modes = (rounding(dtype), *_lift_narrow(module))
    try:
        results = _call(rounded, rounded_feeds, None, *modes)
    except FusedOperatorError:
        # oneDNN computes a whole recurrent layer in one call; without it every step is seen.
        with torch.backends.mkldnn.flags(enabled=False):
            results = _call(rounded, rounded_feeds, None, *modes)
    return _arrays(results, torch.float32), f"{name}: weights and every operator's result rounded in an fp32 run"


def _tf32(module: Any, feeds: Feeds) -> tuple[Outputs, str]:
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    modes = (rounding_operands(_nearest_tf32), *_lift_narrow(module))
    dtype = torch.float32 if _is_narrow(module) else None
    try:
        results = _call(_single(module), feeds, dtype, *modes)
    except FusedOperatorError:
        # Step by step instead of a layer in one call, so that the products inside are seen.
        with torch.backends.mkldnn.flags(enabled=False), sdpa_kernel(SDPBackend.MATH):
            results = _call(_single(module), feeds, dtype, *modes)
    method = "tf32: operands of matrix products and convolutions rounded to 10 mantissa bits in an fp32 run"
    return _arrays(results, torch.float32), method


def _nearest_tf32(tensor: torch.Tensor) -> torch.Tensor:
    """Return the values with 10 mantissa bits, ties to even, as :func:`.rounding.rounded` does."""
    import torch

    dropped = DROPPED_BITS["tf32"]
    bits = tensor.contiguous().view(torch.int32)
    nearest = (bits + ((1 << (dropped - 1)) - 1) + ((bits >> dropped) & 1)) & -(1 << dropped)
    return torch.where(tensor.isnan(), tensor, nearest.view(torch.float32))


def _round_array(array: np.ndarray, dtype: torch.dtype) -> np.ndarray:
    tensor = to_tensor(array)
    return to_numpy(tensor.to(dtype).float()) if tensor.is_floating_point() else array


def round_weights(module: Any, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Round the parameters and buffers of a module in place."""
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point():
            tensor.data.copy_(to_tensor(change(to_numpy(tensor.data))))


def _weights(
    module: Any, feeds: Feeds, precision: str, change: Callable[[np.ndarray], np.ndarray]
) -> tuple[Outputs, str]:
    import torch

    copied = _single(module)
    if "~" in precision and not any(name.endswith(_NORMALISED) for name, _ in copied.named_buffers()):
        msg = "no normalisation of it could be folded into a weight, so there is one rounding of them"
        raise Unsupported(msg)
    round_weights(copied, change)
    # What is computed is computed as in fp32.
    met = _defined(copied, feeds[:1], None)
    results = _call(copied, feeds, None, *_lift_narrow(module), *([by_definition()] if met else []))
    return _arrays(results, torch.float32), f"{precision}: weights rounded to fp16, computed in fp32"
