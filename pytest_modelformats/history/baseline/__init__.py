"""A run to compare with, and what changed from it."""
