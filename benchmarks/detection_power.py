"""What raises the detection of small faults at a fixed rate of false alarms: the tables of docs/detection-power.md.

``python benchmarks/detection_power.py [--seeds 12] [--write docs/detection-power.md]`` runs every
network of ``detection_cells.py``, sets every statistic's threshold at the same rate of false
alarms over the faithful cells, and counts what each one finds. One thread; about two seconds a
network. The figures depend on the versions of the runtimes and a little on the machine.
"""

from __future__ import annotations

import argparse
import pickle
import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
import detection_constants
import detection_dense
from detection_cells import (
    DIALS,
    DRAWS,
    FAULTS,
    NORMAL,
    REROLLED,
    ROWS,
    SCALES,
    STRESS,
    TIMES,
    UNIT,
    Network,
    networks,
)

from pytest_modelformats.compare import second_look, stress
from pytest_modelformats.compare.floating import POINT_LIMIT
from pytest_modelformats.schema import PRECISIONS

if TYPE_CHECKING:
    from collections.abc import Callable

    Statistic = Callable[["Network", np.ndarray, int], np.ndarray]

# One in 200 of the faithful cell-draws lies above a threshold.
QUANTILE = 0.995
# "huge" is left out of the product: 64 times the ordinary magnitude overflows fp16 and underflows a softmax.
USED = [index for index, kind in enumerate(STRESS) if kind != "huge"]
SHOWN = (
    "r, 8 rows",
    "r, 32 rows",
    "r, 128 rows",
    "point, 8 rows",
    "worst column, 32 rows",
    "r, 8 + 8 stress",
    "stress rows alone, as stress.py",
    "mean of 8 moved by 2^-23",
    "shared by 8 moved by 2^-23",
    "shared by 8 moved by 2^-12",
)
MARKS = ("<!-- figures: made by benchmarks/detection_power.py -->", "<!-- end of the figures -->")
STEP = NORMAL // DRAWS
K, POINT = PRECISIONS["fp32"].limit, POINT_LIMIT["fp32"]


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


