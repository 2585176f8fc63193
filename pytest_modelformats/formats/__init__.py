"""One file per format: how to recognise it, what it says of itself, its reference, its own checker."""
