"""This machine measured against itself: whether identical code raises an alarm, and what can be detected here."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from pytest_modelformats.cli.selftest.workloads import ROWS, WIDTH, write_model
from pytest_modelformats.errors import ConfigurationError
from pytest_modelformats.measure import conditions as surroundings
from pytest_modelformats.measure.two_sides import interleaved, ratio
from pytest_modelformats.measure.two_sides.detectable import FOUND, TRIALS, found_share, smallest_slowdown, variation
from pytest_modelformats.run.sides import Opening, pair_of
from pytest_modelformats.run.workers.asking import write_feed
from pytest_modelformats.schema import Change, Environment, Source, TensorSpec, registry
from pytest_modelformats.schema.names import suggest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_modelformats.measure.two_sides.ratio import Round
    from pytest_modelformats.run.workers.pool import Pool

WORKLOADS = ("numpy", "onnxruntime", "openvino", "torch")
MARGINS = (0.02, 0.05)
ROUNDS = 9
BUDGETS = (1, 2, 4)
ALARM_TRIALS = 100
TIMEOUT_S = 120.0
_DOUBT = 0.05
_EXACT = 1e-9
_OWN = "pytest_modelformats.cli.selftest.workloads"


@dataclass(frozen=True, slots=True)
class Detectable:
    """What a comparison at a margin, within a budget, finds here.

    ``slowdown`` is the least one found in 57 of 60 drawn cases (``None``: not even twice the time is), ``alarms``
    how many of ``trials`` comparisons of identical code would report a change. Both by running the rule on drawn
    rounds.
    """

    margin: float
    budget_s: float
    slowdown: float | None
    alarms: int
    trials: int

    @property
    def at_most(self) -> float:
        """The share of false alarms that is not exceeded, with 95 % confidence."""
        return share_at_most(self.alarms, self.trials)


@dataclass(frozen=True, slots=True)
class Workload:
    """What one workload showed: comparisons of it with itself, how it varied, and what follows from that."""

    name: str
    latency_ns: float
    comparisons: int
    alarms: int
    interval: float
    round_spread: float
    pair_spread: float
    disturbed: float
    round_s: float
    start_s: float
    detectable: tuple[Detectable, ...]


def chosen(backend: str) -> list[str]:
    """The workloads to measure: the one asked for, or numpy's and that of the first runtime that is installed.

    Raises: ConfigurationError for a name that is none, or a runtime that is not there.
    """
    if backend and backend not in WORKLOADS:
        msg = f"there is no workload '{backend}' for the self-test{suggest(backend, WORKLOADS)}"
        raise ConfigurationError(msg)
    if backend and find_spec(backend) is None:
        msg = f"{backend} is not installed here; {registry.backends()[backend].install}"
        raise ConfigurationError(msg)
    runtimes = [name for name in WORKLOADS[1:] if find_spec(name) is not None]
    return [backend] if backend else ["numpy", *runtimes[:1]]


def measure(
    pool: Pool, name: str, *, pairs: int, budget_s: float, tell: Callable[[str], None] = lambda _: None
) -> Workload:
    """Measure one workload against itself in ``pairs`` pairs of fresh processes, and work out what is detectable."""
    side = _opening(pool, name)
    open_pair = pair_of(pool, side, side)
    heard: list[list[Round]] = []
    starts, seconds = [], []
    for number in range(pairs):
        tell(f"{name}: pair {number + 1} of {pairs}")
        asked = time.monotonic()
        with open_pair() as pair:
            starts.append(time.monotonic() - asked)
            heard.append([])
            # The first block warms up; its round's time is not that of the others.
            for one in interleaved.rounds_of(pair, heard, mirrored=bool(number % 2)):
                heard[-1].append(one)
                now = time.monotonic()
                seconds.append(now - asked)
                asked = now
                if len(heard[-1]) == ROUNDS:
                    break
    return _workload(name, heard, (median(starts), median(seconds)), budget_s, tell)


def _workload(
    name: str, heard: Sequence[list[Round]], took: tuple[float, float], budget_s: float, tell: Callable[[str], None]
) -> Workload:
    seen = variation(heard, *took)
    # Successive pairs by twos are a comparison, as a run would have made it.
    judged = [interleaved.judge(heard[i : i + 2], min(MARGINS)) for i in range(0, len(heard) - 1, 2)]
    alarms = sum(one.change in {Change.REGRESSION, Change.IMPROVEMENT} for one in judged)
    detectable = []
    for margin in MARGINS:
        for budget in (budget_s * factor for factor in BUDGETS):
            tell(f"{name}: what {budget:g} s a comparison find at a margin of {margin:.0%}")
            least = smallest_slowdown(seen, margin=margin, budget_s=budget)
            share = found_share(seen, 0.0, margin=margin, budget_s=budget, trials=ALARM_TRIALS)
            detectable.append(Detectable(margin, budget, least, round(share * ALARM_TRIALS), ALARM_TRIALS))
    every = [one for rounds in heard for one in rounds]
    return Workload(
        name=name,
        latency_ns=median(one.before_ns for one in every),
        comparisons=len(judged),
        alarms=alarms,
        interval=median((one.ratio_high - one.ratio_low) / 2 for one in judged) if judged else math.inf,
        round_spread=_spread(seen.residuals),
        pair_spread=seen.pair_spread,
        disturbed=1 - sum(len(interleaved.undisturbed(rounds)) for rounds in heard) / len(every),
        round_s=took[1],
        start_s=took[0],
        detectable=tuple(detectable),
    )


def _spread(residuals: Sequence[float]) -> float:
    """A standard deviation that a few spoilt rounds do not decide: 1.4826 times the median absolute deviation."""
    return 1.4826 * median(abs(value) for value in residuals)


def share_at_most(hits: int, of: int) -> float:
    """The largest share that ``hits`` or fewer of so many are compatible with: 95 % confidence, one-sided.

    Of none it is about three in ``of``: 3.0 % where 100 were drawn.

    Source: Clopper & Pearson (1934).
    """
    low, high = hits / of, 1.0
    while high - low > _EXACT:
        share = (low + high) / 2
        fewer = sum(math.comb(of, k) * share**k * (1 - share) ** (of - k) for k in range(hits + 1))
        low, high = (share, high) if fewer > _DOUBT else (low, share)
    return high


def machine_state() -> dict[str, Any]:
    """What can be read of the machine's state now; ``None`` where it does not say."""
    cores = _measured_cores()
    now = surroundings.readings(cores)
    governor = Path(f"/sys/devices/system/cpu/cpu{cores[0] if cores else 0}/cpufreq/scaling_governor")
    try:
        governed: str | None = governor.read_text(encoding="ascii").strip()
    except OSError:
        governed = None
    return {"load": now["load"], "measured_core": list(cores), "governor": governed, "throttled": now["throttled"]}


