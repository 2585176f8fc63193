"""A model that its own framework cannot run on its samples: what to correct is the samples, not a converter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_modelformats.errors import RunError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_modelformats.schema import TensorSpec


def refused(model: str, reason: str, specs: Sequence[TensorSpec], origin: str, *, drawn: bool) -> RunError:
    """The error that says so; ``drawn``: the samples were drawn from the inputs' specifications."""
    whole = [str(spec) for spec in specs if not spec.is_float and spec.low is not None]
    if not drawn:
        todo = "correct the samples that --mf-data gives"
    elif whole:
        todo = f"correct the range of --mf-input {' '.join(repr(text) for text in whole)} to what the model takes"
    else:
        todo = "correct --mf-input, or give samples that the model takes with --mf-data"
    return RunError(f"the model {model} itself cannot run its samples ({origin}): {reason}. Next: {todo}.")
