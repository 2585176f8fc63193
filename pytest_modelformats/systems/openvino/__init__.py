"""OpenVINO: its IR, the converters that make it, and its runtime."""
