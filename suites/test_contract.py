"""The interface survives a conversion."""


def test_interface_survives(mf_contract):
    """Names, order, dtypes, ranks and dynamic dimensions of inputs and outputs are the source's."""
    assert mf_contract.passed, mf_contract.sentence
