"""Calls at the same time do not meet."""


def test_concurrent_calls_agree(mf_concurrency):
    """Calls of one session from several threads at once give what each call gives alone."""
    assert mf_concurrency.passed, mf_concurrency.sentence
