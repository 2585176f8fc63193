"""The file that the user gave: its kind, its companions and its samples."""
