"""Four ways to step between a module and torch's kernels, at every operator.

``lifting`` makes every operator compute in a wider float than the module was written or
traced for. ``rounding`` makes every operator's result one of a narrower float, and
``rounding_operands`` what goes into products; ``by_definition`` takes ELU at its word.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from pytest_modelformats.errors import Unsupported

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

# The operators that multiply and sum, with the arguments that are multiplied, as torch's schemas name them.
_CONVOLUTION = ("input", "weight")
PRODUCTS = {
    "mm": ("self", "mat2"),
    "bmm": ("self", "mat2"),
    "mv": ("self", "vec"),
    "dot": ("self", "tensor"),
    "addmm": ("mat1", "mat2"),
    "_addmm_activation": ("mat1", "mat2"),
    "addmv": ("mat", "vec"),
    "addbmm": ("batch1", "batch2"),
    "baddbmm": ("batch1", "batch2"),
    "linear": _CONVOLUTION,
    "mkldnn_linear": ("self", "weight"),
    "_trilinear": ("i1", "i2", "i3"),
    "convolution": _CONVOLUTION,
    "_convolution": _CONVOLUTION,
    "convolution_overrideable": _CONVOLUTION,
    "mkldnn_convolution": ("self", "weight"),
    **{f"conv{d}d": _CONVOLUTION for d in (1, 2, 3)},
    **{f"conv_transpose{d}d": _CONVOLUTION for d in (1, 2, 3)},
}
# Below this the sigmoid is taken by its definition.
LOW = -2.0
# What torch computes in one call though it holds several products; each has an unfused twin.
FUSED_PRODUCTS = frozenset(
    {
        "mkldnn_rnn_layer",
        "_scaled_dot_product_flash_attention",
        "_scaled_dot_product_flash_attention_for_cpu",
        "_scaled_dot_product_efficient_attention",
        "_scaled_dot_product_fused_attention_overrideable",
        "_native_multi_head_attention",
        "_transformer_encoder_layer_fwd",
    }
)


class FusedOperatorError(Exception):
    """A kernel ran that computes many steps at once, so that rounding its result alone says too little."""


def lifting(wide: torch.dtype) -> Any:
    """Return a mode under which operators see ``wide`` wherever the module says a narrower float.

    Tensors are lifted once and kept by identity, so what an operator writes in place into
    one is seen by the next.
    """
    return _lifting_class()(wide)


def rounding(narrow: torch.dtype) -> Any:
    """Return a mode under which each operator computes in float32 and its result is rounded to ``narrow``.

    Raises (inside the mode): FusedOperatorError at a fused recurrent layer.
    """
    return _rounding_class()(narrow)


def rounding_operands(nearest: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """Return a mode under which matrix products and convolutions see operands rounded by ``nearest``.

    Sums and results stay float32, which is what TF32 units do.
    Raises (inside the mode): FusedOperatorError at kernels that hold several products.
    """
    return _operand_class()(nearest)


def by_definition() -> Any:
    """Return a mode under which ELU, the sigmoid and the softplus are computed as they are defined.

    ELU, SELU and CELU with exp(x) - 1:
    torch computes expm1(x), which is exact near 0, where the difference of the definition is off
    by up to half a unit of 1. Runtimes that go by the definition (ONNX's Elu; OpenVINO, whose
    largest error over -1 to 0 was 1.06e-7, as numpy's exp(x) - 1, and torch's 3.0e-8) are faithful.

    The sigmoid of a low x, also in SiLU and GLU, as 1 - 1 / (1 + exp(x)), and the softplus as
    log(1 + exp(x)): torch's error there is a share of the tiny result, others' half a unit of 1 or so. The rms
    errors of the sigmoid at -6 and -10 were 2.7e-8 and 3.0e-8 in ONNX Runtime, 3.9e-8 and 3.6e-8 by this formula,
    and 3.4e-10 and 6.0e-12 in OpenVINO, which does as torch; of the softplus at -4, 3.3e-8 by the formula
    and 1.0e-7 in OpenVINO. Above -2 the two differ by less than 2 times, and torch's own is taken.
    ``met`` has the names of those that there were.
    """
    return _definition_class()()


@cache
def _definition_class() -> type:
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    def elu(given: dict[str, Any]) -> torch.Tensor:
        x = given["self"]
        below = (torch.exp(x * given.get("input_scale", 1)) - 1) * given.get("alpha", 1)
        return torch.where(x > 0, x, below) * given.get("scale", 1)

    def sigmoid(x: torch.Tensor) -> torch.Tensor:
        return torch.where(x < LOW, 1 - 1 / (1 + torch.exp(x)), torch.sigmoid(x))

    def glu(given: dict[str, Any]) -> torch.Tensor:
        x, gate = given["self"].chunk(2, given.get("dim", -1))
        return x * sigmoid(gate)

    def softplus(given: dict[str, Any]) -> torch.Tensor:
        x, beta = given["self"], given.get("beta", 1)
        return torch.where(x * beta > given.get("threshold", 20), x, torch.log(1 + torch.exp(x * beta)) / beta)

    definitions: dict[str, Callable[[dict[str, Any]], torch.Tensor]] = {
        "elu": elu,
        "sigmoid": lambda given: sigmoid(given["self"]),
        "silu": lambda given: given["self"] * sigmoid(given["self"]),
        "glu": glu,
        "softplus": softplus,
    }

    class ByDefinition(TorchDispatchMode):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.met: set[str] = set()

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            name = func._schema.name.removeprefix("aten::")  # noqa: SLF001 - the only way to it
            known = definitions.get(name.removesuffix("_"))
            if known is None or func._schema.overload_name or args[0].dtype is not torch.float32:  # noqa: SLF001
                return func(*args, **(kwargs or {}))
            self.met.add(name.removesuffix("_"))
            named = [a.name for a in func._schema.arguments]  # noqa: SLF001 - likewise
            result = known({**dict(zip(named, args, strict=False)), **(kwargs or {})})
            return args[0].copy_(result) if name.endswith("_") else result

    return ByDefinition


@cache
def _operand_class() -> type:
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    class RoundingOperands(TorchDispatchMode):  # type: ignore[misc]
        def __init__(self, nearest: Callable[[torch.Tensor], torch.Tensor]) -> None:
            super().__init__()
            self.nearest = nearest
            self.met_fused = False

        def round(self, value: Any) -> Any:
            single = isinstance(value, torch.Tensor) and value.dtype is torch.float32
            return self.nearest(value) if single else value

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            name = func._schema.name.removeprefix("aten::").rstrip("_")  # noqa: SLF001 - in-place ones end in _
            if name in FUSED_PRODUCTS:
                self.met_fused = True
                raise FusedOperatorError
            operands = PRODUCTS.get(name, ())
            if not operands:
                return func(*args, **(kwargs or {}))
            named = [a.name for a in func._schema.arguments]  # noqa: SLF001 - the only way to them
            args = tuple(self.round(v) if n in operands else v for n, v in zip(named, args, strict=False))
            kwargs = {n: self.round(v) if n in operands else v for n, v in (kwargs or {}).items()}
            return func(*args, **kwargs)

    return RoundingOperands


@cache
def _lifting_class() -> type:
    import torch
    from torch.utils import _pytree as pytree
    from torch.utils._python_dispatch import TorchDispatchMode

    narrow_floats = (torch.float16, torch.bfloat16, torch.float32)

    class Lifting(TorchDispatchMode):  # type: ignore[misc] # torch is untyped here
        def __init__(self, wide: torch.dtype) -> None:
            super().__init__()
            self.wide = wide
            self.narrow = tuple(d for d in narrow_floats if d is not wide)
            self.lifted: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

        def lift(self, value: Any) -> Any:
            if isinstance(value, torch.Tensor) and value.dtype in self.narrow:
                # The tensor is kept beside its lifted copy: an id is only good for as long as its object lives.
                kept = self.lifted.get(id(value))
                if kept is None:
                    kept = self.lifted[id(value)] = (value, value.to(self.wide))
                return kept[1]
            return self.wide if isinstance(value, torch.dtype) and value in self.narrow else value

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func is torch.ops.aten.view.dtype:
                msg = "the model reads a tensor's bits as another dtype (view(dtype)), which has no meaning when lifted"
                raise Unsupported(msg)
            args, kwargs = pytree.tree_map(self.lift, (args, kwargs or {}))
            result = func(*args, **kwargs)
            # A factory without a dtype still answers in float32. It is lifted, not kept: nothing else refers to it.
            return pytree.tree_map(
                lambda v: v.to(self.wide) if isinstance(v, torch.Tensor) and v.dtype in self.narrow else v, result
            )

    return Lifting


@cache
def _rounding_class() -> type:
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    class Rounding(TorchDispatchMode):  # type: ignore[misc]
        def __init__(self, narrow: torch.dtype) -> None:
            super().__init__()
            self.narrow = narrow
            self.met_fused = False

        def round(self, value: Any, alias: Any) -> Any:
            if isinstance(value, (list, tuple)):
                return type(value)(self.round(v, alias) for v in value)
            if not isinstance(value, torch.Tensor) or value.dtype is not torch.float32:
                return value
            if alias is None:
                return value.to(self.narrow).to(torch.float32)
            # A view shows what is rounded already; what was written in place is rounded in place.
            return value.copy_(value.to(self.narrow)) if alias.is_write else value

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func is torch.ops.aten.mkldnn_rnn_layer.default:
                self.met_fused = True
                raise FusedOperatorError
            result = func(*args, **(kwargs or {}))
            returns = func._schema.returns  # noqa: SLF001 - the only way to what an operator aliases
            if len(returns) == 1:
                return self.round(result, returns[0].alias_info)
            if isinstance(result, tuple) and len(returns) == len(result):
                return tuple(self.round(v, r.alias_info) for v, r in zip(result, returns, strict=True))
            return result

    return Rounding
