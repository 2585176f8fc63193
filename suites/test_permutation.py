"""Rows keep their order."""


def test_rows_keep_their_order(mf_permutation):
    """f(x[p]) = f(x)[p]: the rows of a batch in another order give the same results in that order."""
    assert mf_permutation.passed, mf_permutation.sentence
