"""The frozen nouns of the pipeline, and the words they are written with.

Standard library only: this module is imported in the pytest process, in every worker and
in foreign interpreters.
"""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

from pytest_modelformats.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SCHEMA_VERSION = 1


class Outcome(str, Enum):
    """The one word that a planned cell, or one check of it, ends in."""

    PASSED = "passed"
    FAILED = "failed"
    UNSUPPORTED = "unsupported"
    MISSING_DEPENDENCY = "missing-dependency"
    NO_DEVICE = "no-device"
    CONVERT_ERROR = "convert-error"
    CRASHED = "crashed"
    TIMEOUT = "timeout"
    OUT_OF_MEMORY = "out-of-memory"
    FALLBACK = "fallback"
    INCONCLUSIVE = "inconclusive"
    NOT_MEASURED = "not-measured"
    EXPECTED_FAILURE = "expected-failure"


SKIPPED_OUTCOMES = frozenset(
    {Outcome.UNSUPPORTED, Outcome.MISSING_DEPENDENCY, Outcome.NO_DEVICE, Outcome.INCONCLUSIVE, Outcome.NOT_MEASURED}
)


class FailureKind(str, Enum):
    """What a ``failed`` check failed on.

    ``precision`` is for checks of outside packages: of ours, what ran at another precision ends as ``fallback``.
    """

    CONTRACT = "contract"
    NUMERIC = "numeric"
    NAN = "nan"
    DEGENERATE = "degenerate"
    PRECISION = "precision"
    ACCURACY = "accuracy"
    BUDGET = "budget"
    REGRESSION = "regression"


@dataclass(frozen=True, slots=True)
class Precision:
    """An arithmetic that a cell can ask for.

    ``mantissa_bits`` are the explicitly stored ones. ``limit`` is the k(p) of the verdict
    rule (``floating.py`` says where it comes from). ``weights_only`` precisions round the
    weights and compute in fp32. ``judged_as`` is the precision whose noise counts.
    ``operands_only`` precisions round what goes into matrix products and convolutions;
    sums and results are fp32.
    """

    name: str
    mantissa_bits: int
    limit: float
    weights_only: bool = False
    judged_as: str = ""
    operands_only: bool = False

    @property
    def result_bits(self) -> int:
        """The mantissa bits that an output of this precision is written down with."""
        return 23 if self.operands_only else self.mantissa_bits

    @property
    def yardstick(self) -> str:
        """The precision whose measured noise a cell of this precision is judged by."""
        return self.judged_as or self.name


PRECISIONS: dict[str, Precision] = {
    p.name: p
    for p in (
        Precision("fp32", 23, 4.0),
        Precision("tf32", 10, 4.0, operands_only=True),
        Precision("fp16", 10, 2.0),
        Precision("bf16", 7, 2.0),
        Precision("fp16-weights", 10, 2.0, weights_only=True),
        # What the runtime picks when it is told nothing; the artifact holds fp32, so fp32 is what was asked.
        Precision("default", 23, 4.0, judged_as="fp32"),
    )
}

_SPEC = re.compile(
    r"^(?:(?P<name>[^:\[\]{}]+):)?(?P<dtype>[a-z]+\d*)\[(?P<shape>[^\]]*)\](?:\{(?P<low>[^{},.]+(?:\.\d+)?)\.\.(?P<high>[^{}]+)\})?$"
)
# A sample of 1 TiB and more, whatever its dtype.
MOST_ELEMENTS = 2**40
DTYPES = frozenset(
    [
        "float64",
        "float32",
        "float16",
        "bfloat16",
        "int64",
        "int32",
        "int16",
        "int8",
        "uint64",
        "uint32",
        "uint16",
        "uint8",
        "bool",
    ]
)


