"""What runs: the models, the cells, and the two sides of a comparison, each of them once."""
