"""``--mf-seed``: The seed of the samples."""

from __future__ import annotations

from inner_run import PARITY


def test_a_seed_decides_the_samples(run, tiny):
    noise = []
    for seed in (1, 2):
        ran = run("--mf-model", tiny, *PARITY, "--mf-seed", seed)
        assert ran.status == 0, ran.text
        noise.append(ran.of("model")[0]["noise"])
    assert noise[0] != noise[1]


def test_a_negative_seed_is_refused(refusal, tiny):
    assert "expected a whole number of at least 0" in refusal("--mf-model", tiny, "--mf-seed=-1")
