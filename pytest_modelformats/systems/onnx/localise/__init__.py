"""Where in an ONNX graph the first wrong value is."""
