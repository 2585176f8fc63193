"""What raises the detection of small faults at a fixed rate of false alarms: the tables of docs/detection-power.md.

``python benchmarks/detection_power.py [--seeds 12] [--write docs/detection-power.md]`` runs every
network of ``detection_cells.py``, sets every statistic's threshold at the same rate of false
alarms over the faithful cells, and counts what each one finds. One thread; about two seconds a
network. The figures depend on the versions of the runtimes and a little on the machine.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from detection_cells import DIALS, DRAWS, FAULTS, NORMAL, REROLLED, ROWS, STRESS, TIMES, UNIT, Network, networks

if TYPE_CHECKING:
    from collections.abc import Callable

    Statistic = Callable[["Network", np.ndarray, int], np.ndarray]

# One in 200 of the faithful cell-draws lies above a threshold.
QUANTILE = 0.995
STEP = NORMAL // DRAWS


def rms(a: np.ndarray, *axes: int) -> np.ndarray:
    """The root of the mean square over the axes, or over all but the first."""
    return np.sqrt(np.mean(np.square(a), axis=axes or tuple(range(1, a.ndim))))


def floored(noise: np.ndarray, truth: np.ndarray, *axes: int) -> np.ndarray:
    """The rms of the noise, not below what writing the output down in fp32 costs."""
    tiny = np.finfo(np.float64).tiny
    return np.maximum(np.maximum(rms(noise, *axes), rms(truth, *axes) * UNIT / 3**0.5), tiny)


def ordinary(draw: int, rows: int) -> np.ndarray:
    """The indices of a draw's ordinary rows."""
    return (np.arange(rows) + draw * STEP) % NORMAL


def stressed(network: Network, draw: int) -> np.ndarray:
    """The indices of a draw's stress rows, one of each kind."""
    return np.array([network.slices[kind].start + draw for kind in STRESS])


def mixed(network: Network, draw: int) -> np.ndarray:
    """Eight ordinary rows and one stress row of each kind."""
    return np.concatenate([ordinary(draw, ROWS), stressed(network, draw)])