def _measured_cores() -> tuple[int, ...]:
    with surroundings.pinned_to_cores(1) as cores:
        return cores


def sentence(workloads: Sequence[Workload], budget_s: float, margin: float = 0.05) -> str:
    """The one sentence: what a run here detects, and how often it would cry wolf."""
    here = [d for w in workloads for d in w.detectable if d.margin == margin and d.budget_s == budget_s]
    worst = max(here, key=lambda d: d.alarms / d.trials)
    total, alarms = sum(w.comparisons for w in workloads), sum(w.alarms for w in workloads)
    observed = f"{alarms} of {total} comparisons of identical code gave an alarm"
    drawn = f"{worst.alarms} of {worst.trials} drawn at this variation"
    expected = f"({drawn}, so at most {worst.at_most:.1%} are to be expected, with 95 % confidence)"
    slowdowns = [d.slowdown for d in here]
    if any(least is None for least in slowdowns):
        return (
            f"This machine is too restless to detect a slow-down within {budget_s:g} s a comparison; "
            f"{observed} {expected}. Give it more time, or a quieter machine."
        )
    least = max(least for least in slowdowns if least is not None)
    return (
        f"At a margin of {margin:.0%} and {budget_s:g} s a comparison, a run here finds a slow-down of {least:.1%} "
        f"or more in at least {FOUND} of {TRIALS} cases drawn at this variation; {observed} {expected}."
    )


def plain(workloads: Sequence[Workload], state: dict[str, Any], budget_s: float) -> dict[str, Any]:
    """Everything as JSON carries it."""
    return {
        "workloads": [
            {**asdict(w), "detectable": [{**asdict(d), "alarms_at_most": d.at_most} for d in w.detectable]}
            for w in workloads
        ],
        "machine_state": state,
        "prior_pair_spread": ratio.PAIR_SPREAD,
        "sentence": sentence(workloads, budget_s),
    }


def _opening(pool: Pool, name: str) -> Opening:
    import numpy as np

    folder = pool.folder / "selftest"
    feed = {"x": np.random.default_rng(0).normal(size=(ROWS, WIDTH)).astype(np.float32)}
    paths = write_feed(feed, folder / "feed")
    model = folder / "model.onnx"
    write_model(model)
    own = {"numpy": "open_numpy", "torch": "open_torch"}.get(name)
    entry = f"{_OWN}:{own}" if own else registry.backends()[name].entry
    form = {"torch": "pytorch", "numpy": "onnx"}.get(name, "onnx")
    spec = [TensorSpec("x", "float32", (ROWS, WIDTH)).to_json()]
    job = {
        "source": Source("selftest", str(model), "onnx", "onnx").to_json(),
        "artifact": str(model),
        "format": form,
        "artifact_precision": "fp32",
        "precision": "fp32",
        "device": "cpu",
        "threads": 1,
        "inputs": spec,
        "outputs": [],
        "options": {},
    }
    return Opening(Environment(), name, entry, job, paths, 1, TIMEOUT_S, f"the self-test's workload in {name}")
