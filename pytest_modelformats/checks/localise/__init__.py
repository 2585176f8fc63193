"""The first wrong operator of a cell that failed."""
