"""``--mf-samples``: How many seeded samples parity is judged on."""

from __future__ import annotations

from inner_run import PARITY


def test_parity_is_judged_on_so_many_samples(run, tiny):
    ran = run("--mf-model", tiny, *PARITY, "--mf-samples", "3")
    assert ran.status == 0, ran.text
    assert ran.of("model")[0]["samples"] == 3
    (line,) = ran.of("check")
    assert line["data"]["outputs"][0]["elements"] == 3 * 3


def test_a_word_is_refused(refusal, tiny):
    sentence = refusal("--mf-model", tiny, "--mf-samples", "many")
    assert "--mf-samples is 'many'; expected a whole number of at least 1" in sentence
