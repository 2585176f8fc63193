"""What the torch backends have in common in reproduction bundles: functions that stand alone, torch and numpy apart.

Their source is copied into ``repro.py`` as it is, so they use nothing of this module but one another.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def prepare_alone(settings: Mapping[str, Any]) -> None:
    """Set the threads and the float32 arithmetic of the cell."""
    import torch

    torch.set_num_threads(settings["threads"])
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = settings["precision"] == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = settings["precision"] == "tf32"


def callable_alone(module: Any, settings: Mapping[str, Any], *, cast: bool = False, taken: Sequence[Any] = ()) -> Any:
    """Return a function from named arrays to a list of arrays; with ``cast`` it computes at the cell's precision.

    ``taken`` are the dtypes of the inputs where the artifact states them.
    """
    import inspect

    import numpy as np
    import torch
    from torch.utils import _pytree

    names = {spec["name"]: spec["dtype"] for spec in settings["inputs"]}
    own = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(settings["precision"])
    narrow = own if cast else None
    own_inputs = {name for name, dtype in zip(names, taken) if dtype is own}  # noqa: B905 - the contract's count is another check's
    original = getattr(module, "_orig_mod", module)
    keywords = False
    if not isinstance(original, torch.jit.ScriptModule) and not hasattr(original, "_in_spec"):
        parameters = list(inspect.signature(original.forward).parameters)
        keywords = parameters[: len(names)] != list(names) and set(names) <= set(parameters)

    def tensor_of(name: str, array: Any) -> Any:
        tensor = torch.from_numpy(np.array(array)).to(settings["device"])
        tensor = tensor.bfloat16() if names[name] == "bfloat16" else tensor
        if name in own_inputs and tensor.is_floating_point():
            return tensor.to(own)
        return tensor.to(narrow) if narrow and tensor.dtype is torch.float32 else tensor

    def array_of(tensor: Any) -> Any:
        wide = tensor.float() if tensor.dtype in (torch.bfloat16, narrow) else tensor
        return wide.detach().cpu().contiguous().numpy()

    def run(feed: Mapping[str, Any]) -> list[Any]:
        tensors = {name: tensor_of(name, feed[name]) for name in names}
        args, kwargs = ((), tensors) if keywords else (tuple(tensors.values()), {})
        if hasattr(original, "_in_spec"):
            args, kwargs = _pytree.tree_unflatten(list(tensors.values()), original._in_spec)  # noqa: SLF001
        with torch.inference_mode():
            output = module(*args, **kwargs)
        return [array_of(leaf) for leaf in _pytree.tree_leaves(output) if isinstance(leaf, torch.Tensor)]

    return run


def module_alone(settings: Mapping[str, Any]) -> Any:
    """Return the source's module, built and filled as the cell's was, at the cell's precision."""
    import importlib
    import sys

    import torch

    source = settings["source"]
    sys.path[:0] = source["search_path"]
    reference = source["location"] if source["kind"] == "factory" else source["arch"]
    if not reference:  # a bare state_dict of an architecture that was found by its name, or a whole pickled module
        from pytest_modelformats.schema import Source
        from pytest_modelformats.systems.torch.loading.load import load_module

        module = load_module(Source.from_json(source))
    else:
        name, _, attribute = reference.partition(":")
        found: Any = importlib.import_module(name)
        for part in attribute.split("."):
            found = getattr(found, part)
        torch.manual_seed(0)
        module = found()
    if reference and source["kind"] != "factory":
        if Path(source["location"]).suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(source["location"])
        else:
            state = torch.load(source["location"], map_location="cpu", weights_only=not source["trust"])
        own = module.state_dict()

        def fitting(content: Any) -> Any:
            content = content.state_dict() if isinstance(content, torch.nn.Module) else content
            if not isinstance(content, dict):
                return
            plain = {str(key).removeprefix("module."): value for key, value in content.items()}
            if plain.keys() == own.keys() and all(plain[key].shape == own[key].shape for key in own):
                yield plain
            for value in content.values():
                yield from fitting(value)

        module.load_state_dict(next(fitting(state), state))
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(settings["precision"], torch.float32)
    module = module.eval().to(settings["device"])
    return module if dtype is torch.float32 else module.to(dtype)
