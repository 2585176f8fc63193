"""ONNX: the format, its readers and writers, and the converters that make it."""
