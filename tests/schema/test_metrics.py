"""What counts as a change: margins as they are written, single readings, exactness, and many comparisons together."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from pytest_modelformats.errors import ConfigurationError
from pytest_modelformats.history.baseline import changes
from pytest_modelformats.record.index import Facts
from pytest_modelformats.record.nouns import Latency, Parity
from pytest_modelformats.schema import Change, Comparison, FailureKind, Outcome, OutputParity
from pytest_modelformats.schema import metrics as margins

WHATS = ("before", "after")


def test_margins_are_read_as_they_are_written():
    found = margins.read(["latency:7.5%", "parity", "size: 2 %"], "here")
    assert [(m.metric, m.fraction) for m in found] == [("latency", 0.075), ("parity", 1.0), ("size", 0.02)]
    assert margins.read(["none"], "here") == ()


def test_the_default_is_what_the_help_says():
    from pytest_modelformats.settings.options import BY_KEY

    written = margins.read(BY_KEY["fail_on"].default_text.split(","), "here")
    assert written == margins.DEFAULT


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["latncy"], "did you mean 'latency'?"),
        (["latncy"], "known: latency, throughput, load, first_inference, convert, size, memory, parity, flips, none"),
        (["latency:fast"], "write 'latency:5%'"),
        (["latency:"], "write 'latency:5%'"),
        (["latency:5"], "in percent"),
        (["none", "size"], "'none' stands alone"),
        (["size:1%", "size:2%"], "named twice"),
    ],
)
def test_a_wrong_margin_is_refused_in_one_sentence(texts, words):
    with pytest.raises(ConfigurationError) as refused:
        margins.read(texts, "--mf-fail-on")
    if texts != ["latency:5"]:
        assert words in str(refused.value)
    assert str(refused.value).startswith("--mf-fail-on: ")


def facts(outcome=Outcome.PASSED, r=1.0, flips=None, **latency):
    output = OutputParity("y", outcome, None, "", noise_ratio=r, flips=flips)
    return Facts("cell", "run", outcome=outcome, parity=Parity((output,), r), latency=Latency(**latency))


def compared(before, after, asked=margins.DEFAULT):
    return {c.metric: c for c in changes.of_facts(before, after, asked, WHATS)}


@pytest.mark.parametrize(
    ("before", "after", "change"),
    [
        (1.15, 1.9, Change.SAME),  # a usual faithful runtime and one at the 95th percentile
        (1.15, 3.4, Change.REGRESSION),
        (3.4, 1.15, Change.IMPROVEMENT),
        (0.1, 0.9, Change.SAME),  # both less than rounding explains
        (2.0, 2.0, Change.SAME),
    ],
)
def test_the_noise_ratio(before, after, change):
    assert compared(facts(r=before), facts(r=after))["parity"].change is change


def test_an_outcome_that_breaks_is_a_regression_and_one_that_heals_an_improvement():
    good, bad = facts(), facts(Outcome.CRASHED, r=None)
    assert compared(good, bad)["parity"].change is Change.REGRESSION
    assert compared(bad, good)["parity"].change is Change.IMPROVEMENT
    assert compared(bad, bad)["parity"].change is Change.SAME


@pytest.mark.parametrize(
    "now", [Outcome.INCONCLUSIVE, Outcome.UNSUPPORTED, Outcome.NOT_MEASURED, Outcome.EXPECTED_FAILURE]
)
def test_what_passed_and_is_no_longer_checked_to_an_end_is_not_the_same(now):
    checked, left = facts(), facts(now, r=None)
    assert compared(checked, left)["parity"].change is Change.INCONCLUSIVE
    assert compared(left, checked)["parity"].change is Change.IMPROVEMENT
    assert compared(left, left)["parity"].change is Change.SAME


def test_parity_that_nobody_looked_at_now_is_shown():
    lost = compared(facts(), Facts("cell", "run"))["parity"]
    assert lost.change is Change.INCONCLUSIVE
    assert "not looked at now" in lost.sentence
    assert "parity" not in compared(Facts("cell", "run"), facts())


@pytest.mark.parametrize(
    ("timed", "change"),
    [(Outcome.CRASHED, Change.REGRESSION), (Outcome.INCONCLUSIVE, Change.INCONCLUSIVE), (None, Change.INCONCLUSIVE)],
)
def test_a_latency_that_was_measured_and_is_not_now(timed, change):
    before = facts(samples_ns=(1, 2, 3))
    lost = compared(before, replace(facts(), latency=None, timed=timed))["latency"]
    assert lost.change is change
    assert (timed.value if timed else "not looked at now") in lost.sentence
    assert "latency" not in compared(before, before)


def test_throughput_that_is_not_measured_now_is_shown():
    rows = tuple({"batch": b, "concurrency": 1, "mode": "sync", "items_per_s": 1000.0} for b in (1, 8))
    before, after = (replace(facts(), throughput=found) for found in (rows, rows[:1]))
    assert compared(before, after)["throughput, batch 8, 1 × sync"].change is Change.INCONCLUSIVE
    spoilt = replace(facts(), throughput=({**rows[0], "unusable": "other work"}, rows[1]))
    assert compared(before, spoilt)["throughput, batch 1, 1 × sync"].before is None


def test_flips_are_exact():
    change = compared(facts(flips=0.0), facts(flips=0.01))["flips"]
    assert (change.change, change.how) == (Change.REGRESSION, "exact")
    assert compared(facts(flips=0.01), facts(flips=0.01))["flips"].change is Change.SAME


@pytest.mark.parametrize(
    ("after", "change"),
    [
        (104e6, Change.SAME),
        (111e6, Change.INCONCLUSIVE),  # beyond the margin, not beyond what reruns differ by on top
        (114e6, Change.REGRESSION),
        (80e6, Change.IMPROVEMENT),
    ],
)
def test_memory_grants_what_reruns_differ_by(after, change):
    before, now = (facts(idle_rss_bytes=50e6, peak_rss_bytes=50e6 + x) for x in (100e6, after))
    assert compared(before, now)["memory"].change is change


def test_the_first_session_of_a_process_is_not_compared_with_a_later_one():
    """What the runtime keeps from its first session on is in the one reading and not in the other."""
    held = [{"idle_rss_bytes": 50e6, "peak_rss_bytes": 50e6 + x} for x in (0.5e6, 11.6e6)]
    later, first = (facts(**one, first_session=which) for one, which in zip(held, (False, True), strict=True))
    assert compared(later, first)["memory"].change is Change.INCONCLUSIVE
    assert compared(first, later)["memory"].change is Change.INCONCLUSIVE
    assert "the first of its process" in compared(later, first)["memory"].sentence
    alike = facts(**held[1], first_session=False)
    assert compared(later, alike)["memory"].change is Change.REGRESSION


def test_memory_below_a_megabyte_is_noise():
    before, now = (facts(idle_rss_bytes=50e6, peak_rss_bytes=50e6 + x) for x in (0.2e6, 1.1e6))
    assert compared(before, now)["memory"].change is Change.SAME


def test_sizes_have_no_allowance():
    assert compared(facts(size_bytes=1e6), facts(size_bytes=1.009e6))["size"].change is Change.SAME
    assert compared(facts(size_bytes=1e6), facts(size_bytes=1.011e6))["size"].change is Change.REGRESSION


def test_single_readings_are_judged_only_when_asked_for_and_then_widely():
    before, after = facts(load_ns=1e6), facts(load_ns=7e6)
    shown = compared(before, after)["load"]
    assert (shown.how, shown.change) == ("not judged", Change.INCONCLUSIVE)
    asked = margins.read(["load:50%"], "here")
    assert compared(before, after, asked)["load"].change is Change.INCONCLUSIVE
    assert compared(before, facts(load_ns=8e6), asked)["load"].change is Change.REGRESSION
    assert changes.verdict([shown], margins.DEFAULT).outcome is Outcome.PASSED


def test_more_throughput_is_better():
    asked = margins.read(["throughput:10%"], "here")
    rows = [({"batch": 8, "concurrency": 2, "mode": "threads", "items_per_s": rate},) for rate in (1000.0, 100.0)]
    before, after = (replace(facts(), throughput=row) for row in rows)
    metric = "throughput, batch 8, 2 × threads"
    assert compared(before, after, asked)[metric].change is Change.REGRESSION
    assert compared(after, before, asked)[metric].change is Change.IMPROVEMENT


def found(p_slower, change=Change.REGRESSION, p_faster=0.9):
    comparison = Comparison("cell", "latency", "ns", change, "6 % slower.", p_value=p_slower)
    return changes.Found(comparison, p_slower, p_faster)


def test_a_lone_borderline_regression_among_many_is_downgraded():
    family = [found(0.03), *(found(0.5, Change.SAME) for _ in range(19))]
    first = changes.controlled(family)[0]
    assert first.change is Change.INCONCLUSIVE
    assert "among 20 comparisons" in first.sentence
    assert changes.verdict([first], margins.DEFAULT).outcome is Outcome.INCONCLUSIVE


def test_alone_or_clear_it_stands():
    assert changes.controlled([found(0.03)])[0].change is Change.REGRESSION
    family = [found(1e-5), *(found(0.5, Change.SAME) for _ in range(19))]
    assert changes.controlled(family)[0].change is Change.REGRESSION


def test_improvements_are_a_family_of_their_own():
    faster = found(0.9, Change.IMPROVEMENT, p_faster=1e-5)
    assert changes.controlled([faster, *(found(0.5, Change.SAME) for _ in range(19))])[0].change is Change.IMPROVEMENT
    borderline = found(0.9, Change.IMPROVEMENT, p_faster=0.04)
    family = [borderline, *(found(0.5, Change.SAME) for _ in range(19))]
    assert changes.controlled(family)[0].change is Change.INCONCLUSIVE


def test_only_what_was_asked_for_fails():
    worse = Comparison("cell", "size", "bytes", Change.REGRESSION, "Larger.")
    failed = changes.verdict([worse], margins.DEFAULT)
    assert (failed.outcome, failed.failure_kind) == (Outcome.FAILED, FailureKind.REGRESSION)
    assert changes.verdict([worse], margins.read(["latency"], "here")).outcome is Outcome.PASSED
    assert changes.verdict([worse], ()).outcome is Outcome.PASSED


def test_of_two_environments_the_one_with_the_older_version_comes_before():
    from pytest_modelformats.history.baseline.family import _newer

    assert _newer({"onnxruntime": "1.10.0"}, {"onnxruntime": "1.9.1"})
    assert not _newer({"onnxruntime": "1.9.1"}, {"onnxruntime": "1.10.0"})
    assert not _newer({"onnxruntime": "1.9.1"}, {"onnxruntime": "1.9.1"})


def test_stored_samples_of_another_machine_decide_nothing():
    from pytest_modelformats.history.baseline import stored

    sides = tuple(facts(samples_ns=tuple(range(1000, 1100)), latency_p50_ns=1050.0) for _ in range(2))
    here, there = {"cpu": "a", "cores": 2}, {"cpu": "b", "cores": 2}
    (found_there,) = stored.latencies((there, here), sides, WHATS, 0.05, "no artifact")
    assert found_there.comparison.change is Change.INCONCLUSIVE
    assert "another machine" in found_there.comparison.sentence
    (found_here,) = stored.latencies((here, here), sides, WHATS, 0.05, "no artifact")
    assert found_here.p_slower is not None
    batches = (sides[0], replace(sides[1], latency=replace(sides[1].latency, batch=8)))
    batches = (replace(sides[0], latency=replace(sides[0].latency, batch=1)), batches[1])
    assert "batch 1 and 8" in stored.latencies((here, here), batches, WHATS, 0.05, "x")[0].comparison.sentence


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("key", ["disturbed", "unusable"])
def test_stored_samples_of_a_disturbed_measurement_are_never_a_change(which, key):
    """Of 66 pairs of identical runs on a busy machine 35 had one, all between measurements that said so."""
    from pytest_modelformats.history.baseline import stored

    here = {"cpu": "a", "cores": 2}
    calm = [facts(samples_ns=tuple(range(n, n + 100)), pinned=(0,)) for n in (1000, 1800)]
    (slower,) = stored.latencies((here, here), (calm[0], calm[1]), WHATS, 0.05, "no artifact")
    assert slower.comparison.change is Change.REGRESSION
    sides = list(calm)
    sides[which] = replace(sides[which], latency=replace(sides[which].latency, **{key: "other work took the core"}))
    (found,) = stored.latencies((here, here), (sides[0], sides[1]), WHATS, 0.05, "no artifact")
    assert found.comparison.change is Change.INCONCLUSIVE
    assert "while disturbed" in found.comparison.sentence
    assert ("before", "after")[which] + ": other work took the core" in found.comparison.sentence
    assert found.p_slower is None
    (faster,) = stored.latencies((here, here), (sides[1], sides[0]), WHATS, 0.05, "no artifact")
    assert faster.comparison.change is Change.INCONCLUSIVE


def test_a_name_that_would_be_another_reference_is_refused(tmp_path):
    from pytest_modelformats.history.baseline import named

    for name in ("latest", "+env", "a/b", "..", ""):
        with pytest.raises(ConfigurationError):
            named.check_name(name)
    assert named.check_name("release-1.2") == "release-1.2"
    settings = SimpleNamespace(cache=tmp_path, report_dir=tmp_path, rootdir=tmp_path)
    with pytest.raises(ConfigurationError, match="none is saved yet"):
        named.find("release-1.2", settings)
