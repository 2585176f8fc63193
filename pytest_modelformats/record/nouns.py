"""The nouns of a run's record, one per kind of line: what was planned, and what became of it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pytest_modelformats.schema import PRECISIONS, Comparison, FailureKind, Outcome, OutputParity
from pytest_modelformats.schema.outcome import FAILURES, PARITY, RUN, SKIPPED_OUTCOMES, UNSEEN

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_modelformats.schema.sizes import Dimension

INTERRUPTED = "not run (interrupted)"

# RUN, or the outcome of a cell that the plan does not run.
Decision = str

# What a record stores packed (record/packed_samples.py).
SamplesNs = tuple[float, ...]

UNCHECKED = "parity could not be checked"

REMARKS = (Outcome.INCONCLUSIVE, Outcome.EXPECTED_FAILURE)


@dataclass(frozen=True, slots=True)
class Header:
    """What was started, when, by which command, where."""

    run: str
    started: str
    tool: str
    command: tuple[str, ...] = ()
    machine: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    environments: Mapping[str, Any] = field(default_factory=dict)
    # Of a record that was joined from several: what each of them was, and what a reader has to know of them.
    merged: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    baseline: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NoiseFloor:
    """What rounding alone costs one output of the source model at one precision."""

    output: str
    precision: str
    noise_rms: float | None
    noise_max: float | None
    method: str = ""
    how: str = ""


@dataclass(frozen=True, slots=True)
class Model:
    """A source model whose reference was evaluated."""

    model: str
    source: str
    format: str
    source_kind: str = ""
    sha256: str = ""
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    samples: int | None = None
    input_origin: str = ""
    noise: tuple[NoiseFloor, ...] = ()
    truth_method: str = ""
    truth_how: str = ""
    # Of dimensions that the model leaves free; where nobody states them, where else parity was judged, and the
    # specifications of --mf-input that do.
    sizes: tuple[Dimension, ...] = ()
    further_sizes: tuple[Mapping[str, Any], ...] = ()
    pin: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Parity:
    """The numbers of parity of one check, and what the runtime says of itself."""

    outputs: tuple[OutputParity, ...] = ()
    noise_ratio: float | None = None
    effective_precision: str = ""
    statement: Mapping[str, Any] = field(default_factory=dict)
    execution: Mapping[str, Any] = field(default_factory=dict)
    contradiction: str = ""

    @property
    def flips(self) -> float | None:
        """The largest share of changed decisions over the outputs."""
        return max((o.flips for o in self.outputs if o.flips is not None), default=None)


@dataclass(frozen=True, slots=True)
class Latency:
    """What was measured of one cell; ``None`` is: not measured, or too few samples behind it.

    Units: in the names; ``variation`` is a fraction, ``samples`` a count.
    """

    latency_p50_ns: float | None = None
    latency_p50_low_ns: float | None = None
    latency_p50_high_ns: float | None = None
    latency_mean_ns: float | None = None
    latency_std_ns: float | None = None
    variation: float | None = None
    latency_p90_ns: float | None = None
    latency_p95_ns: float | None = None
    latency_p99_ns: float | None = None
    items_per_s: float | None = None
    load_ns: float | None = None
    first_inference_ns: float | None = None
    convert_ns: float | None = None
    size_bytes: float | None = None
    idle_rss_bytes: float | None = None
    peak_rss_bytes: float | None = None
    batch: int | None = None
    threads: int | None = None
    warmup_runs: int | None = None
    samples: int | None = None
    samples_ns: SamplesNs = ()
    disturbed: str = ""
    pinned: tuple[int, ...] = ()
    unusable: str = ""
    median_uncertainty: float | None = None
    outliers: float | None = None
    drift: float | None = None
    remeasured: int | None = None
    machine_state: Mapping[str, Any] = field(default_factory=dict)
    memory_growth_bytes: float | None = None
    first_session: bool | None = None
    device_memory_bytes: float | None = None
    device_memory_source: str = ""
    host_to_device_ns: float | None = None
    compute_ns: float | None = None
    device_to_host_ns: float | None = None
    energy_j: float | None = None
    energy_source: str = ""
    # Of dimensions that the model leaves free, by name.
    sizes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def memory_above_idle_bytes(self) -> float | None:
        """The worker's peak resident memory above what it held before the artifact was opened."""
        if self.peak_rss_bytes is None or self.idle_rss_bytes is None:
            return None
        return max(0.0, self.peak_rss_bytes - self.idle_rss_bytes)


