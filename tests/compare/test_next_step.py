"""Every sentence of a verdict: what was measured, what rounding explains, and what to do next."""

from __future__ import annotations

import numpy as np
import pytest
from places import ROOT

from pytest_modelformats.compare import between_runs, next_step
from pytest_modelformats.compare.effective_precision import settle
from pytest_modelformats.compare.floating import Tolerance
from pytest_modelformats.compare.next_step import STEPS, advised, with_step
from pytest_modelformats.compare.noise import Noise
from pytest_modelformats.compare.verdict import judge, with_accuracy
from pytest_modelformats.measure.budget import within
from pytest_modelformats.schema import PRECISIONS, FailureKind, Outcome, Timing, Verdict
from pytest_modelformats.schema.limits import Budget
from pytest_modelformats.schema.outcome import FAILURES
from tools.documentation import rewrite

PAGE = ROOT / "docs" / "verdict.md"
NOISE = {p: [Noise(rms, 4 * rms, rms)] for p, rms in {"fp32": 1e-6, "fp16": 1e-3, "bf16": 8e-3}.items()}
SIGNS = np.where(np.arange(1000).reshape(50, 20) % 2, 1, -1)
TRUTH = np.random.default_rng(0).normal(size=(50, 20))


def put(array, value):
    changed = array.copy()
    changed[3, 3] = value
    return changed


def judged(got, precision="fp32", truth=TRUTH, noise=NOISE, **more):
    return judge(["y"], [[truth]], [[got]], noise, PRECISIONS[precision], dtypes=[got.dtype.name], **more)


def accuracy_lost():
    labels = TRUTH.argmax(-1).repeat(2)
    twice = TRUTH.repeat(2, 0)
    return with_accuracy(judged(TRUTH + 1e-6 * SIGNS), labels, [twice], [-twice])


def budget(p50_ns):
    numbers = dict.fromkeys(("latency_mean_ns", "latency_std_ns", "variation", "items_per_s"), 1.0) | dict.fromkeys(
        ("latency_p90_ns", "latency_p95_ns", "latency_p99_ns", "convert_ns", "size_bytes"), None
    )
    low, high = p50_ns
    timing = Timing(
        (1,), 1, 1, 0, latency_p50_ns=low, latency_p50_low_ns=low, latency_p50_high_ns=high, load_ns=1,
        first_inference_ns=1, idle_rss_bytes=None, peak_rss_bytes=None, **numbers,
    )  # fmt: skip
    return within("a-cell", timing, [Budget("*", latency_p50_ms=2.0)])


def undetermined():
    return between_runs.determinism(["y"], [TRUTH], [TRUTH], [TRUTH * 1.01], NOISE, PRECISIONS["fp32"])


def unbatched():
    return between_runs.worst({"batch 3 against the source": judged(TRUTH * 1.1)}, "agreed")


def same_error_again():
    verdict = judged(TRUTH + 8e-3 * SIGNS)
    error = [8e-3 * SIGNS.astype(float)]
    return settle(verdict, "bf16", error, error, None)


INTEGERS = np.arange(1000).reshape(50, 20)
ROUNDING = ("1e-06", "what rounding at fp32 explains")
# What is judged, in which check: how it ends, and the words of the measurement and of what rounding explains.
CASES = {
    "another function": (lambda: judged(TRUTH * 1.1), "parity", "failed numeric", ("error", "rms is", *ROUNDING)),
    "one element": (
        lambda: judged(put(TRUTH + 1e-6 * SIGNS, TRUTH[3, 3] + 3e-5), noise={"fp32": NOISE["fp32"]}),
        "parity",
        "failed numeric",
        ("worst element is off by 3e-05", "7.5 × the worst that rounding at fp32 does"),
    ),
    "an integer": (
        lambda: judged(put(INTEGERS, -1), truth=INTEGERS, noise={"fp32": [Noise(0, 0, 0)]}),
        "parity",
        "failed numeric",
        ("differs in 1 of 1000 elements", "rounding at fp32 explains none"),
    ),
    "an error that stays": (
        same_error_again,
        "parity",
        "failed numeric",
        ("8e+03 × what rounding explains", "stays the same"),
    ),
    "a chosen tolerance": (
        lambda: judged(TRUTH + 1e-3, tolerances={"*": Tolerance(1e-4, 0)}),
        "parity",
        "failed numeric",
        ("largest difference 0.001", "outside the fixed tolerance", "atol 0.0001"),
    ),
    "a column": (lambda: judged(TRUTH[:, :1]), "parity", "failed contract", ("shape [50, 1]", "gives [50, 20]")),
    "a dtype": (
        lambda: judge(["y"], [[TRUTH]], [[TRUTH]], NOISE, PRECISIONS["fp32"], dtypes=["float32"]),
        "parity",
        "failed contract",
        ("dtype float64", "gives float32"),
    ),
    "an output": (
        lambda: judge(["y"], [[TRUTH]], [[]], NOISE, PRECISIONS["fp32"], dtypes=["float32"]),
        "parity",
        "failed contract",
        ("0 outputs came back", "has 1 (y)"),
    ),
    "no number": (lambda: judged(put(TRUTH, np.nan)), "parity", "failed nan", ("1 of 1000 elements",)),
    "a constant": (
        lambda: judged(np.ones_like(TRUTH)),
        "parity",
        "failed degenerate",
        ("does not depend on its input",),
    ),
    "a coarser precision": (
        lambda: judged(TRUTH + 8e-3 * SIGNS),
        "parity",
        "fallback",
        (*ROUNDING, "1 × bf16's", "bf16 is what ran", "as bf16"),
    ),
    "a finer precision": (
        lambda: judged(TRUTH + 1e-6 * SIGNS, "fp16"),
        "parity",
        "fallback",
        ("1.0e-03 × what rounding at fp16", "fp32 is what ran"),
    ),
    "the default": (
        lambda: judged(TRUTH + 8e-3 * SIGNS, "default"),
        "parity",
        "fallback",
        ("the runtime's default", "set the precision"),
    ),
    "right answers": (
        accuracy_lost,
        "parity",
        "failed accuracy",
        ("fell from 100.00% to", "100 labelled rows", "limit is"),
    ),
    "a second result": (
        undetermined,
        "determinism",
        "failed numeric",
        ("in a fresh session", "what rounding at fp32 explains"),
    ),
    "a batch": (unbatched, "batch", "failed numeric", ("batch 3 against the source", "what rounding at fp32 explains")),
    "a budget": (lambda: budget((3e6, 4e6)), "latency", "failed budget", ("3 to 4 ms, budget 2 ms",)),
    "its edge": (lambda: budget((1e6, 4e6)), "latency", "inconclusive", ("1 to 4 ms, budget 2 ms",)),
}


