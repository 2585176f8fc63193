"""The ``modelformats`` command: a file or folder for each of its commands."""
