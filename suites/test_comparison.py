"""What the baseline's cell is beside this one, both measured now where that can be."""


def test_measured_beside_baseline(mf_comparison):
    """The baseline's cell is measured beside this one."""
    assert mf_comparison.compared, mf_comparison.sentence
