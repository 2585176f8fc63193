"""ONNX from fp32 to fp16: what makes it, what mends it, and what opens it."""
