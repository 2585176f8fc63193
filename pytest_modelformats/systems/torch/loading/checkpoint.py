"""The weights inside a checkpoint: training scripts put state_dicts into dicts, under keys of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import torch

    State = dict[str, torch.Tensor]

# {"checkpoint": {"model": {"state_dict": …}}} is the deepest that was met.
DEPTH = 3


def states(content: Any, path: str = "", depth: int = DEPTH) -> Iterator[tuple[str, State]]:
    """Yield every state_dict in what a file holds, with its keys joined by dots; "" is the whole content."""
    import torch

    if isinstance(content, torch.nn.Module):
        yield path, content.state_dict()
        return
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        return
    if any(isinstance(value, torch.Tensor) for value in content.values()):
        yield path, plain(content)
    for key, value in content.items() if depth else ():
        yield from states(value, f"{path}.{key}" if path else key, depth - 1)


def plain(state: Mapping[str, Any]) -> State:
    """The state_dict without the prefix that DataParallel writes."""
    if state and all(key.startswith("module.") for key in state):
        return {key.removeprefix("module."): value for key, value in state.items()}
    return dict(state)


def mismatch(own: Mapping[str, Any], state: Mapping[str, Any]) -> str:
    """In a few words what of a state_dict does not fit a module that has ``own``; "" where it fits."""
    import torch

    for said, keys in (
        ("the file lacks", own.keys() - state.keys()),
        ("the model does not know", state.keys() - own.keys()),
    ):
        if keys:
            return f"{said} {_few(sorted(keys))}"
    for key, wanted in own.items():
        got = state[key]
        if isinstance(wanted, torch.Tensor) and isinstance(got, torch.Tensor) and wanted.shape != got.shape:
            return f"{key} is {list(got.shape)} in the file and {list(wanted.shape)} in the model"
    return ""


def same(fitting: Sequence[tuple[str, State]]) -> bool:
    """Whether all state_dicts of the same keys hold equal values."""
    import torch

    first = fitting[0][1]
    return all(
        torch.equal(value, other[key]) if isinstance(value, torch.Tensor) else value == other[key]
        for _, other in fitting[1:]
        for key, value in first.items()
    )


def _few(keys: list[str]) -> str:
    return ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if keys[3:] else "")
