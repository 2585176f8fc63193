"""What the model costs in this format on this machine."""


def test_cost_within_budget(mf_cost):
    """Latency, size and memory are measured, and stay within the budget where one is set."""
    assert mf_cost.passed, mf_cost.sentence
