"""PyTorch: modules and their weights, exported programs, TorchScript, eager and compiled execution."""
