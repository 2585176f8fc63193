"""Rows keep their order."""


def test_rows_keep_their_order(mf_permutation):
    """f(x[p]) = f(x)[p]: rows in another order give the same results in that order, where the source keeps one."""
    assert mf_permutation.passed, mf_permutation.sentence
