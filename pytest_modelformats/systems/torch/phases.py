"""Where the time of a call on a GPU goes, by CUDA's events: the copy there, the computation, the copy back."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

REPEATS = 10
_NS_PER_MS = 1e6


def split(held: Mapping[str, Any], run: Callable[[dict[str, Any]], list[Any]]) -> dict[str, float]:
    """The three durations of a call whose inputs are tensors on the host; the first call is not counted.

    Units: nanoseconds. Source: torch.cuda.Event.elapsed_time, which is in milliseconds.
    """
    import torch

    taken: dict[str, list[float]] = {"host_to_device_ns": [], "compute_ns": [], "device_to_host_ns": []}
    for repeat in range(REPEATS + 1):
        events = [torch.cuda.Event(enable_timing=True) for _ in range(4)]
        events[0].record()
        moved = {name: tensor.to("cuda") for name, tensor in held.items()}
        events[1].record()
        outputs = run(moved)
        events[2].record()
        for output in outputs:
            output.cpu()
        events[3].record()
        torch.cuda.synchronize()
        if repeat:
            for name, before, after in zip(taken, events[:-1], events[1:], strict=True):
                taken[name].append(before.elapsed_time(after) * _NS_PER_MS)
    return {name: median(values) for name, values in taken.items()}
