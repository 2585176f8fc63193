"""Conformance and benchmark suite for ML model formats, as a pytest plugin."""

__version__ = "0.1.0"
