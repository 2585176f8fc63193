"""What an ONNX graph computes in float64 and at each precision."""
