"""Two things measured beside each other, and what may be said of their ratio."""