@pytest.mark.parametrize("case", CASES)
def test_a_sentence_says_what_was_measured_and_what_to_do_next(case):
    make, check, ends, words = CASES[case]
    verdict = advised(make(), check)
    kind = verdict.failure_kind
    assert f"{verdict.outcome.value}{f' {kind.value}' if kind else ''}" == ends, verdict.sentence
    measured, head, todo = verdict.sentence.partition(" Next: ")
    for part in words:
        assert part in verdict.sentence
    assert head
    assert measured.endswith(".")
    assert todo.endswith(".")
    assert " Next: " not in todo
    assert advised(verdict, check) == verdict


def test_the_next_step_depends_on_the_check():
    steps = {
        check: next_step.step(Outcome.FAILED, FailureKind.NUMERIC, check)
        for check in ("parity", "batch", "determinism")
    }
    assert len(set(steps.values())) == len(steps)


def test_what_decides_nothing_asks_for_inputs_or_for_time_as_it_fits():
    """No number to compare is not helped by a quiet machine, nor an unsteady clock by other inputs."""
    for check in ("parity", "batch", "history"):
        assert "--mf-data" in next_step.step(Outcome.INCONCLUSIVE, None, check)
    for check in ("latency", "throughput", "comparison"):
        assert "quiet machine" in next_step.step(Outcome.INCONCLUSIVE, None, check)


def test_a_step_that_the_sentence_has_already_is_said_once():
    todo = next_step.step(Outcome.INCONCLUSIVE, None, "parity")
    said = with_step(f"There is no number. {todo[0].upper()}{todo[1:]}", Outcome.INCONCLUSIVE, None, "parity")
    assert said == f"There is no number. Next: {todo}"


def test_no_failure_is_without_a_next_step():
    """Every outcome that a report counts as a failure has one, and so has every kind of ``failed``."""
    for outcome in (*FAILURES, Outcome.INCONCLUSIVE):
        assert next_step.step(outcome, None)
    generic = STEPS[Outcome.FAILED, None, ""]
    for kind in FailureKind:
        assert next_step.step(Outcome.FAILED, kind) != generic, kind


@pytest.mark.parametrize("outcome", [Outcome.PASSED, Outcome.UNSUPPORTED, Outcome.NO_DEVICE, Outcome.EXPECTED_FAILURE])
def test_where_nothing_is_wrong_nothing_is_advised(outcome):
    assert advised(Verdict(outcome, None, "As it is."), "parity").sentence == "As it is."


def test_a_sentence_without_a_full_stop_gets_one():
    assert with_step("KeyError: 'x'", Outcome.CONVERT_ERROR, None).startswith("KeyError: 'x'. Next: convert by another")


def test_the_page_is_up_to_date():
    """The tables of docs/verdict.md are the code's: ``make docs`` writes them."""
    text = PAGE.read_text(encoding="utf-8")
    assert rewrite(text, ROOT) == text


def test_the_page_names_every_outcome_and_kind():
    text = PAGE.read_text(encoding="utf-8")
    for outcome in set(Outcome) - {Outcome.PASSED, Outcome.FAILED}:
        assert f"`{outcome.value}`" in text, outcome
    for kind in set(FailureKind) - {FailureKind.PRECISION, FailureKind.REGRESSION}:
        assert f"`failed ({kind.value})`" in text, kind
