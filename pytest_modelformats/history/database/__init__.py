"""The measurements of all runs in one database."""
