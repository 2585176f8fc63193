"""What a PyTorch module computes in float64 and at each precision, and by which code."""
