"""Parts of a run joined into one record."""
