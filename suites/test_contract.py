"""The interface survives a conversion."""


def test_interface_survives(mf_contract):
    """Names, order, dtypes, ranks and dynamic dimensions are the source's; no node is in training mode but its own."""
    assert mf_contract.passed, mf_contract.sentence
