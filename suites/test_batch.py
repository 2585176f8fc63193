"""Rows of a batch do not mix."""


def test_rows_are_independent(mf_batch):
    """Batches of 1, 2, 3 and 7 agree with the source, and each row with itself alone where it goes by rows."""
    assert mf_batch.passed, mf_batch.sentence