@dataclass(frozen=True, slots=True)
class ThroughputFigure:
    """What a cell delivered in one way of keeping it busy; ``why_not`` where there is no figure."""

    batch: int
    concurrency: int
    mode: str
    items_per_s: float | None = None
    latency_p50_ns: float | None = None
    samples: int | None = None
    disturbed: str = ""
    unusable: str = ""
    why_not: str = ""
    sizes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Localisation:
    """Where a cell goes wrong; an empty ``operator`` says that it could not be told.

    Units: errors are rms errors over each tensor's own rounding noise, ``None`` where they have no number.
    """

    method: str
    operator: str = ""
    node: str = ""
    module: str = ""
    output: str = ""
    input_error: float | None = None
    output_error: float | None = None
    before: tuple[str, ...] = ()
    nodes_compared: int | None = None
    confirmed: bool | None = None
    seconds: float | None = None
    sentence: str = ""

    @property
    def alone(self) -> str:
        """What the operator does on good inputs, without its neighbours."""
        words = {True: "it is wrong alone too", False: "alone it is right", None: "it was not run alone"}
        return words[self.confirmed]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at in one cell."""

    cell: str
    check: str
    outcome: Outcome
    test: str = ""
    failure_kind: FailureKind | None = None
    sentence: str = ""
    duration_s: float | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    parity: Parity | None = None
    latency: Latency | None = None
    localisation: Localisation | None = None
    throughput: tuple[ThroughputFigure, ...] = ()
    comparisons: tuple[Comparison, ...] = ()

    @property
    def word(self) -> str:
        """The outcome, with the kind where it failed."""
        return f"{self.outcome.value} ({self.failure_kind.value})" if self.failure_kind else self.outcome.value

    @property
    def reused(self) -> str:
        """When this was found, where it was found in an earlier run and shown again; else ""."""
        return str(self.data.get("reused") or "")


@dataclass(frozen=True, slots=True)
class CellRecord:
    """A planned cell with everything that became of it."""

    cell: str
    model: str
    format: str
    precision: str
    backend: str
    device: str
    route: str = ""
    environment: str = ""
    candidate: str = ""
    chain: tuple[str, ...] = ()
    decision: Decision = RUN
    reason: str = ""
    install: str = ""
    # Whether the run was to check its parity: without it the other checks make no pass.
    parity_asked: bool = False
    checks: tuple[Check, ...] = ()
    outcome: Outcome = Outcome.NOT_MEASURED
    interrupted: bool = False

    @property
    def parity(self) -> Parity | None:
        """The parity check's numbers; where there is no such check, those of the first check that has some."""
        named = [c for c in self.checks if c.check == "parity"]
        return next((c.parity for c in named or self.checks if c.parity), None)

    @property
    def latency(self) -> Latency | None:
        """The latency check's measurement; where there is no such check, the first check's that has one."""
        named = [c for c in self.checks if c.check == "latency"]
        return next((c.latency for c in named or self.checks if c.latency), None)

    @property
    def throughput(self) -> tuple[ThroughputFigure, ...]:
        """What it delivered in every way of keeping it busy."""
        return tuple(figure for check in self.checks for figure in check.throughput)

    @property
    def bundle(self) -> str:
        """The reproduction bundle, a folder beside the record; "" where there is none."""
        found = (check.data.get("bundle") for check in self.checks)
        return next((place for place in found if isinstance(place, str) and place), "")

    @property
    def conversion(self) -> Mapping[str, Any]:
        """By what its artifact was converted, and what was changed beside the format; empty where nothing is said."""
        stated = (check.data.get("artifact") for check in self.checks)
        found = (said.get("conversion") for said in stated if isinstance(said, dict))
        return next((made for made in found if isinstance(made, dict)), {})

    @property
    def localisation(self) -> Localisation | None:
        """The first wrong operator that a check of it has led to."""
        found = [c.localisation for c in self.checks if c.localisation]
        return next((f for f in found if f.operator), None)

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        """What changed: as it was judged among all cells, or else as it stands alone."""
        found = {c.check: c.comparisons for c in self.checks if c.comparisons}
        return found.get("regression") or found.get("comparison") or ()

    @property
    def word(self) -> str:
        """What a report calls the cell's outcome."""
        return INTERRUPTED if self.interrupted else self.outcome.value

    @property
    def ran(self) -> bool:
        """Whether anything was executed for it."""
        unseen = (*UNSEEN, Outcome.NOT_MEASURED)
        return self.decision == RUN and not self.interrupted and any(c.outcome not in unseen for c in self.checks)

    @property
    def unchecked(self) -> str:
        """Why parity, which was asked for, could not be checked while other checks ran; "" where that is not so."""
        if not self.ran or self.outcome not in SKIPPED_OUTCOMES:
            return ""
        found = [c for c in self.checks if c.check == PARITY]
        if not found:
            return "the run ended before its turn" if self.parity_asked else ""
        told = (c.sentence for c in found if c.outcome is self.outcome)
        return next(((why or "no reason was recorded") for why in told), "")

    @property
    def row(self) -> tuple[str, str]:
        """Its row of the matrix: how the artifact came to be, and the precision."""
        variant = f"{self.format}.{self.route}" if self.route else self.format
        return f"~{self.candidate} {variant}" if self.candidate else variant, self.precision

    @property
    def column(self) -> str:
        """Its column of the matrix: the runtime and where it ran."""
        return f"{self.backend}@{self.device}" + (f"+{self.environment}" if self.environment else "")

    @property
    def sort_key(self) -> tuple[str, bool, str, int, str, str]:
        """Matrix order: model, own conversions before candidates, format, precision, runtime."""
        known = list(PRECISIONS)
        rank = known.index(self.precision) if self.precision in known else len(known)
        return self.model, bool(self.candidate), self.row[0], rank, self.precision, self.column

    @property
    def why_not(self) -> str:
        """Why it did not run, in the words of the plan or of the check that found out."""
        if self.interrupted:
            return "the run ended before any check of it was finished"
        said = (c.sentence for c in self.checks if c.outcome is self.outcome and c.sentence)
        return self.reason or next(said, "no check of it was selected" if not self.checks else "no reason was recorded")

    def sentences(self) -> list[tuple[str, str, str]]:
        """(word, names of the checks, sentence) of what did not pass; equal sentences once."""
        told: dict[tuple[str, str], list[str]] = defaultdict(list)
        for check in self.checks:
            missing = check.check == PARITY and check.outcome in SKIPPED_OUTCOMES and bool(self.unchecked)
            if check.outcome in FAILURES or check.outcome in REMARKS or missing:
                told[check.word, check.sentence].append(check.check)
        if self.unchecked and not any(PARITY in names for names in told.values()):
            told[self.word, f"{UNCHECKED}: {self.unchecked}"].append(PARITY)
        return [(word, ", ".join(dict.fromkeys(names)), sentence) for (word, sentence), names in told.items()]


@dataclass(frozen=True, slots=True)
class NotRun:
    """Cells that did not run for one and the same reason."""

    word: str
    reason: str
    install: str
    cells: tuple[CellRecord, ...]


@dataclass(frozen=True, slots=True)
class Footer:
    """How the run ended."""

    finished: str
    complete: bool
    duration_s: float | None = None
    totals: Mapping[str, Any] = field(default_factory=dict)
    cells: Mapping[str, Any] = field(default_factory=dict)
    conversions: Mapping[str, Any] = field(default_factory=dict)
    exitstatus: int | None = None
