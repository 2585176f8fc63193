"""ONNX Runtime: opens and runs ONNX files."""
