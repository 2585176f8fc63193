"""Where in a PyTorch model the first wrong value is."""