def with_weights(network: Network, errors: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The noise ratio over a noise that also has what moving every weight by a rounding unit changes."""
    own = np.sqrt(
        floored(network.noise[None, rows], network.truth[None, rows]) ** 2 + np.mean(network.weights[:, rows] ** 2)
    )
    return rms(errors[:, rows]) / own


def copies(network: Network, errors: np.ndarray, scale: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Errors [cell, copy, row, column] of the inputs moved by 2^scale of themselves, and their noise and truth."""
    part = network.slices[f"moved by 2^{scale}"]
    got, noise, truth = (
        a[..., part, :].reshape(*a.shape[:-2], TIMES, REROLLED, a.shape[-1])
        for a in (errors, network.noise, network.truth)
    )
    return got, noise, truth


def mean_error(network: Network, errors: np.ndarray, scale: int) -> np.ndarray:
    """The rms of the mean over the copies, over the noise."""
    got, noise, truth = copies(network, errors, scale)
    return rms(got.mean(1)) / floored(noise[None], truth[None])


def systematic(network: Network, errors: np.ndarray, scale: int) -> np.ndarray:
    """What the copies share, estimated without bias, over the noise: as ``second_look.py`` has it."""
    got, noise, truth = copies(network, errors, scale)
    shared = ((got.sum(1) ** 2 - (got**2).sum(1)) / (TIMES * (TIMES - 1))).mean((1, 2))
    return np.sqrt(np.maximum(shared, 0)) / floored(noise[None], truth[None])


def mean_point(network: Network, errors: np.ndarray, scale: int) -> np.ndarray:
    """The largest mean error of an element over the largest rounding error."""
    got, noise, truth = copies(network, errors, scale)
    return np.abs(got.mean(1)).max((1, 2)) / max(np.abs(noise).max(), np.abs(truth).max() * UNIT)


def stress_rows(network: Network, errors: np.ndarray, draw: int) -> np.ndarray:
    """The rms over the stress rows' ratios, their noise joined with the ordinary rows': as ``stress.py`` has it."""
    rows, usual = stressed(network, draw)[USED], ordinary(draw, ROWS)
    noise, truth = (
        floored(network.noise[None, usual], network.truth[None, usual])[0],
        rms(network.truth[None, usual])[0],
    )
    sizes, elements = rms(network.truth[rows], 1), network.truth.shape[1]
    prior = noise * np.maximum(1.0, sizes / truth)
    own = rms(network.noise[rows], 1)
    sigma = np.sqrt((elements * own**2 + stress.PRIOR_ELEMENTS * prior**2) / (elements + stress.PRIOR_ELEMENTS))
    return rms(rms(errors[:, rows], 2) / np.maximum(sigma, sizes * UNIT / 3**0.5), 1)


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
    "stress rows alone, as stress.py": (1, stress_rows),
    "r, 8 rows, weights moved in the noise": (1, lambda n, e, d: with_weights(n, e, ordinary(d, 8))),
    **{f"mean of 8 moved by 2^{k}": (8, lambda n, e, _, k=k: mean_error(n, e, k)) for k in SCALES},
    **{f"shared by 8 moved by 2^{k}": (8, lambda n, e, _, k=k: systematic(n, e, k)) for k in SCALES},
    "mean point of 8 moved by 2^-12": (8, lambda n, e, _: mean_point(n, e, -12)),
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


def _percent(values: np.ndarray) -> str:
    return f"{100 * float(np.mean(values)):.3g}"


def statistics_table(right: dict[str, np.ndarray]) -> list[str]:
    """Every statistic over the faithful cells."""
    lines = ["| statistic | rows run / 8 | median | 95 % | threshold (99.5 %) | largest |", "|---|--:|--:|--:|--:|--:|"]
    for name, (cost, _) in STATISTICS.items():
        middle, high, threshold = np.quantile(right[name], [0.5, 0.95, QUANTILE])
        lines.append(f"| {name} | {cost} | {middle:.2f} | {high:.2f} | {threshold:.2f} | {right[name].max():.2f} |")
    return lines


def detection_table(right: dict[str, np.ndarray], wrong: dict[str, dict[str, list[np.ndarray]]]) -> list[str]:
    """The share of faulty cells above the threshold, by fault, for the statistics that are shown."""
    thresholds = {name: np.quantile(right[name], QUANTILE) for name in SHOWN}
    lines = [f"| fault | networks | {' | '.join(SHOWN)} |", "|---|--:" + "|--:" * len(SHOWN) + "|"]
    for fault in (*FAULTS, *(f"dial {size:g}" for size in DIALS)):
        if fault in wrong:
            found = [_percent(np.concatenate(wrong[fault][name]) > thresholds[name]) for name in SHOWN]
            lines.append(f"| {fault} | {len(wrong[fault]['r, 8 rows'])} | {' | '.join(found)} |")
    return lines


def verdicts(values: dict[str, np.ndarray], elements: np.ndarray) -> dict[str, np.ndarray]:
    """Whether the rules fail a cell-draw: r and the point ratio alone, the same with a second look, and all of it."""
    ratio, point_ratio = values["r, 8 rows"], values["point, 8 rows"]
    old = (ratio > K) | (point_ratio > POINT)
    far = (ratio > second_look.FURTHEST * K) | (point_ratio > second_look.FURTHEST * POINT)
    stays = (values["shared by 8 moved by 2^-12"] > second_look.SYSTEMATIC_LIMIT) | (
        values["mean point of 8 moved by 2^-12"] > second_look.MEAN_POINT_LIMIT
    )
    looked = (ratio > second_look.LOOK) | (point_ratio > second_look.POINT_LOOK)
    second = far | (looked & stays)
    limit = stress.LIMIT * K * (1 + stress.PRIOR_ELEMENTS / elements)
    return {
        "r and point": old,
        "second look": second,
        "second look and stress rows": second | (values["stress rows alone, as stress.py"] > limit[:, None]),
    }


def rules_table(found: list[Network], right: dict, wrong: dict) -> list[str]:
    """What the product's rule fails, as it was and as it is."""
    sizes = {n.name: n.truth.shape[1] for n in found}
    lanes = len(found[0].faithful)
    everything = np.repeat([sizes[n.name] for n in found], lanes)
    rules = verdicts(right, everything)
    lines = [f"| cells | networks | {' | '.join(rules)} |", "|---|--:" + "|--:" * len(rules) + "|"]
    lines.append(f"| faithful (false alarms) | {len(found)} | {' | '.join(_percent(v) for v in rules.values())} |")
    for fault in (*FAULTS, *(f"dial {size:g}" for size in DIALS)):
        if fault in wrong:
            of = [n for n in found if fault in n.faults and effective(n, n.faults[fault])]
            values = {name: np.concatenate(v) for name, v in wrong[fault].items()}
            shares = verdicts(values, np.repeat([sizes[n.name] for n in of], lanes))
            lines.append(f"| {fault} | {len(of)} | {' | '.join(_percent(v) for v in shares.values())} |")
    return lines


def dense_table(found: dict[str, dict[str, dict[str, list[float]]]]) -> list[str]:
    """Large outputs: the largest faithful value as the threshold, and what is found above it."""
    names = list(detection_dense.STATISTICS)
    largest = {name: max(max(f[""][name]) for f in found.values()) for name in names}
    cells = sum(len(f[""]["r"]) for f in found.values())
    most = {kind: [f"{max(f[''][n]):.2f}" for n in names] for kind, f in found.items()}
    lines = [
        f"| {cells} faithful cells, {len(found)} kinds | {' | '.join(names)} |",
        "|---" + "|--:" * len(names) + "|",
    ]
    lines += [f"| largest, {kind} | {' | '.join(most[kind])} |" for kind in found]
    for fault in next(iter(found.values())):
        if fault:
            shares = (_percent(np.concatenate([f[fault][n] for f in found.values()]) > largest[n]) for n in names)
            lines.append(f"| {fault}, found % | {' | '.join(shares)} |")
    return lines


def narrow_table(found: dict[str, list[tuple[str, float, float, float]]]) -> list[str]:
    """The product's slice and point ratios of faithful runs at narrow precisions: the largest."""
    lines = ["| precision | cells | r | slice ratio | local point ratio |", "|---|--:|--:|--:|--:|"]
    for precision, rows in found.items():
        most = [max(row[i] for row in rows) for i in (1, 2, 3)]
        lines.append(f"| {precision} | {len(rows)} | {' | '.join(f'{m:.2f}' for m in most)} |")
    return lines


def check_addition(seeds: int) -> str:
    """How an exported and run fault compares with the faithful error plus the float64 difference."""
    import copy

    import random_networks
    import torch
    from detection_cells import onnx_bytes, pool, run64, run_onnxruntime

    ratios = []
    for family in random_networks.FAMILIES:
        for seed in range(seeds):
            module = random_networks.make(family, seed)
            inputs, _ = pool(random_networks._shape(family, random_networks._generator(family, seed)), seed, None)  # noqa: SLF001
            broken = copy.deepcopy(module)
            with torch.no_grad():
                next(p for p in broken.parameters() if p.ndim > 1).mul_(1 + 2e-6)
            truth = run64(module, inputs)
            ran = [run_onnxruntime(onnx_bytes(m, inputs), inputs, optimised=True) for m in (module, broken)]
            added = ran[0] - truth + run64(broken, inputs) - truth
            ratios.append(float(rms((ran[1] - truth)[None])[0] / rms(added[None])[0]))
    return (
        f"The rms of {len(ratios)} faults of about the noise's size, exported and run by ONNX Runtime, is "
        f"{min(ratios):.2f} to {max(ratios):.2f} of the sum's (median {np.median(ratios):.2f})."
    )


def figures(seeds: int, keep: Path | None) -> str:
    """All tables as Markdown."""
    import torch

    torch.set_num_threads(1)
    if keep is not None and keep.exists():
        found = pickle.loads(keep.read_bytes())
    else:
        found = networks(seeds)
        if keep is not None:
            keep.write_bytes(pickle.dumps(found))
    right, wrong = measure(found)
    cells, draws = right["r, 8 rows"].shape
    bound = 100 * (1 - 0.05 ** (1 / cells))
    head = (
        f"{len(found)} networks, {cells} faithful cells, {draws} draws of samples each; none of {cells} cells "
        f"bounds a rate below {bound:.2g} % (95 %). {check_addition(2)}"
    )
    looked = _percent(right["r, 8 rows"] > second_look.LOOK)
    parts = [
        [head],
        ["**Statistics over the faithful cells.**", "", *statistics_table(right)],
        ["**Found, in % of the faulty cells, at one false alarm in 200.**", "", *detection_table(right, wrong)],
        [
            f"**The product's rule before and now, in %.** A second look is due in {looked} % of the faithful cells.",
            "",
            *rules_table(found, right, wrong),
        ],
        ["**Large outputs.**", "", *dense_table(detection_dense.measure(5))],
        [
            "**Large outputs at narrow precisions, faithful runs, largest.**",
            "",
            *narrow_table(detection_dense.narrow(1)),
        ],
        [
            "**Another precision's rounding or a fault.**",
            "",
            *detection_constants.table(detection_constants.measure(5)),
        ],
    ]
    return "\n\n".join("\n".join(part) for part in parts)


def main() -> None:
    """Print the figures, or write them between their marks in a document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=12, help="networks of each family")
    parser.add_argument("--keep", type=Path, help="a file that keeps what was run, and is read where it is there")
    parser.add_argument("--write", type=Path, help="the document to write the figures into")
    chosen = parser.parse_args()
    text = figures(chosen.seeds, chosen.keep)
    if chosen.write is None:
        print(text)
        return
    before, _, rest = chosen.write.read_text().partition(MARKS[0])
    after = rest.partition(MARKS[1])[2]
    chosen.write.write_text(f"{before}{MARKS[0]}\n\n{text}\n\n{MARKS[1]}{after}")


if __name__ == "__main__":
    main()
