"""What the model delivers per second in this format on this machine."""


def test_throughput_of_right_results(mf_throughput):
    """Batches and requests in flight together are measured where they give the results of single calls."""
    assert mf_throughput.verdict.passed, mf_throughput.verdict.sentence
