"""Generated inputs, and the smallest of them that fails."""
