"""The jobs of a CI matrix."""
