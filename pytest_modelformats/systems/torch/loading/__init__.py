"""Opening a PyTorch file that may be a stranger's."""
