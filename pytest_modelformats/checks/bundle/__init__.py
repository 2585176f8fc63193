"""Reproduction bundles: what failed, ready to be sent upstream."""
