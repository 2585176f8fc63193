"""The first version of a runtime at which something changed."""
