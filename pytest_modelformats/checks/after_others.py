"""The law that earlier calls are forgotten: an input after others gives what it gave before them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_modelformats.checks.subject import PAIR, TRIPLE, shuffled, together

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

    from pytest_modelformats.checks.subject import Subject
    from pytest_modelformats.schema import TensorSpec, Verdict

    Feed = Mapping[str, np.ndarray]

# So far outside of the samples that a state which follows the values is moved by it.
_OTHER_SCALE = -4.0


def between(subject: Subject) -> list[dict[str, np.ndarray]]:
    """What is run between an input and the same one again."""
    return [others(subject.rows(0, rows), subject.specs) for rows in (PAIR, TRIPLE)]


def history(subject: Subject) -> Verdict:
    """x, then inputs of other values and another shape, then x again: the answer to x is the same."""
    feed = subject.rows(0, TRIPLE)
    before = subject.run(feed)
    for other in between(subject):
        subject.run(other)
    verdict = subject.agree(before, subject.run(feed))
    if not verdict.passed:
        # Whoever runs next must not inherit what was kept.
        subject.cells.close("first")
    return together(
        {"the same input after others": verdict},
        "The same input gives the same result after inputs of other values and another batch",
    )


def others(feed: Feed, specs: Sequence[TensorSpec]) -> dict[str, np.ndarray]:
    """Inputs unlike these: shuffled, and floats without a range four times as large and of the other sign."""
    import numpy as np

    free = {spec.name for spec in specs if spec.is_float and spec.low is None and spec.high is None}
    return {
        name: (a * _OTHER_SCALE).astype(a.dtype) if name in free and np.issubdtype(a.dtype, np.floating) else a
        for name, a in shuffled(feed, 1).items()
    }
