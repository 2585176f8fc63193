"""Faults in TorchScript modules: weights changed in a traced file, and modules edited before they are traced.

Every fault is an edit of a plain module, which the float64 evaluation of ``effective.py`` runs. A fault
in weights is then written into the correct traced file, parameter by parameter; the others are traced
by the same steps as the product's converter.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.verdict.faults_weights import bf16, fp16, one_element
from benchmarks.verdict.graph_edits import NoSite, some

if TYPE_CHECKING:
    import random
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np
    import torch
    from torch import nn

    from benchmarks.verdict.subjects import Subject


class TorchFault(NamedTuple):
    """One class; ``edit`` changes a module in place and returns the path of what was changed ("" for all)."""

    name: str
    edit: Callable[[nn.Module, random.Random], str]
    in_weights: bool


FAULTS: dict[str, TorchFault] = {}


def fault(name: str, *, in_weights: bool = False) -> Callable[[Callable[..., str]], Callable[..., str]]:
    """Enter a function into the table of fault classes."""

    def enter(edit: Callable[..., str]) -> Callable[..., str]:
        FAULTS[name] = TorchFault(name, edit, in_weights)
        return edit

    return enter


def nothing(_module: nn.Module, _random: random.Random) -> str:
    """No fault."""
    return ""


FAITHFUL = {"no fault: as converted": TorchFault("no fault: as converted", nothing, in_weights=True)}


def write(subject: Subject, kind: TorchFault, edited: nn.Module, path: Path) -> None:
    """Write the edited module as TorchScript: into the correct file where weights changed, else traced anew."""
    import torch

    from pytest_modelformats.source.samples import make_samples, rows
    from pytest_modelformats.systems.torch.reference.calling import contract_module, plain_kernels, to_tensor

    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        if kind.in_weights:
            traced = torch.jit.load(str(subject.traced))
            state = edited.state_dict()
            for name, tensor in traced.state_dict().items():
                tensor.copy_(state[name.removeprefix("module.")])
        else:
            feed = rows(make_samples(subject.description.inputs, 2, 0), 0, 2)
            example = tuple(to_tensor(feed[name]) for name in subject.input_names)
            with plain_kernels():
                wrapped = contract_module(edited, subject.input_names, flat=True)
                traced = torch.jit.trace(wrapped, example, check_trace=False)
        torch.jit.save(traced, str(path))


def _weights(module: nn.Module) -> list[tuple[str, torch.Tensor]]:
    named = [(n, p) for n, p in module.named_parameters() if p.dim() > 1 and p.numel() > 1]
    return some(named)


def _owner(name: str) -> str:
    return name.rpartition(".")[0]


def _change(tensor: torch.Tensor, change: Callable[[np.ndarray], np.ndarray]) -> None:
    import numpy as np
    import torch

    with torch.no_grad():
        tensor.copy_(torch.from_numpy(np.ascontiguousarray(change(tensor.detach().numpy().copy()))))


def _in_one(module: nn.Module, random: random.Random, change: Callable[[np.ndarray], np.ndarray]) -> str:
    name, tensor = random.choice(_weights(module))
    _change(tensor, change)
    return _owner(name)


@fault("one weight zeroed", in_weights=True)
def weight_zeroed(module: nn.Module, random: random.Random) -> str:
    return _in_one(module, random, lambda w: one_element(w, random, lambda _: 0.0))


@fault("weights scaled by 1.01", in_weights=True)
def weights_scaled(module: nn.Module, random: random.Random) -> str:
    return _in_one(module, random, lambda w: (w * 1.01).astype(w.dtype))


@fault("sign of one weight flipped", in_weights=True)
def weight_sign(module: nn.Module, random: random.Random) -> str:
    return _in_one(module, random, lambda w: one_element(w, random, lambda v: -v))


@fault("weights transposed", in_weights=True)
def weights_transposed(module: nn.Module, random: random.Random) -> str:
    square = [(n, p) for n, p in _weights(module) if p.shape[-1] == p.shape[-2] > 1]
    name, tensor = random.choice(some(square))
    _change(tensor, lambda w: w.swapaxes(-1, -2))
    return _owner(name)


@fault("one tensor rounded to fp16", in_weights=True)
def tensor_fp16(module: nn.Module, random: random.Random) -> str:
    return _in_one(module, random, fp16)


@fault("one tensor rounded to bf16", in_weights=True)
def tensor_bf16(module: nn.Module, random: random.Random) -> str:
    return _in_one(module, random, bf16)


@fault("all tensors rounded to fp16", in_weights=True)
def all_fp16(module: nn.Module, _random: random.Random) -> str:
    for _, tensor in _weights(module):
        _change(tensor, fp16)
    return ""


@fault("all tensors rounded to bf16", in_weights=True)
def all_bf16(module: nn.Module, _random: random.Random) -> str:
    for _, tensor in _weights(module):
        _change(tensor, bf16)
    return ""


@fault("bias dropped", in_weights=True)
def bias_dropped(module: nn.Module, random: random.Random) -> str:
    biases = [(n, p) for n, p in module.named_parameters() if "bias" in n and bool(p.any())]
    name, tensor = random.choice(some(biases))
    _change(tensor, lambda b: b * 0)
    return _owner(name)


@fault("one bias element off by 1 %", in_weights=True)
def bias_element(module: nn.Module, random: random.Random) -> str:
    biases = [(n, p) for n, p in module.named_parameters() if "bias" in n and bool(p.any())]
    name, tensor = random.choice(some(biases))
    _change(tensor, lambda b: one_element(b, random, lambda v: v * 1.01))
    return _owner(name)


@fault("channel order reversed", in_weights=True)
def channels_reversed(module: nn.Module, random: random.Random) -> str:
    images = [(n, p) for n, p in _weights(module) if p.dim() == 4 and p.shape[1] > 1]  # noqa: PLR2004 - a convolution's
    name, tensor = random.choice(some(images))
    _change(tensor, lambda w: w[:, ::-1])
    return _owner(name)


@fault("batch-norm statistics stale", in_weights=True)
def stale_statistics(module: nn.Module, random: random.Random) -> str:
    from torch import nn

    name, norm = _one(module, random, nn.BatchNorm2d)
    norm.running_mean.mul_(0.9)
    norm.running_var.mul_(0.9).add_(0.1)
    return name


@fault("gate order of a recurrent layer", in_weights=True)
def gate_order(module: nn.Module, random: random.Random) -> str:
    """ONNX's order is taken for torch's."""
    import numpy as np
    from torch import nn

    name, layer = _one(module, random, nn.LSTM, nn.GRU)
    order = (0, 3, 1, 2) if isinstance(layer, nn.LSTM) else (1, 0, 2)
    for part, tensor in layer.named_parameters():
        if part.endswith("_l0"):
            _change(tensor, lambda w: np.concatenate([np.split(w, len(order))[i] for i in order]))
    return name


def _one(module: nn.Module, random: random.Random, *types: type) -> tuple[str, Any]:
    found = [(n, m) for n, m in module.named_modules() if isinstance(m, types)]
    return random.choice(some(found))


@fault("epsilon changed")
def epsilon_changed(module: nn.Module, random: random.Random) -> str:
    from torch import nn

    name, norm = _one(module, random, nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm)
    norm.eps = 1e-3
    return name


@fault("epsilon changed a little")
def epsilon_little(module: nn.Module, random: random.Random) -> str:
    from torch import nn

    name, norm = _one(module, random, nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm)
    norm.eps = 1e-6
    return name


def _padded(module: nn.Module) -> list[tuple[str, Any]]:
    from torch import nn

    found = [(n, m) for n, m in module.named_modules() if isinstance(m, nn.Conv2d) and any(m.padding)]
    return some((n, m) for n, m in found if m.padding_mode == "zeros")


@fault("padding mode")
def padding_mode(module: nn.Module, random: random.Random) -> str:
    name, layer = random.choice(_padded(module))
    layer.padding_mode = "replicate"
    return str(name)


@fault("padding amount")
def padding_amount(module: nn.Module, random: random.Random) -> str:
    """All at the end instead of on both sides."""
    from torch import nn

    name, layer = random.choice(_padded(module))
    down, along = layer.padding
    layer.padding = (0, 0)
    _put(module, name, nn.Sequential(nn.ZeroPad2d((0, 2 * along, 0, 2 * down)), layer))
    return str(name)


@fault("dilation")
def dilation(module: nn.Module, random: random.Random) -> str:
    name, layer = random.choice(some((n, m) for n, m in _padded(module) if m.kernel_size[0] >= 3))  # noqa: PLR2004
    new = 1 if layer.dilation[0] > 1 else 2
    more = (new - layer.dilation[0]) * (layer.kernel_size[0] - 1) // 2
    layer.dilation, layer.padding = (new, new), (layer.padding[0] + more, layer.padding[1] + more)
    return str(name)


@fault("activation swapped")
def activation_swapped(module: nn.Module, random: random.Random) -> str:
    from torch import nn

    swaps = {nn.ReLU: nn.LeakyReLU, nn.SiLU: nn.Hardswish, nn.Tanh: nn.Softsign, nn.ELU: nn.SELU, nn.GELU: nn.ReLU}
    swaps |= {nn.ReLU6: nn.ReLU, nn.Hardswish: nn.SiLU, nn.LeakyReLU: nn.ReLU}
    name, old = _one(module, random, *swaps)
    _put(module, name, swaps[type(old)]())
    return name


@fault("activation approximated")
def activation_approximated(module: nn.Module, random: random.Random) -> str:
    from torch import nn

    name, layer = _one(module, random, nn.GELU)
    layer.approximate = "tanh"
    return name


@fault("pooling count_include_pad")
def count_include_pad(module: nn.Module, random: random.Random) -> str:
    from torch import nn

    found = [(n, m) for n, m in module.named_modules() if isinstance(m, nn.AvgPool2d) and m.padding]
    name, layer = random.choice(some(found))
    layer.count_include_pad = not layer.count_include_pad
    return str(name)


@fault("pooling ceil mode")
def ceil_mode(module: nn.Module, random: random.Random) -> str:
    from torch import nn

    name, layer = _one(module, random, nn.MaxPool2d, nn.AvgPool2d)
    layer.ceil_mode = not layer.ceil_mode
    return name


@fault("axis of softmax")
def softmax_axis(module: nn.Module, random: random.Random) -> str:
    from torch import nn

    name, layer = _one(module, random, nn.Softmax)
    layer.dim = 0
    return name


@fault("dropout left on")
def dropout_on(module: nn.Module, random: random.Random) -> str:
    from torch import nn

    name, layer = _one(module, random, nn.Linear, nn.Conv2d)
    _put(module, name, nn.Sequential(nn.Dropout(0.1).train(), layer))
    return name


@fault("residual dropped")
def residual_dropped(module: nn.Module, random: random.Random) -> str:
    found = [(n, m) for n, m in module.named_modules() if type(m).__name__ == "Residual"]
    name, layer = random.choice(some(found))
    _put(module, name, layer.inner)
    return str(name)


@fault("order of the classes")
def class_order(module: nn.Module, _random: random.Random) -> str:
    """The first two entries of the last layer change places."""
    from torch import nn

    found = some((n, m) for n, m in module.named_modules() if isinstance(m, nn.Linear) and m.out_features > 1)
    name, layer = found[-1]
    order = [1, 0, *range(2, layer.out_features)]
    _change(layer.weight, lambda w: w[order])
    _change(layer.bias, lambda b: b[order])
    return str(name)


def _put(module: nn.Module, name: str, new: nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    if not own:
        raise NoSite
    setattr(module.get_submodule(parent), own, new)
