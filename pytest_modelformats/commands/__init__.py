"""The commands of ``modelformats`` that have a file of their own; ``cli.py`` lists them."""