def _dimensions(text: str, shape: str) -> tuple[int | str, ...]:
    """The dimensions of a specification; raises ConfigurationError."""
    dims: list[int | str] = []
    for dim in (part.strip() for part in shape.split(",")):
        if re.fullmatch(r"[+-]?[0-9]+", dim):
            dims.append(int(dim))
        elif dim.isidentifier():
            dims.append(dim)
        elif dim:
            msg = (
                f"'{text}' has the dimension '{dim}', which is neither a whole number nor a name; "
                "write a letter such as N for a dimension that may vary"
            )
            raise ConfigurationError(msg)
    fixed = [dim for dim in dims if isinstance(dim, int)]
    if any(dim < 1 for dim in fixed):
        msg = f"'{text}' has a dimension below 1; write a letter such as N for a dimension that may vary"
        raise ConfigurationError(msg)
    if math.prod(fixed) > MOST_ELEMENTS:
        msg = f"'{text}' is a tensor of {math.prod(fixed):.3g} elements, more than any machine holds; correct its sizes"
        raise ConfigurationError(msg)
    return tuple(dims)


def _bounds(text: str, low: str, high: str) -> tuple[float, float]:
    """The range of a specification's values; raises ConfigurationError."""
    try:
        found = float(low), float(high)
    except ValueError:
        found = math.nan, math.nan
    if not -math.inf < found[0] <= found[1] < math.inf:
        msg = (
            f"'{text}' has the range {{{low}..{high}}}; write two numbers, the smaller one first, "
            "as in 'ids:int64[N,128]{0..30521}'"
        )
        raise ConfigurationError(msg)
    return found


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A named, typed, shaped place for a tensor, written ``ids:int64[N,S]{0..30521}``.

    ``shape`` holds an ``int`` for a fixed dimension, a ``str`` for a symbolic one, and is
    ``None`` where the format or runtime does not state it. ``low`` and ``high`` bound the
    values of integer inputs, both inclusive. An empty ``name`` means: not stated.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...] | None
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        """Write ``name:dtype[dims]{low..high}``, what :meth:`parse` reads."""
        dims = "?" if self.shape is None else ",".join(str(d) for d in self.shape)
        bounds = "" if self.low is None or self.high is None else f"{{{self.low:g}..{self.high:g}}}"
        return f"{self.name or '?'}:{self.dtype}[{dims}]{bounds}"

    @classmethod
    def parse(cls, text: str) -> TensorSpec:
        """Read ``name:dtype[dims]{low..high}``.

        Raises: ConfigurationError, showing the form that was expected.
        """
        match = _SPEC.match(text.strip())
        if match is None or match["dtype"] not in DTYPES:
            msg = (
                f"'{text}' is not an input specification; write name:dtype[dims], for example "
                "'input:float32[N,3,224,224]', or 'ids:int64[N,128]{0..30521}' with a range of values"
            )
            raise ConfigurationError(msg)
        dims = _dimensions(text, match["shape"])
        low, high = (None, None) if match["low"] is None else _bounds(text, match["low"], match["high"])
        return cls(match["name"] or "", match["dtype"], dims, low, high)

    def to_json(self) -> dict[str, Any]:
        """The plain form that crosses the process border and goes into a record."""
        return {
            "name": self.name,
            "dtype": self.dtype,
            "shape": None if self.shape is None else list(self.shape),
            "low": self.low,
            "high": self.high,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TensorSpec:
        """Undo :meth:`to_json`."""
        shape = data["shape"]
        return cls(data["name"], data["dtype"], None if shape is None else tuple(shape), data["low"], data["high"])

    @property
    def is_float(self) -> bool:
        """Whether the values are floating-point."""
        return "float" in self.dtype


@dataclass(frozen=True, slots=True)
class Format:
    """A way to write a model down, as one file or folder.

    ``module`` is the import path of the format's file (see ``contract.FormatModule``).
    ``suffix`` is what an artifact of it is called; "" means that the source is the artifact.
    ``named_inputs``/``named_outputs``: whether the format holds names that must survive.
    """

    name: str
    title: str
    module: str
    suffix: str
    precisions: tuple[str, ...]
    requires: tuple[str, ...] = ()
    install: str = ""
    named_inputs: bool = False
    named_outputs: bool = False


@dataclass(frozen=True, slots=True)
class Converter:
    """One edge of the conversion graph: (source format, source precision) -> (target format, target precision).

    ``precisions`` maps the precision of the input artifact to those it can be turned into.
    ``route`` names this way of reaching ``target``; the ``default`` ones make up the plan,
    the others are asked for as ``<target>.<route>``. ``entry`` is ``module:function`` of a
    ``contract.Convert``. ``libraries`` are the distributions whose versions enter the cache key, beside the code of the
    entry's module and what that imports of its own package; ``version`` is raised for what neither of them shows.
    """

    name: str
    source: str
    target: str
    precisions: Mapping[str, tuple[str, ...]]
    entry: str
    route: str
    default: bool = True
    requires: tuple[str, ...] = ()
    install: str = ""
    libraries: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    version: int = 1


@dataclass(frozen=True, slots=True)
class Backend:
    """A runtime that opens artifacts and runs them.

    ``precisions`` maps (format, precision of the artifact) to the precisions it can be run
    at: mostly the artifact's own, for OpenVINO also those of the precision hint.
    ``worker`` names the process it lives in. ``needs_cpu_flags`` maps a precision to CPU
    flags of which one must be present for it to be more than an emulation on ``cpu``.
    ``entry`` is ``module:function`` of a ``contract.OpenSession``.
    ``verified`` says on what hardware a device of it was seen working ("" = not verified).
    ``precision_devices`` names the devices of a precision that not every device has (TF32
    is an arithmetic of NVIDIA's tensor cores); where a precision is absent, all have it.
    ``one_call_at_a_time`` says why several threads may not call one session at once ("" = they may).
    """

    name: str
    title: str
    worker: str
    precisions: Mapping[tuple[str, str], tuple[str, ...]]
    devices: tuple[str, ...]
    entry: str
    requires: tuple[str, ...] = ()
    install: str = ""
    libraries: tuple[str, ...] = ()
    needs_cpu_flags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    verified: Mapping[str, str] = field(default_factory=dict)
    opt_in_precisions: tuple[str, ...] = ()
    precision_devices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    one_call_at_a_time: str = ""

    def runs_on(self, precision: str) -> tuple[str, ...]:
        """The devices on which it has a precision."""
        return tuple(d for d in self.devices if d in self.precision_devices.get(precision, self.devices))


@dataclass(frozen=True, slots=True)
class Source:
    """A model as the user gave it.

    ``kind`` is what the content is (``state-dict``, ``pickled-module``, ``factory``,
    ``torchscript``, ``pt2``, ``onnx``, ``openvino``), ``format`` the format it is an
    artifact of. ``location`` is an absolute path, or ``module:callable`` for a factory.
    ``sha256`` covers every byte of the file or files ("" for a factory).
    ``inputs`` are the user's ``--mf-input`` specifications; empty means: ask the model.
    ``precision`` is the one that the file's numbers are written down in.
    """

    name: str
    location: str
    kind: str
    format: str
    sha256: str = ""
    arch: str = ""
    trust: bool = False
    inputs: tuple[TensorSpec, ...] = ()
    search_path: tuple[str, ...] = ()
    precision: str = "fp32"

    def to_json(self) -> dict[str, Any]:
        """The plain form that crosses the process border."""
        data = asdict(self)
        data["inputs"] = [spec.to_json() for spec in self.inputs]
        data["search_path"] = list(self.search_path)
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Source:
        """Undo :meth:`to_json`."""
        fields = dict(data)
        fields["inputs"] = tuple(TensorSpec.from_json(s) for s in data["inputs"])
        fields["search_path"] = tuple(data["search_path"])
        return cls(**fields)


def classifies(outputs: Sequence[TensorSpec]) -> bool:
    """Whether the outputs are those of a classifier: one row of numbers for each sample, a number for each class."""
    shape = outputs[0].shape if len(outputs) == 1 and outputs[0].is_float else None
    rows_of_classes = shape is not None and len(shape) == len(("N", "C")) and isinstance(shape[0], str)
    return rows_of_classes and isinstance(shape[1], int) and shape[1] > 1  # type: ignore[index]


@dataclass(frozen=True, slots=True)
class Description:
    """What a source says of itself once it is loaded.

    ``fingerprint`` is a SHA-256 over everything that decides what the model computes and
    that the file's own hash does not cover (the code of its architecture).
    ``data`` names where real samples come from (``module:callable``), "" if nowhere.
    ``invented`` are the outputs that the source does not name: the names of these are the tool's own.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    fingerprint: str
    classifier: bool = False
    data: str = ""
    summary: str = ""
    invented: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The plain form that crosses the process border."""
        data = asdict(self)
        data["inputs"] = [spec.to_json() for spec in self.inputs]
        data["outputs"] = [spec.to_json() for spec in self.outputs]
        data["invented"] = list(self.invented)
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Description:
        """Undo :meth:`to_json`."""
        fields = dict(data)
        fields["inputs"] = tuple(TensorSpec.from_json(s) for s in data["inputs"])
        fields["outputs"] = tuple(TensorSpec.from_json(s) for s in data["outputs"])
        fields["invented"] = tuple(data.get("invented", ()))
        return cls(**fields)


@dataclass(frozen=True, slots=True)
class Environment:
    """An interpreter that workers run under; ``python`` is "" for pytest's own."""

    name: str = ""
    python: str = ""


@dataclass(frozen=True, slots=True)
class Cell:
    """One point of the matrix.

    ``variant`` is the part of the id that says how the artifact came to be: the format,
    or ``format.route`` for a route that is not the default one.
    """

    model: str
    format: str
    precision: str
    backend: str
    device: str
    environment: str = ""
    route: str = ""
    candidate: str = ""

    @property
    def variant(self) -> str:
        """The format, with the route where it is not the default one."""
        return f"{self.format}.{self.route}" if self.route else self.format

    @property
    def id(self) -> str:
        """``<model>[~<file stem>]-<format>-<precision>-<backend>@<device>[+<environment>]``."""
        stem = f"~{self.candidate}" if self.candidate else ""
        suffix = f"+{self.environment}" if self.environment else ""
        return f"{self.model}{stem}-{self.variant}-{self.precision}-{self.backend}@{self.device}{suffix}"


@dataclass(frozen=True, slots=True)
class Step:
    """One conversion of a chain: a converter by name and the precision it is to produce."""

    converter: str
    precision: str


@dataclass(frozen=True, slots=True)
class Decision:
    """Why a cell runs (``outcome`` is None) or does not."""

    outcome: Outcome | None = None
    reason: str = ""
    install: str = ""

    @property
    def runs(self) -> bool:
        """Whether the cell is to be executed."""
        return self.outcome is None


@dataclass(frozen=True, slots=True)
class PlannedCell:
    """A cell, the chain of conversions that leads to its artifact, and the decision."""

    cell: Cell
    chain: tuple[Step, ...]
    artifact_precision: str
    decision: Decision
    candidate_path: str = ""
    candidate_kind: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """Every cell with its decision, in the order in which they are executed."""

    cells: tuple[PlannedCell, ...]


@dataclass(frozen=True, slots=True)
class OutputParity:
    """The numbers of parity for one output of one cell.

    ``error_rms`` and ``error_max`` are against the float64 truth, ``noise_rms`` and
    ``noise_max`` what rounding alone costs the source model at the asked precision,
    in the output's own unit. ``noise_ratio`` = error_rms / noise_rms.
    ``flips`` is the share of samples (classifiers) or elements (integers) decided otherwise.
    """

    name: str
    outcome: Outcome
    failure_kind: FailureKind | None
    sentence: str
    error_rms: float | None = None
    error_max: float | None = None
    noise_rms: float | None = None
    noise_max: float | None = None
    noise_ratio: float | None = None
    point_ratio: float | None = None
    effective_precision: str = ""
    flips: float | None = None
    elements: int = 0
    # In units of the noise: the worst slice and element of their own (noise_profile.py), stress rows (stress.py),
    # what stays when the inputs move (second_look.py).
    slice_ratio: float | None = None
    local_point_ratio: float | None = None
    stress_ratio: float | None = None
    systematic_ratio: float | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The judgement of a cell's outputs: the worst output's outcome and its sentence.

    ``execution`` is what the runtime states of what ran, ``contradiction`` the sentence that
    says where this cannot be true (see ``compare/stated_execution.py``).
    """

    outcome: Outcome
    failure_kind: FailureKind | None
    sentence: str
    outputs: tuple[OutputParity, ...] = ()
    statement: Mapping[str, Any] = field(default_factory=dict)
    execution: Mapping[str, Any] = field(default_factory=dict)
    contradiction: str = ""

    @property
    def passed(self) -> bool:
        """Whether the cell's model still is the model."""
        return self.outcome is Outcome.PASSED

    @property
    def noise_ratio(self) -> float | None:
        """The largest noise ratio over the outputs."""
        return max((o.noise_ratio for o in self.outputs if o.noise_ratio is not None), default=None)


@dataclass(frozen=True, slots=True)
class Timing:
    """What was measured of one cell in its worker; every duration in nanoseconds, sizes in bytes.

    Percentiles are ``None`` until enough samples stand behind them (design §7).
    """

    samples_ns: tuple[int, ...]
    batch: int
    threads: int
    warmup_runs: int
    latency_p50_ns: float
    latency_p50_low_ns: float
    latency_p50_high_ns: float
    latency_mean_ns: float
    latency_std_ns: float
    variation: float
    latency_p90_ns: float | None
    latency_p95_ns: float | None
    latency_p99_ns: float | None
    items_per_s: float
    load_ns: int
    first_inference_ns: int
    convert_ns: int | None
    size_bytes: int | None
    idle_rss_bytes: int | None
    peak_rss_bytes: int | None
    disturbed: str = ""
    pinned: tuple[int, ...] = ()
    # Why the median is not to be used, "" where it is; how far it may be off; far-out samples; the second half's
    # median over the first's, less one (measure/uncertainty.py).
    unusable: str = ""
    median_uncertainty: float | None = None
    outliers: float | None = None
    drift: float | None = None
    remeasured: int = 0
    machine_state: Mapping[str, Any] = field(default_factory=dict)
    # By every call, where resident memory keeps growing.
    memory_growth_bytes: float | None = None
    # Where there is a device, and where it can be asked.
    device_memory_bytes: int | None = None
    device_memory_source: str = ""
    host_to_device_ns: float | None = None
    compute_ns: float | None = None
    device_to_host_ns: float | None = None
    # Whether no session was opened in its process before: the first one pays for what the runtime keeps.
    first_session: bool | None = None
    # Per inference; what the machine takes when idle is not subtracted.
    energy_j: float | None = None
    energy_source: str = ""


class Change(str, Enum):
    """What a comparison of two measurements says of the later one."""

    SAME = "same"
    REGRESSION = "regression"
    IMPROVEMENT = "improvement"
    INCONCLUSIVE = "inconclusive"
    APPEARED = "appeared"
    VANISHED = "vanished"


@dataclass(frozen=True, slots=True)
class Comparison:
    """One metric of one cell, before and after.

    ``before`` and ``after`` are in ``unit`` (``ns``, ``bytes``, ``/s``, "" for plain numbers); ``ratio`` is after over
    before with its 95 % confidence interval, ``None`` where there is none. ``before_what`` and ``after_what`` say in
    words what was measured ("release-1.2, onnxruntime 1.26.0"). ``how`` is ``interleaved`` (both measured now, in ABBA
    blocks), ``stored`` (samples of an earlier run: weaker), ``reading`` (one number per run), ``not judged`` (one that
    says too little), ``identical`` (nothing that could matter differs, so nothing was measured) or ``exact`` (sizes and
    the like, which do not vary).
    ``p_value`` is one-sided, against "not beyond the margin". ``recurred``: found again in fresh processes.
    """

    cell: str
    metric: str
    unit: str
    change: Change
    sentence: str
    before_what: str = ""
    after_what: str = ""
    before: float | None = None
    after: float | None = None
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    margin: float = 0.05
    p_value: float | None = None
    how: str = "interleaved"
    recurred: bool | None = None
    blocks: int = 0
    seconds: float = 0.0
