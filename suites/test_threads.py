"""A result does not depend on the number of threads."""


def test_sessions_and_threads_agree(mf_threads):
    """Fresh sessions with one thread, and one with several, agree within what rounding explains."""
    assert mf_threads.passed, mf_threads.sentence
