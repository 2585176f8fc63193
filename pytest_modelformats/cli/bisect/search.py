"""Which version is the first to be different: bisection over sorted versions, some of which cannot be tried."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@dataclass(frozen=True, slots=True)
class Step:
    """What trying one version came to.

    ``bad`` is ``None`` where it could not be tried, and ``sentence`` says why. ``ratio`` is the latency over that of
    the good version with its 95 % interval. Units: ``seconds`` is what the step took, an environment made included.
    """

    version: str
    bad: bool | None
    word: str
    sentence: str = ""
    noise_ratio: float | None = None
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Found:
    """Where it changed: after ``last_good``, at ``first_bad`` or at one of ``suspects``, which could not be tried."""

    last_good: str
    first_bad: str
    suspects: tuple[str, ...]
    steps: tuple[Step, ...]


def search(versions: Sequence[str], look: Callable[[str], Step]) -> Found:
    """The change between the first version, which is good, and the last, which is bad; neither is looked at again.

    Each step halves what is left, beginning at the middle and going outwards where a version cannot be tried, as
    ``git bisect skip`` does.
    """
    steps: list[Step] = []
    low, high = 0, len(versions) - 1
    skipped: set[int] = set()
    while (index := _next(low, high, skipped)) is not None:
        step = look(versions[index])
        steps.append(step)
        if step.bad is None:
            skipped.add(index)
        elif step.bad:
            high = index
        else:
            low = index
    return Found(versions[low], versions[high], tuple(versions[low + 1 : high]), tuple(steps))


def _next(low: int, high: int, skipped: set[int]) -> int | None:
    """The untried version nearest to the middle between the good and the bad one."""
    middle = (low + high) / 2
    left = (index for index in range(low + 1, high) if index not in skipped)
    return min(left, key=lambda index: abs(index - middle), default=None)
