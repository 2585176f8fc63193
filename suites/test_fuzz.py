"""The converted model still is the model on inputs that nobody thought of."""


def test_generated_inputs_match_source(mf_fuzz):
    """On generated inputs, every output equals the source model's within what rounding explains."""
    assert mf_fuzz.passed, mf_fuzz.sentence
