"""Where a series of medians changes its level, by an existing method: PELT on the ranks of the values.

Source: Killick, Fearnhead, Eckley, "Optimal detection of changepoints with a linear computational cost" (2012), with
the rank cost of Lung-Yut-Fong, Lévy-Leduc, Cappé, "Homogeneity and change-point detection tests for multivariate
data using rank statistics" (2015); both through the library ruptures (Truong, Oudre, Vayatis, 2020).

Ranks, for two reasons. One run that was slow counts as one rank and not as a level. And without a step every order of
the ranks is as likely as every other, whatever the distribution of the values: the penalty that gives a certain rate
of false steps can be found once by shuffling, and holds for every machine and metric.
"""

from __future__ import annotations

import importlib.util
import math
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

INSTALL = "pip install 'pytest-modelformats[history]'"
# The 99 % quantile of the penalty at which a shuffled series has a step was 8.0, 9.4, 10.1, 11.3, 12.2 and 12.0
# for 12, 20, 30, 50, 100 and 200 values (4000 orders each; 1500 for the last two); this is 9.0, 9.8, 10.4, 11.3,
# 12.4 and 13.5. test_steps.py counts the false steps again.
_PENALTY, _PER_LOG = 5.0, 1.6
# With fewer, even a perfect step is not told from chance at that rate.
SHORTEST = 12
# With the penalty above, a step whose values lie beyond all of the others is found from its fifth value on, in series
# of 13 to 450: of n values, m beyond the others gain 3·m·(n - m)·n/(n² - 1).
FROM_VALUE = 5
# Where at least half of the values equal the one before, nothing varies by chance: each change is a step.
_EXACT_SHARE = 0.5
_SHORTEST_EXACT = 3


@dataclass(frozen=True, slots=True)
class Step:
    """A change of level: ``index`` is the first value of the new one; medians of the levels beside it."""

    index: int
    before: float
    after: float

    @property
    def ratio(self) -> float | None:
        """After over before."""
        return self.after / self.before if self.before else None


def available() -> bool:
    """Whether the library is installed."""
    return importlib.util.find_spec("ruptures") is not None


def find(values: Sequence[float], *, exact: bool = False) -> tuple[Step, ...]:
    """The steps of a series, oldest first; at most one series without a step in a hundred has one.

    ``exact``: the metric need not vary by chance (sizes, say). If it then mostly repeats itself, each change is a step.
    """
    if exact and len(values) >= _SHORTEST_EXACT:
        same = sum(a == b for a, b in pairwise(values))
        if same >= _EXACT_SHARE * (len(values) - 1):
            return _levels(values, [i for i in range(1, len(values)) if values[i] != values[i - 1]])
    if len(values) < SHORTEST or min(values) == max(values):
        return ()
    import numpy as np

    array = np.asarray(values, dtype=np.float64)
    return _levels(values, _placed(array, _pelt(array)))


def penalty(count: int) -> float:
    """What one step has to gain in a series of so many values."""
    return _PENALTY + _PER_LOG * math.log(count)


def _pelt(values: np.ndarray) -> list[int]:
    """The indices at which new levels start.

    The squared distance of ranks with mean 0 and variance 1 is the rank cost up to a constant; ruptures has
    this one in C.
    """
    import numpy as np
    from ruptures.detection import KernelCPD

    ranks = np.array([(values < v).sum() + ((values == v).sum() + 1) / 2 for v in values])
    ranks = (ranks - ranks.mean()) / ranks.std()
    found = KernelCPD(kernel="linear", min_size=2).fit(ranks.reshape(-1, 1)).predict(pen=penalty(len(values)))
    return [int(index) for index in found[:-1]]


def _placed(values: np.ndarray, starts: Sequence[int]) -> list[int]:
    """Each step where least absolute deviations put it between its neighbours.

    Ranks tell that there is a step, and hide how far: the highest value before a step would often count as the first
    one behind it.
    """
    from ruptures.detection import Dynp

    edges = [0, *starts, len(values)]
    for i in range(1, len(edges) - 1):
        between = values[edges[i - 1] : edges[i + 1]].reshape(-1, 1)
        edges[i] = edges[i - 1] + int(Dynp(model="l1", min_size=2, jump=1).fit(between).predict(n_bkps=1)[0])
    return edges[1:-1]


def _levels(values: Sequence[float], starts: Sequence[int]) -> tuple[Step, ...]:
    edges = [0, *starts, len(values)]
    medians = [median(values[a:b]) for a, b in pairwise(edges)]
    return tuple(Step(start, medians[i], medians[i + 1]) for i, start in enumerate(starts))
