"""``--mf-suites``: Only these suites."""

from __future__ import annotations

from inner_run import ONE_CELL

from pytest_modelformats.session.suites import COMPARING, OPT_IN, ORDER


def test_only_the_named_suites_are_collected(collected, tiny):
    found = collected("--mf-model", tiny, *ONE_CELL, "--mf-suites", "contract,batch")
    assert [item.split("::")[1] for item in found] == ["contract", "batch"]


def test_all_but_the_opt_in_ones_are_collected_where_none_is_named(collected, tiny):
    found = collected("--mf-model", tiny, *ONE_CELL)
    assert [item.split("::")[1] for item in found] == [
        name for name in ORDER if name not in {"availability", *OPT_IN, *COMPARING}
    ]


def test_an_opt_in_suite_is_collected_where_it_is_named(collected, tiny):
    found = collected("--mf-model", tiny, *ONE_CELL, "--mf-suites", "threads")
    assert [item.split("::")[1] for item in found] == ["threads"]
    assert set(OPT_IN) == {"threads", "throughput"}


def test_an_unknown_name_is_refused_with_a_suggestion(refusal, tiny):
    sentence = refusal("--mf-model", tiny, "--mf-suites", "parrity")
    assert "'parrity' is not a known suite; did you mean 'parity'?" in sentence
