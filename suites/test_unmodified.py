"""A call leaves its inputs alone."""


def test_inputs_are_left_alone(mf_unmodified):
    """The arrays that are handed in hold the same bits after the call."""
    assert mf_unmodified.passed, mf_unmodified.sentence
