"""The same input gives the same output."""


def test_repeats_itself(mf_determinism):
    """The same input twice, and in a fresh session, gives the same bits, or no more than rounding apart."""
    assert mf_determinism.passed, mf_determinism.sentence
