"""One file per ``<target>_from_<source>``; the contract is :class:`pytest_modelformats.schema.Converter`."""