def pooled(network: Network, errors: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The noise ratio r: one rms over everything."""
    noise, truth = network.noise[None, rows], network.truth[None, rows]
    return rms(errors[:, rows]) / floored(noise, truth)


def by_row(network: Network, errors: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The noise ratio of every row; shape [cell, row]."""
    return rms(errors[:, rows], 2) / floored(network.noise[rows], network.truth[rows], 1)


def by_column(network: Network, errors: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The noise ratio of every output column over the rows; shape [cell, column]."""
    return rms(errors[:, rows], 1) / floored(network.noise[rows], network.truth[rows], 0)


def local(network: Network, rows: np.ndarray) -> np.ndarray:
    """The noise of every element as a row's share times a column's; shape [row, column]."""
    noise, truth = network.noise[rows], network.truth[rows]
    return floored(noise, truth, 1)[:, None] * floored(noise, truth, 0) / floored(noise[None], truth[None])


def point(network: Network, errors: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The largest error over the largest rounding error."""
    own = np.maximum(np.abs(network.noise[rows]).max(), np.abs(network.truth[rows]).max() * UNIT)
    return np.abs(errors[:, rows]).max((1, 2)) / own


def local_point(network: Network, errors: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The largest error over its element's noise, over the same of the rounding errors."""
    sigma = local(network, rows)
    own = max((np.abs(network.noise[rows]) / sigma).max(), 1.0)
    return (np.abs(errors[:, rows]) / sigma).max((1, 2)) / own


def local_rms(network: Network, errors: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The rms of every error over its element's noise."""
    return rms(errors[:, rows] / local(network, rows))


def rerolls(network: Network, errors: np.ndarray, times: int, draw: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Errors, noise and truth of the re-rolled rows: [cell, time, row, column], [time, row, column] twice."""
    part = network.slices["rerolled"]
    first = draw * times % TIMES
    noise, truth, got = (
        a[..., part, :].reshape(*a.shape[:-2], TIMES, REROLLED, a.shape[-1])[..., first : first + times, :, :]
        for a in (network.noise, network.truth, errors)
    )
    return got, noise, truth


def mean_error(network: Network, errors: np.ndarray, times: int, draw: int) -> np.ndarray:
    """The rms of the mean over the re-rolls, over the noise."""
    got, noise, truth = rerolls(network, errors, times, draw)
    return rms(got.mean(1)) / floored(noise[None], truth[None])


def against_mean_noise(network: Network, errors: np.ndarray, times: int, draw: int) -> np.ndarray:
    """The rms of the mean over the re-rolls, over the same of the source's own rounding."""
    got, noise, truth = rerolls(network, errors, times, draw)
    return rms(got.mean(1)) / floored(noise.mean(0)[None], truth[:1])


def worst_kind(network: Network, errors: np.ndarray, draw: int) -> np.ndarray:
    """The largest of r over the ordinary rows and of half of every stress row's ratio."""
    ordinary_ratio = pooled(network, errors, ordinary(draw, ROWS))
    return np.maximum(ordinary_ratio, by_row(network, errors, stressed(network, draw)).max(1) / 2)


STATISTICS: dict[str, tuple[float, Statistic]] = {
    "r, 8 rows": (1, lambda n, e, d: pooled(n, e, ordinary(d, 8))),
    "r, 16 rows": (2, lambda n, e, d: pooled(n, e, ordinary(d, 16))),
    "r, 32 rows": (4, lambda n, e, d: pooled(n, e, ordinary(d, 32))),
    "r, 128 rows": (16, lambda n, e, d: pooled(n, e, ordinary(d, 128))),
    "point, 8 rows": (1, lambda n, e, d: point(n, e, ordinary(d, 8))),
    "point by element, 8 rows": (1, lambda n, e, d: local_point(n, e, ordinary(d, 8))),
    "rms by element, 8 rows": (1, lambda n, e, d: local_rms(n, e, ordinary(d, 8))),
    "worst row of 8": (1, lambda n, e, d: by_row(n, e, ordinary(d, 8)).max(1)),
    "worst column, 8 rows": (1, lambda n, e, d: by_column(n, e, ordinary(d, 8)).max(1)),
    "worst column, 16 rows": (2, lambda n, e, d: by_column(n, e, ordinary(d, 16)).max(1)),
    "worst column, 32 rows": (4, lambda n, e, d: by_column(n, e, ordinary(d, 32)).max(1)),
    "r, 8 + 8 stress": (2, lambda n, e, d: pooled(n, e, mixed(n, d))),
    "rms of row ratios, 8 + 8 stress": (2, lambda n, e, d: rms(by_row(n, e, mixed(n, d)), 1)),
    "worst row, 8 + 8 stress": (2, lambda n, e, d: by_row(n, e, mixed(n, d)).max(1)),
    "worst column, 8 + 8 stress": (2, lambda n, e, d: by_column(n, e, mixed(n, d)).max(1)),
    "worst of r and half of a stress row's": (2, worst_kind),
    "mean of 4 re-rolls": (4, lambda n, e, d: mean_error(n, e, 4, d)),
    "mean of 16 re-rolls": (16, lambda n, e, d: mean_error(n, e, 16, d)),
    "mean of 16 re-rolls, over the source's": (16, lambda n, e, d: against_mean_noise(n, e, 16, d)),
}


def effective(network: Network, difference: np.ndarray) -> bool:
    """Whether a fault changes ordinary rows or a kind of stress rows by at least half of their noise."""
    groups = [network.slices["normal"], *(network.slices[kind] for kind in STRESS)]
    return any(
        float(rms(difference[None, g])[0] / floored(network.noise[None, g], network.truth[None, g])[0]) >= 0.5  # noqa: PLR2004
        for g in groups
    )


def measure(found: list[Network]) -> tuple[dict[str, np.ndarray], dict[str, dict[str, list[np.ndarray]]]]:
    """The values of every statistic: of the faithful cells [cell, draw], and by fault the same."""
    right: dict[str, list[np.ndarray]] = defaultdict(list)
    wrong: dict[str, dict[str, list[np.ndarray]]] = defaultdict(lambda: defaultdict(list))
    for network in found:
        lanes = np.stack(list(network.faithful.values()))
        faults = {f: d for f, d in network.faults.items() if effective(network, d)}
        errors = np.concatenate([lanes, *(lanes + d[None] for d in faults.values())])
        for name, (_, statistic) in STATISTICS.items():
            values = np.stack([statistic(network, errors, draw) for draw in range(DRAWS)], 1)
            right[name].append(values[: len(lanes)])
            for index, fault in enumerate(faults, 1):
                wrong[fault][name].append(values[index * len(lanes) : (index + 1) * len(lanes)])
    return {name: np.concatenate(values) for name, values in right.items()}, wrong
