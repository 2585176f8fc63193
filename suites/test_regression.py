"""What became worse than in the baseline, judged over all cells together, after everything else has run."""


def test_nothing_got_worse(mf_regression):
    """Nothing got slower, larger or less exact than the baseline."""
    assert mf_regression.passed, mf_regression.sentence
