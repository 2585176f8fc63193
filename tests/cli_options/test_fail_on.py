"""``--mf-fail-on``: What fails a run that is compared, each with the change beyond which it does."""

from __future__ import annotations

from inner_run import ONE_CELL

PARITY = ("--mf-suites", "parity", *ONE_CELL)


def test_it_is_stated_in_the_record(run, tiny):
    run("--mf-model", tiny, *PARITY, inprocess=True)
    for given, stated in ((("--mf-fail-on", "latency:7.5%,flips"), ["latency:7.5%", "flips"]), ((), None)):
        ran = run("--mf-model", tiny, *PARITY, "--mf-baseline", "latest", *given, inprocess=True)
        assert ran.status == 0, ran.text
        wanted = stated or ["latency:5%", "memory:10%", "size:1%", "parity:100%"]
        assert ran.lines[0]["baseline"]["fail_on"] == wanted


def test_it_is_a_key_of_the_configuration(run, tiny, pytester):
    (pytester.path / "modelformats.toml").write_text('baseline = "latest"\nfail_on = ["size:3%"]\n')
    saved = run("--mf-model", tiny, *PARITY, "--mf-config=none.toml", inprocess=True)
    assert saved.folder is None  # the file is read, and there is no run to compare with yet


def test_a_wrong_metric_is_refused_with_the_known_ones(refusal, tiny):
    said = refusal("--mf-model", tiny, *PARITY, "--mf-fail-on", "latncy:5%")
    assert "--mf-fail-on: 'latncy' is not a metric" in said
    assert "did you mean 'latency'?" in said


def test_a_margin_without_its_sign_is_refused(refusal, tiny):
    assert "write 'latency:5%'" in refusal("--mf-model", tiny, *PARITY, "--mf-fail-on", "latency:5")
