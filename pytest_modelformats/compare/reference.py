"""The reference of a source: its float64 truth, what rounding costs it at each precision, and how that was found."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from pytest_modelformats.compare import noise_profile
from pytest_modelformats.compare.noise import Error, Noise, measure_noise
from pytest_modelformats.compare.sampled import matched
from pytest_modelformats.compare.weights_noise import ARITHMETIC, draws, weights_noise
from pytest_modelformats.convert.cache import key_of
from pytest_modelformats.convert.code_digest import EVALUATE, modules_digest
from pytest_modelformats.errors import ConvertError, RunError, Unsupported
from pytest_modelformats.schema import PRECISIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import numpy as np

    from pytest_modelformats.convert.cache import Cache

# How a truth or a floor can come about, the most particular first; a line says its own word.
WORDS = ("perturbed", "rounded", "upcast", "native", "lifted")
# An evaluation of these kinds is of the graph itself; the others are estimates.
REAL = frozenset({"native", "lifted", "upcast"})
ESTIMATED = "estimated"
# An fp32 run that stands for the truth is off itself: what is below four rounding units of fp32 at the output's usual
# size may be its own error, and is nothing to be red for.
ESTIMATE = 2.0**-22

# What an arithmetic does to the weights alone.
WEIGHTS_OF = {"fp16": "fp16-weights"}
EVALUATED = ("fp32", "tf32", "fp16", "bf16", "fp16-weights")


@dataclass(frozen=True, slots=True)
class Reference:
    """Truth and noise of a source over a set of feeds.

    Shapes: ``truths`` is [feed][output], float64 for floating outputs. ``noise`` maps a
    precision to one Noise per output; a precision that could not be evaluated is absent
    and ``missing`` says why. ``methods`` says how each was evaluated.
    """

    truths: tuple[tuple[np.ndarray, ...], ...]
    noise: Mapping[str, tuple[Noise, ...]]
    methods: Mapping[str, str]
    missing: Mapping[str, str]
    made: bool


def code_digest() -> str:
    """The SHA-256 of the core's code that evaluates sources: what another version made is evaluated anew."""
    return modules_digest(EVALUATE)


def build_reference(
    cache: Cache,
    key_parts: Mapping[str, Any],
    feeds: int,
    evaluate: Callable[[str, Path], dict[str, Any]],
    precisions: Sequence[str] = EVALUATED,
) -> Reference:
    """Evaluate the source at float64 and the precisions, or read all of it from the cache.

    ``evaluate(precision, folder)`` asks a worker and returns its answer.
    """
    import numpy as np

    def make(folder: Path) -> Mapping[str, Any]:
        truth = evaluate("float64", folder / "float64")
        truths = [[np.load(p, allow_pickle=False) for p in paths] for paths in truth["outputs"]]

        def rounded(precision: str) -> tuple[list[list[np.ndarray]], str]:
            answer = evaluate(precision, folder / "scratch" / precision)
            return [[np.load(p, allow_pickle=False) for p in paths] for paths in answer["outputs"]], answer["method"]

        methods, missing, floors = _floors(truths, rounded, precisions, estimated=word(truth["method"]) == ESTIMATED)
        _remove(folder / "scratch")
        noise = {precision: [asdict(n) for n in values] for precision, values in floors.items()}
        counts = [len(t) for t in truths]
        return {
            "methods": {"float64": truth["method"], **methods},
            "missing": missing,
            "noise": noise,
            "outputs": counts,
        }

    key = key_of({"what": "reference", "code": code_digest(), **key_parts})
    entry = cache.get_or_make(key, {"what": "reference", "inputs": dict(key_parts)}, make)
    facts = entry.metadata["facts"]
    truths = tuple(
        tuple(np.load(entry.folder / "float64" / str(f) / f"{o}.npy", allow_pickle=False) for o in range(n))
        for f, n in zip(range(feeds), facts["outputs"], strict=True)
    )
    noise = {p: tuple(kept_noise(n) for n in values) for p, values in facts["noise"].items()}
    return Reference(truths, noise, facts["methods"], facts["missing"], entry.made)


def reference_of(evaluate: Callable[[str], tuple[list[list[np.ndarray]], str]], precisions: Sequence[str]) -> Reference:
    """The reference of outputs that are at hand; of those that are sampled, over the elements that are known.

    ``evaluate(precision)`` gives [feed][output] and how they were evaluated.
    """
    truths, method = evaluate("float64")
    methods, missing, noise = _floors(truths, evaluate, precisions, estimated=word(method) == ESTIMATED)
    kept = tuple(tuple(outputs) for outputs in truths)
    return Reference(
        kept, {p: tuple(values) for p, values in noise.items()}, {"float64": method, **methods}, missing, made=False
    )


