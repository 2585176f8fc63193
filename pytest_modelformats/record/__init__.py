"""The record of a run: one JSON line for each fact, written, read and indexed."""
