"""From the source to an artifact of each format, each of them made once."""