def _floors(
    truths: Sequence[Sequence[np.ndarray]],
    evaluate: Callable[[str], tuple[list[list[np.ndarray]], str]],
    precisions: Sequence[str],
    *,
    estimated: bool,
) -> tuple[dict[str, str], dict[str, str], dict[str, list[Noise]]]:
    """By precision: how it was evaluated, or why it was not, and the noise of every output.

    ``estimated``: the truth is an fp32 run itself.
    """
    methods, missing, noise = {}, {}, {}
    held: list[list[np.ndarray]] = []
    for precision in precisions:
        try:
            outputs, method = evaluate(precision)
        except (Unsupported, ConvertError) as error:
            missing[precision] = str(error)
            continue
        pairs = [matched(t, o) for t, o in zip(truths, outputs, strict=True)]
        known, rounded = [t for t, _ in pairs], [o for _, o in pairs]
        lost = _overflown(known, rounded)
        if lost is not None:
            whose = "an estimate of it" if word(method) == "perturbed" else "the source itself"
            missing[precision] = f"{whose} gives NaN or Inf in every element of output {lost} there"
            continue
        methods[precision] = method
        if precision == ARITHMETIC and any(PRECISIONS[p].weights_only for p in precisions):
            held = rounded
        if PRECISIONS[precision].weights_only:
            held = held or _evaluated(truths, evaluate, ARITHMETIC)
            others = [found for draw in draws(precision) if (found := _evaluated(truths, evaluate, draw))]
            noise[precision] = _weights_noise(known, [rounded, *others], held, precision)
            methods[precision] += f"; with {len(others)} more roundings on shifted grids" if others else ""
            continue
        noise[precision] = _noise(known, rounded, PRECISIONS[precision].result_bits)
    for precision, weights in WEIGHTS_OF.items():
        if precision in noise and weights in noise:
            both = zip(noise[precision], noise[weights], strict=True)
            noise[precision] = [_not_below(own, of_weights) for own, of_weights in both]
    if estimated:
        sizes = [_size([t[i] for t in truths]) for i in range(len(truths[0]))]
        noise = {p: [_of_estimate(n, size) for n, size in zip(v, sizes, strict=True)] for p, v in noise.items()}
    return methods, missing, noise


def _not_below(noise: Noise, weights: Noise) -> Noise:
    """The noise of an arithmetic, not below that of its weights alone: of few elements the two may cancel by chance."""
    if noise.rms >= weights.rms:
        return noise
    return replace(weights, flips=max(noise.flips, weights.flips), lost=noise.lost)


def _of_estimate(noise: Noise, size: float) -> Noise:
    """The noise of an output whose truth is an fp32 run: not below what such a run may be off by, and not by place.

    Units: ``size`` is the rms of the truth. Perturbing tells how much rounding costs and not where.
    """
    least = ESTIMATE * size
    rows = tuple(row if row < 0 else max(row, least) for row in noise.rows)
    return replace(noise, rms=max(noise.rms, least), max=max(noise.max, 4 * least), profile=None, rows=rows)


def _size(truths: Sequence[np.ndarray]) -> float:
    import numpy as np

    return Error(truths, truths).truth_rms if np.issubdtype(truths[0].dtype, np.floating) else 0.0


def _evaluated(
    truths: Sequence[Sequence[np.ndarray]],
    evaluate: Callable[[str], tuple[list[list[np.ndarray]], str]],
    precision: str,
) -> list[list[np.ndarray]]:
    """The outputs at a precision that nobody judges by here; empty where they cannot be had."""
    try:
        outputs, _ = evaluate(precision)
    except (Unsupported, ConvertError, RunError):
        return []
    return [matched(t, o)[1] for t, o in zip(truths, outputs, strict=True)]


def _noise(
    truths: Sequence[Sequence[np.ndarray]], rounded: Sequence[Sequence[np.ndarray]], mantissa_bits: int
) -> list[Noise]:
    return [
        measure_noise([t[i] for t in truths], [r[i] for r in rounded], mantissa_bits) for i in range(len(truths[0]))
    ]


def _weights_noise(
    truths: Sequence[Sequence[np.ndarray]],
    roundings: Sequence[Sequence[Sequence[np.ndarray]]],
    arithmetic: Sequence[Sequence[np.ndarray]],
    precision: str,
) -> list[Noise]:
    def of(outputs: Sequence[Sequence[np.ndarray]], index: int) -> list[np.ndarray]:
        return [arrays[index] for arrays in outputs]

    return [
        weights_noise(
            of(truths, i), [of(r, i) for r in roundings], of(arithmetic, i) if arithmetic else None, precision
        )
        for i in range(len(truths[0]))
    ]


def _overflown(truths: Sequence[Sequence[np.ndarray]], rounded: Sequence[Sequence[np.ndarray]]) -> int | None:
    """The first output that has finite values and none of them at the precision: there is no noise to measure."""
    import numpy as np

    for index, first in enumerate(truths[0]):
        if np.issubdtype(first.dtype, np.floating) and any(np.isfinite(t[index]).any() for t in truths):
            both = (np.isfinite(t[index]) & np.isfinite(r[index]) for t, r in zip(truths, rounded, strict=True))
            if not any(b.any() for b in both):
                return index
    return None


def kept_noise(data: Mapping[str, Any]) -> Noise:
    """A noise as the cache's metadata has it."""
    rows, lost = tuple(data.get("rows", ())), tuple(data.get("lost", ()))
    return Noise(**{**data, "rows": rows, "lost": lost, "profile": noise_profile.from_json(data.get("profile"))})


def _remove(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


def word(line: str) -> str:
    """``native``: the framework's own kernels ran; ``rounded``: at each operator inside an fp32 run.

    ``upcast`` and ``lifted``: in float64 (or fp32, of a narrower file); ``perturbed``: estimated
    by moving inputs and weights by one unit of rounding; ``estimated``: an fp32 run stands for
    the truth; ``stated``: the line of an outside format that says none of these words.
    """
    said, _, _reason = line.partition(" (")
    found = next((w for w in WORDS if w in said), "")
    return found or (ESTIMATED if said.startswith(ESTIMATED) else "stated")
