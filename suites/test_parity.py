"""The converted model still is the model."""


def test_outputs_match_source(mf_parity):
    """Every output equals the source model's within what rounding explains."""
    assert mf_parity.passed, mf_parity.sentence
