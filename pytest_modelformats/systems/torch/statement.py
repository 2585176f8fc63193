"""What PyTorch states about the arithmetic of a module: the dtypes of its weights, and the flags in force."""

from __future__ import annotations

from collections import Counter
from typing import Any

from pytest_modelformats.compare.stated_execution import TYPES


def stated(module: Any, device: str) -> dict[str, Any]:
    """How many weights have which floating dtype and lie on which device, with the flags that change fp32 arithmetic.

    A flag that lets another precision stand in for fp32 adds that precision to the counts.
    """
    weights = [w for w in _weights(module) if w.is_floating_point()]
    precisions = Counter(TYPES.get(str(w.dtype).removeprefix("torch."), str(w.dtype)) for w in weights)
    flags = _flags(device)
    for stand_in in _stand_ins(flags, device):
        if weights:
            precisions[stand_in] += precisions["fp32"]
    most = max(precisions, key=lambda p: (precisions[p], p), default="")
    return {
        "source": "dtypes and flags",
        "counted": "weights",
        "precision": most,
        "precisions": dict(sorted((p, n) for p, n in precisions.items() if n)),
        "devices": dict(sorted(Counter(w.device.type for w in weights).items())),
        "flags": flags,
    }


def _weights(module: Any) -> list[Any]:
    """Parameters and buffers; of a frozen TorchScript module, which has none left, the constants of its graph."""
    import torch

    if not hasattr(module, "parameters"):
        return []
    found = [*module.parameters(), *module.buffers()]
    if found or not isinstance(module, torch.jit.ScriptModule):
        return found
    constants = module.graph.findAllNodes("prim::Constant", recurse=True)
    values = (node.output().toIValue() for node in constants if node.output().type().kind() == "TensorType")
    return [value for value in values if isinstance(value, torch.Tensor)]


def _flags(device: str) -> dict[str, Any]:
    import torch

    mkldnn = torch.backends.mkldnn
    flags = {
        "matmul_tf32": bool(torch.backends.cuda.matmul.allow_tf32),
        "cudnn_tf32": bool(torch.backends.cudnn.allow_tf32),
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "autocast": str(torch.get_autocast_dtype(device)).removeprefix("torch.")
        if torch.is_autocast_enabled(device)
        else "off",
        "mkldnn": bool(mkldnn.is_available()),
    }
    for kind in ("matmul", "conv"):  # from torch 2.9 on
        said = getattr(getattr(mkldnn, kind, None), "fp32_precision", None)
        if said is not None:
            flags[f"mkldnn_{kind}"] = str(said)
    return flags


def _stand_ins(flags: dict[str, Any], device: str) -> set[str]:
    """The precisions that the flags allow in the place of fp32."""
    found = {TYPES.get(flags["autocast"], "")}
    if device == "cuda" and (flags["matmul_tf32"] or flags["cudnn_tf32"]):
        found.add("tf32")
    if device == "cpu":
        found |= {str(flags.get(f"mkldnn_{kind}", "")) for kind in ("matmul", "conv")} & {"bf16", "tf32"}
        if flags["float32_matmul_precision"] == "medium":
            found.add("bf16")
    return found - {"", "fp32"}
