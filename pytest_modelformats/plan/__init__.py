"""Every cell that could be, with the decision whether it is."""
