"""What earlier runs measured: the database, its trends, and baselines."""
